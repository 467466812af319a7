//! The two engines behind one way to write statements.
//!
//! [`query`], [`query_as`] and [`QueryBuilder`] read like sqlx's own and take a [`Pool`] or a [`Tx`] of either engine; rows
//! are what `sqlx::FromRow` makes of them. What differs is named here and nowhere else:
//!
//! * [`QueryAs::for_update`] and [`Tx::alone`] say what SQLite's only writer gives for free and PostgreSQL has to be asked for.
//! * [`Conn::postgres`] hands the connection out for what only PostgreSQL has (arrays, advisory locks).
//!
//! **Why not `sqlx::Any`.** It would be less code, and was looked at first. Its `QueryBuilder` writes `?`, which PostgreSQL
//! does not understand; it has no arrays, so no `unnest`, and hands out no connection of the engine, so no `COPY` and no
//! `LISTEN`; and each row is copied into a row of its own kind before it is read. The pieces that ingest lives from would
//! have been native beside it anyway.

mod builder;
mod told;
mod value;

use std::ops::{Deref, DerefMut};

use sqlx::postgres::{PgConnection, PgRow};
use sqlx::sqlite::SqliteRow;
use sqlx::{AssertSqlSafe, FromRow, Postgres, SqlSafeStr, SqlStr, Sqlite};

pub(crate) use self::builder::QueryBuilder;
pub(crate) use self::told::{Changes, Told};
pub(crate) use self::value::{Bind, Value};

/// Stands in a statement's text where a value goes, until the engine is known. No statement of ours holds it otherwise.
pub(super) const PLACE: char = '\u{1a}';

/// Which engine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Engine {
    /// A file.
    Sqlite,
    /// A server.
    Postgres,
}

/// Connections to either engine. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) enum Pool {
    /// A file.
    Sqlite(sqlx::Pool<Sqlite>),
    /// A server.
    Postgres(sqlx::Pool<Postgres>),
}

impl Pool {
    /// Begins a transaction.
    pub async fn begin(&self) -> Result<Tx, sqlx::Error> {
        let conn = match self {
            Self::Sqlite(pool) => Conn::Sqlite(pool.begin().await?),
            Self::Postgres(pool) => Conn::Postgres(pool.begin().await?),
        };
        Ok(Tx { conn, changes: Changes::default(), told: Told::default() })
    }

    /// Which engine.
    pub fn engine(&self) -> Engine {
        match self {
            Self::Sqlite(_) => Engine::Sqlite,
            Self::Postgres(_) => Engine::Postgres,
        }
    }

    /// Waits for statements under way and closes every connection.
    pub async fn close(&self) {
        match self {
            Self::Sqlite(pool) => pool.close().await,
            Self::Postgres(pool) => pool.close().await,
        }
    }
}

/// A connection inside a transaction.
pub(crate) enum Conn {
    /// Of a file.
    Sqlite(sqlx::Transaction<'static, Sqlite>),
    /// Of a server.
    Postgres(sqlx::Transaction<'static, Postgres>),
}

impl Conn {
    /// The connection itself, if it is PostgreSQL's.
    pub fn postgres(&mut self) -> Option<&mut PgConnection> {
        match self {
            Self::Sqlite(_) => None,
            Self::Postgres(tx) => Some(&mut **tx),
        }
    }
}

/// A transaction; undone unless it is committed.
pub(crate) struct Tx {
    conn: Conn,
    changes: Changes,
    told: Told,
}

impl Tx {
    /// Will tell there of what was noted in it, once it is made to last.
    pub fn telling(mut self, told: &Told) -> Self {
        self.told = told.clone();
        self
    }

    /// Notes that something of this `kind` changed in an organization.
    pub fn changed(&mut self, org: &str, kind: &str) {
        self.changes.insert((org.to_owned(), kind.to_owned()));
    }

    /// Makes it last.
    pub async fn commit(self) -> Result<(), sqlx::Error> {
        match self.conn {
            Conn::Sqlite(tx) => tx.commit().await?,
            Conn::Postgres(tx) => tx.commit().await?,
        }
        self.told.tell(self.changes);
        Ok(())
    }

    /// Undoes it.
    pub async fn rollback(self) -> Result<(), sqlx::Error> {
        match self.conn {
            Conn::Sqlite(tx) => tx.rollback().await,
            Conn::Postgres(tx) => tx.rollback().await,
        }
    }

    /// From here to its end no other transaction passes the same point with the same `key`: for what is read, found missing
    /// and then written, where there is no row yet that could be locked. SQLite has one writer anyway.
    pub async fn alone(&mut self, what: &str, key: &str) -> Result<(), sqlx::Error> {
        if let Some(connection) = self.postgres() {
            sqlx::query("SELECT pg_advisory_xact_lock(hashtextextended($1, 0))")
                .bind(format!("{what}/{key}"))
                .execute(connection)
                .await?;
        }
        Ok(())
    }
}

impl Deref for Tx {
    type Target = Conn;

    fn deref(&self) -> &Conn {
        &self.conn
    }
}

impl DerefMut for Tx {
    fn deref_mut(&mut self) -> &mut Conn {
        &mut self.conn
    }
}

/// Where a statement runs.
pub(crate) enum On<'c> {
    /// On any connection.
    Pool(&'c Pool),
    /// Inside a transaction.
    Conn(&'c mut Conn),
}

impl<'c> From<&'c Pool> for On<'c> {
    fn from(pool: &'c Pool) -> Self {
        Self::Pool(pool)
    }
}

impl<'c> From<&'c mut Conn> for On<'c> {
    fn from(conn: &'c mut Conn) -> Self {
        Self::Conn(conn)
    }
}

impl On<'_> {
    fn engine(&self) -> Engine {
        match self {
            Self::Pool(pool) => pool.engine(),
            Self::Conn(Conn::Sqlite(_)) => Engine::Sqlite,
            Self::Conn(Conn::Postgres(_)) => Engine::Postgres,
        }
    }
}

