//! What delivery asks of a destination that this worker holds.

use std::collections::BTreeMap;

use serde_json::{Value, json};
use tokio_postgres::Row;
use tokio_postgres::types::Type;

use super::Held;
use crate::changeset::Changeset;
use crate::queue::delivery::{column_of, parse_made, writes_of};
use crate::queue::ledger::connection::Parameter;
use crate::queue::ledger::{LedgerError, to_json, without_nul};
use crate::queue::{Attempts, Entry, Error, Outcome, Pause, StateEntry, WorkQueue};
use crate::time::Time;

/// Longer keys are remembered for as long as the destination is held: an index of PostgreSQL takes no longer ones.
const LONGEST_KEY: usize = 1000;

const DUE: &str = "\
    SELECT * FROM (
        SELECT *, sum(octet_length(json)) OVER (ORDER BY id) - octet_length(json) AS before FROM (
            SELECT changeset.*, json FROM changeset JOIN facts ON changeset = id
            WHERE destination = $1 AND state = 'pending' AND next_attempt <= $2 ORDER BY id LIMIT $3) AS first) AS due
    WHERE before <= $4 ORDER BY id";

const SAVE: &str = "\
    UPDATE changeset SET state = CASE WHEN given.dead THEN 'dead' ELSE 'pending' END, attempts = given.attempts,
        first_attempt = given.first, next_attempt = given.next, last_error = given.error, rally_ref = given.ref,
        existed = given.existed, settles_at = given.settles, made = given.made
    FROM json_to_recordset($2::json) AS given (
        id bigint, dead bool, attempts integer, first bigint, next bigint, error text, ref text, existed bool,
        settles bigint, made text)
    WHERE changeset.id = given.id AND destination = $1 AND state IN ('pending', 'dead')";

const FINISH: &str = "\
    WITH given AS (SELECT * FROM json_to_recordset($2::json) AS given (id bigint, outcome text, ref text)),
         gone AS (DELETE FROM facts USING given WHERE changeset = given.id)
    UPDATE changeset SET state = given.outcome, rally_ref = given.ref, done_at = $3, attempts = 0, first_attempt = NULL,
        last_error = NULL, settles_at = NULL, made = NULL, check_at = CASE WHEN check_at IS NULL THEN NULL ELSE $4 END
    FROM given WHERE changeset.id = given.id AND destination = $1";

const SAVE_STATES: &str = "\
    UPDATE state_request SET done = given.done, json = given.json, attempts = given.attempts,
        first_attempt = given.first, next_attempt = given.next
    FROM json_to_recordset($2::json) AS given (
        id bigint, done bool, json text, attempts integer, first bigint, next bigint)
    WHERE state_request.id = given.id AND destination = $1";

