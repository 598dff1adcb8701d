//! What people do with the dead letters of a destination, and with what waits.

use tokio_postgres::types::Type;

use super::connection::{Connection, Parameter};
use super::{Destination, LedgerError, Session};

impl Session {
    /// Returns the revisions of all dead letters.
    pub(crate) fn dead_letters(&self, destination: &Destination) -> Result<Vec<String>, LedgerError> {
        self.revisions(destination, "state = 'dead' ORDER BY id", &[])
    }

    fn revisions(
        &self,
        destination: &Destination,
        which: &str,
        more: &[Parameter],
    ) -> Result<Vec<String>, LedgerError> {
        let Some(id) = self.id_of(destination)? else { return Ok(Vec::new()) };
        let sql = format!("SELECT revision FROM changeset WHERE destination = $1 AND {which}");
        let rows = self.connection.query(&sql, &[&[(&id as _, Type::INT8)], more].concat())?;
        Ok(rows.iter().map(|row| row.get("revision")).collect())
    }

    /// Makes a dead letter due again. Returns false if there is nothing to post: only its revision is known.
    pub(crate) fn retry(&self, destination: &Destination, revision: &str) -> Result<bool, LedgerError> {
        let changed = self.change(
            destination,
            "UPDATE changeset SET state = 'pending', attempts = 0, first_attempt = now_ms(), next_attempt = now_ms() \
             WHERE destination = $1 AND revision = $2 AND state = 'dead' \
             AND EXISTS (SELECT FROM facts WHERE facts.changeset = changeset.id)",
            &[(&revision, Type::TEXT)],
        )?;
        Ok(changed > 0)
    }

    /// Drops dead letters.
    pub(crate) fn forget_dead_letters(
        &self,
        destination: &Destination,
        revisions: &[String],
    ) -> Result<(), LedgerError> {
        let sql = "DELETE FROM changeset WHERE destination = $1 AND revision = ANY($2) AND state = 'dead'";
        self.change(destination, sql, &[(&revisions, Type::TEXT_ARRAY)]).map(drop)
    }

    /// Makes due what waits for the end of a back-off.
    pub(crate) fn make_due(&self, destination: &Destination) -> Result<(), LedgerError> {
        for (table, left) in [("changeset", "state = 'pending'"), ("state_request", "NOT done")] {
            let sql = format!(
                "UPDATE {table} SET next_attempt = now_ms() WHERE destination = $1 AND {left} AND next_attempt > now_ms()"
            );
            self.change(destination, &sql, &[])?;
        }
        Ok(())
    }

    /// Returns how many of these revisions wait or are dead letters.
    pub(crate) fn count_left(&self, destination: &Destination, revisions: &[String]) -> Result<usize, LedgerError> {
        let which = "revision = ANY($2) AND state IN ('pending', 'dead')";
        Ok(self.revisions(destination, which, &[(&revisions, Type::TEXT_ARRAY)])?.len())
    }

    /// Changes something, after which the destination is due.
    fn change(&self, destination: &Destination, sql: &str, more: &[Parameter]) -> Result<u64, LedgerError> {
        let Some(id) = self.id_of(destination)? else { return Ok(0) };
        self.connection.transaction(|tx: &Connection| {
            tx.execute("UPDATE destination SET due_at = least(due_at, now_ms()) WHERE id = $1", &[(&id, Type::INT8)])?;
            tx.execute(sql, &[&[(&id as _, Type::INT8)], more].concat())
        })
    }
}
