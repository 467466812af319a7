//! What the server does by itself, in a server that runs: one of its duties panics, and nobody else notices.

use std::fmt::{Debug, Write as _};
use std::sync::Mutex;

use r58::fleet::alerts::plan::AlertPlan;
use r58_actors::fleet_link::identity::Secret;
use r58_mqtt::Up;
use reqwest::Method;
use serde_json::json;
use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::{Context, Layer, SubscriberExt as _};

use crate::alerts::WITHIN;
use crate::alerts_told::{Hook, plan, receiver};
use crate::live::{Device, Stream, heartbeat};
use crate::world::World;

/// The duty that panics.
const DUTY: &str = "notify";

/// The message whose bringer panics.
static ARMED: Mutex<Option<String>> = Mutex::new(None);

/// A log that panics, once, in whoever tells it of that message: within the duty, and without a door for it in the server.
struct Trap;

impl<S: Subscriber> Layer<S> for Trap {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let mut said = Said(String::new());
        event.record(&mut said);
        let sprung = ARMED.lock().unwrap().take_if(|id| said.0.contains(id.as_str()));
        assert!(sprung.is_none(), "rehearsed");
    }
}

struct Said(String);

impl Visit for Said {
    fn record_debug(&mut self, _: &Field, value: &dyn Debug) {
        let _ = write!(self.0, "{value:?} ");
    }
}

/// Asks for the server's figures until they are as they should be.
async fn figures(world: &World, what: &str, fit: impl Fn(&str) -> bool) -> String {
    let end = tokio::time::Instant::now() + WITHIN;
    loop {
        let answer = world.http.get(world.url("/metrics")).bearer_auth("only-the-monitoring").send().await.unwrap();
        let text = answer.text().await.unwrap();
        if fit(&text) {
            return text;
        }
        assert!(tokio::time::Instant::now() < end, "{what}: {text}");
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
}

#[actix_web::test]
async fn a_duty_that_panics_begins_anew_while_the_others_go_on_and_the_figures_tell_of_it() {
    // Only this duty's words are heard, so the other tests of this process are not slower for it.
    let words = Targets::new().with_target("r58::fleet::alerts::notify", Level::DEBUG);
    let log = tracing_subscriber::registry().with(Trap.with_filter(words));
    tracing::subscriber::set_global_default(log).expect("nobody else here has a log for all");
    let world = World::with(|world| {
        world.alerts = AlertPlan { attempts: 10_000, ..plan() };
        world.access.metrics_token = Some(Secret::new("only-the-monitoring"));
    })
    .await;
    let registration = world.enrol(&world.admin, "box1").await;
    let mut stream = Stream::open(&world, &world.admin).await;
    let device = Device::connect(&registration).await;

    // A message that never arrives, as nobody listens there; it is tried again and again.
    let sent = async |url: &str| {
        let id = receiver(&world, json!({"name": "Pager", "url": url})).await;
        let place = format!("/api/v1/alert-receivers/{id}");
        world.call(Method::POST, &format!("{place}/test"), &world.admin, None).await.expect(202);
        world.get(&format!("{place}/deliveries"), &world.admin).await.expect(200).body["items"][0]["id"].clone()
    };
    let lost = sent("http://127.0.0.1:9/").await;
    *ARMED.lock().unwrap() = Some(lost.as_str().unwrap().to_owned());

    let restarted = format!("r58_actor_restarts_total{{actor=\"{DUTY}\"}} 1\n");
    figures(&world, "a restart", |text| text.contains(&restarted)).await;
    // Meanwhile: Ingest stores, and live updates are told.
    device.say(Up::Heartbeat, false, heartbeat(1, 41.0)).await;
    stream.until("the figure", |event, card| event == "device" && card["cpu_percent"] == 41.0).await;
    // The duty is done again, by another life of its actor.
    let hook = Hook::new(0);
    sent(&hook.url).await;
    hook.calls(1).await;

    let up = format!("r58_actor_up{{actor=\"{DUTY}\"}} 1\n");
    let whole = figures(&world, "the duty up", |text| text.contains(&up) && text.contains(&restarted)).await;
    let restarts: Vec<&str> = whole.lines().filter(|line| line.starts_with("r58_actor_restarts_total{")).collect();
    assert!(restarts.len() > 8, "{whole}");
    for others in restarts.iter().filter(|line| !line.contains(DUTY)) {
        assert!(others.ends_with(" 0"), "{others}");
    }
    let told = world.handle.actors().into_iter().find(|actor| actor.name == DUTY).unwrap();
    assert!(told.last_cause.as_deref().is_some_and(|cause| cause.contains("rehearsed")), "{told:?}");
    hook.server.stop(false).await;
    world.end().await;
}
