//! Takes in what a repository's queue forwards.

use serde::Serialize;
use tokio_postgres::types::Type;

use super::connection::Connection;
use super::{Destination, LedgerError, Session, tips, to_json, without_nul};
use crate::backoff::heeded;
use crate::queue::outbox::{Parcel, Receipt, Waiting, WaitingState};
use crate::time::Time;

/// A queue that forwards, and whose it is.
#[derive(Debug, Clone)]
pub(crate) struct Origin<'o> {
    /// Tells the queue from all others.
    pub id: &'o str,
    pub host: &'o str,
    /// The repository's directory.
    pub git_dir: &'o str,
    /// The address of its web page, where the configuration has one.
    pub web: Option<&'o str>,
    /// How many of its parcels were taken in, as far as it knows.
    pub position: i64,
    /// What its clock says.
    pub now: Time,
}

/// What became of a parcel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Taken {
    /// The ledger lacks nothing; this is the number of the last parcel that it has.
    In(i64),
    /// The ledger lacks the parcels after this number, which it had taken in: it was set back.
    Behind(i64),
}

/// If the ledger has the changeset, and it is not done, its row stays. It takes over what the queue knows of writes that
/// were sent. The facts are replaced only if nothing was sent. An unlinked one is queued again.
const PUT_CHANGESETS: &str = "\
    WITH given AS (
        SELECT * FROM json_to_recordset($2::json) AS given (
            revision text, facts text, recorded_at bigint, is_dead bool, attempts integer, first_attempt bigint,
            next_attempt bigint, last_error text, rally_ref text, existed bool, settles_at bigint, made text)),
    put AS (
        INSERT INTO changeset (destination, revision, state, recorded_at, entered_at, attempts, first_attempt, next_attempt,
                               last_error, rally_ref, existed, settles_at, made)
        SELECT $1, revision, CASE WHEN is_dead THEN 'dead' ELSE 'pending' END, recorded_at, now_ms(), attempts,
               first_attempt, next_attempt, last_error, rally_ref, existed, settles_at, made
        FROM given
        ON CONFLICT (destination, revision) DO UPDATE SET
            state = CASE WHEN changeset.state = 'unlinked' OR changeset.state = 'dead'
                              AND NOT EXISTS (SELECT FROM facts WHERE facts.changeset = changeset.id)
                         THEN excluded.state ELSE changeset.state END,
            recorded_at = CASE WHEN changeset.state = 'unlinked' THEN excluded.recorded_at ELSE changeset.recorded_at END,
            next_attempt = least(changeset.next_attempt, excluded.next_attempt),
            rally_ref = coalesce(changeset.rally_ref, excluded.rally_ref),
            existed = changeset.existed OR excluded.existed,
            settles_at = greatest(changeset.settles_at, excluded.settles_at),
            made = CASE WHEN changeset.rally_ref IS NULL THEN excluded.made ELSE changeset.made END,
            entered_at = CASE WHEN changeset.state = 'pending' THEN changeset.entered_at ELSE excluded.entered_at END,
            done_at = NULL
        WHERE changeset.state IN ('pending', 'dead', 'unlinked')
        RETURNING id, revision)
    INSERT INTO facts SELECT id, given.facts FROM put JOIN given USING (revision) WHERE given.facts IS NOT NULL
    ON CONFLICT (changeset) DO UPDATE SET json = excluded.json
    WHERE EXISTS (SELECT FROM changeset WHERE id = facts.changeset AND rally_ref IS NULL AND settles_at IS NULL)";

const WITHDRAW: &str = "\
    DELETE FROM changeset WHERE destination = $1 AND revision = ANY($2) AND state IN ('pending', 'dead')
        AND rally_ref IS NULL AND settles_at IS NULL";

