//! A real PostgreSQL in a temporary directory, for the ledger of many servers.

use std::fs;
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use super::network::listen;
use super::process::{kill, wait_for};
use super::{hermetic, output_text, ran, skipped};

/// The role that owns the tables, and the one that the program uses.
pub const OWNER: &str = "owner";
pub const ROLE: &str = "rally_hook";

/// A database server with an empty database, until it is dropped.
pub struct Postgres {
    dir: tempfile::TempDir,
    bin: PathBuf,
    pub port: u16,
}

impl Postgres {
    /// Starts one. `None` where PostgreSQL is not installed, which is said; with `RALLY_HOOK_TEST_ALL` the test fails then.
    pub fn start() -> Option<Self> {
        Postgres::start_with(&[])
    }

    /// Starts one with these settings.
    pub fn start_with(settings: &[&str]) -> Option<Self> {
        let bin = bin()?;
        let dir = tempfile::tempdir().expect("a directory");
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).expect("it is ours");
        let (listener, _) = listen();
        let port = listener.local_addr().expect("it is bound").port();
        // It cannot choose a free port itself.
        drop(listener);
        let postgres = Postgres { dir, bin, port };
        let mut own = Command::new("chown");
        own.arg("postgres").arg(postgres.dir.path());
        // Another user than root is the one that it runs as.
        let _ = ran(own);
        let mut init = postgres.command("initdb");
        init.args(["--no-sync", "--auth=trust", "--encoding=UTF8", "--locale=C", "--username", OWNER, "--pgdata"]);
        output_text(
            {
                init.arg(postgres.data());
                init
            },
            b"",
        );
        postgres.configure(settings);
        postgres.up();
        postgres.sql_in("postgres", &format!("CREATE ROLE {ROLE} LOGIN"));
        postgres.sql_in("postgres", "CREATE DATABASE ledger");
        Some(postgres)
    }

    /// Starts a standby that follows another server, which does not wait for it.
    pub fn standby_of(primary: &Postgres) -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).expect("it is ours");
        let mut own = Command::new("chown");
        own.arg("postgres").arg(dir.path());
        let _ = ran(own);
        let (listener, _) = listen();
        let port = listener.local_addr().expect("it is bound").port();
        drop(listener);
        let standby = Postgres { dir, bin: primary.bin.clone(), port };
        let mut copy = standby.command("pg_basebackup");
        copy.args(["--write-recovery-conf", "--no-sync", "--checkpoint=fast", "--host=127.0.0.1", "--username", OWNER]);
        copy.args(["--port", &primary.port.to_string(), "--pgdata"]).arg(standby.data());
        output_text(copy, b"");
        standby.configure(&[]);
        standby.up();
        standby
    }

    /// Makes a standby the one that may be written to.
    pub fn promote(&self) {
        output_text(self.control(&["--wait", "--silent", "promote"]), b"");
    }

    /// Adds lines to the settings; they count from the next start on.
    pub fn configure(&self, lines: &[&str]) {
        let file = self.data().join("postgresql.conf");
        let text = fs::read_to_string(&file).expect("it is there");
        let socket = format!("unix_socket_directories = '{}'", self.dir.path().display());
        let usual = ["fsync = off", "listen_addresses = '127.0.0.1'", &socket];
        fs::write(&file, format!("{text}\n{}\n{}\n", usual.join("\n"), lines.join("\n"))).expect("it can be written");
    }

    /// Returns the address of the database for the program's role.
    pub fn url(&self) -> String {
        self.url_for(ROLE)
    }

    pub fn url_for(&self, role: &str) -> String {
        format!("postgres://{role}@127.0.0.1:{}/ledger", self.port)
    }

    pub fn data(&self) -> PathBuf {
        self.dir.path().join("data")
    }

    /// Starts the server again.
    pub fn up(&self) {
        output_text(self.control(&["--wait", "--timeout=60", "--silent", "--log", &self.log(), "start"]), b"");
    }

    /// Ends the server, without any care for what it is at work on.
    pub fn down(&self) {
        ran(self.control(&["--wait", "--mode=immediate", "--silent", "stop"]));
    }

    pub fn restart(&self) {
        self.down();
        self.up();
    }

    fn log(&self) -> String {
        self.dir.path().join("log").display().to_string()
    }

    fn control(&self, arguments: &[&str]) -> Command {
        let mut command = self.command("pg_ctl");
        let options = format!("-p {}", self.port);
        command.args(arguments).args(["--options", &options, "--pgdata"]).arg(self.data());
        // The server keeps what it is given open.
        command.stdin(Stdio::null()).stderr(Stdio::null());
        command
    }

    /// Returns the answer to a statement that the owner of the tables sends, a row a line.
    pub fn sql(&self, statement: &str) -> String {
        self.sql_in("ledger", statement)
    }

    pub fn sql_in(&self, database: &str, statement: &str) -> String {
        let mut psql = self.client("psql");
        psql.args(["--no-psqlrc", "--quiet", "--tuples-only", "--no-align", "--set=ON_ERROR_STOP=1"]);
        psql.args(["--command", statement, database]);
        output_text(psql, b"").trim_end().to_owned()
    }

    /// Returns all that the database holds, as text.
    pub fn dump(&self) -> String {
        let mut dump = self.client("pg_dump");
        dump.arg("ledger");
        output_text(dump, b"")
    }

    /// Replaces the database by what was dumped.
    pub fn restore(&self, dump: &str) {
        self.sql_in("postgres", "DROP DATABASE ledger WITH (FORCE)");
        self.sql_in("postgres", "CREATE DATABASE ledger");
        let mut psql = self.client("psql");
        psql.args(["--no-psqlrc", "--quiet", "--set=ON_ERROR_STOP=1", "--output=/dev/null", "ledger"]);
        output_text(psql, dump.as_bytes());
    }

    fn client(&self, program: &str) -> Command {
        let mut command = hermetic(self.bin.join(program));
        command.env("PGHOST", "127.0.0.1").env("PGPORT", self.port.to_string()).env("PGUSER", OWNER);
        command
    }

    /// Returns a command of the server's, as the user that it runs as: it refuses root.
    pub fn command(&self, program: &str) -> Command {
        as_postgres(&self.bin.join(program), self.dir.path())
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        self.down();
    }
}

