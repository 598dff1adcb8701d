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

use serde::Serialize;
use tokio_postgres::error::SqlState;
use tokio_postgres::types::Type;

use crate::text::with_causes;
use crate::time::millis;
use connection::{Common, Connection, Driver, Target};

pub(crate) use forward::{Origin, Taken};
pub(crate) use held::Held;
pub(crate) use status::{DestinationStatus, FleetStatus, LedgerHealth, OriginStatus, WorkerStatus};

/// The version of the tables in schema.sql.
const VERSION: i64 = 1;

/// Within this time after a block, no other follows: several servers may find out the same, one after the other, and would
/// block claims without end.
const BLOCKED_ONCE: Duration = Duration::from_secs(3600);

/// Tells one database from what a failover or a restore puts in its place; any role may read all of it. The timeline is that
/// of the log as it is written: the one of the last checkpoint is the old one for a while after a failover.
const IDENTITY: &str = "SELECT concat_ws('/', (SELECT system_identifier FROM pg_control_system()), \
                        substr(pg_walfile_name(pg_current_wal_lsn()), 1, 8), to_regclass('changeset')::oid) AS identity";

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
    #[error("cannot use the ledger at {place}{}", hint(source.as_ref()))]
    Connect { place: String, source: Box<dyn std::error::Error + Send + Sync> },
    #[error("the ledger at {place} did not answer within {}", humantime::format_duration(*.after))]
    Silent { place: String, after: Duration },
    #[error("a statement failed in the ledger at {place}{}", hint(source))]
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
    #[error("what waits for {0} was changed by a server at this moment; it is read again")]
    Changed(String),
    /// It was found to be away just before.
    #[error("{0}")]
    Away(String),
    #[error(
        "how {0} is posted was forwarded to the ledger by a release of rally-hook that this one does not understand"
    )]
    UnknownSettings(String),
    #[error("another worker has taken over {0}; this one writes nothing more for it")]
    Lost(String),
}

/// Returns what is to be done about an error, if that is known.
fn hint(error: &(dyn std::error::Error + 'static)) -> &'static str {
    let Some(error) = error.downcast_ref::<tokio_postgres::Error>() else { return "" };
    match error.code().map(SqlState::code) {
        Some("28P01" | "28000") => {
            " (it refuses the role or the password: see queue.store and queue.store_password_file)"
        }
        Some("3D000") => " (create the database that queue.store names)",
        Some("42501") => {
            " (run `rally-hook store migrate` as the role that owns the database, with --grant for this one)"
        }
        Some("42704") => " (create the role first)",
        Some("53300") => " (raise max_connections of the database, or put PgBouncer in front of it)",
        None if with_causes(error).contains("password missing") => " (set queue.store_password_file)",
        None if with_causes(error).contains("certificate") => {
            " (its certificate must be signed by a known authority or by one in queue.store_ca_file, for the name in queue.store)"
        }
        _ => "",
    }
}

impl LedgerError {
    /// Tells whether the connection is of no use any more.
    fn is_broken(&self) -> bool {
        match self {
            LedgerError::Statement { source, .. } => source.as_db_error().is_none(),
            LedgerError::Lost(_) | LedgerError::Changed(_) | LedgerError::UnknownSettings(_) => false,
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

    /// Blocks all claims for this time: what workers noted last may be lost. Does nothing if they were blocked within
    /// [`BLOCKED_ONCE`].
    pub(crate) fn block(&self, span: Duration) -> Result<(), LedgerError> {
        let is_recent = format!("meta.value::bigint > now_ms() - {}", millis(BLOCKED_ONCE));
        block(&self.connection, span, &is_recent)
    }

    /// Notes how long Rally may be at work on a request of this worker.
    pub(crate) fn note_at_work(&self, span: Duration) -> Result<(), LedgerError> {
        self.connection
            .execute(
                "INSERT INTO meta VALUES ('at work', $1::bigint::text) ON CONFLICT (key) DO UPDATE SET value = excluded.value \
                 WHERE meta.value::bigint < excluded.value::bigint",
                &[(&millis(span), Type::INT8)],
            )
            .map(drop)
    }

    /// Returns for how long claims are blocked, if they are.
    pub(crate) fn blocked_for(&self) -> Result<Option<Duration>, LedgerError> {
        let sql = "SELECT value::bigint - now_ms() AS left FROM meta WHERE key = 'blocked'";
        let left = self.connection.first(sql, &[])?.map_or(0, |row| row.get::<_, i64>("left"));
        Ok((left > 0).then(|| Duration::from_millis(left.unsigned_abs())))
    }

    /// Blocks all claims for this time if the database is another one than before: one that a failover or a restore has put
    /// in its place may lack what was noted last, and Rally may still be at work on that.
    pub(crate) fn block_if_replaced(&self, at_work: Duration) -> Result<(), LedgerError> {
        let identity: String = self.connection.first(IDENTITY, &[])?.expect("a row").get("identity");
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
            if changed > 0 && is_known { block(tx, at_work, "false") } else { Ok(()) }
        })
    }
}

/// Blocks all claims for this time, or for as long as the worker with the longest time limit needs, unless the value that is
/// there holds for this condition.
fn block(tx: &Connection, span: Duration, unless: &str) -> Result<(), LedgerError> {
    let sql = format!(
        "INSERT INTO meta SELECT 'blocked', (now_ms() + greatest($1, (SELECT value::bigint FROM meta WHERE key = 'at work')))::text \
         ON CONFLICT (key) DO UPDATE SET value = excluded.value WHERE NOT ({unless})"
    );
    tx.execute(&sql, &[(&millis(span), Type::INT8)]).map(drop)
}

/// Returns rows as the database takes them, in one parameter. Their text must hold no NUL.
fn to_json(rows: &impl Serialize) -> String {
    serde_json::to_string(rows).expect("plain data becomes JSON")
}

/// PostgreSQL's text holds no NUL.
fn without_nul(text: &str) -> String {
    text.replace('\0', "\u{fffd}")
}
