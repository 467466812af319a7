//! A PostgreSQL of one's own: made by `initdb` in a directory of its own, reached by a socket there, gone with its owner.
//!
//! Debian's package starts a cluster by itself; this neither needs nor touches it. PostgreSQL does not run as root, so there
//! it runs as `nobody`.

use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use sqlx::{AssertSqlSafe, Connection as _, PgConnection};
use tempfile::TempDir;

/// Debian's user without rights.
const NOBODY: u32 = 65_534;
/// The second disk's directory.
const SMALL: &str = "small";
/// A loaded machine takes some seconds to make a cluster.
const PATIENCE: Duration = Duration::from_secs(60);
/// Little memory and no care for a power cut: of the tests' servers there are many, and none outlives its test.
const FOR_TESTS: &str = "-c fsync=off -c full_page_writes=off -c shared_buffers=32MB -c max_wal_size=256MB \
                         -c autovacuum_naptime=10s";
/// Stays beside the server, ends it once the owner's end of the pipe is closed (however the owner ended) and removes its files.
const GUARD: &str = r#"
bin=$1; dir=$2; port=$3; settings=$4
if [ -e "$dir/server.key" ]; then
    auth="--auth-local=trust --auth-host=scram-sha-256 --pwfile=$dir/password"
    listen="-c listen_addresses=127.0.0.1 -c ssl=on -c ssl_cert_file=$dir/server.pem -c ssl_key_file=$dir/server.key"
else
    auth="-A trust"; listen="-c listen_addresses="
fi
"$bin/initdb" -D "$dir/data" -U r58 $auth -E UTF8 --locale=C.UTF-8 --no-sync >"$dir/initdb.log" 2>&1 || exit 1
while read -r word; do
    case "$word" in
    start)
        "$bin/postgres" -D "$dir/data" -k "$dir" -p "$port" $listen -c max_connections=200 $settings \
            >>"$dir/server.log" 2>&1 </dev/null &
        server=$! ;;
    kill) kill -QUIT "$server"; wait "$server" ;;
    esac
done
kill -INT "$server"; wait "$server"; cd /; rm -rf "$dir"
"#;

/// A running server; ended when dropped, or with the process.
pub struct Postgres {
    guard: Child,
    dir: TempDir,
    port: u16,
    databases: AtomicU32,
}

impl Postgres {
    /// Makes one and waits until it answers.
    pub async fn start() -> Self {
        Self::start_with(5432, |_| {}).await
    }

    /// One with the settings that it is shipped with, for measurements.
    pub async fn start_as_shipped() -> Self {
        Self::start_by(by_shell(), true, "", 5432, |_| {}).await
    }

    /// One that is also reached by TLS and password, on a port of 127.0.0.1.
    pub async fn start_with_tls(port: u16, (cert, key): (&Path, &Path), password: &str) -> Self {
        Self::start_with(port, |dir| {
            std::fs::copy(cert, dir.join("server.pem")).expect("the certificate");
            std::fs::copy(key, dir.join("server.key")).expect("its key");
            std::fs::write(dir.join("password"), password).expect("the password");
        })
        .await
    }

    /// One with a second disk of so many megabytes, that only it sees; for root alone.
    pub async fn start_with_small_disk(megabytes: u32) -> Self {
        let mut command = Command::new("unshare");
        let mount =
            format!("mount -t tmpfs -o size={megabytes}m,mode=0700,uid={NOBODY},gid={NOBODY} small \"$2/{SMALL}\"");
        let nobody = format!("--reuid={NOBODY} --regid={NOBODY} --clear-groups");
        let script = format!("{mount} && exec setpriv {nobody} sh -c \"$GUARD\" guard \"$@\"");
        command.args(["--mount", "sh", "-c", &script, "guard"]).env("GUARD", GUARD);
        Self::start_by(command, false, FOR_TESTS, 5432, |dir| {
            std::fs::create_dir(dir.join(SMALL)).expect("a directory")
        })
        .await
    }

    /// Where its second disk is, for a test that is root.
    pub fn small_disk(&self) -> PathBuf {
        let inside = self.dir.path().strip_prefix("/").expect("an absolute path");
        PathBuf::from(format!("/proc/{}/root", self.guard.id())).join(inside).join(SMALL)
    }

    /// An empty database on the second disk; its URL.
    pub async fn database_on_small_disk(&self) -> String {
        let place = self.small_disk().join("tables");
        std::fs::create_dir(&place).expect("a directory");
        std::os::unix::fs::chown(&place, Some(NOBODY), Some(NOBODY)).expect("a directory for nobody");
        let mut connection = self.connect().await.expect("a connection");
        let seen = self.dir.path().join(SMALL).join("tables");
        for sql in [
            format!("CREATE TABLESPACE small LOCATION '{}'", seen.display()),
            "CREATE DATABASE small TABLESPACE small".to_owned(),
        ] {
            sqlx::query(AssertSqlSafe(sql)).execute(&mut connection).await.expect("a database");
        }
        connection.close().await.expect("an orderly end");
        self.url("small")
    }

