//! Alerts: what is the matter, its rules, silences, and who is told.

use chrono::{DateTime, Duration, Utc};
use serde_json::{Map, Value, json};

use super::client::{Client, CtlError};
use super::output::{Output, plain};
use super::{segment, word};

/// What to do with alerts.
#[derive(Debug, clap::Subcommand)]
pub enum Alert {
    /// List alerts, newest first.
    List {
        /// open, pending, firing, acknowledged or resolved; open unless given.
        #[arg(long, default_value = "open")]
        state: String,
        /// info, warning, error or critical.
        #[arg(long)]
        severity: Option<String>,
        /// offline, disk, temperature, input_lost, guest_failing, restarts or clock.
        #[arg(long)]
        kind: Option<String>,
        /// Only of this device.
        #[arg(long)]
        device: Option<String>,
        /// No more than so many.
        #[arg(long, default_value_t = 1000)]
        limit: usize,
    },
    /// Show one alert in full.
    Show {
        /// The alert.
        id: String,
    },
    /// Say how many are open.
    Summary,
    /// Take an alert on.
    Ack {
        /// The alert.
        id: String,
        /// For the others.
        #[arg(long)]
        note: Option<String>,
    },
    /// Give an alert back that somebody took on.
    Unack {
        /// The alert.
        id: String,
    },
    /// Rules.
    #[command(subcommand)]
    Rule(Rule),
    /// Silences: for a while nobody is told.
    #[command(subcommand)]
    Silence(Silence),
    /// Who is told.
    #[command(subcommand)]
    Receiver(Receiver),
}

/// What may be said of a rule.
#[derive(Debug, clap::Args)]
pub struct RuleValues {
    /// Where it raises: GB free, °C, restarts within an hour, or seconds.
    #[arg(long)]
    threshold: Option<f64>,
    /// Where it clears.
    #[arg(long)]
    clear_threshold: Option<f64>,
    /// Seconds for which it has to hold, and to be gone.
    #[arg(long)]
    for_seconds: Option<u32>,
    /// info, warning, error or critical.
    #[arg(long)]
    severity: Option<String>,
    /// Devices with this tag; an empty one: all.
    #[arg(long)]
    tag: Option<String>,
    /// This device alone; an empty one: all.
    #[arg(long)]
    device: Option<String>,
    /// Tell this receiver and no other; may be given several times; an empty one: all.
    #[arg(long)]
    receiver: Vec<String>,
    /// In force or not.
    #[arg(long)]
    enabled: Option<bool>,
}

impl RuleValues {
    fn body(&self) -> Map<String, Value> {
        given([
            ("threshold", self.threshold.map(Value::from)),
            ("clear_threshold", self.clear_threshold.map(Value::from)),
            ("for_seconds", self.for_seconds.map(Value::from)),
            ("severity", self.severity.clone().map(Value::from)),
            ("tag", self.tag.as_deref().map(or_null)),
            ("device_id", self.device.as_deref().map(or_null)),
            ("receiver_ids", self.receivers()),
            ("enabled", self.enabled.map(Value::from)),
        ])
    }

    fn receivers(&self) -> Option<Value> {
        match self.receiver.as_slice() {
            [] => None,
            [all] if all.is_empty() => Some(Value::Null),
            named => Some(json!(named)),
        }
    }
}

fn or_null(text: &str) -> Value {
    if text.is_empty() { Value::Null } else { json!(text) }
}

/// What to do with rules.
#[derive(Debug, clap::Subcommand)]
pub enum Rule {
    /// List rules.
    List,
    /// Make one.
    Create {
        /// offline, disk, temperature, input_lost, guest_failing, restarts or clock.
        kind: String,
        /// Name to show.
        name: String,
        #[command(flatten)]
        values: RuleValues,
    },
    /// Change one.
    Change {
        /// The rule.
        id: String,
        /// New name.
        #[arg(long)]
        name: Option<String>,
        #[command(flatten)]
        values: RuleValues,
    },
    /// Delete one and end its alerts.
    Delete {
        /// The rule.
        id: String,
    },
}