/// A receipt ends a changeset that is pending or dead. That of an unlinked one ends none: another server may find the
/// artifact.
const PUT_RECEIPTS: &str = "\
    WITH given AS (
        SELECT * FROM json_to_recordset($2::json) AS given (revision text, outcome text, rally_ref text, at bigint)),
    put AS (
        INSERT INTO changeset (destination, revision, state, recorded_at, entered_at, next_attempt, rally_ref, done_at)
        SELECT $1, revision, outcome, at, now_ms(), at, rally_ref, at FROM given
        ON CONFLICT (destination, revision) DO UPDATE SET state = excluded.state, rally_ref = excluded.rally_ref,
            done_at = excluded.done_at, last_error = NULL, settles_at = NULL, made = NULL
        WHERE changeset.state IN ('pending', 'dead') AND excluded.state <> 'unlinked'
        RETURNING id)
    DELETE FROM facts USING put WHERE changeset = put.id";

const PUT_STATES: &str = "\
    INSERT INTO state_request (destination, revision, json, attempts, first_attempt, next_attempt, done)
    SELECT $1, revision, json, attempts, first_attempt, next_attempt, is_done
    FROM json_to_recordset($2::json) AS given (
        revision text, json text, attempts integer, first_attempt bigint, next_attempt bigint, is_done bool)
    ON CONFLICT (destination, revision) DO NOTHING";

impl Session {
    /// Finds out whether the ledger has all parcels of a queue that it had taken in.
    pub(crate) fn check(&self, origin: &Origin) -> Result<Taken, LedgerError> {
        let row = self.connection.first("SELECT position FROM origin WHERE id = $1", &[(&origin.id, Type::TEXT)])?;
        let position: i64 = row.map_or(0, |row| row.get("position"));
        Ok(if position < origin.position { Taken::Behind(position) } else { Taken::In(position) })
    }

    /// Returns which of these queues had more parcels taken in than the ledger has now. Each comes with the number of its last.
    pub(crate) fn lost_parcels(&self, origins: &[(String, i64)]) -> Result<Vec<String>, LedgerError> {
        let (ids, positions): (Vec<&str>, Vec<i64>) =
            origins.iter().map(|(id, position)| (id.as_str(), *position)).unzip();
        let rows = self.connection.query(
            "SELECT given.id FROM unnest($1::text[], $2::bigint[]) AS given (id, position) LEFT JOIN origin USING (id) \
             WHERE coalesce(origin.position, 0) < given.position",
            &[(&ids, Type::TEXT_ARRAY), (&positions, Type::INT8_ARRAY)],
        )?;
        Ok(rows.iter().map(|row| row.get("id")).collect())
    }

    /// Takes in a parcel, all of it in one transaction. What the ledger has already is left as it is.
    pub(crate) fn forward(
        &self,
        destination: &Destination,
        settings: &str,
        origin: &Origin,
        parcel: &Parcel,
    ) -> Result<Taken, LedgerError> {
        self.connection.transaction(|tx| {
            let (id, ahead) = enter_destination(tx, destination, settings, origin.now)?;
            let position = enter_origin(tx, id, origin)?;
            if position < origin.position {
                return Ok(Taken::Behind(position));
            }
            let clock = Clock { now: origin.now, ahead };
            put(tx, PUT_RECEIPTS, id, &parcel.receipts, |receipt| clock.receipt(receipt))?;
            if !parcel.withdrawn.is_empty() {
                tx.execute(WITHDRAW, &[(&id, Type::INT8), (&parcel.withdrawn, Type::TEXT_ARRAY)])?;
            }
            put(tx, PUT_CHANGESETS, id, &parcel.changesets, |waiting| clock.changeset(waiting))?;
            put(tx, PUT_STATES, id, &parcel.states, |state| clock.state(state))?;
            tips::put(tx, id, parcel)?;
            tx.execute(
                "UPDATE origin SET position = $2 WHERE id = $1",
                &[(&origin.id, Type::TEXT), (&(position + 1), Type::INT8)],
            )?;
            if parcel.changesets.iter().any(|waiting| !waiting.is_dead)
                || parcel.states.iter().any(|state| !state.is_done)
            {
                tx.execute(
                    "UPDATE destination SET due_at = least(due_at, now_ms()) WHERE id = $1",
                    &[(&id, Type::INT8)],
                )?;
            }
            Ok(Taken::In(position + 1))
        })
    }
}

