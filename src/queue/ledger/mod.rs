//! The ledger of many servers: one PostgreSQL database behind their queues.
//!
//! A repository's queue stays where pushes are recorded. What it holds is forwarded to the ledger ([`forward`]), which has
//! each revision once, whichever server saw it. A worker holds one destination at a time ([`Held`], by a lease and a token)
//! and delivers from there: what it holds is a [`WorkQueue`](super::WorkQueue) like the queue of a repository.
//!
//! All clocks of the fleet are the database's.

mod connection;
mod forward;
mod held;
mod letters;
mod migrate;
mod permits;
mod status;
mod tips;
mod tls;

use std::io;
use std::sync::Arc;
use std::time::Duration;

use tokio_postgres::types::Type;

use connection::{Common, Connection, Driver, Target};

pub(crate) use forward::{Origin, Taken};
pub(crate) use held::Held;
pub(crate) use status::{DestinationStatus, FleetStatus, LedgerHealth, WorkerStatus};

/// The version of the tables in schema.sql.
const VERSION: i64 = 1;

/// Tells one database from what a failover or a restore puts in its place: all of these may be read by any role.
const IDENTITY: &str = "SELECT concat_ws('/', (SELECT system_identifier FROM pg_control_system()), \
                        (SELECT timeline_id FROM pg_control_checkpoint()), to_regclass('changeset')::oid) AS identity";

/// How the database is reached.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Address<'a> {
    pub url: &'a str,
    pub password: Option<&'a str>,
    /// Certificates to trust besides the system's, as PEM.
    pub certificates: Option<&'a [u8]>,
}

#[derive(Debug, thiserror::Error)]
pub(crate) enum LedgerError {
    #[error("queue.store is not an address that can be used: {reason}")]
    Address { reason: String },
    #[error("cannot start a thread for the ledger")]
    Thread(#[source] io::Error),
    #[error("cannot reach the ledger at {place}")]
    Connect { place: String, source: Box<dyn std::error::Error + Send + Sync> },
    #[error("the ledger at {place} did not answer within {}", humantime::format_duration(*.after))]
    Silent { place: String, after: Duration },
    #[error("the ledger at {place} could not do what was asked")]
    Statement { place: String, source: tokio_postgres::Error },
    #[error("the database {place} is no ledger yet; run `rally-hook store migrate`")]
    NoTables { place: String },
    #[error(
        "the ledger at {place} is of an earlier version ({found}; this rally-hook needs {VERSION}); run `rally-hook store migrate`"
    )]
    Older { place: String, found: i64 },
    #[error(
        "the ledger at {place} was migrated by a newer rally-hook (version {found} of its tables; this one knows {VERSION}); \
         install that version here"
    )]
    Newer { place: String, found: i64 },
    #[error("the database {place} has the encoding {found}; make one with UTF8")]
    Encoding { place: String, found: String },
    /// It was found to be away just before.
    #[error("{0}")]
    Away(String),
    #[error(
        "commit {revision} was forwarded to the ledger by a release of rally-hook that this one does not understand"
    )]
    Unreadable { revision: String },
    #[error("another worker has taken over {0}; this one writes nothing more for it")]
    Lost(String),
}

impl LedgerError {
    /// Tells whether the connection is of no use any more.
    fn is_broken(&self) -> bool {
        match self {
            LedgerError::Statement { source, .. } => source.as_db_error().is_none(),
            LedgerError::Lost(_) | LedgerError::Unreadable { .. } => false,
            _ => true,
        }
    }
}

/// Where changesets go.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Destination {
    pub server: String,
    pub workspace: String,
    /// The SCMRepository's name as Rally can hold it.
    pub repository: String,
}

/// A ledger, for as long as a process uses it.
pub(crate) struct Ledger {
    driver: Arc<Driver>,
    target: Arc<Target>,
    common: Arc<Common>,
}

/// A connection to the ledger, for one thread.
pub(crate) struct Session {
    connection: Connection,
    common: Arc<Common>,
}

impl Ledger {
    /// Prepares the use of a ledger. Nothing is connected yet.
    pub(crate) fn new(address: Address) -> Result<Self, LedgerError> {
        let (driver, target) = (Arc::new(Driver::start()?), Arc::new(Target::new(&address)?));
        let common = Arc::new(Common::new(&driver, &target));
        Ok(Ledger { driver, target, common })
    }

    /// Returns where it is, for people.
    pub(crate) fn place(&self) -> &str {
        &self.target.place
    }

    /// Connects.
    ///
    /// # Errors
    /// If the database cannot be reached, or its tables are not those of this program.
    pub(crate) fn connect(&self) -> Result<Session, LedgerError> {
        let connection = Connection::open(&self.driver, &self.target)?;
        migrate::check(&connection)?;
        Ok(Session { connection, common: Arc::clone(&self.common) })
    }
}

impl Session {
    /// Tells whether it may still be used.
    pub(crate) fn is_open(&self) -> bool {
        self.connection.is_open()
    }

    /// Has nothing claimed for this time: what workers noted last may be lost.
    pub(crate) fn hold(&self, span: Duration) -> Result<(), LedgerError> {
        hold(&self.connection, span)
    }

    /// Has nothing claimed for this time if the database is another one than before: one that a failover or a restore has
    /// put in its place may lack what was noted last, and Rally may still be at work on that.
    pub(crate) fn settle(&self, at_work: Duration) -> Result<(), LedgerError> {
        let Some(identity) = self.connection.first(IDENTITY, &[])?.map(|row| row.get::<_, String>("identity")) else {
            return Ok(());
        };
        let known = self.connection.first("SELECT value FROM meta WHERE key = 'identity'", &[])?;
        let is_known = known.is_some();
        if known.is_some_and(|row| row.get::<_, &str>("value") == identity) {
            return Ok(());
        }
        self.connection.transaction(|tx| {
            let changed = tx.execute(
                "INSERT INTO meta VALUES ('identity', $1) ON CONFLICT (key) DO UPDATE SET value = $1 WHERE meta.value <> $1",
                &[(&identity, Type::TEXT)],
            )?;
            // Where none was known, nothing was ever delivered from here.
            if changed > 0 && is_known { hold(tx, at_work) } else { Ok(()) }
        })
    }
}

/// Has nothing claimed for this time.
fn hold(tx: &Connection, span: Duration) -> Result<(), LedgerError> {
    tx.execute(
        "INSERT INTO meta SELECT 'hold', (now_ms() + $1)::text ON CONFLICT (key) DO UPDATE \
         SET value = greatest(meta.value::bigint, excluded.value::bigint)::text",
        &[(&millis(span), Type::INT8)],
    )
    .map(drop)
}

fn millis(span: Duration) -> i64 {
    i64::try_from(span.as_millis()).unwrap_or(i64::MAX)
}

/// PostgreSQL's text holds no NUL.
fn without_nul(text: &str) -> String {
    text.replace('\0', "\u{fffd}")
}