/// What to do with silences.
#[derive(Debug, clap::Subcommand)]
pub enum Silence {
    /// List silences.
    List,
    /// Begin one, for a device, a rule, a tag, or what fits all that is given; or for everything.
    Create {
        /// Why.
        reason: String,
        /// Alerts of this device.
        #[arg(long)]
        device: Option<String>,
        /// Alerts of this rule.
        #[arg(long)]
        rule: Option<String>,
        /// Alerts of devices with this tag.
        #[arg(long)]
        tag: Option<String>,
        /// Every alert of the organization.
        #[arg(long, conflicts_with_all = ["device", "rule", "tag"])]
        all: bool,
        /// When it begins, as 2026-12-01T18:00:00Z; now unless given.
        #[arg(long)]
        from: Option<DateTime<Utc>>,
        /// How long, from its beginning.
        #[arg(long, default_value_t = 60)]
        minutes: u32,
    },
    /// End one now.
    End {
        /// The silence.
        id: String,
    },
}

/// What to do with receivers.
#[derive(Debug, clap::Subcommand)]
pub enum Receiver {
    /// List receivers.
    List,
    /// Make one: a webhook by its URL, or mail by addresses.
    Create {
        /// Name to show.
        name: String,
        /// URL of a webhook.
        #[arg(long)]
        webhook: Option<String>,
        /// What a webhook's messages are signed with; better by the environment.
        #[arg(long, env = "R58_ALERT_SECRET", hide_env_values = true)]
        secret: Option<String>,
        /// Of mail; may be given several times.
        #[arg(long)]
        address: Vec<String>,
        /// info, warning, error or critical.
        #[arg(long)]
        min_severity: Option<String>,
    },
    /// Change one.
    Change {
        /// The receiver.
        id: String,
        /// New name.
        #[arg(long)]
        name: Option<String>,
        /// New URL of a webhook.
        #[arg(long)]
        webhook: Option<String>,
        /// New secret of a webhook.
        #[arg(long, env = "R58_ALERT_SECRET", hide_env_values = true)]
        secret: Option<String>,
        /// New addresses of mail.
        #[arg(long)]
        address: Vec<String>,
        /// info, warning, error or critical.
        #[arg(long)]
        min_severity: Option<String>,
        /// In use or not.
        #[arg(long)]
        enabled: Option<bool>,
    },
    /// Delete one.
    Delete {
        /// The receiver.
        id: String,
    },
    /// Show its messages, and what went wrong.
    Deliveries {
        /// The receiver.
        id: String,
    },
    /// Send it a message to see whether it arrives.
    Test {
        /// The receiver.
        id: String,
    },
}

fn given<const N: usize>(fields: [(&str, Option<Value>); N]) -> Map<String, Value> {
    fields.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?))).collect()
}

fn lines(output: Output, all: &[Value], line: impl Fn(&Value) -> String) {
    output.show(&json!(all), || all.iter().map(|one| plain(&line(one))).collect::<Vec<_>>().join("\n"));
}

fn gone(output: Output, id: &str, what: &str) {
    output.show(&json!({"id": id, "done": what}), || format!("{id} {what}"));
}

