//! Who reads which figures of the server.

use r58_actors::fleet_link::identity::Secret;
use reqwest::Method;
use serde_json::json;

use crate::world::World;

async fn scrape(world: &World, token: &str) -> (u16, String) {
    let answer = world.http.get(world.url("/metrics")).bearer_auth(token).send().await.unwrap();
    (answer.status().as_u16(), answer.text().await.unwrap())
}

#[actix_web::test]
async fn figures_of_the_server_are_for_its_token_and_those_of_an_organization_for_its_people() {
    let world = World::with(|plan| plan.access.metrics_token = Some(Secret::new("only-the-monitoring"))).await;
    world.enrol(&world.admin, "box1").await;
    let other = world.user("north", "admin").await;

    let (status, whole) = scrape(&world, "only-the-monitoring").await;
    assert_eq!(status, 200);
    assert!(whole.contains(r#"r58_fleet_devices{org="default",state="unknown"} 1"#), "{whole}");
    assert!(whole.contains(r#"r58_fleet_devices{org="north",state="unknown"} 0"#), "{whole}");
    assert!(
        whole.contains(r#"r58_fleet_alerts_firing{kind="offline",org="default",severity="critical"} 0"#),
        "{whole}"
    );
    let route = r#"r58_fleet_http_requests_total{method="POST",route="/api/v1/devices/register",status="201"} 1"#;
    assert!(whole.contains(route), "{whole}");

    for duty in ["ingest", "live updates", "history", "counts", "alerts", "notify", "rollouts", "audit", "bundles"] {
        assert!(whole.contains(&format!("r58_actor_restarts_total{{actor=\"{duty}\"}} 0")), "{duty} in {whole}");
    }

    let (status, theirs) = scrape(&world, &other).await;
    assert_eq!(status, 200);
    assert!(theirs.contains(r#"org="north""#) && !theirs.contains("default"), "{theirs}");
    assert!(!theirs.contains("http_requests"), "{theirs}");

    let key = async |scope: &str| {
        let body = json!({"name": "monitoring", "scopes": [scope]});
        world.call(Method::POST, "/api/v1/api-keys", &other, Some(body)).await.expect(201).text("key")
    };
    let (status, by_key) = scrape(&world, &key("metrics:read").await).await;
    assert!(status == 200 && by_key.contains(r#"org="north""#) && !by_key.contains("default"), "{by_key}");
    world.get("/metrics", &key("devices:read").await).await.expect(403);
    for wrong in ["", "only-the-monitoring-not", "r58k_x"] {
        world.get("/metrics", wrong).await.expect(401);
    }

    // Paths and methods that somebody makes up make no series.
    for path in ["/api/v1/devices/box1", "/api/v1/devices/nobody", "/made/up", "/api/v1/made-up", "/nothing/else"] {
        world.http.request(Method::GET, world.url(path)).bearer_auth(&world.admin).send().await.unwrap();
    }
    world.http.request("INVENT".parse().unwrap(), world.url("/health")).send().await.unwrap();
    let (_, whole) = scrape(&world, "only-the-monitoring").await;
    for made in ["nobody", "made/up", "made-up", "/nothing", "INVENT"] {
        assert!(!whole.contains(made), "{made} in {whole}");
    }
    assert!(whole.contains(r#"route="/api/v1/devices/{id}",status="404""#), "{whole}");
    assert!(whole.contains(r#"route="unmatched",status="404""#), "{whole}");
    world.end().await;
}
