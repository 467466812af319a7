//! What has to do with HTTP: methods, types, statuses, headers, tokens.

use std::time::{Duration, Instant};

use reqwest::header::{CONTENT_TYPE, IF_MATCH};

use super::Check;
use super::probe::{FRAGMENT, Probe, SDP, Session, UFRAG, ensure, expect, fragment, header, offer, refused, sent};

const PREFLIGHT: [(&str, &str); 3] = [
    ("Origin", "https://elsewhere.example"),
    ("Access-Control-Request-Method", "POST"),
    ("Access-Control-Request-Headers", "authorization, content-type, if-match"),
];

pub(super) async fn reads(probe: &Probe) -> Check {
    probe
        .within(offer("sendonly"), async |session: &Session| {
            for url in [probe.endpoint()?, session.url.clone()] {
                for method in ["GET", "HEAD"] {
                    let answer = expect(sent(probe.request(method, url.clone())).await?, &[200, 204], method).await?;
                    let body = answer.text().await.map_err(|error| error.to_string())?;
                    ensure(body.is_empty(), || format!("{method} {url} has content"))?;
                }
            }
            Ok(())
        })
        .await
}

pub(super) async fn problems(probe: &Probe) -> Check {
    refused(probe.bare("POST", probe.endpoint()?), &[401], "no token").await?;
    refused(probe.request("POST", probe.endpoint()?).body("x"), &[415], "no type").await?;
    refused(probe.post("hello".into())?, &[400], "no SDP").await?;
    refused(probe.post(offer("inactive"))?, &[422], "an offer of nothing").await?;
    let nobody = probe.at(&format!("/whip/{}/no-such-session", probe.seat()))?;
    refused(probe.request("DELETE", nobody), &[404], "no session").await?;
    refused(probe.request("PUT", probe.endpoint()?), &[405, 501], "an unknown method").await?;
    Ok(())
}

pub(super) async fn accepted(probe: &Probe) -> Check {
    for kind in ["application/sdp", "Application/SDP", "application/sdp; charset=utf-8"] {
        let order = || {
            let url = probe.endpoint().unwrap_or_else(|_| probe.base.clone());
            probe.request("POST", url).header(CONTENT_TYPE, kind).body(offer("sendonly"))
        };
        let answer = expect(probe.patiently(order).await?, &[201], kind).await?;
        let (said, location) = (header(answer.headers(), "content-type"), header(answer.headers(), "location"));
        let url = probe.endpoint()?.join(&location).map_err(|error| error.to_string())?;
        let body = answer.text().await.map_err(|error| error.to_string())?;
        expect(sent(probe.request("DELETE", url)).await?, &[200], "DELETE").await?;
        ensure(said.starts_with(SDP), || format!("the answer is {said:?}"))?;
        ensure(body.starts_with("v=0") && !location.is_empty(), || "no answer or no Location".into())?;
    }
    Ok(())
}

pub(super) async fn bad_offers(probe: &Probe) -> Check {
    for kind in ["text/plain", "application/json", "application/sdpx", ""] {
        let request = probe.request("POST", probe.endpoint()?).body(offer("sendonly"));
        let request = if kind.is_empty() { request } else { request.header(CONTENT_TYPE, kind) };
        refused(request, &[415], &format!("the type {kind:?}")).await?;
    }
    let good = offer("sendonly");
    for bad in ["", "hello", "v=1\r\n", "{\"type\":\"offer\"}", &good[..good.len() / 2]] {
        let begun = Instant::now();
        refused(probe.post(bad.to_owned())?, &[400], "a malformed offer").await?;
        ensure(begun.elapsed() < Duration::from_secs(2), || format!("it took {:?} to refuse", begun.elapsed()))?;
    }
    Ok(())
}

