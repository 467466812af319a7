//! What a device would say to a command, judged from what it last said of itself. No clock, no database, no effect.

use serde::Serialize;
use serde_json::{Map, Value};
use utoipa::ToSchema;

/// What is known of a device.
#[derive(Debug, Clone, Default)]
pub struct Outlook {
    /// Connected, and heard of lately.
    pub online: bool,
    /// `up/caps`.
    pub caps: Option<Value>,
    /// `up/reported`.
    pub reported: Option<Value>,
    /// Its latest heartbeat.
    pub heartbeat: Option<Value>,
}

/// What must hold before a command begins.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Conditions {
    /// Activities that must not be going on.
    pub not_while: Vec<String>,
    /// The version of the configuration that must be in force.
    pub desired_ver: Option<u64>,
}

/// What a device would say.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// It would do it.
    Ok,
    /// It is not connected: it would judge when it comes back.
    Offline,
    /// A condition does not hold.
    Precondition,
    /// It knows the operation, but not what it names: a scene, a service.
    Arguments,
    /// It does not know the operation.
    Unsupported,
}

impl Verdict {
    /// As in JSON.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Offline => "offline",
            Self::Precondition => "precondition",
            Self::Arguments => "arguments",
            Self::Unsupported => "unsupported",
        }
    }
}

/// The verdict and a sentence for a person. What will not change by waiting comes first: an operation that a device lacks
/// stays lacking when it is connected again.
pub fn judge(
    device: &Outlook,
    op: &str,
    args: &Map<String, Value>,
    conditions: &Conditions,
) -> (Verdict, Option<String>) {
    if let Some(ops) = device.caps.as_ref().and_then(|caps| caps["ops"].as_array())
        && !ops.iter().any(|known| known == op)
    {
        return (Verdict::Unsupported, Some(format!("the device does not know {op}")));
    }
    if let Some(reason) = unknown_name(device, op, args) {
        return (Verdict::Arguments, Some(reason));
    }
    if !device.online {
        return (Verdict::Offline, Some("the device is not connected".to_owned()));
    }
    match unmet(device, conditions) {
        Some(reason) => (Verdict::Precondition, Some(reason)),
        None => (Verdict::Ok, None),
    }
}

/// Why a condition does not hold, as far as the device has said anything about it.
pub fn unmet(device: &Outlook, conditions: &Conditions) -> Option<String> {
    let in_force = device.reported.as_ref().and_then(|reported| reported["ver"].as_u64());
    if let (Some(wanted), Some(in_force)) = (conditions.desired_ver, in_force)
        && wanted != in_force
    {
        return Some(format!("configuration version {in_force} is in force"));
    }
    let status = device.heartbeat.as_ref().map(|heartbeat| &heartbeat["status"])?;
    let going_on = |activity: &str| status[format!("{activity}_active")] == true;
    let activity = conditions.not_while.iter().find(|activity| {
        // Heartbeats speak of `recording_active`; the condition says `recording`.
        going_on(activity)
    })?;
    Some(format!("not while {activity}"))
}

fn unknown_name(device: &Outlook, op: &str, args: &Map<String, Value>) -> Option<String> {
    let reported = device.reported.as_ref()?;
    match op {
        "take" | "scene" => {
            let (scene, known) = (args.get("scene")?.as_str()?, reported["scenes"].as_array()?);
            let there = known.is_empty() || known.iter().any(|one| one["id"] == scene);
            (!there).then(|| format!("there is no scene {scene}"))
        }
        "restart_service" => {
            let (service, known) = (args.get("service")?.as_str()?, reported["services"].as_array()?);
            let there = known.iter().any(|one| one == service);
            (!there).then(|| "the service is not on this device's list".to_owned())
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn device() -> Outlook {
        Outlook {
            online: true,
            caps: Some(json!({"ops": ["take", "reboot", "restart_service"]})),
            reported: Some(json!({"ver": 3, "scenes": [{"id": "quad"}], "services": ["mixer"]})),
            heartbeat: Some(json!({"status": {"recording_active": true, "mixer_active": false}})),
        }
    }

    fn say(device: &Outlook, op: &str, args: Value, conditions: &Conditions) -> Verdict {
        judge(device, op, args.as_object().unwrap(), conditions).0
    }

    #[test]
    fn a_device_is_judged_by_what_it_said() {
        let (device, none) = (device(), Conditions::default());
        assert_eq!(say(&device, "take", json!({"scene": "quad"}), &none), Verdict::Ok);
        assert_eq!(say(&device, "take", json!({"scene": "solo"}), &none), Verdict::Arguments);
        assert_eq!(say(&device, "restart_service", json!({"service": "sshd"}), &none), Verdict::Arguments);
        assert_eq!(say(&device, "update", json!({}), &none), Verdict::Unsupported);
        let while_idle = |activity: &str| Conditions { not_while: vec![activity.into()], desired_ver: None };
        assert_eq!(say(&device, "reboot", json!({}), &while_idle("recording")), Verdict::Precondition);
        assert_eq!(say(&device, "reboot", json!({}), &while_idle("mixer")), Verdict::Ok);
        let at = |ver| Conditions { not_while: Vec::new(), desired_ver: Some(ver) };
        assert_eq!(say(&device, "reboot", json!({}), &at(4)), Verdict::Precondition);
        assert_eq!(say(&device, "reboot", json!({}), &at(3)), Verdict::Ok);
    }

    #[test]
    fn what_waiting_does_not_change_is_said_before_what_it_does() {
        let away = Outlook { online: false, ..device() };
        assert_eq!(say(&away, "update", json!({}), &Conditions::default()), Verdict::Unsupported);
        assert_eq!(say(&away, "reboot", json!({}), &Conditions::default()), Verdict::Offline);
        assert_eq!(say(&Outlook::default(), "update", json!({}), &Conditions::default()), Verdict::Offline);
    }
}
