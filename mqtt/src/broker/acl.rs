//! Who may publish and subscribe where: mosquitto's `pattern write r58/1/%u/%c/up/#` and `pattern read r58/1/%u/%c/down/#`,
//! the group commands of an organization, an organization's topics for its people, and everything under `r58/1/` for the
//! fleet. Pure.

use super::Role;

const ROOT: &str = "r58/1/";

/// What follows `r58/1/{org}/{dev}/`, if the text starts so.
fn beyond<'a>(text: &'a str, org: &str, dev: &str) -> Option<&'a str> {
    text.strip_prefix(ROOT)?.strip_prefix(org)?.strip_prefix('/')?.strip_prefix(dev)?.strip_prefix('/')
}

/// Whether a name is one level of a topic and no wildcard: only such names may be put into a pattern.
pub(super) fn is_plain_level(name: &str) -> bool {
    !name.is_empty() && !name.contains(['/', '+', '#', '\0', '$']) && name != "_g"
}

/// Whether this role may publish to the topic (also as a will).
pub(super) fn may_publish(role: &Role, topic: &str) -> bool {
    match role {
        Role::Fleet => topic.len() > ROOT.len() && topic.starts_with(ROOT),
        Role::Device { org, dev } => {
            beyond(topic, org, dev).and_then(|rest| rest.strip_prefix("up/")).is_some_and(|rest| !rest.is_empty())
        }
        Role::Person { org, commands } => *commands && is_command(topic, org),
    }
}

/// Whether a topic is `r58/1/{org}/{dev}/down/cmd/{id}`.
fn is_command(topic: &str, org: &str) -> bool {
    let own = topic.strip_prefix(ROOT).and_then(|rest| rest.strip_prefix(org)).and_then(|rest| rest.strip_prefix('/'));
    let Some(own) = own else { return false };
    let levels: Vec<&str> = own.split('/').collect();
    matches!(levels[..], [dev, "down", "cmd", id] if is_plain_level(dev) && is_plain_level(id))
}