pub(super) async fn locations(probe: &Probe) -> Check {
    let mut ids = Vec::new();
    for _ in 0..2 {
        let session = probe.join(offer("sendonly")).await?;
        let left = sent(probe.request("DELETE", session.url.clone())).await?;
        ids.push(session.url.path().rsplit('/').next().unwrap_or_default().to_owned());
        expect(left, &[200], "the Location").await?;
    }
    ensure(ids[0] != ids[1] && ids[0].len() >= 22, || format!("an id like {} is guessed", ids[0]))
}

pub(super) async fn deletes(probe: &Probe) -> Check {
    for tag in ["\"stale\"", "*"] {
        let session = probe.join(offer("sendonly")).await?;
        let request = || probe.request("DELETE", session.url.clone()).header(IF_MATCH, tag);
        expect(sent(request()).await?, &[200], "DELETE").await?;
        refused(request(), &[404], "a second DELETE").await?;
        refused(probe.patch(&session, Some("*"), fragment(UFRAG, &[])), &[404], "PATCH after DELETE").await?;
    }
    // The seat is free at once.
    let answer = expect(sent(probe.post(offer("sendonly"))?).await?, &[201], "the next publisher").await?;
    let url = probe.endpoint()?.join(&header(answer.headers(), "location")).map_err(|error| error.to_string())?;
    expect(sent(probe.request("DELETE", url)).await?, &[200], "DELETE").await.map(drop)
}

fn lists(value: &str, wanted: &[&str]) -> bool {
    let words: Vec<String> = value.split(',').map(|word| word.trim().to_ascii_lowercase()).collect();
    wanted.iter().all(|word| words.contains(&word.to_ascii_lowercase()))
}

pub(super) async fn options(probe: &Probe) -> Check {
    let request = PREFLIGHT.iter().fold(probe.bare("OPTIONS", probe.endpoint()?), |r, (k, v)| r.header(*k, *v));
    let answer = expect(sent(request).await?, &[200], "OPTIONS").await?;
    let said = |name| header(answer.headers(), name);
    ensure(lists(&said("accept-post"), &[SDP]), || format!("Accept-Post is {:?}", said("accept-post")))?;
    let methods = said("access-control-allow-methods");
    ensure(lists(&methods, &["POST", "PATCH", "DELETE", "OPTIONS"]), || format!("allowed methods: {methods}"))?;
    let headers = said("access-control-allow-headers");
    ensure(lists(&headers, &["Authorization", "Content-Type", "If-Match"]), || format!("allowed headers: {headers}"))?;
    ensure(!said("access-control-allow-origin").is_empty(), || "no origin is allowed".into())?;
    let exposed = expect(sent(probe.post("hello".into())?).await?, &[400], "a bad offer").await?;
    let exposed = header(exposed.headers(), "access-control-expose-headers");
    ensure(lists(&exposed, &["Location", "Link", "ETag"]), || format!("exposed headers: {exposed}"))
}

pub(super) async fn redirects(probe: &Probe) -> Check {
    let nobody = probe.at(&format!("/whip/{}/no-such-session", probe.seat()))?;
    for request in [
        probe.post(offer("inactive"))?,
        probe.request("OPTIONS", probe.endpoint()?),
        probe.request("GET", probe.endpoint()?),
        probe.request("DELETE", nobody.clone()),
        probe.request("PATCH", nobody).header(CONTENT_TYPE, FRAGMENT).body(fragment(UFRAG, &[])),
    ] {
        let status = sent(request).await?.status().as_u16();
        ensure(!(301..=303).contains(&status), || format!("redirected by {status}"))?;
    }
    Ok(())
}

/// Hammers without a token, which opens no session.
pub(super) async fn overload(probe: &Probe) -> Check {
    for _ in 0..5_000 {
        let answer = sent(probe.bare("POST", probe.endpoint()?)).await?;
        if answer.status().as_u16() == 401 {
            continue;
        }
        let wait = header(answer.headers(), "retry-after");
        expect(answer, &[503, 429], "a flood").await?;
        return ensure(wait.parse::<u64>().is_ok_and(|wait| wait >= 1), || format!("Retry-After is {wait:?}"));
    }
    Err("five thousand requests in a row were all answered".into())
}

