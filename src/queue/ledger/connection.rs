//! Connections to the database: made and used within time limits, so that one that never answers holds nobody up.
//!
//! Statements are sent with their types and are never prepared, and nothing belongs to a session: PgBouncer may give each
//! transaction another one (docs/many-servers.md).

use std::future::Future;
use std::net::IpAddr;
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use tokio::runtime::{Builder, Handle};
use tokio::sync::oneshot;
use tokio_postgres::config::{Host, SslMode};
use tokio_postgres::tls::MakeTlsConnect;
use tokio_postgres::types::{ToSql, Type};
use tokio_postgres::{Client, Config, NoTls, Row, Socket};

use super::tls::Tls;
use super::{Address, LedgerError};
use crate::text::with_causes;

/// How long a connection may take to come about.
const CONNECT: Duration = Duration::from_secs(5);
/// How long a statement may take. The largest takes in one parcel: up to 500 changesets, about 8 MB.
const STATEMENT: Duration = Duration::from_secs(30);
/// The database's limits are shorter than [`STATEMENT`], so it gives up first: on a lock, on a statement, and on a client that
/// stops inside a transaction.
const BEGIN: &str = "BEGIN; SET LOCAL lock_timeout = '10s'; SET LOCAL statement_timeout = '25s'; \
                     SET LOCAL idle_in_transaction_session_timeout = '25s'";

pub(super) type Parameter<'p> = (&'p (dyn ToSql + Sync), Type);

/// The thread on which connections run.
pub(super) struct Driver {
    handle: Handle,
    /// Dropping it ends the thread.
    _stop: oneshot::Sender<()>,
}

impl Driver {
    pub(super) fn start() -> Result<Self, LedgerError> {
        let runtime = Builder::new_current_thread().enable_all().build().map_err(LedgerError::Thread)?;
        let (handle, (stop, stopped)) = (runtime.handle().clone(), oneshot::channel());
        let run = move || drop(runtime.block_on(stopped));
        thread::Builder::new().name("ledger".into()).spawn(run).map_err(LedgerError::Thread)?;
        Ok(Driver { handle, _stop: stop })
    }

    pub(super) fn handle(&self) -> &Handle {
        &self.handle
    }
}

/// Where connections lead, and how.
pub(super) struct Target {
    config: Config,
    tls: Option<Tls>,
    /// For people: hosts and database, without a password.
    pub place: String,
}

impl Target {
    pub(super) fn new(address: &Address) -> Result<Self, LedgerError> {
        let is_verified = ["sslmode=verify-full", "sslmode=verify-ca"].iter().any(|mode| address.url.contains(mode));
        // The library verifies nothing itself, so it has no name for that; here it is always done.
        let url = address
            .url
            .replace("sslmode=verify-full", "sslmode=require")
            .replace("sslmode=verify-ca", "sslmode=require");
        let wrong = |reason: String| LedgerError::Address { reason };
        // The message of the parser names the parameter, and never a value.
        let mut config: Config = url.parse().map_err(|error: tokio_postgres::Error| wrong(with_causes(&error)))?;
        if let Some(password) = address.password {
            config.password(password);
        }
        config.application_name(crate::PROGRAM).connect_timeout(CONNECT);
        let place = place(&config);
        let is_local = (!config.get_hosts().is_empty() || !config.get_hostaddrs().is_empty())
            && config.get_hosts().iter().all(is_local)
            && config.get_hostaddrs().iter().all(IpAddr::is_loopback);
        if !is_local && config.get_ssl_mode() == SslMode::Disable {
            return Err(wrong("sslmode=disable would send commits unencrypted to another machine".into()));
        }
        let is_encrypted = !is_local || is_verified || config.get_ssl_mode() == SslMode::Require;
        config.ssl_mode(if is_encrypted { SslMode::Require } else { SslMode::Disable });
        let tls = is_encrypted.then(|| Tls::new(address.certificates));
        let tls = tls.transpose().map_err(|source| LedgerError::Connect { place: place.clone(), source })?;
        Ok(Target { config, tls, place })
    }

    /// Connects, and has the connection run on this thread's runtime.
    pub(super) async fn connect(&self) -> Result<Client, LedgerError> {
        let connected = async {
            match &self.tls {
                Some(tls) => connect(&self.config, tls.clone()).await,
                None => connect(&self.config, NoTls).await,
            }
        };
        match tokio::time::timeout(CONNECT * 2, connected).await {
            Ok(Ok(client)) => Ok(client),
            Ok(Err(error)) => Err(LedgerError::Connect { place: self.place.clone(), source: error.into() }),
            Err(_) => Err(LedgerError::Silent { place: self.place.clone(), after: CONNECT * 2 }),
        }
    }

    /// Waits for an answer.
    pub(super) async fn within_limit<T>(
        &self,
        answer: impl Future<Output = Result<T, tokio_postgres::Error>>,
    ) -> Result<T, LedgerError> {
        match tokio::time::timeout(STATEMENT, answer).await {
            Ok(done) => done.map_err(|source| LedgerError::Statement { place: self.place.clone(), source }),
            Err(_) => Err(LedgerError::Silent { place: self.place.clone(), after: STATEMENT }),
        }
    }
}

