//! WHEP: the same for viewers.

use super::Check;
use super::probe::{Probe, Session, UFRAG, ensure, expect, fragment, header, offer, refused, sent};

const SDP: &str = "application/sdp";

pub(super) async fn answered(probe: &Probe) -> Check {
    for direction in ["recvonly", "sendrecv"] {
        probe
            .within_at(probe.at("/whep/programme")?, offer(direction), async |session: &Session| {
                let sections: Vec<&str> = session.answer.split("\r\nm=").skip(1).collect();
                let right = |section: &&str| section.lines().any(|line| line.trim_end() == "a=sendonly");
                ensure(sections.len() == 2 && sections.iter().all(right), || "the answer is not sendonly".into())?;
                ensure(session.tag.starts_with('"'), || "the 201 has no entity tag".into())
            })
            .await?;
    }
    Ok(())
}

pub(super) async fn wrong_way(probe: &Probe) -> Check {
    for direction in ["sendonly", "inactive"] {
        let request = probe.request("POST", probe.at("/whep/programme")?).header("content-type", SDP);
        refused(request.body(offer(direction)), &[422], direction).await?;
    }
    Ok(())
}

pub(super) async fn patches(probe: &Probe) -> Check {
    let witness = probe.witness().await?;
    probe
        .within_at(probe.at("/whep/programme")?, offer("recvonly"), async |session: &Session| {
            let own = || fragment(UFRAG, &[witness.candidate()]);
            refused(probe.patch(session, None, own()), &[428], "no If-Match").await?;
            expect(sent(probe.patch(session, Some(&session.tag), own())).await?, &[204], "late candidates").await?;
            witness.expects_checks(UFRAG).await?;
            let (tag, _) = probe.restart(session, "*", fragment("next", &[witness.candidate()])).await?;
            ensure(tag != session.tag, || "the tag is that of before".into())?;
            witness.expects_checks("next").await?;
            refused(probe.patch(session, Some(&session.tag), own()), &[412], "a late PATCH").await.map(drop)
        })
        .await
}

pub(super) async fn leaves(probe: &Probe) -> Check {
    let session = probe.join_at(probe.at("/whep/programme")?, offer("recvonly")).await?;
    let request = || probe.request("DELETE", session.url.clone()).header("if-match", "\"stale\"");
    expect(sent(request()).await?, &[200], "DELETE").await?;
    refused(request(), &[404], "a second DELETE").await.map(drop)
}

pub(super) async fn nothing_to_see(probe: &Probe) -> Check {
    let url = probe.at(&format!("/whep/{}", probe.seat()))?;
    let request = probe.request("POST", url).header("content-type", SDP).body(offer("recvonly"));
    let headers = refused(request, &[409], "an empty seat").await?;
    ensure(!header(&headers, "retry-after").is_empty(), || "no Retry-After".into())
}
