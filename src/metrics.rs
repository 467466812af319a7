//! Metrics in the text format of Prometheus, the same way on both sides.
//!
//! A [`Sheet`] is made anew for each scrape from what the side knows at that moment, so no series outlives what it spoke of;
//! what counts or measures over time (histograms, counters of requests) is held by whoever observes it, and laid on the sheet.
//! Names follow Prometheus: `r58_` before, base units and `_total` behind. Labels have few values, all of them ours: never an
//! address, a path as it was asked for, or a device of the fleet.
//!
//! The crate is `prometheus`: the embedded broker brings it along, so it costs nothing to build.

use actix_web::HttpResponse;
use actix_web::http::header::CACHE_CONTROL;
use prometheus::core::Collector;
use prometheus::{Counter, CounterVec, Gauge, GaugeVec, Opts, Registry, TextEncoder};
use r58_actors::supervision::{ActorReport, ActorState};

use crate::problem::{Answer, Problem};

/// Version 0.0.4 of the text format.
const MEDIA: &str = "text/plain; version=0.0.4; charset=utf-8";

/// What one scrape is answered with.
#[derive(Default)]
pub struct Sheet(Registry);

impl Sheet {
    /// With what every side says of itself; `side` is `box` or `fleet`.
    pub fn new(side: &str, uptime: std::time::Duration) -> Self {
        let sheet = Self::default();
        let build = [([side, env!("CARGO_PKG_VERSION")], 1.0)];
        sheet.gauges("r58_build_info", "Side and version of the software; always 1.", ["side", "version"], build);
        sheet.gauge("r58_uptime_seconds", "Time since the process started.", uptime.as_secs_f64());
        sheet
    }

    /// A value of the moment.
    pub fn gauge(&self, name: &str, help: &str, value: f64) {
        self.lay(Gauge::new(name, help).inspect(|gauge| gauge.set(value)));
    }

    /// Values of the moment, one for each combination of labels.
    pub fn gauges<const N: usize, V: AsRef<str> + std::fmt::Debug>(
        &self,
        name: &str,
        help: &str,
        labels: [&str; N],
        rows: impl IntoIterator<Item = ([V; N], f64)>,
    ) {
        self.lay(GaugeVec::new(Opts::new(name, help), &labels).inspect(|family| {
            rows.into_iter().for_each(|(values, value)| family.with_label_values(&values).set(value));
        }));
    }

    /// A count since the process started, kept elsewhere.
    pub fn counter(&self, name: &str, help: &str, value: u64) {
        self.lay(Counter::new(name, help).inspect(|counter| counter.inc_by(value as f64)));
    }

    /// Counts since the process started, one for each combination of labels.
    pub fn counters<const N: usize, V: AsRef<str> + std::fmt::Debug>(
        &self,
        name: &str,
        help: &str,
        labels: [&str; N],
        rows: impl IntoIterator<Item = ([V; N], u64)>,
    ) {
        self.lay(CounterVec::new(Opts::new(name, help), &labels).inspect(|family| {
            rows.into_iter().for_each(|(values, value)| family.with_label_values(&values).inc_by(value as f64));
        }));
    }

    /// What somebody else counts or measures.
    pub fn held(&self, collector: impl Collector + 'static) {
        self.lay(Ok(collector));
    }

    /// The tree of supervised actors.
    pub fn actors(&self, reports: &[ActorReport]) {
        self.gauges(
            "r58_actor_up",
            "Whether an actor does its duty.",
            ["actor"],
            reports.iter().map(|actor| ([actor.name.as_str()], f64::from(actor.state == ActorState::Running))),
        );
        self.counters(
            "r58_actor_restarts_total",
            "Restarts of an actor.",
            ["actor"],
            reports.iter().map(|actor| ([actor.name.as_str()], actor.restarts)),
        );
        self.gauges(
            "r58_actor_mailbox_messages",
            "Messages sent to an actor and not yet handled.",
            ["actor"],
            reports.iter().map(|actor| ([actor.name.as_str()], actor.mailbox_depth as f64)),
        );
    }

    fn lay(&self, made: prometheus::Result<impl Collector + 'static>) {
        let laid = made.and_then(|collector| self.0.register(Box::new(collector)));
        if let Err(error) = laid {
            tracing::error!(%error, "a metric could not be told: its name is taken or none");
        }
    }

    /// As Prometheus reads it.
    ///
    /// # Errors
    /// None that is known of: every value was checked when it was laid down.
    pub fn text(&self) -> prometheus::Result<String> {
        TextEncoder::new().encode_to_string(&self.0.gather())
    }

    /// As an answer to a scrape.
    ///
    /// # Errors
    /// As [`Sheet::text`].
    pub fn answer(&self) -> Answer {
        let text = self.text().map_err(|error| Problem::with_status(500, error.to_string()))?;
        Ok(HttpResponse::Ok().content_type(MEDIA).insert_header((CACHE_CONTROL, "no-store")).body(text))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_label_cannot_break_out_of_its_line_and_a_name_that_is_taken_loses_nothing_else() {
        let sheet = Sheet::default();
        sheet.gauges("r58_input_live", "Whether it is live.", ["input"], [(["a\"} 1\nevil{x=\"\\"], 1.0)]);
        sheet.counter("r58_frames_total", "Frames.", 7);
        sheet.counter("r58_frames_total", "Frames.", 8);
        let text = sheet.text().unwrap();
        assert!(text.contains(r#"r58_input_live{input="a\"} 1\nevil{x=\"\\"} 1"#), "{text}");
        assert!(text.contains("\nr58_frames_total 7\n"), "{text}");
        assert_eq!(text.lines().count(), 6, "{text}");
    }
}