/// Whether this role may subscribe to the filter. `shared` says that it came as `$share/{group}/{filter}`.
pub(super) fn may_subscribe(role: &Role, filter: &str, shared: bool) -> bool {
    match role {
        Role::Fleet => filter.len() > ROOT.len() && filter.starts_with(ROOT),
        Role::Device { .. } | Role::Person { .. } if shared => false,
        Role::Person { org, .. } => {
            let own = filter.strip_prefix(ROOT).and_then(|rest| rest.strip_prefix(org.as_str()));
            own.and_then(|rest| rest.strip_prefix('/')).is_some_and(|rest| !rest.is_empty())
        }
        Role::Device { org, dev } => {
            let below = |rest: &str| rest.strip_prefix("down/").is_some_and(|rest| !rest.is_empty());
            // The literal prefix leaves no room for a wildcard before `down`.
            beyond(filter, org, dev).is_some_and(below)
                || beyond(filter, org, "_g")
                    .and_then(|rest| rest.split_once('/'))
                    .is_some_and(|(group, rest)| !group.is_empty() && group != "#" && below(rest))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn device() -> Role {
        Role::Device { org: "acme".into(), dev: "box-1".into() }
    }

    #[test]
    fn a_device_writes_only_below_its_own_up() {
        for topic in ["r58/1/acme/box-1/up/hb", "r58/1/acme/box-1/up/cmd/01J"] {
            assert!(may_publish(&device(), topic), "{topic}");
        }
        for topic in [
            "r58/1/acme/box-1/up/",
            "r58/1/acme/box-1/up",
            "r58/1/acme/box-1/down/cmd/1",
            "r58/1/acme/box-10/up/hb",
            "r58/1/acme/box-2/up/hb",
            "r58/1/other/box-1/up/hb",
            "r58/1/acme/_g/all/down/cmd/1",
            "r58/2/acme/box-1/up/hb",
            "$SYS/broker/x",
            "up/hb",
            "",
        ] {
            assert!(!may_publish(&device(), topic), "{topic}");
        }
    }

    #[test]
    fn a_device_reads_its_own_down_and_its_groups() {
        for filter in [
            "r58/1/acme/box-1/down/#",
            "r58/1/acme/box-1/down/cmd/+",
            "r58/1/acme/_g/+/down/#",
            "r58/1/acme/_g/stage/down/cmd/#",
        ] {
            assert!(may_subscribe(&device(), filter, false), "{filter}");
            assert!(!may_subscribe(&device(), filter, true), "shared {filter}");
        }
        for filter in [
            "#",
            "r58/#",
            "r58/1/+/box-1/down/#",
            "r58/1/acme/+/down/#",
            "r58/1/acme/#",
            "r58/1/acme/_g/#",
            "r58/1/acme/_g/+/up/#",
            "r58/1/acme/_g/+/+/#",
            "r58/1/acme/_g//down/#",
            "r58/1/acme/box-1/up/#",
            "r58/1/acme/box-1/#",
            "r58/1/acme/box-1/+/cmd",
            "r58/1/acme/box-2/down/#",
            "r58/1/other/_g/+/down/#",
            "$SYS/#",
        ] {
            assert!(!may_subscribe(&device(), filter, false), "{filter}");
        }
    }

    #[test]
    fn a_person_reads_its_organization_and_commands_only_if_allowed() {
        let person = |commands| Role::Person { org: "acme".into(), commands };
        for filter in ["r58/1/acme/#", "r58/1/acme/+/up/hb", "r58/1/acme/box-1/up/presence"] {
            assert!(may_subscribe(&person(false), filter, false), "{filter}");
            assert!(!may_subscribe(&person(true), filter, true), "shared {filter}");
        }
        for filter in ["#", "r58/1/#", "r58/1/+/box-1/up/hb", "r58/1/acme", "r58/1/acme/", "r58/1/acme2/#", "$SYS/#"] {
            assert!(!may_subscribe(&person(true), filter, false), "{filter}");
        }
        assert!(may_publish(&person(true), "r58/1/acme/box-1/down/cmd/01J"));
        assert!(!may_publish(&person(false), "r58/1/acme/box-1/down/cmd/01J"));
        for topic in [
            "r58/1/acme/box-1/down/cmd/",
            "r58/1/acme/box-1/down/cmd",
            "r58/1/acme/box-1/down/cmd/01J/x",
            "r58/1/acme/box-1/down/sync",
            "r58/1/acme/box-1/down/desired",
            "r58/1/acme/box-1/up/presence",
            "r58/1/acme/_g/down/cmd/01J",
            "r58/1/acme/_g/all/down/cmd/01J",
            "r58/1/other/box-1/down/cmd/01J",
        ] {
            assert!(!may_publish(&person(true), topic), "{topic}");
        }
    }

    #[test]
    fn the_fleet_has_everything_below_the_root_and_nothing_else() {
        assert!(may_subscribe(&Role::Fleet, "r58/1/+/+/up/#", true));
        assert!(may_publish(&Role::Fleet, "r58/1/acme/box-1/down/cmd/1"));
        for text in ["#", "+/1/#", "r58/#", "r58/1/", "$SYS/#"] {
            assert!(!may_subscribe(&Role::Fleet, text, false), "{text}");
            assert!(!may_publish(&Role::Fleet, text), "{text}");
        }
    }

    #[test]
    fn a_name_with_wildcards_is_no_level() {
        for name in ["", "a/b", "+", "#", "a+", "$SYS", "_g"] {
            assert!(!is_plain_level(name), "{name}");
        }
        assert!(is_plain_level("box-1"));
    }

    /// Whether an MQTT filter matches a topic.
    fn matches(filter: &str, topic: &str) -> bool {
        let (mut f, mut t) = (filter.split('/'), topic.split('/'));
        loop {
            match (f.next(), t.next()) {
                (Some("#"), _) | (None, None) => return true,
                (Some("+"), Some(_)) => {}
                (Some(a), Some(b)) if a == b => {}
                _ => return false,
            }
        }
    }

    proptest! {
        /// However a filter is built: if it is granted, it matches no topic of another device or organization.
        #[test]
        fn no_granted_filter_reaches_foreign_topics(
            levels in proptest::collection::vec(prop_oneof![
                Just("r58"), Just("1"), Just("acme"), Just("other"), Just("box-1"), Just("box-2"), Just("_g"), Just("+"),
                Just("#"), Just("down"), Just("up"), Just("cmd"), Just("stage"), Just(""),
            ], 1..8)
        ) {
            let filter = levels.join("/");
            if may_subscribe(&device(), &filter, false) {
                for topic in [
                    "r58/1/acme/box-2/down/cmd/1", "r58/1/other/box-1/down/cmd/1", "r58/1/acme/box-1/up/hb",
                    "r58/1/acme/box-2/up/hb", "r58/1/other/_g/stage/down/cmd/1", "r58/1/acme/_g/stage/up/x",
                ] {
                    prop_assert!(!matches(&filter, topic), "{} matches {}", filter, topic);
                }
            }
        }
    }
}