async fn connect<T>(config: &Config, tls: T) -> Result<Client, tokio_postgres::Error>
where
    T: MakeTlsConnect<Socket>,
    T::Stream: Send + 'static,
{
    let (client, connection) = config.connect(tls).await?;
    // Its end is noticed by who uses the client.
    tokio::spawn(connection);
    Ok(client)
}

fn is_local(host: &Host) -> bool {
    match host {
        Host::Tcp(name) => {
            let name = name.trim_matches(['[', ']']);
            name == "localhost" || name.parse().is_ok_and(|ip: IpAddr| ip.is_loopback())
        }
        Host::Unix(_) => true,
    }
}

fn place(config: &Config) -> String {
    let port = |number: usize| config.get_ports().get(number).or(config.get_ports().first()).copied().unwrap_or(5432);
    let host = |(number, host): (usize, &Host)| match host {
        Host::Tcp(name) => format!("{name}:{}", port(number)),
        Host::Unix(dir) => dir.display().to_string(),
    };
    let hosts: Vec<String> = config.get_hosts().iter().enumerate().map(host).collect();
    format!("{}/{}", hosts.join(","), config.get_dbname().or(config.get_user()).unwrap_or_default())
}

/// A connection, for one thread.
pub(super) struct Connection {
    driver: Arc<Driver>,
    target: Arc<Target>,
    client: Client,
}

impl Connection {
    pub(super) fn open(driver: &Arc<Driver>, target: &Arc<Target>) -> Result<Self, LedgerError> {
        let client = driver.handle.block_on(target.connect())?;
        Ok(Connection { driver: Arc::clone(driver), target: Arc::clone(target), client })
    }

    pub(super) fn query(&self, sql: &str, parameters: &[Parameter]) -> Result<Vec<Row>, LedgerError> {
        self.wait(self.client.query_typed(sql, parameters))
    }

    /// Returns the first row of the answer, if there is one.
    pub(super) fn first(&self, sql: &str, parameters: &[Parameter]) -> Result<Option<Row>, LedgerError> {
        Ok(self.query(sql, parameters)?.into_iter().next())
    }

    /// Returns how many rows a statement has changed.
    pub(super) fn execute(&self, sql: &str, parameters: &[Parameter]) -> Result<u64, LedgerError> {
        self.wait(self.client.execute_typed(sql, parameters))
    }

    /// Runs statements that have no parameters.
    pub(super) fn batch(&self, sql: &str) -> Result<(), LedgerError> {
        self.wait(self.client.batch_execute(sql))
    }

    /// Does some work in one transaction. If it fails, nothing was changed, except that the outcome is unknown if the answer
    /// to COMMIT was lost.
    pub(super) fn transaction<T>(&self, work: impl FnOnce(&Self) -> Result<T, LedgerError>) -> Result<T, LedgerError> {
        self.batch(BEGIN)?;
        match work(self) {
            Ok(done) => self.batch("COMMIT").map(|()| done),
            Err(error) => {
                if !error.is_broken() {
                    let _ = self.batch("ROLLBACK");
                }
                Err(error)
            }
        }
    }

    pub(super) fn is_open(&self) -> bool {
        !self.client.is_closed()
    }

    pub(super) fn place(&self) -> &str {
        &self.target.place
    }

    fn wait<T>(&self, answer: impl Future<Output = Result<T, tokio_postgres::Error>>) -> Result<T, LedgerError> {
        self.driver.handle.block_on(self.target.within_limit(answer))
    }
}

/// One connection, shared by many threads that send single statements. A broken one is replaced.
pub(super) struct Common {
    pub driver: Arc<Driver>,
    target: Arc<Target>,
    client: Mutex<Option<Arc<Client>>>,
}

impl Common {
    pub(super) fn new(driver: &Arc<Driver>, target: &Arc<Target>) -> Self {
        Common { driver: Arc::clone(driver), target: Arc::clone(target), client: Mutex::default() }
    }

    pub(super) async fn execute(&self, sql: &str, parameters: &[Parameter<'_>]) -> Result<u64, LedgerError> {
        let client = self.client().await?;
        let done = self.target.within_limit(client.execute_typed(sql, parameters)).await;
        if done.as_ref().is_err_and(LedgerError::is_broken) {
            // If another thread has replaced it already, one more connection is made.
            *self.client.lock().expect("no holder panics") = None;
        }
        done
    }

    async fn client(&self) -> Result<Arc<Client>, LedgerError> {
        let known = self.client.lock().expect("no holder panics").clone();
        if let Some(client) = known.filter(|client| !client.is_closed()) {
            return Ok(client);
        }
        let client = Arc::new(self.target.connect().await?);
        *self.client.lock().expect("no holder panics") = Some(Arc::clone(&client));
        Ok(client)
    }
}