/// Runs `r58 ctl alert`.
///
/// # Errors
/// When the server refuses or does not answer.
pub async fn run(client: &mut Client, output: Output, order: &Alert) -> Result<(), CtlError> {
    match order {
        Alert::List { state, severity, kind, device, limit } => {
            let filters = [("severity", severity), ("kind", kind), ("device", device)];
            let filters =
                filters.iter().filter_map(|(name, value)| Some(format!("&{name}={}", segment(value.as_deref()?))));
            let path = format!("/alerts?page_size=200&state={}{}", segment(state), filters.collect::<String>());
            let (mut all, mut cursor) = (Vec::new(), String::new());
            while all.len() < *limit {
                let mut page = client.get(&format!("{path}{cursor}")).await?;
                all.extend(page["items"].as_array_mut().map(std::mem::take).unwrap_or_default());
                match page["next_cursor"].as_str() {
                    Some(next) => cursor = format!("&cursor={}", segment(next)),
                    None => break,
                }
            }
            all.truncate(*limit);
            lines(output, &all, one_line);
        }
        Alert::Show { id } => output.document(&client.get(&format!("/alerts/{}", segment(id))).await?),
        Alert::Summary => {
            let summary = client.get("/alerts/summary").await?;
            output.show(&summary, || {
                format!(
                    "{} open, {} firing: {} critical, {} error, {} warning, {} info",
                    summary["open"],
                    summary["firing"],
                    summary["critical"],
                    summary["error"],
                    summary["warning"],
                    summary["info"]
                )
            });
        }
        Alert::Ack { id, note } => {
            let taken = client.post(&format!("/alerts/{}/acknowledge", segment(id)), &json!({"note": note})).await?;
            output.show(&taken, || plain(&one_line(&taken)));
        }
        Alert::Unack { id } => {
            let back = client.delete(&format!("/alerts/{}/acknowledge", segment(id))).await?;
            output.show(&back, || plain(&one_line(&back)));
        }
        Alert::Rule(order) => rule(client, output, order).await?,
        Alert::Silence(order) => silence(client, output, order).await?,
        Alert::Receiver(order) => receiver(client, output, order).await?,
    }
    Ok(())
}

fn one_line(alert: &Value) -> String {
    let silenced = if alert["silenced_until"].is_string() { "  silenced" } else { "" };
    format!(
        "{}  {}  {}  {}  {}: {}{silenced}",
        word(alert, "id"),
        word(alert, "severity"),
        word(alert, "state"),
        word(alert, "device_id"),
        word(alert, "rule_name"),
        word(alert, "detail")
    )
}

fn rule_line(rule: &Value) -> String {
    let threshold = rule["threshold"].as_f64().map(|threshold| format!(" {threshold}")).unwrap_or_default();
    let only = |name: &str| rule[name].as_str().map(|only| format!("  only {only}")).unwrap_or_default();
    let told = rule["receiver_ids"].as_array().map(|some| format!("  tells {}", some.len())).unwrap_or_default();
    let off = if rule["enabled"] == false { "  off" } else { "" };
    format!(
        "{}  {}{threshold} for {} s  {}  {}{}{}{told}{off}",
        word(rule, "id"),
        word(rule, "kind"),
        rule["for_seconds"],
        word(rule, "severity"),
        word(rule, "name"),
        only("tag"),
        only("device_id")
    )
}

async fn rule(client: &mut Client, output: Output, order: &Rule) -> Result<(), CtlError> {
    match order {
        Rule::List => lines(output, &client.all("/alert-rules", &[]).await?, rule_line),
        Rule::Create { kind, name, values } => {
            let mut body = values.body();
            body.extend(given([("kind", Some(json!(kind))), ("name", Some(json!(name)))]));
            let made = client.post("/alert-rules", &json!(body)).await?;
            output.show(&made, || plain(&rule_line(&made)));
        }
        Rule::Change { id, name, values } => {
            let mut body = values.body();
            body.extend(given([("name", name.clone().map(Value::from))]));
            let changed = client.patch(&format!("/alert-rules/{}", segment(id)), &json!(body)).await?;
            output.show(&changed, || plain(&rule_line(&changed)));
        }
        Rule::Delete { id } => {
            client.delete(&format!("/alert-rules/{}", segment(id))).await?;
            gone(output, id, "deleted");
        }
    }
    Ok(())
}