impl WorkQueue for Held<'_> {
    fn due(&self, now: Time, limit: usize, max_bytes: usize) -> Result<Vec<Entry>, Error> {
        let parameters: [Parameter; 4] = [
            (&self.id, Type::INT8),
            (&now.millis(), Type::INT8),
            (&(limit as i64), Type::INT8),
            (&(max_bytes as i64), Type::INT8),
        ];
        Ok(self.readable(self.connection().query(DUE, &parameters)?)?)
    }

    fn due_state_requests(&self, now: Time, limit: usize) -> Result<Vec<StateEntry>, Error> {
        let rows = self.connection().query(
            "SELECT *, NULL AS last_error FROM state_request WHERE destination = $1 AND NOT done AND next_attempt <= $2 \
             ORDER BY id LIMIT $3",
            &[(&self.id, Type::INT8), (&now.millis(), Type::INT8), (&(limit as i64), Type::INT8)],
        )?;
        let mut entries = Vec::new();
        for row in &rows {
            match serde_json::from_str(row.get("json")) {
                Ok(request) => entries.push(StateEntry { id: row.get("id"), request, attempts: self.attempts(row) }),
                Err(_) => {
                    self.set_aside(row, "UPDATE state_request SET done = true WHERE destination = $1 AND id = $2")?;
                }
            }
        }
        Ok(entries)
    }

    fn save(&mut self, entries: &[&Entry]) -> Result<(), Error> {
        if entries.is_empty() {
            return Ok(());
        }
        // `note` has locked the destination, as forwarders do, so the order of the rows does not matter.
        let row = |entry: &&Entry| {
            let Attempts { failed, first, next, last_error, is_over } = &entry.attempts;
            json!({
                "id": entry.id, "dead": is_over, "attempts": failed, "first": first, "next": next,
                "error": last_error.as_deref().map(without_nul), "ref": entry.rally_ref, "existed": entry.existed,
                "settles": column_of(entry.writes), "made": entry.made,
            })
        };
        let rows: Vec<Value> = entries.iter().map(row).collect();
        let parameters: [Parameter; 2] = [(&self.id, Type::INT8), (&to_json(&rows), Type::TEXT)];
        Ok(self.note(|tx| match tx.execute(SAVE, &parameters)? {
            // Without its note nothing may be sent.
            changed if changed < entries.len() as u64 => Err(LedgerError::Changed(self.destination.repository.clone())),
            _ => Ok(()),
        })?)
    }

    fn count(&mut self, counter: &'static str, by: i64) -> Result<(), Error> {
        let sql = format!("UPDATE destination SET {counter} = {counter} + $2 WHERE id = $1");
        Ok(self.note(|tx| tx.execute(&sql, &[(&self.id, Type::INT8), (&by, Type::INT8)]).map(drop))?)
    }

    fn finish(&mut self, done: &[(&Entry, Outcome)], _destination: &str, now: Time) -> Result<(), Error> {
        if done.is_empty() {
            return Ok(());
        }
        let outcome = |entry: &Entry, name| json!({"id": entry.id, "outcome": name, "ref": entry.rally_ref});
        let rows: Vec<Value> = done.iter().map(|(entry, is)| outcome(entry, is.name())).collect();
        let parameters: [Parameter; 4] = [
            (&self.id, Type::INT8),
            (&to_json(&rows), Type::TEXT),
            (&now.millis(), Type::INT8),
            (&(now + self.settled_by).millis(), Type::INT8),
        ];
        Ok(self.note(|tx| tx.execute(FINISH, &parameters).map(drop))?)
    }

    fn save_state_requests(&mut self, entries: &[StateEntry]) -> Result<(), Error> {
        let row = |entry: &StateEntry| {
            let Attempts { failed, first, next, is_over, .. } = &entry.attempts;
            let json = entry.json();
            json!({"id": entry.id, "done": is_over, "json": json, "attempts": failed, "first": first, "next": next})
        };
        let rows: Vec<Value> = entries.iter().map(row).collect();
        let parameters: [Parameter; 2] = [(&self.id, Type::INT8), (&to_json(&rows), Type::TEXT)];
        Ok(self.note(|tx| tx.execute(SAVE_STATES, &parameters).map(drop))?)
    }

    fn give_up(&mut self, waiting_since_before: Time, reason: &str) -> Result<Vec<String>, Error> {
        if waiting_since_before <= self.resumed {
            return Ok(Vec::new());
        }
        Ok(self.note(|tx| {
            let rows = tx.query(
                "UPDATE changeset SET state = 'dead', last_error = $3 WHERE destination = $1 AND state = 'pending' \
                 AND greatest(entered_at, coalesce(first_attempt, 0)) < $2 RETURNING revision",
                &[
                    (&self.id, Type::INT8),
                    (&waiting_since_before.millis(), Type::INT8),
                    (&without_nul(reason), Type::TEXT),
                ],
            )?;
            Ok(rows.iter().map(|row| row.get("revision")).collect())
        })?)
    }

    fn pause(&self, _now: Time) -> Result<Option<Pause>, Error> {
        Ok(self.pause.clone())
    }

    fn set_pause(&mut self, pause: Option<&Pause>) -> Result<(), Error> {
        let pause = pause.map(|pause| Pause { error: without_nul(&pause.error), ..pause.clone() });
        let json = |pause: &Pause| serde_json::to_string(pause).expect("plain data becomes JSON");
        let own = pause.as_ref().filter(|pause| !pause.is_outage).map(json);
        self.note(|tx| {
            tx.execute(
                "UPDATE destination SET pause = $2 WHERE id = $1",
                &[(&self.id, Type::INT8), (&own, Type::TEXT)],
            )?;
            let account: Parameter = (&self.account, Type::TEXT);
            match pause.as_ref().filter(|pause| pause.is_outage) {
                Some(outage) => tx.execute(
                    "INSERT INTO pause (account, json, until) VALUES ($1, $2, $3) \
                     ON CONFLICT (account) DO UPDATE SET json = $2, until = $3, probe_until = 0",
                    &[account, (&json(outage), Type::TEXT), (&outage.until.millis(), Type::INT8)],
                ),
                None => tx.execute("DELETE FROM pause WHERE account = $1", &[account]),
            }
            .map(drop)
        })?;
        self.pause = pause;
        Ok(())
    }

    fn cached(&self, kind: &str, key: &str, since: Time) -> Result<Option<String>, Error> {
        let answer = self.cache.get(&(kind.to_owned(), key.to_owned()));
        Ok(answer.filter(|(_, at)| *at >= since).map(|(value, _)| value.clone()))
    }

    fn remember(&mut self, kind: &str, answers: &[(String, String)], now: Time) -> Result<(), Error> {
        let to_keep: BTreeMap<String, String> = answers
            .iter()
            .filter(|(key, _)| key.len() <= LONGEST_KEY)
            .map(|(key, value)| (without_nul(key), without_nul(value)))
            .collect();
        let parameters: [Parameter; 4] = [
            (&self.id, Type::INT8),
            (&kind, Type::TEXT),
            (&to_json(&to_keep), Type::TEXT),
            (&now.millis(), Type::INT8),
        ];
        self.note(|tx| {
            tx.execute(
                "INSERT INTO cache SELECT $1, $2, key, value, $4 FROM json_each_text($3::json) \
                 ON CONFLICT (destination, kind, key) DO UPDATE SET value = excluded.value, at = excluded.at",
                &parameters,
            )
            .map(drop)
        })?;
        let answers = answers.iter().map(|(key, value)| ((kind.to_owned(), key.clone()), (value.clone(), now)));
        self.cache.extend(answers);
        Ok(())
    }

    fn forget(&mut self, kind: &str, key: &str) -> Result<(), Error> {
        let sql = "DELETE FROM cache WHERE destination = $1 AND kind = $2 AND key = $3";
        let parameters: [Parameter; 3] = [(&self.id, Type::INT8), (&kind, Type::TEXT), (&without_nul(key), Type::TEXT)];
        self.note(|tx| tx.execute(sql, &parameters).map(drop))?;
        self.cache.remove(&(kind.to_owned(), key.to_owned()));
        Ok(())
    }
}

