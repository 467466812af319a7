//! What has to do with PATCH: late candidates, ICE restarts, entity tags.

use std::time::Duration;

use reqwest::header::{CONTENT_TYPE, IF_MATCH};

use super::Check;
use super::probe::{PASSWORD, Probe, Session, UFRAG, ensure, expect, fragment, header, offer, refused, sent};

const END: &str = "a=end-of-candidates";
/// Long enough for several checks of a candidate that is still in use; a server sends them several times a second.
const SILENCE: Duration = Duration::from_secs(2);

async fn is_204(probe: &Probe, session: &Session, tag: &str, body: String) -> Check {
    let answer = expect(sent(probe.patch(session, Some(tag), body)).await?, &[204], "a matching PATCH").await?;
    ensure(header(answer.headers(), "etag").is_empty(), || "the 204 has an entity tag".into())?;
    let body = answer.text().await.unwrap_or_default();
    ensure(body.is_empty(), || "the 204 has a body".into())
}

pub(super) async fn bad_patches(probe: &Probe) -> Check {
    probe
        .within(offer("sendonly"), async |session: &Session| {
            for kind in ["application/sdp", "text/plain"] {
                let request = probe.request("PATCH", session.url.clone()).header(CONTENT_TYPE, kind);
                let request = request.header(IF_MATCH, &session.tag).body(fragment(UFRAG, &[]));
                refused(request, &[415], kind).await?;
            }
            for bad in ["", "hello", "a=ice-ufrag:abcd\r\n", "a=ice-ufrag:a b\r\na=ice-pwd:short\r\n"] {
                refused(probe.patch(session, Some(&session.tag), bad.into()), &[400, 422], "a malformed fragment")
                    .await?;
            }
            is_204(probe, session, &session.tag, fragment(UFRAG, &[])).await
        })
        .await
}

pub(super) async fn both(probe: &Probe) -> Check {
    probe
        .within(offer("sendonly"), async |session: &Session| {
            is_204(probe, session, &session.tag, fragment(UFRAG, &[])).await?;
            probe.restart(session, "*", fragment("next", &[])).await.map(drop)
        })
        .await
}

fn is_strong(tag: &str) -> bool {
    tag.len() > 2 && tag.starts_with('"') && tag.ends_with('"') && !tag[1..tag.len() - 1].contains('"')
}

pub(super) async fn tags(probe: &Probe) -> Check {
    let mut seen = Vec::new();
    for _ in 0..2 {
        let session = probe.join(offer("sendonly")).await?;
        seen.push(session.tag.clone());
        let restarted = probe.restart(&session, "*", fragment("next", &[])).await;
        probe.leave(&session).await;
        seen.push(restarted?.0);
    }
    ensure(seen.iter().all(|tag| is_strong(tag)), || format!("not strong or not quoted: {seen:?}"))?;
    let mut distinct = seen.clone();
    distinct.sort();
    distinct.dedup();
    ensure(distinct.len() == seen.len(), || format!("two ICE sessions share a tag: {seen:?}"))
}

pub(super) async fn preconditions(probe: &Probe) -> Check {
    probe
        .within(offer("sendonly"), async |session: &Session| {
            let own = || fragment(UFRAG, &[]);
            refused(probe.patch(session, None, own()), &[428], "no If-Match").await?;
            refused(probe.patch(session, Some("\"stale\""), own()), &[412], "another tag").await?;
            refused(probe.patch(session, Some(&format!("W/{}", session.tag)), own()), &[412], "a weak tag").await?;
            overlapping(probe, session).await?;
            let (tag, ufrag) = restarted_at_once(probe, session).await?;
            // One of before the restart that comes after it.
            refused(probe.patch(session, Some(&session.tag), own()), &[412], "a late PATCH").await?;
            refused(probe.patch(session, Some("*"), own()), &[412], "a late PATCH with a star").await?;
            is_204(probe, session, &tag, fragment(ufrag, &[])).await
        })
        .await
}

