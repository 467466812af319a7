//! PostgreSQL by its own tools, found on the path: `pg_dump`, `pg_restore`, `psql`. They know every version of the server up to
//! their own, and say so when it is newer.

use std::path::Path;
use std::process::Stdio;

use anyhow::{Context as _, Result, anyhow, bail};
use r58_actors::fleet_link::identity::Secret;
use sqlx::postgres::{PgConnectOptions, PgConnection};
use sqlx::{AssertSqlSafe, ConnectOptions as _, Connection as _};
use tokio::io::AsyncWriteExt as _;
use tokio::process::Command;

use super::{SCHEMA, create_private};

/// Parameters of a URL that are called otherwise by the tools, and ones that they do not know.
const PARAMETERS: [(&str, Option<&str>); 6] = [
    ("ssl-mode", Some("sslmode")),
    ("ssl-root-cert", Some("sslrootcert")),
    ("ssl-ca", Some("sslrootcert")),
    ("ssl-cert", Some("sslcert")),
    ("ssl-key", Some("sslkey")),
    ("statement-cache-capacity", None),
];
/// Empties what is there, in the transaction that fills it again.
const EMPTY: &str = "DO $$ DECLARE t RECORD; BEGIN
FOR t IN SELECT c.oid::regclass AS name FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
    WHERE n.nspname = 'public' AND c.relkind IN ('r', 'p') AND NOT c.relispartition
LOOP EXECUTE 'DROP TABLE IF EXISTS ' || t.name || ' CASCADE'; END LOOP; END $$;
";

/// Writes a dump of the database in the tools' own form; answers with the version of its tables.
pub async fn dump(url: &str, password: Option<&Secret>, to: &Path) -> Result<i64> {
    let mut connection = connect(url, password).await?;
    let (schema,): (i64,) = sqlx::query_as(AssertSqlSafe(SCHEMA.to_owned()))
        .fetch_one(&mut connection)
        .await
        .context("the database is not one of a fleet server")?;
    connection.close().await?;
    create_private(to)?;
    let mut command = tool("pg_dump", url, password)?;
    command.args(["--format=custom", "--no-owner", "--no-privileges", "--file"]).arg(to);
    run("pg_dump", command).await?;
    std::fs::File::open(to)?.sync_all()?;
    Ok(schema)
}

/// Refuses a database that is in use by a server, or that holds something unless it may be replaced.
pub async fn check(url: &str, password: Option<&Secret>, replace: bool) -> Result<()> {
    let mut connection = connect(url, password).await?;
    let (servers,): (i64,) = sqlx::query_as(
        "SELECT COUNT(*) FROM pg_stat_activity WHERE datname = current_database() AND application_name = 'r58 fleet'",
    )
    .fetch_one(&mut connection)
    .await?;
    if servers > 0 {
        bail!("a fleet server runs on this database; stop every one of them first");
    }
    let (tables,): (i64,) =
        sqlx::query_as("SELECT COUNT(*) FROM pg_tables WHERE schemaname = 'public'").fetch_one(&mut connection).await?;
    connection.close().await?;
    if tables > 0 && !replace {
        bail!("the database is not empty; --replace replaces all that is in it");
    }
    Ok(())
}

/// Puts a dump in the place of all that is there, in one transaction.
pub async fn restore(url: &str, password: Option<&Secret>, dump: &Path, work: &Path) -> Result<()> {
    let script = work.join("restore.sql");
    create_private(&script)?;
    let mut read = Command::new("pg_restore");
    read.args(["--no-owner", "--no-privileges", "--no-comments", "--file"]).arg(&script).arg(dump);
    run("pg_restore", read).await?;
    let empty = work.join("empty.sql");
    tokio::fs::File::create(&empty).await?.write_all(EMPTY.as_bytes()).await?;
    let mut write = tool("psql", url, password)?;
    write.args(["--no-psqlrc", "--quiet", "--single-transaction", "--set=ON_ERROR_STOP=1", "--output=/dev/null"]);
    write.arg("--file").arg(&empty).arg("--file").arg(&script);
    let done = run("psql", write).await;
    // They are as secret as the database.
    for file in [script, empty] {
        std::fs::remove_file(file)?;
    }
    done
}

async fn connect(url: &str, password: Option<&Secret>) -> Result<PgConnection> {
    let options: PgConnectOptions = url.parse().map_err(|_| anyhow!("database_url is not understood"))?;
    let options = match password {
        Some(password) => options.password(password.expose()),
        None => options,
    };
    let options = options.application_name("r58 backup").disable_statement_logging();
    options.connect().await.context("the database cannot be reached")
}

/// A tool with the database that it is for. The password is in its environment: everybody reads command lines.
fn tool(name: &str, url: &str, password: Option<&Secret>) -> Result<Command> {
    let (dbname, in_url) = translated(url)?;
    let mut command = Command::new(name);
    command.arg("--dbname").arg(dbname).env("PGAPPNAME", "r58 backup");
    if let Some(password) = password.map(|password| password.expose().to_owned()).or(in_url) {
        command.env("PGPASSWORD", password);
    }
    Ok(command)
}

/// The URL as the tools understand it, without its password, and that.
fn translated(url: &str) -> Result<(String, Option<String>)> {
    let not_understood = || anyhow!("database_url is not understood");
    let mut url: reqwest::Url = url.parse().map_err(|_| not_understood())?;
    let password = url.password().map(|encoded| {
        // A query decodes percent signs as well; only its plus signs mean something else.
        let query = format!("x:?p={}", encoded.replace('+', "%2B"));
        let pairs = reqwest::Url::parse(&query).ok();
        pairs.and_then(|url| Some(url.query_pairs().next()?.1.into_owned())).unwrap_or_default()
    });
    url.set_password(None).map_err(|()| not_understood())?;
    let pairs: Vec<(String, String)> = url.query_pairs().into_owned().collect();
    url.set_query(None);
    for (name, value) in pairs {
        let known = PARAMETERS.iter().find(|(theirs, _)| *theirs == name);
        if let Some(name) = known.map_or(Some(name.as_str()), |(_, ours)| *ours) {
            url.query_pairs_mut().append_pair(name, &value);
        }
    }
    // The tools do not know a plus sign as a space.
    Ok((url.as_str().replace('+', "%20"), password))
}

async fn run(name: &str, mut command: Command) -> Result<()> {
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped()).kill_on_drop(true);
    let ran = match command.output().await {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            bail!("{name} is not on the path (Debian: postgresql-client, not older than the server)")
        }
        ran => ran.with_context(|| format!("cannot run {name}"))?,
    };
    if !ran.status.success() {
        bail!("{name}: {}", String::from_utf8_lossy(&ran.stderr).trim());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tools_get_a_url_that_they_understand_and_no_password() {
        let (url, password) =
            translated("postgres://r58:p%40ss+w@db.example/r58?ssl-mode=verify-full&statement-cache-capacity=3")
                .unwrap();
        assert_eq!(
            (url.as_str(), password.as_deref()),
            ("postgres://r58@db.example/r58?sslmode=verify-full", Some("p@ss+w"))
        );
        let (url, password) = translated("postgres://r58@localhost/a?host=/tmp/a%20b").unwrap();
        assert_eq!((url.as_str(), password), ("postgres://r58@localhost/a?host=%2Ftmp%2Fa%20b", None));
    }
}
