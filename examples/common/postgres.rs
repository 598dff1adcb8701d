//! A real PostgreSQL in a temporary directory, for the ledger of many servers. The tests use it too.

use std::error::Error;
use std::fs;
use std::io::Write;
use std::net::TcpListener;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

type Result<T> = std::result::Result<T, Box<dyn Error>>;

/// The role that owns the tables, and the one that the program uses.
pub const OWNER: &str = "owner";
pub const ROLE: &str = "rally_hook";

/// A database server with an empty database, until it is dropped.
pub struct Postgres {
    dir: tempfile::TempDir,
    pub bin: PathBuf,
    pub port: u16,
}

impl Postgres {
    /// Starts one. `None` where PostgreSQL is not installed.
    pub fn start() -> Result<Option<Self>> {
        let Some(bin) = bin() else { return Ok(None) };
        let postgres = Postgres::prepare(bin)?;
        let mut init = postgres.server("initdb")?;
        init.args(["--no-sync", "--auth=trust", "--encoding=UTF8", "--locale=C", "--username", OWNER, "--pgdata"]);
        answer(init.arg(postgres.data()), "")?;
        postgres.configure()?;
        postgres.up()?;
        postgres.sql_in("postgres", &format!("CREATE ROLE {ROLE} LOGIN"))?;
        postgres.sql_in("postgres", "CREATE DATABASE ledger")?;
        Ok(Some(postgres))
    }

    /// Makes the directory of one, in which nothing is yet.
    pub fn prepare(bin: PathBuf) -> Result<Self> {
        let dir = tempfile::tempdir()?;
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755))?;
        // It cannot choose a free port itself.
        let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
        let postgres = Postgres { dir, bin, port };
        if is_roots()? {
            answer(Command::new("chown").arg("postgres").arg(postgres.dir.path()), "")?;
        }
        Ok(postgres)
    }

    /// Adds what all have to the settings.
    pub fn configure(&self) -> Result<()> {
        let file = self.data().join("postgresql.conf");
        let socket = format!("unix_socket_directories = '{}'", self.dir.path().display());
        let lines = ["fsync = off", "listen_addresses = '127.0.0.1'", &socket];
        Ok(fs::write(&file, format!("{}\n{}\n", fs::read_to_string(&file)?, lines.join("\n")))?)
    }

    /// Starts the server again.
    pub fn up(&self) -> Result<()> {
        let log = self.dir.path().join("log").display().to_string();
        answer(&mut self.control(&["--wait", "--timeout=60", "--silent", "--log", &log, "start"])?, "").map(drop)
    }

    /// Ends the server, without any care for what it is at work on.
    pub fn down(&self) -> Result<()> {
        answer(&mut self.control(&["--wait", "--mode=immediate", "--silent", "stop"])?, "").map(drop)
    }

    /// Returns the command that starts or ends the server.
    pub fn control(&self, arguments: &[&str]) -> Result<Command> {
        let mut command = self.server("pg_ctl")?;
        command.args(arguments).args(["--options", &format!("-p {}", self.port), "--pgdata"]).arg(self.data());
        Ok(command)
    }

    /// Returns the address of the database for a role.
    pub fn url_for(&self, role: &str) -> String {
        format!("postgres://{role}@127.0.0.1:{}/ledger", self.port)
    }

    /// Returns the answer to a statement that the owner of the tables sends, a row a line.
    pub fn sql(&self, statement: &str) -> Result<String> {
        self.sql_in("ledger", statement)
    }

    pub fn sql_in(&self, database: &str, statement: &str) -> Result<String> {
        let mut psql = self.client("psql");
        psql.args(["--no-psqlrc", "--quiet", "--tuples-only", "--no-align", "--set=ON_ERROR_STOP=1"]);
        psql.args(["--command", statement, database]);
        Ok(answer(&mut psql, "")?.trim_end().to_owned())
    }

    /// Returns a command of a client, as the owner of the tables.
    pub fn client(&self, program: &str) -> Command {
        let mut command = Command::new(self.bin.join(program));
        command.env("PGHOST", "127.0.0.1").env("PGPORT", self.port.to_string()).env("PGUSER", OWNER);
        command
    }

    /// Returns a command of the server's, as the user that it runs as: it refuses root.
    pub fn server(&self, program: &str) -> Result<Command> {
        self.as_its_user(&self.bin.join(program))
    }

    /// Returns the command that runs a program as the user that the server runs as.
    pub fn as_its_user(&self, program: &Path) -> Result<Command> {
        let mut command = Command::new(program);
        if is_roots()? {
            command = Command::new("setpriv");
            command.args(["--reuid=postgres", "--regid=postgres", "--clear-groups"]).arg(program);
        }
        command.current_dir(self.dir.path());
        Ok(command)
    }

    pub fn data(&self) -> PathBuf {
        self.dir.path().join("data")
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        let _ = self.down();
    }
}

fn is_roots() -> Result<bool> {
    Ok(fs::metadata("/proc/self")?.uid() == 0)
}

/// Returns what a program prints. It must succeed.
pub fn answer(command: &mut Command, input: &str) -> Result<String> {
    // In a file: a server that is started keeps what it is given open.
    let (mut output, mut told) = (tempfile::tempfile()?, tempfile::tempfile()?);
    command.env("LC_ALL", "C").stdin(Stdio::piped()).stdout(output.try_clone()?).stderr(told.try_clone()?);
    let mut child = command.spawn()?;
    let written = child.stdin.take().map(|mut stdin| stdin.write_all(input.as_bytes()));
    let status = child.wait()?;
    if !status.success() {
        return Err(format!("{command:?} ended with {status}: {}", text(&mut told)?).into());
    }
    written.transpose()?;
    text(&mut output)
}

fn text(file: &mut fs::File) -> Result<String> {
    use std::io::{Read, Seek};
    file.rewind()?;
    let mut text = String::new();
    file.read_to_string(&mut text)?;
    Ok(text)
}

/// Returns the directory with the server's programs, which Debian keeps out of the way.
fn bin() -> Option<PathBuf> {
    let versions = fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    let path = std::env::var_os("PATH").unwrap_or_default();
    let mut dirs = versions.map(|version| version.path().join("bin")).chain(std::env::split_paths(&path));
    dirs.find(|dir| dir.join("initdb").is_file())
}