/// How the times of this host become those of the database.
#[derive(Clone, Copy)]
struct Clock {
    now: Time,
    /// By how much the database's clock is ahead, in milliseconds.
    ahead: i64,
}

impl Clock {
    /// A time far ahead was written by a clock that was ahead and has been set back since.
    fn there(self, time: Time) -> Time {
        Time::from_millis(heeded(time, self.now, self.now).millis() + self.ahead)
    }

    fn receipt(self, receipt: &Receipt) -> Receipt {
        Receipt { at: self.there(receipt.at), ..receipt.clone() }
    }

    fn changeset(self, waiting: &Waiting) -> Waiting {
        let there = |time| self.there(time);
        Waiting {
            recorded_at: there(waiting.recorded_at),
            first_attempt: waiting.first_attempt.map(there),
            next_attempt: there(waiting.next_attempt),
            last_error: waiting.last_error.as_deref().map(without_nul),
            // 0 is no time, but stands for a Changeset that was found in Rally.
            settles_at: waiting.settles_at.map(|at| if at.millis() == 0 { at } else { there(at) }),
            ..waiting.clone()
        }
    }

    fn state(self, state: &WaitingState) -> WaitingState {
        let there = |time| self.there(time);
        WaitingState {
            first_attempt: state.first_attempt.map(there),
            next_attempt: there(state.next_attempt),
            ..state.clone()
        }
    }
}

/// Finds or makes the row of a destination, and locks it. Returns its number, and by how much the database's clock is ahead
/// of this one, in milliseconds.
fn enter_destination(
    tx: &Connection,
    destination: &Destination,
    settings: &str,
    now: Time,
) -> Result<(i64, i64), LedgerError> {
    let Destination { server, workspace, repository } = destination;
    let row = tx.first(
        "INSERT INTO destination (server, workspace, repository, settings) VALUES ($1, $2, $3, $4) \
         ON CONFLICT (server, workspace, repository) DO UPDATE SET settings = $4 RETURNING id, now_ms() AS now",
        &[(server, Type::TEXT), (workspace, Type::TEXT), (repository, Type::TEXT), (&settings, Type::TEXT)],
    )?;
    let row = row.expect("it is there now");
    Ok((row.get("id"), row.get::<_, i64>("now") - now.millis()))
}

fn enter_origin(tx: &Connection, destination: i64, origin: &Origin) -> Result<i64, LedgerError> {
    let row = tx.first(
        "INSERT INTO origin (id, destination, host, git_dir, web, position, forwarded_at) \
         VALUES ($1, $2, $3, $4, $5, 0, now_ms()) ON CONFLICT (id) DO UPDATE SET destination = $2, host = $3, git_dir = $4, \
         web = $5, forwarded_at = now_ms() RETURNING position",
        &[
            (&origin.id, Type::TEXT),
            (&destination, Type::INT8),
            (&without_nul(origin.host), Type::TEXT),
            (&without_nul(origin.git_dir), Type::TEXT),
            (&origin.web.map(without_nul), Type::TEXT),
        ],
    )?;
    Ok(row.expect("it is there now").get("position"))
}

/// Puts rows into a table, once they have become those of the database.
fn put<T: Serialize>(
    tx: &Connection,
    sql: &str,
    destination: i64,
    rows: &[T],
    there: impl Fn(&T) -> T,
) -> Result<(), LedgerError> {
    if rows.is_empty() {
        return Ok(());
    }
    let rows: Vec<T> = rows.iter().map(there).collect();
    tx.execute(sql, &[(&destination, Type::INT8), (&to_json(&rows), Type::TEXT)]).map(drop)
}
