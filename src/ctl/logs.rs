//! A box's log on the command line: past records, and new ones as they come.

use std::time::Duration;

use serde_json::Value;

use super::client::{Client, CtlError};
use super::output::{Output, plain};
use super::watch::Events;
use super::{segment, word};

/// Pause before a stream that ended is opened again.
const AGAIN: Duration = Duration::from_secs(1);

/// Which records.
#[derive(Debug, clap::Args)]
pub struct Logs {
    /// The device.
    device: String,
    /// Go on with new records, until interrupted.
    #[arg(long, short)]
    follow: bool,
    /// At least as bad: error, warn, info, debug or trace.
    #[arg(long)]
    level: Option<String>,
    /// Of this actor, or about the input or seat of this name.
    #[arg(long)]
    actor: Option<String>,
    /// Not before this time (RFC 3339), such as 2026-01-31T18:00:00Z.
    #[arg(long)]
    since: Option<String>,
    /// Before this time.
    #[arg(long)]
    until: Option<String>,
    /// How many at most.
    #[arg(long, default_value_t = 200)]
    limit: u32,
}

/// Prints past records, oldest first, then new ones if asked to.
///
/// # Errors
/// When the server or the box refuses, or does not answer; a stream that ends later is taken up again.
pub async fn run(client: &mut Client, output: Output, order: &Logs) -> Result<(), CtlError> {
    let device = segment(&order.device);
    let filter = [("level", &order.level), ("actor", &order.actor)];
    let span = [("since", &order.since), ("until", &order.until)];
    let limit = Some(order.limit.to_string());
    let past = query(filter.iter().chain(&span).chain(&[("limit", &limit)]));
    if !order.follow {
        return show(output, &client.get(&format!("/devices/{device}/logs?{past}")).await?);
    }
    // Listened to first: what comes in between is in the page too, and told once by its number.
    let live = format!("/devices/{device}/logs/live?{}", query(filter.iter()));
    let mut events = Events::new(client.stream(&live).await?);
    let page = client.get(&format!("/devices/{device}/logs?{past}")).await?;
    let mut last = page["cursor"].as_u64().unwrap_or(0);
    show(output, &page)?;
    loop {
        while let Some((event, data)) = events.next().await {
            match event.as_str() {
                "log" if data["seq"].as_u64().unwrap_or(0) > last => {
                    last = data["seq"].as_u64().unwrap_or(last);
                    output.show(&data, || line(&data));
                }
                "dropped" => output.note(&format!("{} records were left out here", data["count"])),
                "away" => output.note(&format!("the box cannot be asked now: {}", plain(word(&data, "reason")))),
                _ => {}
            }
        }
        events = loop {
            tokio::time::sleep(AGAIN).await;
            match client.stream(&live).await {
                Ok(response) => break Events::new(response),
                Err(CtlError::NotSignedIn(reason)) => return Err(CtlError::NotSignedIn(reason)),
                Err(_) => {}
            }
        };
    }
}

fn show(output: Output, page: &Value) -> Result<(), CtlError> {
    for record in page["items"].as_array().into_iter().flatten() {
        output.show(record, || line(record));
    }
    if page["has_more"] == true {
        output.note("there is more: ask again with --since the last time, or a higher --limit");
    }
    Ok(())
}

/// One record for people.
fn line(record: &Value) -> String {
    let ts = word(record, "ts").get(..23).unwrap_or_default().replace('T', " ");
    let mut line = format!("{ts} {:<5} {}: {}", word(record, "level"), word(record, "actor"), word(record, "message"));
    for (name, value) in record["fields"].as_object().into_iter().flatten() {
        let value = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
        line.push_str(&format!(" {name}={value}"));
    }
    plain(&line)
}

fn query<'a>(pairs: impl Iterator<Item = &'a (&'a str, &'a Option<String>)>) -> String {
    let given = pairs.filter_map(|(name, value)| Some(format!("{name}={}", segment(value.as_deref()?))));
    given.collect::<Vec<_>>().join("&")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_record_is_one_line_whatever_a_box_says() {
        let record = json!({"ts": "2026-11-22T01:02:03.456789Z", "level": "warn", "actor": "camera",
            "message": "gone\u{1b}[31m\nand more", "fields": {"input": "cam1", "tries": 3}});
        assert_eq!(line(&record), "2026-11-22 01:02:03.456 warn  camera: gone[31mand more input=cam1 tries=3");
    }

    #[test]
    fn a_query_holds_what_was_given_with_its_escapes() {
        let (actor, none) = (Some("log tail".to_owned()), None);
        assert_eq!(query([("actor", &actor), ("level", &none)].iter()), "actor=log%20tail");
    }
}