fn as_postgres(program: &Path, dir: &Path) -> Command {
    // SAFETY: geteuid takes nothing.
    let is_root = unsafe { libc::geteuid() } == 0;
    let mut command = if is_root {
        let mut command = hermetic("setpriv");
        command.args(["--reuid=postgres", "--regid=postgres", "--clear-groups"]).arg(program);
        command
    } else {
        hermetic(program)
    };
    command.current_dir(dir);
    command
}

/// Returns the directory with the server's programs, which Debian keeps out of the way.
fn bin() -> Option<PathBuf> {
    let versions = fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    let path = std::env::var_os("PATH").unwrap_or_default();
    let found = versions.map(|version| version.path().join("bin")).chain(std::env::split_paths(&path));
    let found = found.into_iter().find(|dir| dir.join("initdb").is_file());
    if found.is_none() {
        assert!(std::env::var_os("RALLY_HOOK_TEST_ALL").is_none(), "PostgreSQL is not installed");
        skipped("PostgreSQL is not installed");
    }
    found
}

/// PgBouncer, which gives each transaction a connection of its own, until it is dropped.
pub struct PgBouncer {
    pub port: u16,
    process: Option<Child>,
    _dir: tempfile::TempDir,
}

impl PgBouncer {
    /// Starts one in front of a database server. `None` if it is not installed.
    pub fn start(postgres: &Postgres) -> Option<Self> {
        if !super::network::is_installed("pgbouncer") {
            return None;
        }
        let dir = tempfile::tempdir().expect("a directory");
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).expect("it is ours");
        let (listener, _) = listen();
        let port = listener.local_addr().expect("it is bound").port();
        drop(listener);
        let file = dir.path().join("pgbouncer.ini");
        let text = format!(
            "[databases]\nledger = host=127.0.0.1 port={} dbname=ledger\n[pgbouncer]\nlisten_addr = 127.0.0.1\n\
             listen_port = {port}\nauth_type = any\npool_mode = transaction\ndefault_pool_size = 4\n\
             unix_socket_dir =\nmax_client_conn = 200\n",
            postgres.port
        );
        // With this kind of authentication all are one user, so it names the program's.
        fs::write(&file, text.replace("dbname=ledger", &format!("dbname=ledger user={ROLE}")))
            .expect("it can be written");
        let mut command = as_postgres(&pgbouncer(), dir.path());
        command.arg(&file).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let process = command.spawn().expect("it is installed");
        wait_for("PgBouncer", || TcpStream::connect(("127.0.0.1", port)).is_ok());
        Some(PgBouncer { port, process: Some(process), _dir: dir })
    }

    pub fn url(&self) -> String {
        format!("postgres://{ROLE}@127.0.0.1:{}/ledger", self.port)
    }
}

impl Drop for PgBouncer {
    fn drop(&mut self) {
        self.process.take().into_iter().for_each(kill);
    }
}

fn pgbouncer() -> PathBuf {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).map(|dir| dir.join("pgbouncer")).find(|file| file.is_file()).expect("it is installed")
}
