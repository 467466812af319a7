//! From tracing events to records. Whatever is secret is taken out here, before anything is kept.

use std::collections::BTreeMap;
use std::fmt::Debug;

use chrono::Utc;
use serde_json::Value;
use tracing::field::{Field, Visit};
use tracing::{Event, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::layer::Context;

use super::{LONGEST_TEXT, Level, LogBook, Record};
use crate::redact::{GONE, Redactor, is_secret_name};

/// Fields kept of one event.
const MOST_FIELDS: usize = 24;
/// Whose modules are actors.
const ACTORS: &str = "r58_actors::";

/// Keeps every event that passes the subscriber's filter.
pub struct LogLayer(LogBook);

impl LogLayer {
    /// Into this book.
    pub fn new(book: LogBook) -> Self {
        Self(book)
    }
}

impl<S: Subscriber> Layer<S> for LogLayer {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let mut told = Told { redactor: self.0.redactor(), message: String::new(), fields: BTreeMap::new() };
        event.record(&mut told);
        let Told { message, mut fields, .. } = told;
        let target = event.metadata().target();
        let own = target.strip_prefix(ACTORS).and_then(|rest| rest.split("::").next()).unwrap_or_default();
        let actor = match fields.remove("actor") {
            Some(Value::String(actor)) => actor,
            Some(other) => other.to_string(),
            None => own.to_owned(),
        };
        self.0.append(Record {
            seq: 0,
            ts: Utc::now(),
            level: level(*event.metadata().level()),
            target: target.to_owned(),
            actor,
            message,
            fields,
        });
    }
}

fn level(level: tracing::Level) -> Level {
    match level {
        tracing::Level::ERROR => Level::Error,
        tracing::Level::WARN => Level::Warn,
        tracing::Level::INFO => Level::Info,
        tracing::Level::DEBUG => Level::Debug,
        tracing::Level::TRACE => Level::Trace,
    }
}

struct Told<'a> {
    redactor: &'a Redactor,
    message: String,
    fields: BTreeMap<String, Value>,
}

impl Told<'_> {
    fn text(&mut self, name: &str, text: &str) {
        let text = if is_secret_name(name) { GONE.into() } else { self.redactor.text(text) };
        let text = cut(&text);
        match name {
            "message" => self.message = text.to_owned(),
            _ => self.value(name, Value::from(text)),
        }
    }

    fn value(&mut self, name: &str, value: Value) {
        if self.fields.len() < MOST_FIELDS {
            self.fields.insert(name.strip_prefix("r#").unwrap_or(name).to_owned(), value);
        }
    }

    fn number(&mut self, name: &str, number: Value) {
        let secret = is_secret_name(name);
        self.value(name, if secret { Value::from(GONE) } else { number });
    }
}

/// The beginning of a text, as much of it as is kept.
pub(super) fn cut(text: &str) -> &str {
    &text[..text.floor_char_boundary(LONGEST_TEXT)]
}

impl Visit for Told<'_> {
    fn record_str(&mut self, field: &Field, value: &str) {
        self.text(field.name(), value);
    }

    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        self.text(field.name(), &format!("{value:?}"));
    }

    fn record_error(&mut self, field: &Field, value: &(dyn std::error::Error + 'static)) {
        self.text(field.name(), &value.to_string());
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.number(field.name(), value.into());
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.number(field.name(), value.into());
    }

    fn record_f64(&mut self, field: &Field, value: f64) {
        self.number(field.name(), value.into());
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.number(field.name(), value.into());
    }
}
