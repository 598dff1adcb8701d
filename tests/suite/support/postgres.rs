//! A real PostgreSQL in a temporary directory, for the ledger of many servers.

#[path = "../../../examples/common/postgres.rs"]
mod server;

use std::fs;
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::{Child, Stdio};

use super::network::{is_installed, listen};
use super::process::{kill, wait_for};
use super::skipped;

use server::answer;
pub use server::{OWNER, ROLE};

/// A database server with an empty database, until it is dropped.
pub struct Postgres(server::Postgres);

impl Postgres {
    /// Starts one. `None` where PostgreSQL is not installed, which is said; with `RALLY_HOOK_TEST_ALL` the test fails then.
    pub fn start() -> Option<Self> {
        let started = server::Postgres::start().expect("it starts");
        if started.is_none() {
            assert!(std::env::var_os("RALLY_HOOK_TEST_ALL").is_none(), "PostgreSQL is not installed");
            skipped("PostgreSQL is not installed");
        }
        started.map(Postgres)
    }

    /// Starts a standby that follows another server, which does not wait for it.
    pub fn standby_of(primary: &Postgres) -> Self {
        let standby = server::Postgres::prepare(primary.0.bin.clone()).expect("a directory");
        let mut copy = standby.server("pg_basebackup").expect("a user");
        copy.args(["--write-recovery-conf", "--no-sync", "--checkpoint=fast", "--host=127.0.0.1", "--username", OWNER]);
        copy.args(["--port", &primary.port().to_string(), "--pgdata"]);
        answer(copy.arg(standby.data()), "").expect("it is copied");
        standby.configure().expect("its settings are there");
        standby.up().expect("it starts");
        Postgres(standby)
    }

    /// Makes a standby the one that may be written to.
    pub fn promote(&self) {
        answer(&mut self.0.control(&["--wait", "--silent", "promote"]).expect("a user"), "").expect("it is a standby");
    }

    pub fn port(&self) -> u16 {
        self.0.port
    }

    /// Returns the address of the database for the program's role.
    pub fn url(&self) -> String {
        self.url_for(ROLE)
    }

    pub fn url_for(&self, role: &str) -> String {
        self.0.url_for(role)
    }

    /// Starts the server again.
    pub fn up(&self) {
        self.0.up().expect("it starts");
    }

    /// Ends the server, without any care for what it is at work on.
    pub fn down(&self) {
        self.0.down().expect("it was up");
    }

    pub fn restart(&self) {
        self.down();
        self.up();
    }

    /// Returns the answer to a statement that the owner of the tables sends, a row a line.
    pub fn sql(&self, statement: &str) -> String {
        self.0.sql(statement).expect("it answers")
    }

    /// Returns all that the database holds, as text.
    pub fn dump(&self) -> String {
        answer(self.0.client("pg_dump").arg("ledger"), "").expect("it answers")
    }

    /// Replaces the database by what was dumped.
    pub fn restore(&self, dump: &str) {
        for statement in ["DROP DATABASE ledger WITH (FORCE)", "CREATE DATABASE ledger"] {
            self.0.sql_in("postgres", statement).expect("it answers");
        }
        let mut psql = self.0.client("psql");
        psql.args(["--no-psqlrc", "--quiet", "--set=ON_ERROR_STOP=1", "--output=/dev/null", "ledger"]);
        answer(&mut psql, dump).expect("it answers");
    }
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
        if !is_installed("pgbouncer") {
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
            postgres.port()
        );
        // With this kind of authentication all are one user, so it names the program's.
        fs::write(&file, text.replace("dbname=ledger", &format!("dbname=ledger user={ROLE}")))
            .expect("it can be written");
        let mut command = postgres.0.as_its_user(&pgbouncer()).expect("a user");
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