impl Held<'_> {
    /// Reads changesets. One that another release has forwarded in a form that this one does not understand becomes a dead
    /// letter, and holds up no others.
    fn readable(&self, rows: Vec<Row>) -> Result<Vec<Entry>, LedgerError> {
        let mut entries = Vec::new();
        for row in &rows {
            match serde_json::from_str(row.get("json")) {
                Ok(changeset) => entries.push(self.entry(row, changeset)),
                Err(_) => self.set_aside(
                    row,
                    "UPDATE changeset SET state = 'dead', last_error = 'it was forwarded by a release of rally-hook that this \
                     one does not understand' WHERE destination = $1 AND id = $2",
                )?,
            }
        }
        Ok(entries)
    }

    fn set_aside(&self, row: &Row, sql: &str) -> Result<(), LedgerError> {
        let row: i64 = row.get("id");
        self.note(|tx| tx.execute(sql, &[(&self.id, Type::INT8), (&row, Type::INT8)]).map(drop))
    }

    fn entry(&self, row: &Row, changeset: Changeset) -> Entry {
        let time = |column: &str| row.get::<_, Option<i64>>(column).map(Time::from_millis);
        Entry {
            id: row.get("id"),
            changeset,
            recorded_at: Time::from_millis(row.get("recorded_at")),
            attempts: self.attempts(row),
            rally_ref: row.get("rally_ref"),
            existed: row.get("existed"),
            writes: writes_of(time("settles_at")),
            made: parse_made(row.get("made")),
        }
    }

    fn attempts(&self, row: &Row) -> Attempts {
        let first = row.get::<_, Option<i64>>("first_attempt").map(Time::from_millis);
        Attempts {
            failed: row.get::<_, i32>("attempts").unsigned_abs(),
            first: first.map(|first| first.max(self.resumed)),
            next: Time::from_millis(row.get("next_attempt")),
            last_error: row.get("last_error"),
            is_over: false,
        }
    }
}