/// A row that both engines can give.
pub(crate) trait Row: for<'r> FromRow<'r, SqliteRow> + for<'r> FromRow<'r, PgRow> + Send + Unpin {}

impl<T> Row for T where T: for<'r> FromRow<'r, SqliteRow> + for<'r> FromRow<'r, PgRow> + Send + Unpin {}

/// What a statement did.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Done(u64);

impl Done {
    /// Rows that it inserted, changed or deleted.
    pub fn rows_affected(self) -> u64 {
        self.0
    }
}

/// The text of a statement.
enum Text {
    /// As written, with `$1`.
    Static(&'static str),
    /// Put together, with [`PLACE`].
    Built(String),
}

/// A statement and its values.
#[must_use = "a query must be run to do anything"]
pub(crate) struct Query {
    text: Text,
    values: Vec<Value>,
    lock: bool,
}

/// A statement without rows.
pub(crate) fn query(sql: &'static str) -> Query {
    Query { text: Text::Static(sql), values: Vec::new(), lock: false }
}

/// A statement that answers with rows of `O`.
pub(crate) fn query_as<O: Row>(sql: &'static str) -> QueryAs<O> {
    QueryAs { query: query(sql), row: std::marker::PhantomData }
}

/// Runs a statement on whichever engine: `$run` is sqlx's method, `$make` sqlx's function with its types.
macro_rules! run {
    ($on:expr, $query:expr, $make:ident::<$row:ty>, $run:ident) => {{
        let (on, query) = ($on, $query);
        let text = query.text(on.engine());
        match on {
            On::Pool(Pool::Sqlite(pool)) => {
                value::bind_all!(sqlx::$make::<Sqlite, $row>(text), query.values).$run(pool).await
            }
            On::Conn(Conn::Sqlite(tx)) => {
                value::bind_all!(sqlx::$make::<Sqlite, $row>(text), query.values).$run(&mut **tx).await
            }
            On::Pool(Pool::Postgres(pool)) => {
                value::bind_all!(sqlx::$make::<Postgres, $row>(text), query.values).$run(pool).await
            }
            On::Conn(Conn::Postgres(tx)) => {
                value::bind_all!(sqlx::$make::<Postgres, $row>(text), query.values).$run(&mut **tx).await
            }
        }
    }};
}

impl Query {
    /// Gives the next value.
    pub fn bind(mut self, value: impl Bind) -> Self {
        self.values.push(value.value());
        self
    }

    /// Runs it.
    pub async fn execute<'c>(self, on: impl Into<On<'c>>) -> Result<Done, sqlx::Error> {
        let on: On<'c> = on.into();
        let text = self.text(on.engine());
        Ok(Done(match on {
            On::Pool(Pool::Sqlite(pool)) => {
                value::bind_all!(sqlx::query::<Sqlite>(text), self.values).execute(pool).await?.rows_affected()
            }
            On::Conn(Conn::Sqlite(tx)) => {
                value::bind_all!(sqlx::query::<Sqlite>(text), self.values).execute(&mut **tx).await?.rows_affected()
            }
            On::Pool(Pool::Postgres(pool)) => {
                value::bind_all!(sqlx::query::<Postgres>(text), self.values).execute(pool).await?.rows_affected()
            }
            On::Conn(Conn::Postgres(tx)) => {
                value::bind_all!(sqlx::query::<Postgres>(text), self.values).execute(&mut **tx).await?.rows_affected()
            }
        }))
    }

    /// The text as the engine wants it.
    fn text(&self, engine: Engine) -> SqlStr {
        let lock = self.lock && engine == Engine::Postgres;
        match &self.text {
            Text::Static(text) if !lock => text.into_sql_str(),
            Text::Static(text) => AssertSqlSafe(format!("{text} FOR UPDATE")).into_sql_str(),
            Text::Built(text) => {
                let mut rendered = builder::render(text, engine);
                rendered.push_str(if lock { " FOR UPDATE" } else { "" });
                AssertSqlSafe(rendered).into_sql_str()
            }
        }
    }
}

/// A statement that answers with rows of `O`.
#[must_use = "a query must be run to do anything"]
pub(crate) struct QueryAs<O> {
    query: Query,
    row: std::marker::PhantomData<fn() -> O>,
}

impl<O: Row> QueryAs<O> {
    /// Gives the next value.
    pub fn bind(mut self, value: impl Bind) -> Self {
        self.query.values.push(value.value());
        self
    }

    /// Locks the rows that are read until the transaction ends, and waits for whoever holds them: for what is read to decide
    /// what is written. The statement must end where `FOR UPDATE` may follow, and read one table.
    pub fn for_update(mut self) -> Self {
        self.query.lock = true;
        self
    }

    /// The only row, or the first.
    pub async fn fetch_one<'c>(self, on: impl Into<On<'c>>) -> Result<O, sqlx::Error> {
        let on: On<'c> = on.into();
        run!(on, self.query, query_as::<O>, fetch_one)
    }

    /// The first row, if there is one.
    pub async fn fetch_optional<'c>(self, on: impl Into<On<'c>>) -> Result<Option<O>, sqlx::Error> {
        let on: On<'c> = on.into();
        run!(on, self.query, query_as::<O>, fetch_optional)
    }

    /// Every row.
    pub async fn fetch_all<'c>(self, on: impl Into<On<'c>>) -> Result<Vec<O>, sqlx::Error> {
        let on: On<'c> = on.into();
        run!(on, self.query, query_as::<O>, fetch_all)
    }
}
