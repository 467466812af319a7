//! A guest is sent a link with a name and an end: it waits until the crew lets it in, and a link that opens nothing tells nothing.

use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use super::support::r58::{Home, R58};
use super::support::sdp::offer;
use super::support::{stage, until};

const NAME: &str = "Ada Lovelace";

fn small_and_near() -> Home {
    Home::small("listen = \"127.0.0.1:0\"", "[[device.seats]]\nid = \"guest2\"\n[device.webrtc]\nloopback = true")
}

/// Makes an invitation to the first seat; `more` is merged into it.
async fn invite(r58: &R58, more: &Value) -> Value {
    let mut body = json!({ "seat": "guest1", "name": NAME });
    for (key, value) in more.as_object().into_iter().flatten() {
        body[key] = value.clone();
    }
    let (status, made) = r58.post("/api/invitations", &body).await;
    assert_eq!(status, StatusCode::CREATED, "{made}");
    made
}

/// Asks with an invitation's token, and answers status and body.
async fn ask(r58: &R58, method: Method, path: &str, token: &str) -> (StatusCode, String) {
    let request = r58.http().request(method, format!("{}{path}", r58.device)).bearer_auth(token);
    let answer =
        request.header("Content-Type", "application/sdp").body(offer("sendonly")).send().await.expect("an answer");
    let (status, headers) = (answer.status(), answer.headers().clone());
    let body = answer.text().await.expect("a body");
    if !status.is_success() {
        assert_eq!(headers["content-type"], "application/problem+json", "{body}");
        for secret in ["guest1", "guest2", NAME, token] {
            assert!(!body.contains(secret), "{body} tells {secret}");
        }
    }
    (status, body)
}

#[tokio::test]
async fn an_invitation_that_is_strange_revoked_or_over_opens_nothing_and_tells_nothing_also_after_a_restart() {
    let _stage = stage().await;
    let home = small_and_near();
    let r58 = R58::start(&home, "device").await;
    let made = invite(&r58, &json!({ "uses": "repeated" })).await;
    let other = invite(&r58, &json!({ "seat": "guest2" })).await;
    let text = |made: &Value, key: &str| made[key].as_str().expect("text").to_owned();
    let (id, token) = (text(&made, "id"), text(&made, "token"));
    assert_eq!(text(&made, "join_url"), format!("{}/join/{id}#{token}", r58.device));
    let state = format!("/guest/{id}");
    let (status, body) = ask(&r58, Method::GET, &state, &token).await;
    let body: Value = serde_json::from_str(&body).expect("JSON");
    assert_eq!((status, &body["state"], &body["name"]), (StatusCode::OK, &json!("outside"), &json!(NAME)));

    let over = invite(&r58, &json!({ "expires_in_seconds": 1 })).await;
    for path in [state.clone(), format!("/whip/{id}"), "/whip/guest1".to_owned(), "/whip/nobody".to_owned()] {
        let method = || if path == state { Method::GET } else { Method::POST };
        for (stolen, status) in [("0123456789abcdef0123456789abcdef", 401), (&text(&other, "token"), 403), (&id, 401)] {
            assert_eq!(ask(&r58, method(), &path, stolen).await.0, status, "{path}");
        }
    }
    let path = format!("/whip/{}", text(&over, "id"));
    until(std::time::Duration::from_secs(5), "an invitation that is over", || async {
        let (status, body) = ask(&r58, Method::GET, &path.replace("whip", "guest"), &text(&over, "token")).await;
        if status == StatusCode::FORBIDDEN { Ok(()) } else { Err(body) }
    })
    .await;
    assert_eq!(ask(&r58, Method::POST, &path, &text(&over, "token")).await.0, 403);

    // What is kept holds no token, and stands after a restart; what was taken back stays so.
    let list = r58.json("/api/invitations").await;
    assert_eq!(list["items"].as_array().map(Vec::len), Some(3));
    assert!(!list.to_string().contains(&token) && !list.to_string().contains("sha256"), "{list}");
    let revoke = r58.http().delete(format!("{}/api/invitations/{}", r58.device, text(&other, "id")));
    assert_eq!(revoke.send().await.expect("an answer").status(), StatusCode::NO_CONTENT);
    assert!(r58.stop().await.success());
    let r58 = R58::start(&home, "device").await;
    assert_eq!(ask(&r58, Method::GET, &state, &token).await.0, StatusCode::OK);
    let (status, body) =
        ask(&r58, Method::POST, &format!("/whip/{}", text(&other, "id")), &text(&other, "token")).await;
    assert_eq!(status, StatusCode::FORBIDDEN);
    assert!(body.contains("withdrawn"), "{body}");

    for (path, body, status) in [
        ("/api/invitations", json!({ "seat": "guest9", "name": "x" }), 404),
        ("/api/invitations", json!({ "seat": "guest1", "name": " " }), 400),
        ("/api/invitations", json!({ "seat": "guest1", "name": "x", "expires_in_seconds": 0 }), 400),
        ("/api/invitations", json!({ "seat": "guest1", "name": "x", "admin": true }), 400),
        ("/api/guests/guest1/admit", json!({}), 409),
        ("/api/guests/guest9/admit", json!({}), 404),
        ("/api/guests/guest1/level", json!({ "level_db": 99 }), 400),
        ("/api/guests/guest1/juggle", json!({}), 404),
    ] {
        let (got, answer) = r58.post(path, &body).await;
        assert_eq!(got, status, "{path} {body}: {answer}");
    }
    assert!(r58.stop().await.success());
}
