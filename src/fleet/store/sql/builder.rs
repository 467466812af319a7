//! Statements that are put together, with their values in place.

use std::fmt::{Display, Write as _};

use super::{Bind, Engine, PLACE, Query, QueryAs, Row, Text, Value};

/// A statement in the making. Texts are the program's own; whatever came from outside goes in by `push_bind`.
#[derive(Clone)]
pub(crate) struct QueryBuilder {
    text: String,
    values: Vec<Value>,
}

impl QueryBuilder {
    /// Begins with `text`.
    pub fn new(text: impl Into<String>) -> Self {
        Self { text: text.into(), values: Vec::new() }
    }

    /// Begins with a text that has a [`PLACE`] for each value still to come, and room for so many values.
    pub fn with_places(text: &str, values: usize) -> Self {
        let mut made = Self::new(text);
        made.values.reserve_exact(values);
        made
    }

    /// Gives the value of the next [`PLACE`] that the text has already.
    pub fn fill(&mut self, value: impl Bind) -> &mut Self {
        self.values.push(value.value());
        self
    }

    /// Adds text.
    pub fn push(&mut self, text: impl Display) -> &mut Self {
        // Writing to a String cannot fail.
        let _ = write!(self.text, "{text}");
        self
    }

    /// Puts text before what is there.
    pub fn prepend(&mut self, text: &str) -> &mut Self {
        self.text.insert_str(0, text);
        self
    }

    /// Adds a value.
    pub fn push_bind(&mut self, value: impl Bind) -> &mut Self {
        self.text.push(PLACE);
        self.values.push(value.value());
        self
    }

    /// Adds things with `separator` between them.
    pub fn separated(&mut self, separator: &'static str) -> Separated<'_> {
        Separated { builder: self, separator, begun: false }
    }

    /// Adds `VALUES (…), (…)`, one parenthesis for each of `rows`.
    pub fn push_values<T>(
        &mut self,
        rows: impl IntoIterator<Item = T>,
        mut write: impl FnMut(&mut Separated<'_>, T),
    ) -> &mut Self {
        self.push("VALUES ");
        for (n, row) in rows.into_iter().enumerate() {
            self.push(if n == 0 { "(" } else { ", (" });
            write(&mut self.separated(", "), row);
            self.push(")");
        }
        self
    }

    /// The statement, without rows.
    pub fn build(self) -> Query {
        Query { text: Text::Built(self.text), values: self.values, lock: false }
    }

    /// The statement, with rows.
    pub fn build_query_as<O: Row>(self) -> QueryAs<O> {
        QueryAs { query: self.build(), row: std::marker::PhantomData }
    }
}

/// Things with a separator between them.
pub(crate) struct Separated<'b> {
    builder: &'b mut QueryBuilder,
    separator: &'static str,
    begun: bool,
}

impl Separated<'_> {
    fn next(&mut self) {
        if self.begun {
            self.builder.push(self.separator);
        }
        self.begun = true;
    }

    /// Adds text.
    #[cfg_attr(not(test), allow(dead_code, reason = "part of the interface that statements are written by"))]
    pub fn push(&mut self, text: impl Display) -> &mut Self {
        self.next();
        self.builder.push(text);
        self
    }

    /// Adds a value.
    pub fn push_bind(&mut self, value: impl Bind) -> &mut Self {
        self.next();
        self.builder.push_bind(value);
        self
    }

    /// Adds text without a separator before it.
    pub fn push_unseparated(&mut self, text: impl Display) -> &mut Self {
        self.builder.push(text);
        self
    }
}

/// Writes the places of values as the engine wants them. SQLite takes `?`: numbered ones cost it a search for each, through
/// all of them.
pub(super) fn render(text: &str, engine: Engine) -> String {
    if engine == Engine::Sqlite {
        return text.replace(PLACE, "?");
    }
    let mut rendered = String::with_capacity(text.len() + 64);
    for (n, piece) in text.split(PLACE).enumerate() {
        if n > 0 {
            let _ = write!(rendered, "${n}");
        }
        rendered.push_str(piece);
    }
    rendered
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_engine_gets_the_places_of_values_in_its_own_writing() {
        let mut query = QueryBuilder::new("INSERT INTO t (a, b) ");
        query.push_values([(1_i64, "x"), (2, "y")], |row, (a, b)| {
            row.push_bind(a).push_bind(b);
        });
        query.push(" RETURNING ").separated(", ").push("a").push("b").push_unseparated(";");
        let Text::Built(text) = query.build().text else { panic!("it is built") };
        assert_eq!(render(&text, Engine::Sqlite), "INSERT INTO t (a, b) VALUES (?, ?), (?, ?) RETURNING a, b;");
        assert_eq!(render(&text, Engine::Postgres), "INSERT INTO t (a, b) VALUES ($1, $2), ($3, $4) RETURNING a, b;");
    }
}
