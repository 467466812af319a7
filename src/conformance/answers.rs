//! What has to do with descriptions: which offers are taken, and what an answer says.

use super::Check;
use super::probe::{Probe, Session, ensure, expect, header, offer, refused, sent};

fn sections(sdp: &str) -> Vec<&str> {
    sdp.split("\r\nm=").skip(1).collect()
}

fn has(section: &str, line: &str) -> bool {
    section.lines().any(|one| one.trim_end() == line)
}

pub(super) async fn directions(probe: &Probe) -> Check {
    for direction in ["sendonly", "sendrecv"] {
        probe
            .within(offer(direction), async |session: &Session| {
                let sections = sections(&session.answer);
                let right = sections.len() == 2 && sections.iter().all(|section| has(section, "a=recvonly"));
                ensure(right, || format!("an offer of {direction} is not answered recvonly"))
            })
            .await?;
    }
    for direction in ["recvonly", "inactive"] {
        refused(probe.post(offer(direction))?, &[422], direction).await?;
    }
    Ok(())
}

pub(super) async fn candidates(probe: &Probe) -> Check {
    probe
        .within(offer("sendonly"), async |session: &Session| {
            ensure(session.answer.contains("\r\na=candidate:"), || "the answer has no candidate".into())
        })
        .await
}

pub(super) async fn bundled(probe: &Probe) -> Check {
    probe
        .within(offer("sendonly"), async |session: &Session| {
            ensure(session.answer.contains("a=group:BUNDLE 0 1"), || "the answer does not bundle".into())?;
            for section in sections(&session.answer) {
                let both = has(section, "a=rtcp-mux") && has(section, "a=rtcp-mux-only");
                ensure(both, || "a section lacks rtcp-mux or rtcp-mux-only".into())?;
                ensure(section.split_whitespace().nth(1) != Some("0"), || "a section is rejected".into())?;
            }
            Ok(())
        })
        .await
}

pub(super) async fn duplicates(probe: &Probe) -> Check {
    let good = offer("sendonly");
    let video = good.find("m=video").map(|at| &good[at..]).unwrap_or_default();
    let second = video.replace("a=mid:1", "a=mid:2").replace("a=ssrc:1001", "a=ssrc:1002");
    let both = format!("{good}{second}").replace("BUNDLE 0 1", "BUNDLE 0 1 2");
    refused(probe.post(both)?, &[400, 422], "two pictures").await.map(drop)
}

pub(super) async fn partial(probe: &Probe) -> Check {
    for (what, bad) in [
        ("a codec that nobody has", offer("sendonly").replace("opus/48000/2", "unheard/8000")),
        (
            "a data section",
            offer("sendonly")
                .replace("m=video 9 UDP/TLS/RTP/SAVPF 102", "m=application 9 UDP/DTLS/SCTP webrtc-datachannel"),
        ),
        ("a section without rtcp-mux", offer("sendonly").replacen("a=rtcp-mux\r\n", "", 1)),
    ] {
        refused(probe.post(bad)?, &[400, 422], what).await?;
    }
    Ok(())
}

pub(super) async fn setup(probe: &Probe) -> Check {
    for role in ["actpass", "active"] {
        let taken = probe.within(offer("sendonly").replace("actpass", role), async |session: &Session| {
            let passive = sections(&session.answer).iter().all(|section| has(section, "a=setup:passive"));
            ensure(passive, || format!("{role} is not answered passive"))
        });
        taken.await?;
    }
    refused(probe.post(offer("sendonly").replace("actpass", "passive"))?, &[400, 422], "passive").await.map(drop)
}

pub(super) async fn full_ice(probe: &Probe) -> Check {
    probe
        .within(offer("sendonly"), async |session: &Session| {
            ensure(!session.answer.contains("a=ice-lite"), || "the server is an ice-lite agent".into())
        })
        .await
}

pub(super) async fn simulcast(probe: &Probe) -> Check {
    let layers = "a=rid:h send\r\na=rid:l send\r\na=simulcast:send h;l\r\n";
    let layered = format!("{}{layers}", offer("sendonly"));
    let answer = sent(probe.post(layered.clone())?).await?;
    if matches!(answer.status().as_u16(), 400 | 422) {
        return Ok(());
    }
    let answer = expect(answer, &[201], "an offer with simulcast").await?;
    let url = probe.endpoint()?.join(&header(answer.headers(), "location")).map_err(|error| error.to_string())?;
    let text = answer.text().await.unwrap_or_default();
    expect(sent(probe.request("DELETE", url)).await?, &[200], "DELETE").await?;
    // RFC 8853, section 5.3: an answer without the attribute declines it; one with it names what is received.
    ensure(!text.contains("a=simulcast") || text.contains("a=simulcast:recv"), || {
        "a strange answer to simulcast".into()
    })
}

pub(super) async fn extensions(probe: &Probe) -> Check {
    probe
        .within(offer("sendonly"), async |session: &Session| {
            let known = |link: &&String| link.contains("urn:ietf:params:whip:");
            let proper = session.links.iter().filter(known).all(|link| link.contains("urn:ietf:params:whip:ext:"));
            ensure(proper, || "an extension has a strange name".into())
        })
        .await
}
