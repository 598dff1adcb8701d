//! The versions of the ledger's tables.

use super::connection::Connection;
use super::{Ledger, LedgerError, VERSION};

/// All of them.
pub(super) const TABLES: [&str; 12] = [
    "meta",
    "destination",
    "changeset",
    "facts",
    "state_request",
    "cache",
    "pause",
    "permit",
    "artifact_lock",
    "origin",
    "seen_tip",
    "worker",
];
const SCHEMA: &str = include_str!("schema.sql");
/// What makes the next version out of each earlier one, from version 1 on.
const STEPS: [&str; VERSION as usize - 1] = [];
/// Two that migrate at once wait for each other here.
const LOCK: &str = "SELECT pg_advisory_xact_lock(823476112)";

/// What a migration has done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Migrated {
    /// 0 where there were no tables.
    pub from: i64,
    pub to: i64,
}

impl Ledger {
    /// Makes the tables, or brings those of an earlier version up to date. With the name of a role, allows it all that the
    /// program does besides.
    pub(crate) fn migrate(&self, role: Option<&str>) -> Result<Migrated, LedgerError> {
        let connection = Connection::open(&self.driver, &self.target)?;
        let encoding = connection.first("SHOW server_encoding", &[])?.map(|row| row.get::<_, String>(0));
        if let Some(found) = encoding.filter(|encoding| encoding != "UTF8") {
            return Err(LedgerError::Encoding { place: connection.place().to_owned(), found });
        }
        connection.transaction(|tx| {
            tx.query(LOCK, &[])?;
            let from = version(tx)?;
            match from {
                0 => {
                    tx.batch(SCHEMA)?;
                    tx.batch(&format!("INSERT INTO meta VALUES ('version', '{VERSION}')"))?;
                }
                1..=VERSION => {
                    STEPS.iter().skip(from as usize - 1).try_for_each(|step| tx.batch(step))?;
                    tx.batch(&format!("UPDATE meta SET value = '{VERSION}' WHERE key = 'version'"))?;
                }
                found => return Err(LedgerError::Newer { place: tx.place().to_owned(), found }),
            }
            role.map_or(Ok(()), |role| grant(tx, role))?;
            Ok(Migrated { from, to: VERSION })
        })
    }
}

fn grant(tx: &Connection, role: &str) -> Result<(), LedgerError> {
    let tables = TABLES.join(", ");
    let role = format!("\"{}\"", role.replace('"', "\"\""));
    let schema = tx.first("SELECT quote_ident(current_schema()) AS name", &[])?.map(|row| row.get::<_, String>("name"));
    let schema = schema.unwrap_or_else(|| "public".into());
    tx.batch(&format!(
        "GRANT USAGE ON SCHEMA {schema} TO {role}; GRANT SELECT, INSERT, UPDATE, DELETE ON {tables} TO {role}; \
         GRANT EXECUTE ON FUNCTION now_ms() TO {role}"
    ))
}

/// Makes sure that the tables are those of this program.
pub(super) fn check(connection: &Connection) -> Result<(), LedgerError> {
    let place = || connection.place().to_owned();
    match version(connection)? {
        0 => Err(LedgerError::NoTables { place: place() }),
        VERSION => Ok(()),
        found if found < VERSION => Err(LedgerError::Older { place: place(), found }),
        found => Err(LedgerError::Newer { place: place(), found }),
    }
}

/// Returns the version of the tables, 0 if there are none.
fn version(connection: &Connection) -> Result<i64, LedgerError> {
    let there = connection
        .first("SELECT to_regclass('changeset') IS NOT NULL AND to_regclass('meta') IS NOT NULL AS there", &[])?;
    if !there.is_some_and(|row| row.get("there")) {
        return Ok(0);
    }
    let version = connection.first("SELECT value::bigint AS version FROM meta WHERE key = 'version'", &[])?;
    Ok(version.map_or(0, |row| row.get("version")))
}
