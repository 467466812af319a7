//! Values on their way into a statement.

use std::sync::Arc;

/// A value, or the absence of one of a known type: PostgreSQL wants to know what it is that is not there.
#[derive(Debug, Clone)]
pub(crate) enum Value {
    /// BOOLEAN.
    Bool(Option<bool>),
    /// BIGINT.
    Int(Option<i64>),
    /// DOUBLE PRECISION.
    Float(Option<f64>),
    /// TEXT.
    Text(Option<String>),
    /// TEXT that others hold too.
    Shared(Arc<str>),
    /// BLOB or BYTEA.
    Blob(Option<Vec<u8>>),
}

/// What can be given to a statement.
pub(crate) trait Bind {
    /// Its absence.
    const ABSENT: Value;

    /// Itself.
    fn value(self) -> Value;
}

macro_rules! bindable {
    ($($type:ty => $kind:ident, $given:ident => $made:expr;)*) => {$(
        impl Bind for $type {
            const ABSENT: Value = Value::$kind(None);

            fn value(self) -> Value {
                let $given = self;
                Value::$kind(Some($made))
            }
        }
    )*};
}

bindable! {
    bool => Bool, given => given;
    i64 => Int, given => given;
    i32 => Int, given => i64::from(given);
    u32 => Int, given => i64::from(given);
    f64 => Float, given => given;
    String => Text, given => without_nul(given);
    &str => Text, given => without_nul(given.to_owned());
    Vec<u8> => Blob, given => given;
    &[u8] => Blob, given => given.to_vec();
}

impl Bind for Arc<str> {
    const ABSENT: Value = Value::Text(None);

    fn value(self) -> Value {
        Value::Shared(if self.contains('\0') { without_nul(self.to_string()).into() } else { self })
    }
}

impl<T: Bind> Bind for Option<T> {
    const ABSENT: Value = T::ABSENT;

    fn value(self) -> Value {
        self.map_or(T::ABSENT, T::value)
    }
}

impl<T: Bind + Clone> Bind for &T {
    const ABSENT: Value = T::ABSENT;

    fn value(self) -> Value {
        self.clone().value()
    }
}

/// PostgreSQL's TEXT cannot hold U+0000, so neither engine gets it; what a stranger puts into a name becomes the mark for what
/// cannot be shown.
fn without_nul(text: String) -> String {
    if text.contains('\0') { text.replace('\0', "\u{fffd}") } else { text }
}

/// Binds every value to one of sqlx's queries.
macro_rules! bind_all {
    ($query:expr, $values:expr) => {{
        let mut query = $query;
        for value in $values {
            query = match value {
                Value::Bool(value) => query.bind(value),
                Value::Int(value) => query.bind(value),
                Value::Float(value) => query.bind(value),
                Value::Text(value) => query.bind(value),
                Value::Shared(value) => query.bind(value),
                Value::Blob(value) => query.bind(value),
            };
        }
        query
    }};
}
pub(super) use bind_all;