pub(super) async fn links(probe: &Probe) -> Check {
    probe
        .within(offer("sendonly"), async |session: &Session| {
            let servers: Vec<&String> = session.links.iter().filter(|link| link.contains("ice-server")).collect();
            for link in &servers {
                let one = link.matches("rel=\"ice-server\"").count() == 1 && link.starts_with('<');
                ensure(one, || "a Link is not one server".into())?;
                if link.starts_with("<turn") {
                    let whole = ["username=\"", "credential=\"", "credential-type=\"password\""];
                    ensure(whole.iter().all(|part| link.contains(part)), || {
                        "a TURN server's Link lacks a part".into()
                    })?;
                }
            }
            let known = probe.request("GET", probe.at("/api/turn-credentials")?);
            let known = sent(known).await?.text().await.unwrap_or_default();
            ensure(!servers.is_empty() || !known.contains("turn:"), || "there is TURN and no Link says so".into())
        })
        .await
}

pub(super) async fn preflight(probe: &Probe) -> Check {
    for request in [probe.bare("OPTIONS", probe.endpoint()?), probe.request("OPTIONS", probe.endpoint()?)] {
        let request = PREFLIGHT.iter().fold(request, |request, (name, value)| request.header(*name, *value));
        let answer = expect(sent(request).await?, &[200, 204], "a preflight").await?;
        let told =
            answer.headers().iter().any(|(_, value)| value.to_str().is_ok_and(|text| text.contains("credential=")));
        ensure(!told, || "a preflight carries a credential".into())?;
    }
    Ok(())
}

pub(super) async fn bearers(probe: &Probe) -> Check {
    probe
        .within(offer("sendonly"), async |session: &Session| {
            for (method, url, kind) in [
                ("POST", probe.endpoint()?, SDP),
                ("PATCH", session.url.clone(), FRAGMENT),
                ("DELETE", session.url.clone(), SDP),
            ] {
                let bare = || probe.bare(method, url.clone()).header(CONTENT_TYPE, kind).body(offer("sendonly"));
                for request in [bare(), bare().bearer_auth("guess"), bare().basic_auth("guest", Some("guess"))] {
                    let headers = refused(request, &[401], method).await?;
                    let asked = header(&headers, "www-authenticate");
                    ensure(asked.starts_with("Bearer"), || format!("{method}: WWW-Authenticate is {asked:?}"))?;
                }
            }
            expect(sent(probe.bare("OPTIONS", session.url.clone())).await?, &[200], "OPTIONS").await.map(drop)
        })
        .await
}

pub(super) async fn security(probe: &Probe) -> Check {
    let host = probe.base.host_str().unwrap_or_default();
    let near = host == "localhost" || host.trim_matches(['[', ']']).parse().is_ok_and(is_near);
    ensure(near || probe.base.scheme() == "https", || format!("{host} is reached without TLS"))?;
    let large = "a".repeat(10 * 1024 * 1024);
    // A server may close the connection while the rest is still on its way.
    if let Ok(answer) = sent(probe.post(large)?).await {
        expect(answer, &[413], "ten megabytes").await?;
    }
    let session = probe.join(offer("sendonly")).await?;
    probe.leave(&session).await;
    let id = session.url.path().rsplit('/').next().unwrap_or_default().to_owned();
    // 128 bits are 32 characters of hex, 22 of base64.
    ensure(id.len() >= 22, || format!("the id {id} is short"))
}

fn is_near(address: std::net::IpAddr) -> bool {
    match address {
        std::net::IpAddr::V4(v4) => v4.is_loopback() || v4.is_private() || v4.is_link_local(),
        std::net::IpAddr::V6(v6) => v6.is_loopback() || v6.is_unique_local(),
    }
}
