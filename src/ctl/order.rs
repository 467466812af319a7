//! An operation as it is written on the command line, for one device or many.

use chrono::{DateTime, Duration, Utc};
use serde_json::{Map, Value, json};

use super::client::CtlError;

/// What to do, when, and under which conditions.
#[derive(Debug, clap::Args)]
pub struct Order {
    /// take, scene, restart_service, reboot, config, identify, rotate_token, update or bundle.
    op: String,
    /// Arguments: one JSON object, or `key=value` pairs.
    args: Vec<String>,
    /// Not to be begun after so many seconds from now; unless given, an hour after it may begin.
    #[arg(long)]
    expires_in: Option<u32>,
    /// Not to be begun before so many seconds from now.
    #[arg(long)]
    begin_in: Option<u32>,
    /// What waits with a higher one goes first: 1 to 10, 5 unless given.
    #[arg(long)]
    priority: Option<u8>,
    /// Not while this goes on, such as `recording`; may be repeated.
    #[arg(long)]
    not_while: Vec<String>,
    /// Only while this version of the configuration is in force.
    #[arg(long)]
    desired_ver: Option<u64>,
    /// Why.
    #[arg(long)]
    notes: Option<String>,
}

impl Order {
    /// The command that the server is asked for.
    ///
    /// # Errors
    /// [`CtlError::Usage`] when the arguments make no sense.
    pub fn body(&self, now: DateTime<Utc>) -> Result<Value, CtlError> {
        let mut body = json!({"type": self.op, "payload": payload(&self.args)?});
        let after = |seconds: u32| now + Duration::seconds(i64::from(seconds));
        if let Some(seconds) = self.begin_in {
            body["not_before"] = json!(after(seconds));
            body["expires_at"] = json!(after(seconds.saturating_add(3_600)));
        }
        if let Some(seconds) = self.expires_in {
            body["expires_at"] = json!(after(seconds));
        }
        let words = [("priority", json!(self.priority)), ("notes", json!(self.notes))];
        for (name, value) in words.into_iter().filter(|(_, value)| !value.is_null()) {
            body[name] = value;
        }
        if !self.not_while.is_empty() || self.desired_ver.is_some() {
            body["preconditions"] = json!({"not_while": self.not_while});
        }
        if let Some(ver) = self.desired_ver {
            body["preconditions"]["desired_ver"] = json!(ver);
        }
        Ok(body)
    }
}

/// One JSON object, or `key=value` pairs whose values are JSON where they read as JSON, else text.
///
/// # Errors
/// [`CtlError::Usage`] when it is neither.
pub fn payload(args: &[String]) -> Result<Value, CtlError> {
    if let [one] = args
        && one.trim_start().starts_with('{')
    {
        return serde_json::from_str(one)
            .map_err(|error| CtlError::Usage(format!("the arguments are not JSON: {error}")));
    }
    let mut fields = Map::new();
    for arg in args {
        let Some((key, value)) = arg.split_once('=') else {
            return Err(CtlError::Usage(format!("'{arg}' is neither key=value nor a JSON object")));
        };
        let value = serde_json::from_str(value).unwrap_or_else(|_| Value::String(value.to_owned()));
        fields.insert(key.to_owned(), value);
    }
    Ok(Value::Object(fields))
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;

    #[derive(clap::Parser)]
    struct Line {
        #[command(flatten)]
        order: Order,
    }

    #[test]
    fn arguments_are_an_object_or_pairs() {
        let words = |words: &[&str]| payload(&words.iter().map(|word| word.to_string()).collect::<Vec<_>>());
        assert_eq!(words(&[]).unwrap(), json!({}));
        assert_eq!(words(&[r#"{"scene":"quad"}"#]).unwrap(), json!({"scene": "quad"}));
        assert_eq!(
            words(&["scene=quad", "duration_ms=500", "kind=mix"]).unwrap(),
            json!({"scene": "quad", "duration_ms": 500, "kind": "mix"})
        );
        assert!(words(&["quad"]).is_err());
        assert!(words(&["{quad"]).is_err());
    }

    #[test]
    fn when_and_under_which_conditions_is_said_in_the_fields_of_the_api() {
        let now = DateTime::from_timestamp(1_800_000_000, 0).unwrap();
        let body =
            |line: &str| Line::try_parse_from(format!("r58 {line}").split(' ')).unwrap().order.body(now).unwrap();
        assert_eq!(body("identify seconds=3"), json!({"type": "identify", "payload": {"seconds": 3}}));
        let late = body("reboot --begin-in 60 --priority 9 --not-while recording --desired-ver 4 --notes tonight");
        assert_eq!(
            late,
            json!({"type": "reboot", "payload": {}, "priority": 9, "notes": "tonight",
                "not_before": now + Duration::seconds(60), "expires_at": now + Duration::seconds(3_660),
                "preconditions": {"not_while": ["recording"], "desired_ver": 4}})
        );
        assert_eq!(body("reboot --expires-in 90")["expires_at"], json!(now + Duration::seconds(90)));
    }
}