/// Each of many PATCHes at once takes hold.
async fn overlapping(probe: &Probe, session: &Session) -> Check {
    let mut witnesses = Vec::new();
    for _ in 0..8 {
        witnesses.push(probe.witness().await?);
    }
    // The first one is sent twice.
    let many = witnesses.iter().chain(witnesses.first());
    let many = many.map(|witness| is_204(probe, session, &session.tag, fragment(UFRAG, &[witness.candidate()])));
    futures_util::future::try_join_all(many).await?;
    let seen = witnesses.iter().map(|witness| witness.expects_checks(UFRAG));
    futures_util::future::try_join_all(seen).await.map(drop)
}

/// Restarts that overlap: each is answered by an ICE session of its own or refused, and one of them is in force. Its tag and
/// the client's fragment of it.
async fn restarted_at_once(probe: &Probe, session: &Session) -> Result<(String, &'static str), String> {
    let one = async |ufrag: &'static str| {
        let answer = probe.patiently(|| probe.patch(session, Some("*"), fragment(ufrag, &[]))).await?;
        let answer = expect(answer, &[200, 409, 412, 503], "a restart beside another").await?;
        let tag = (answer.status() == 200).then(|| header(answer.headers(), "etag"));
        let text = answer.text().await.map_err(|error| error.to_string())?;
        Ok::<_, String>((ufrag, tag, value(&text, "ice-ufrag").map(str::to_owned)))
    };
    let told = futures_util::future::try_join_all(["next", "other"].map(one)).await?;
    let begun = || told.iter().filter_map(|(ufrag, tag, own)| Some((*ufrag, tag.as_ref()?, own.as_ref())));
    let distinct = |mut all: Vec<&String>| {
        let count = all.len();
        all.sort();
        all.dedup();
        count > 0 && all.len() == count
    };
    let apart =
        distinct(begun().map(|(_, tag, _)| tag).collect()) && distinct(begun().filter_map(|(_, _, own)| own).collect());
    ensure(apart, || format!("two restarts at once share a tag or credentials: {told:?}"))?;
    let mut in_force = Vec::new();
    for (ufrag, tag, _) in begun() {
        let answer = sent(probe.patch(session, Some(tag), fragment(ufrag, &[]))).await?;
        if expect(answer, &[204, 412], "a PATCH after restarts at once").await?.status() == 204 {
            in_force.push((tag.clone(), ufrag));
        }
    }
    ensure(in_force.len() == 1, || format!("{} of the restarts at once are in force", in_force.len()))?;
    in_force.pop().ok_or_else(|| "no restart is in force".into())
}

pub(super) async fn trickled(probe: &Probe) -> Check {
    probe
        .within(offer("sendonly"), async |session: &Session| {
            let line = "a=candidate:1 1 udp 2130706431 192.0.2.1 4000 typ host".to_owned();
            is_204(probe, session, &session.tag, fragment(UFRAG, &[line])).await
        })
        .await
}

pub(super) async fn unusable(probe: &Probe) -> Check {
    let witness = probe.witness().await?;
    probe
        .within(offer("sendonly"), async |session: &Session| {
            let lines = [
                "a=candidate:1 1 tcp 1518280447 192.0.2.1 9 typ host tcptype active".to_owned(),
                "a=candidate:2 1 quic 1 192.0.2.1 9 typ host".to_owned(),
                "a=candidate:3 1 udp 2130706431 5ee7a1b2-0000-4000-8000-123456789abc.local 4000 typ host".to_owned(),
                "a=candidate:4 1 udp 2130706431 no-such-name.invalid 4000 typ host".to_owned(),
                "a=candidate:5 1 udp 1 192.0.2.1 4000 typ unheard".to_owned(),
                witness.candidate(),
            ];
            is_204(probe, session, &session.tag, fragment(UFRAG, &lines)).await?;
            witness.expects_checks(UFRAG).await
        })
        .await
}

