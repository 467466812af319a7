//! PostgreSQL by its own tools, found on the path: `pg_dump`, `pg_restore`, `psql`. They know every version of the server up to
//! their own. Whether they are there and new enough is asked before anything is done.

use std::os::unix::fs::FileExt as _;
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
/// Who uses the database now.
const SERVERS: &str =
    "SELECT COUNT(*) FROM pg_stat_activity WHERE datname = current_database() AND application_name = 'r58 fleet'";
/// What `pg_restore` sets at the head of its script though older servers do not know it, and the first version that does.
const SET_BY_NEWER: (&[u8], u32) = (b"SET transaction_timeout = 0;", 17);
/// The head of a script, in bytes: well before the first row.
const HEAD: usize = 4096;
/// Empties what is there, in the transaction that fills it again; not while a server is at work.
const EMPTY: &str = "DO $$ DECLARE t RECORD; BEGIN
IF EXISTS (SELECT 1 FROM pg_stat_activity WHERE datname = current_database() AND application_name = 'r58 fleet') THEN
    RAISE EXCEPTION 'a fleet server runs on this database; stop every one of them first';
END IF;
FOR t IN SELECT c.oid::regclass AS name FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
    WHERE n.nspname = 'public' AND c.relkind IN ('r', 'p') AND NOT c.relispartition
LOOP EXECUTE 'DROP TABLE IF EXISTS ' || t.name || ' CASCADE'; END LOOP;
-- Those of an extension are its own, and stay with it.
FOR t IN SELECT p.oid::regprocedure AS name FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace
    WHERE n.nspname = 'public' AND NOT EXISTS (SELECT 1 FROM pg_depend d
        WHERE d.classid = 'pg_proc'::regclass AND d.objid = p.oid AND d.deptype = 'e')
LOOP EXECUTE 'DROP ROUTINE IF EXISTS ' || t.name || ' CASCADE'; END LOOP; END $$;
";

/// Writes a dump of the database in the tools' own form; answers with the version of its tables.
pub async fn dump(url: &str, password: Option<&Secret>, to: &Path) -> Result<i64> {
    let mut connection = connect(url, password).await?;
    let (schema,): (i64,) = sqlx::query_as(AssertSqlSafe(SCHEMA.to_owned()))
        .fetch_one(&mut connection)
        .await
        .context("the database is not one of a fleet server")?;
    let (server, ours) = (server_version(&mut connection).await?, version_of("pg_dump").await?);
    connection.close().await?;
    if ours < server {
        bail!(
            "pg_dump on the path is of version {ours}, the database server of {server}: install a client that is not older \
             (Debian: postgresql-client-{server}, if need be from apt.postgresql.org)"
        );
    }
    create_private(to)?;
    let mut command = tool("pg_dump", url, password)?;
    command.args(["--format=custom", "--no-owner", "--no-privileges", "--file"]).arg(to);
    run("pg_dump", command).await?;
    std::fs::File::open(to)?.sync_all()?;
    Ok(schema)
}

/// Refuses a database that is in use by a server, or that holds something unless it may be replaced; and a machine without the
/// tools.
pub async fn check(url: &str, password: Option<&Secret>, replace: bool) -> Result<()> {
    for name in ["pg_restore", "psql"] {
        version_of(name).await?;
    }
    let mut connection = connect(url, password).await?;
    let (servers,): (i64,) = sqlx::query_as(SERVERS).fetch_one(&mut connection).await?;
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

/// Puts a dump in the place of all that is there, in one transaction. Done again it comes to the same.
pub async fn restore(url: &str, password: Option<&Secret>, dump: &Path, work: &Path) -> Result<()> {
    let script = work.join("restore.sql");
    create_private(&script)?;
    let mut read = Command::new("pg_restore");
    read.args(["--no-owner", "--no-privileges", "--no-comments", "--file"]).arg(&script).arg(dump);
    run("pg_restore", read).await.map_err(|error| match error.to_string().contains("unsupported version") {
        true => error.context(
            "the back-up was made by a newer pg_dump than the pg_restore here; install a client as new as that one was",
        ),
        false => error,
    })?;
    let mut connection = connect(url, password).await?;
    let server = server_version(&mut connection).await?;
    connection.close().await?;
    if server < SET_BY_NEWER.1 {
        blank(&script, SET_BY_NEWER.0)?;
    }
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

/// Overwrites a line at the head of a script with spaces.
fn blank(script: &Path, line: &[u8]) -> Result<()> {
    let file = std::fs::File::options().read(true).write(true).open(script)?;
    let mut head = vec![0; HEAD];
    let length = file.read_at(&mut head, 0)?;
    if let Some(at) = head[..length].windows(line.len()).position(|found| found == line) {
        file.write_all_at(&vec![b' '; line.len()], at as u64)?;
    }
    Ok(())
}

/// Major version of the server.
async fn server_version(connection: &mut PgConnection) -> Result<u32> {
    let (number,): (String,) =
        sqlx::query_as("SELECT current_setting('server_version_num')").fetch_one(connection).await?;
    Ok(number.parse::<u32>().context("the database server's version")? / 10_000)
}

/// Major version of a tool.
async fn version_of(name: &str) -> Result<u32> {
    let mut command = Command::new(name);
    command.arg("--version").stdin(Stdio::null()).stderr(Stdio::null()).kill_on_drop(true);
    let said = match command.output().await {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            bail!("{name} is not on the path (Debian: postgresql-client, not older than the server)")
        }
        ran => ran.with_context(|| format!("cannot run {name}"))?.stdout,
    };
    let said = String::from_utf8_lossy(&said);
    major(&said).with_context(|| format!("{name} does not tell its version: {:?}", said.trim()))
}

/// `pg_dump (PostgreSQL) 15.14 (Debian 15.14-0+deb12u1)`, `psql (PostgreSQL) 17beta1`.
fn major(said: &str) -> Option<u32> {
    let number = said.split_whitespace().find(|word| word.starts_with(|first: char| first.is_ascii_digit()))?;
    number.split(|other: char| !other.is_ascii_digit()).next()?.parse().ok()
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
    let ran = command.output().await.with_context(|| format!("cannot run {name}"))?;
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

    #[test]
    fn a_tools_version_is_read_as_every_distribution_writes_it() {
        for (said, version) in [
            ("pg_dump (PostgreSQL) 15.14 (Debian 15.14-0+deb12u1)\n", Some(15)),
            ("psql (PostgreSQL) 17beta1", Some(17)),
            ("pg_restore (PostgreSQL) 9.6.24", Some(9)),
            ("something else", None),
            ("", None),
        ] {
            assert_eq!(major(said), version, "{said:?}");
        }
    }

    #[test]
    fn what_an_older_server_does_not_know_is_not_set_and_rows_are_not_touched() {
        let dir = tempfile::tempdir().unwrap();
        let script = dir.path().join("script");
        let rows = format!("{}SET transaction_timeout = 0;\n", "COPY\n".repeat(HEAD));
        std::fs::write(&script, format!("SET lock_timeout = 0;\nSET transaction_timeout = 0;\n{rows}")).unwrap();
        for _ in 0..2 {
            blank(&script, SET_BY_NEWER.0).unwrap();
        }
        let spaces = " ".repeat(SET_BY_NEWER.0.len());
        assert_eq!(std::fs::read_to_string(&script).unwrap(), format!("SET lock_timeout = 0;\n{spaces}\n{rows}"));
    }
}
