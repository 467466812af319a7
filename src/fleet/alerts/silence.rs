//! Which alerts a silence covers.

/// A silence: what is given has to fit all together.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Silence {
    /// Alerts of this rule.
    pub rule_id: Option<String>,
    /// Alerts of this device.
    pub device_id: Option<String>,
    /// Alerts of devices with this tag.
    pub tag: Option<String>,
    /// From then on, milliseconds since 1970.
    pub starts_at: i64,
    /// Until then.
    pub ends_at: i64,
}

impl Silence {
    fn covers(&self, rule: &str, device: &str, tags: &[String], now: i64) -> bool {
        (self.starts_at..self.ends_at).contains(&now)
            && self.rule_id.as_deref().is_none_or(|id| id == rule)
            && self.device_id.as_deref().is_none_or(|id| id == device)
            && self.tag.as_ref().is_none_or(|tag| tags.contains(tag))
    }
}

/// Until when an alert is silenced, if it is: the end of the last silence that covers it now.
pub fn silenced_until(silences: &[Silence], rule: &str, device: &str, tags: &[String], now: i64) -> Option<i64> {
    silences.iter().filter(|silence| silence.covers(rule, device, tags, now)).map(|silence| silence.ends_at).max()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_silence_covers_what_fits_all_that_it_names_while_it_lasts() {
        let both = Silence {
            rule_id: Some("r1".into()),
            device_id: None,
            tag: Some("tour".into()),
            starts_at: 10,
            ends_at: 20,
        };
        let longer = Silence { device_id: Some("box1".into()), rule_id: None, tag: None, starts_at: 0, ends_at: 30 };
        let all = [both, longer];
        let until =
            |rule: &str, device: &str, tag: &str, now: i64| silenced_until(&all, rule, device, &[tag.into()], now);
        assert_eq!(until("r1", "box2", "tour", 10), Some(20));
        assert_eq!(until("r1", "box1", "tour", 19), Some(30));
        assert_eq!(until("r1", "box2", "tour", 20), None);
        assert_eq!(until("r2", "box2", "tour", 15), None);
        assert_eq!(until("r1", "box2", "other", 15), None);
    }
}
