//! Requests and answers in virtual time: repetitions, deadlines, strangers; and their signatures.

use super::*;
use crate::payload::{Method, Payload};
use crate::sign::{CommandSigner, KeyRing, VerifyError};

fn name(text: &str) -> Name {
    Name::new(text).unwrap()
}

fn box7() -> DeviceAddress {
    DeviceAddress::new("acme", "box7").unwrap()
}

fn request(id: &str) -> Request {
    Request::new(name(id), &box7(), Method::Post, "/whip/guest1", Utc::now() + chrono::Duration::seconds(8))
}

#[test]
fn a_repeated_request_is_answered_again_and_carried_out_once() {
    let (mut answers, now) = (Answers::default(), Instant::now());
    let request = request("r1");
    assert_eq!(answers.handle_request(now, Some(Utc::now()), &request), Verdict::CarryOut);
    assert_eq!(answers.handle_request(now, Some(Utc::now()), &request), Verdict::UnderWay);
    let answer = Response::new(name("r1"), 201);
    answers.handle_answered(now, &answer);
    // Even when its time is over by then: the asker's answer was lost, not the deed.
    let late = Utc::now() + chrono::Duration::seconds(30);
    let soon = now + Duration::from_secs(30);
    assert_eq!(answers.handle_request(soon, Some(late), &request), Verdict::SayAgain(answer));
    let much_later = Utc::now() + chrono::Duration::seconds(100);
    assert_eq!(answers.handle_request(now + Duration::from_secs(100), Some(much_later), &request), Verdict::TooLate);
}

#[test]
fn what_nobody_waits_for_is_not_carried_out_and_a_box_without_a_clock_trusts_the_broker() {
    let (mut answers, now) = (Answers::default(), Instant::now());
    let late = Utc::now() + chrono::Duration::seconds(9);
    assert_eq!(answers.handle_request(now, Some(late), &request("r1")), Verdict::TooLate);
    assert_eq!(answers.handle_request(now, None, &request("r2")), Verdict::CarryOut);
}

#[test]
fn a_flood_of_requests_fills_neither_threads_nor_memory() {
    let (mut answers, now) = (Answers::default(), Instant::now());
    for n in 0..MAX_UNDER_WAY {
        assert_eq!(answers.handle_request(now, None, &request(&format!("r{n}"))), Verdict::CarryOut);
    }
    assert_eq!(answers.handle_request(now, None, &request("more")), Verdict::Busy);
    for n in 0..10 * MAX_KEPT {
        let id = format!("k{n}");
        answers.handle_answered(now, &Response::new(name("r0"), 200));
        let _ = answers.handle_request(now, None, &request(&id));
        answers.handle_answered(now, &Response::new(name(&id), 200));
    }
    assert!(answers.kept.len() <= MAX_KEPT && answers.order.len() <= MAX_KEPT);
    assert!(answers.under_way() <= MAX_UNDER_WAY);
}

#[test]
fn an_answer_finds_its_asker_once_and_only_from_the_device_that_was_asked() {
    let (mut calls, now) = (Calls::default(), Instant::now());
    calls.handle_call(now, name("r1"), box7(), "asker").unwrap();
    let answer = Response::new(name("r1"), 201);
    let stranger = DeviceAddress::new("acme", "box8").unwrap();
    assert_eq!(calls.handle_response(&stranger, &answer), None);
    assert_eq!(calls.handle_response(&box7(), &answer), Some("asker"));
    assert_eq!(calls.handle_response(&box7(), &answer), None);
    assert_eq!(calls.into_askers().count(), 0);
}

#[test]
fn who_waits_in_vain_is_told_at_the_deadline_or_when_the_device_goes() {
    let (mut calls, now) = (Calls::default(), Instant::now());
    calls.handle_call(now, name("r1"), box7(), 1).unwrap();
    calls.handle_call(now + Duration::from_secs(1), name("r2"), box7(), 2).unwrap();
    calls.handle_call(now, name("r3"), DeviceAddress::new("acme", "box8").unwrap(), 3).unwrap();
    assert_eq!(calls.poll_timeout(), Some(now + DEADLINE));
    assert_eq!(calls.handle_timeout(now + DEADLINE), [1, 3]);
    assert_eq!(calls.handle_offline(&box7()), [2]);
    assert_eq!(calls.poll_timeout(), None);
    calls.handle_call(now, name("r4"), box7(), 4).unwrap();
    assert_eq!(calls.into_askers().collect::<Vec<_>>(), [4]);
}

#[test]
fn one_device_that_does_not_answer_takes_no_more_than_its_share() {
    let (mut calls, now) = (Calls::default(), Instant::now());
    for n in 0..MAX_UNDER_WAY {
        calls.handle_call(now, name(&format!("r{n}")), box7(), n).unwrap();
    }
    assert_eq!(calls.handle_call(now, name("more"), box7(), 99), Err((CallError::Busy, 99)));
    assert!(calls.handle_call(now, name("other"), DeviceAddress::new("acme", "box8").unwrap(), 1).is_ok());
}

#[test]
fn a_request_is_taken_only_as_the_fleet_signed_it_and_only_where_it_belongs() {
    let signer = CommandSigner::generate();
    let ring = KeyRing::new([&signer.public_key()]).unwrap();
    let mut request = request("r1");
    request.authorization = Some("Bearer secret".to_owned());
    request.body = "v=0\r\n".to_owned();
    let bytes = signer.sign_request(&mut request).unwrap();
    assert_eq!(ring.verify_request(&box7(), &bytes).unwrap(), request);
    let stranger = DeviceAddress::new("other", "box7").unwrap();
    assert_eq!(ring.verify_request(&stranger, &bytes), Err(VerifyError::Foreign));
    let text = String::from_utf8(bytes).unwrap();
    let moved = text.replace("/whip/guest1", "/whip/guest2");
    assert_eq!(ring.verify_request(&box7(), moved.as_bytes()), Err(VerifyError::WrongHash));
    let unsigned = Request { sig: None, ..request.clone() }.to_bytes().unwrap();
    assert_eq!(ring.verify_request(&box7(), &unsigned), Err(VerifyError::Unsigned));
    let strange = KeyRing::new([&CommandSigner::generate().public_key()]).unwrap();
    assert_eq!(strange.verify_request(&box7(), text.as_bytes()), Err(VerifyError::UnknownKey));
    assert!(!format!("{request:?}").contains("secret"));
}

#[test]
fn a_signature_over_a_command_is_worth_nothing_on_a_request() {
    let signer = CommandSigner::generate();
    let ring = KeyRing::new([&signer.public_key()]).unwrap();
    let mut request = request("r1");
    signer.sign_request(&mut request).unwrap();
    // The same bytes, signed as a command would be.
    let (_, sig) = signer.seal_as_command(&Request { hash: None, sig: None, ..request.clone() });
    let forged = Request { sig: Some(sig), ..request }.to_bytes().unwrap();
    assert_eq!(ring.verify_request(&box7(), &forged), Err(VerifyError::WrongSignature));
}
