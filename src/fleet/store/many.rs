//! Statements with many rows or values, in a few fixed sizes, so that they stay prepared.

use std::sync::OnceLock;

use super::sql::{Bind, PLACE, QueryBuilder};

/// Rows in one statement. A few fixed sizes keep the statements prepared; 512 rows of 32 values are below SQLite's
/// 32,766 placeholders.
pub(super) const CHUNKS: [usize; 4] = [512, 64, 8, 1];

/// The text of a statement with many rows of values, made once for each size of [`CHUNKS`].
pub(super) struct ManyRows {
    head: &'static str,
    /// One row; `{}` stands for a placeholder.
    row: &'static str,
    tail: &'static str,
    texts: [OnceLock<String>; CHUNKS.len()],
}

impl ManyRows {
    pub(super) const fn new(head: &'static str, row: &'static str, tail: &'static str) -> Self {
        Self { head, row, tail, texts: [const { OnceLock::new() }; CHUNKS.len()] }
    }

    /// The same for rows that a `SELECT` gives, without values of its own.
    pub(super) fn unfolded(&self, select: &str) -> String {
        let head = self.head.strip_suffix("VALUES ").unwrap_or(self.head);
        format!("{head}{select}{}", self.tail)
    }

    /// The statement that copies rows, in the binary format.
    pub(super) fn copied(&self) -> String {
        let head = self.head.strip_suffix(" VALUES ").unwrap_or(self.head);
        format!("COPY{} FROM STDIN (FORMAT binary)", head.strip_prefix("INSERT INTO").unwrap_or(head))
    }

    /// The largest chunk that fits into so many rows, and its statement with room for so many values a row.
    pub(super) fn of(&'static self, rows: usize, values: usize) -> (usize, QueryBuilder) {
        let at = CHUNKS.into_iter().position(|size| size <= rows).unwrap_or(CHUNKS.len() - 1);
        let text = self.texts[at].get_or_init(|| {
            let row = self.row.replace("{}", &PLACE.to_string());
            format!("{}{}{}", self.head, vec![row; CHUNKS[at]].join(", "), self.tail)
        });
        (CHUNKS[at], QueryBuilder::with_places(text, CHUNKS[at] * values))
    }
}

/// A statement for each chunk of values: `head`, then their list and a parenthesis.
pub(super) fn lists<V: Bind + Clone>(head: &str, mut values: &[V]) -> impl Iterator<Item = QueryBuilder> {
    std::iter::from_fn(move || {
        let size = CHUNKS.into_iter().find(|size| *size <= values.len())?;
        let (chunk, rest) = values.split_at(size);
        values = rest;
        let mut query = QueryBuilder::new(head);
        let mut list = query.separated(", ");
        for value in chunk {
            list.push_bind(value);
        }
        list.push_unseparated(")");
        Some(query)
    })
}