pub(super) async fn late(probe: &Probe) -> Check {
    let witness = probe.witness().await?;
    probe
        .within(offer("sendonly"), async |session: &Session| {
            is_204(probe, session, &session.tag, fragment(UFRAG, &[witness.candidate()])).await?;
            witness.expects_checks(UFRAG).await
        })
        .await
}

pub(super) async fn ended(probe: &Probe) -> Check {
    probe
        .within(offer("sendonly"), async |session: &Session| {
            is_204(probe, session, &session.tag, fragment(UFRAG, &[END.to_owned()])).await?;
            is_204(probe, session, &session.tag, fragment(UFRAG, &[END.to_owned()])).await
        })
        .await
}

fn value<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    text.lines().find_map(|line| line.trim_end().strip_prefix("a=")?.strip_prefix(name)?.strip_prefix(':'))
}

pub(super) async fn renewed(probe: &Probe) -> Check {
    probe
        .within(offer("sendonly"), async |session: &Session| {
            let mut credentials = vec![(value(&session.answer, "ice-ufrag").map(str::to_owned), session.tag.clone())];
            for (star, ufrag) in [("*", "next"), ("\"*\"", "third")] {
                let (tag, answer) = probe.restart(session, star, fragment(ufrag, &[])).await?;
                let ufrag = value(&answer, "ice-ufrag").map(str::to_owned);
                let whole = ufrag.is_some() && value(&answer, "ice-pwd").is_some_and(|pwd| pwd.len() >= 22);
                ensure(whole, || "the restart's answer has no credentials".into())?;
                ensure(answer.contains("a=candidate:"), || "the restart's answer has no candidate".into())?;
                let known = credentials.iter().any(|(old, before)| *old == ufrag || *before == tag);
                ensure(!known, || "credentials or tag are those of before".into())?;
                credentials.push((ufrag, tag));
            }
            Ok(())
        })
        .await
}

pub(super) async fn replaced(probe: &Probe) -> Check {
    let (old, new) = (probe.witness().await?, probe.witness().await?);
    probe
        .within(offer("sendonly"), async |session: &Session| {
            is_204(probe, session, &session.tag, fragment(UFRAG, &[old.candidate()])).await?;
            old.expects_checks(UFRAG).await?;
            probe.restart(session, "*", fragment("next", &[new.candidate()])).await?;
            new.expects_checks("next").await?;
            let still = old.is_checked("next", SILENCE).await;
            ensure(!still, || "a candidate of before the restart is still checked".into())
        })
        .await
}

pub(super) async fn repeated(probe: &Probe) -> Check {
    probe
        .within(offer("sendonly"), async |session: &Session| {
            let (_, answer) = probe.restart(session, "*", fragment("next", &[])).await?;
            for name in ["ice-options", "ice-pacing"] {
                let (before, now) = (value(&session.answer, name), value(&answer, name));
                ensure(before == now, || format!("{name} was {before:?} and is {now:?}"))?;
            }
            let lite = |text: &str| text.lines().any(|line| line.trim_end() == "a=ice-lite");
            ensure(lite(&session.answer) == lite(&answer), || "ice-lite has changed".into())
        })
        .await
}

pub(super) async fn unsatisfied(probe: &Probe) -> Check {
    let witness = probe.witness().await?;
    probe
        .within(offer("sendonly"), async |session: &Session| {
            let short = format!("a=ice-ufrag:xy\r\na=ice-pwd:{PASSWORD}\r\n");
            refused(probe.patch(session, Some("*"), short), &[400, 409, 422, 503], "credentials that are none").await?;
            refused(probe.patch(session, Some("\"stale\""), fragment("next", &[])), &[412], "on another base").await?;
            is_204(probe, session, &session.tag, fragment(UFRAG, &[witness.candidate()])).await?;
            witness.expects_checks(UFRAG).await
        })
        .await
}