fn silence_line(silence: &Value) -> String {
    let what: Vec<String> = ["device_id", "rule_id", "tag"]
        .iter()
        .filter_map(|name| Some(format!("{name} {}", silence[*name].as_str()?)))
        .collect();
    let what = if silence["all"] == true { "everything".to_owned() } else { what.join(", ") };
    let active = if silence["active"] == true { "active" } else { "not active" };
    format!(
        "{}  {active}  {}  until {}  {}",
        word(silence, "id"),
        what,
        word(silence, "ends_at"),
        word(silence, "reason")
    )
}

async fn silence(client: &mut Client, output: Output, order: &Silence) -> Result<(), CtlError> {
    match order {
        Silence::List => lines(output, &client.all("/silences", &[]).await?, silence_line),
        Silence::Create { reason, device, rule, tag, all, from, minutes } => {
            let end = from.unwrap_or_else(Utc::now) + Duration::minutes(i64::from(*minutes));
            let body = json!({"reason": reason, "device_id": device, "rule_id": rule, "tag": tag, "all": all,
                "starts_at": from, "ends_at": end});
            let made = client.post("/silences", &body).await?;
            output.show(&made, || plain(&silence_line(&made)));
        }
        Silence::End { id } => {
            client.delete(&format!("/silences/{}", segment(id))).await?;
            gone(output, id, "ended");
        }
    }
    Ok(())
}

fn receiver_line(receiver: &Value) -> String {
    let to: Vec<&str> = receiver["addresses"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    let to = receiver["url"].as_str().map_or_else(|| to.join(" "), str::to_owned);
    let off = if receiver["enabled"] == false { "  off" } else { "" };
    format!(
        "{}  {}  {}  {to}  from {}{off}",
        word(receiver, "id"),
        word(receiver, "name"),
        word(receiver, "kind"),
        word(receiver, "min_severity")
    )
}

fn delivery_line(delivery: &Value) -> String {
    let error = delivery["error"].as_str().map(|error| format!("  {error}")).unwrap_or_default();
    format!(
        "{}  {}  {} alerts, {} attempts{error}",
        word(delivery, "id"),
        word(delivery, "state"),
        delivery["alerts"],
        delivery["attempts"]
    )
}

async fn receiver(client: &mut Client, output: Output, order: &Receiver) -> Result<(), CtlError> {
    let list = |address: &[String]| (!address.is_empty()).then(|| json!(address));
    match order {
        Receiver::List => lines(output, &client.all("/alert-receivers", &[]).await?, receiver_line),
        Receiver::Create { name, webhook, secret, address, min_severity } => {
            let body = given([
                ("name", Some(json!(name))),
                ("url", webhook.clone().map(Value::from)),
                ("secret", secret.clone().map(Value::from)),
                ("addresses", list(address)),
                ("min_severity", min_severity.clone().map(Value::from)),
            ]);
            let made = client.post("/alert-receivers", &json!(body)).await?;
            output.show(&made, || plain(&receiver_line(&made)));
        }
        Receiver::Change { id, name, webhook, secret, address, min_severity, enabled } => {
            let body = given([
                ("name", name.clone().map(Value::from)),
                ("url", webhook.clone().map(Value::from)),
                ("secret", secret.clone().map(Value::from)),
                ("addresses", list(address)),
                ("min_severity", min_severity.clone().map(Value::from)),
                ("enabled", enabled.map(Value::from)),
            ]);
            let changed = client.patch(&format!("/alert-receivers/{}", segment(id)), &json!(body)).await?;
            output.show(&changed, || plain(&receiver_line(&changed)));
        }
        Receiver::Delete { id } => {
            client.delete(&format!("/alert-receivers/{}", segment(id))).await?;
            gone(output, id, "deleted");
        }
        Receiver::Deliveries { id } => {
            let all = client.all(&format!("/alert-receivers/{}/deliveries", segment(id)), &[]).await?;
            lines(output, &all, delivery_line);
        }
        Receiver::Test { id } => {
            let sent = client.post(&format!("/alert-receivers/{}/test", segment(id)), &json!({})).await?;
            output.show(&sent, || format!("on its way; see: r58 ctl alert receiver deliveries {id}"));
        }
    }
    Ok(())
}