    async fn start_with(port: u16, lay_out: impl FnOnce(&Path)) -> Self {
        Self::start_by(by_shell(), true, FOR_TESTS, port, lay_out).await
    }

    /// `command` takes programs, directory, port and settings, and runs the guard; as nobody, if it does not see to that itself.
    async fn start_by(
        mut command: Command,
        as_nobody: bool,
        settings: &str,
        port: u16,
        lay_out: impl FnOnce(&Path),
    ) -> Self {
        let dir = tempfile::Builder::new().prefix("r58-pg").tempdir().expect("a directory");
        lay_out(dir.path());
        command.arg(programs()).arg(dir.path()).arg(port.to_string()).arg(settings);
        command.current_dir(dir.path());
        command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null()).process_group(0);
        if nix::unistd::geteuid().is_root() {
            let files = std::fs::read_dir(dir.path()).expect("its files").flatten().map(|file| file.path());
            for path in files.chain([dir.path().to_owned()]) {
                std::os::unix::fs::chown(path, Some(NOBODY), Some(NOBODY)).expect("a directory for nobody");
            }
            if as_nobody {
                command.uid(NOBODY).gid(NOBODY);
            }
        }
        std::fs::set_permissions(dir.path(), std::fs::Permissions::from_mode(0o700)).expect("rights");
        let guard = command.spawn().expect("a shell");
        let mut server = Self { guard, dir, port, databases: AtomicU32::new(0) };
        server.say("start");
        server.answers().await;
        server
    }

    /// The one of this test binary, made when it is first asked for.
    pub async fn shared() -> &'static Self {
        static SHARED: OnceLock<Postgres> = OnceLock::new();
        static MAKING: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());
        let _one_at_a_time = MAKING.lock().await;
        if SHARED.get().is_none() {
            let _ = SHARED.set(Self::start().await);
        }
        SHARED.get().expect("it was made just now")
    }

    /// An empty database of its own; its URL.
    pub async fn database(&self) -> String {
        self.database_like(&self.url("template1")).await
    }

    /// A database that holds what another one does, which nobody uses meanwhile; its URL.
    pub async fn database_like(&self, url: &str) -> String {
        let other = url.split('?').next().and_then(|place| place.rsplit('/').next()).expect("the name of a database");
        let name = format!("test{}", self.databases.fetch_add(1, Ordering::Relaxed));
        let mut connection = self.connect().await.expect("a connection");
        let sql = format!("CREATE DATABASE {name} TEMPLATE {other}");
        sqlx::query(AssertSqlSafe(sql)).execute(&mut connection).await.expect("a database");
        connection.close().await.expect("an orderly end");
        self.url(&name)
    }

    /// Ends it as a crash would, without a word to anybody, and waits for it.
    pub fn kill(&mut self) {
        self.say("kill");
    }

    /// Starts it again.
    pub async fn start_again(&mut self) {
        self.say("start");
        self.answers().await;
    }

    fn url(&self, database: &str) -> String {
        format!("postgres://r58@localhost:{}/{database}?host={}", self.port, self.dir.path().display())
    }

    /// The address of a database for whoever comes by TLS and believes this authority.
    pub fn tls_url(&self, database: &str, ca: &Path) -> String {
        format!("postgres://r58@127.0.0.1:{}/{database}?sslmode=verify-full&sslrootcert={}", self.port, ca.display())
    }

    async fn connect(&self) -> Result<PgConnection, sqlx::Error> {
        PgConnection::connect(&self.url("postgres")).await
    }

    fn say(&mut self, word: &str) {
        let pipe = self.guard.stdin.as_mut().expect("its pipe");
        writeln!(pipe, "{word}").expect("the guard listens");
    }

    async fn answers(&mut self) {
        let begin = Instant::now();
        loop {
            let refused = match self.connect().await {
                Ok(connection) => return drop(connection),
                Err(error) => error,
            };
            let log = |name: &str| std::fs::read_to_string(self.dir.path().join(name)).unwrap_or_default();
            let logs = || format!("{refused}\n{}\n{}", log("initdb.log"), log("server.log"));
            assert!(matches!(self.guard.try_wait(), Ok(None)), "PostgreSQL could not be made: {}", logs());
            assert!(begin.elapsed() < PATIENCE, "PostgreSQL does not answer: {}", logs());
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        drop(self.guard.stdin.take());
        let _ = self.guard.wait();
    }
}

fn by_shell() -> Command {
    let mut command = Command::new("sh");
    command.args(["-c", GUARD, "guard"]);
    command
}

/// Where the server's programs lie: Debian keeps them out of the path, by version.
fn programs() -> PathBuf {
    let versions = std::fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    let newest = versions.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok()).max();
    let path =
        newest.map_or_else(|| Path::new("/usr/bin").into(), |n| PathBuf::from(format!("/usr/lib/postgresql/{n}/bin")));
    assert!(path.join("initdb").exists(), "postgresql is installed");
    path
}
