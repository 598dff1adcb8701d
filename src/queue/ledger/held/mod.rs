//! A destination that a worker holds: what is due there, and what becomes of it.
//!
//! Each note is one transaction that first checks the token of the claim. A worker that was stopped for longer than its
//! lease may find that another one has the destination: then it notes nothing more, and [`Lease`] keeps it from sending.

mod work;

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::task::JoinHandle;
use tokio_postgres::Row;
use tokio_postgres::types::Type;

use super::connection::{Common, Connection, Parameter};
use super::{Destination, LedgerError, Session, millis};
use crate::clock::Deadline;
use crate::queue::Pause;
use crate::text::with_causes;
use crate::time::Time;

/// How long answers are kept.
const ANSWERS_KEPT: Duration = Duration::from_secs(24 * 3600);

/// Takes the destination that has been due longest, unless the account's server is down: nobody else holds it, or the lease
/// of who did is over.
const CLAIM: &str = "\
    UPDATE destination SET holder = $1, token = (random() * 9e15)::bigint, lease_until = now_ms() + $2 FROM (
        SELECT id, holder AS holder_before FROM destination
        WHERE server = $3 AND ($5::bigint IS NULL AND due_at <= now_ms() OR id = $5) AND lease_until <= now_ms()
          AND NOT EXISTS (SELECT FROM pause WHERE account = $4 AND $5::bigint IS NULL
                          AND (until > now_ms() OR probe_until > now_ms()))
          AND NOT EXISTS (SELECT FROM meta WHERE key = 'blocked' AND value::bigint > now_ms())
        ORDER BY due_at LIMIT 1 FOR UPDATE SKIP LOCKED) AS due
    WHERE destination.id = due.id
    RETURNING destination.*, holder_before, now_ms() AS now";

const RENEW: &str = "\
    UPDATE destination SET lease_until = now_ms() + $3 WHERE id = (
        SELECT id FROM destination WHERE id = $1 AND token = $2 AND holder IS NOT NULL FOR UPDATE SKIP LOCKED)";
const IS_CLAIMED: &str = "SELECT FROM destination WHERE id = $1 AND token = $2 AND holder IS NOT NULL";

/// When something is due at the destination.
const NEXT_DUE: &str = "\
    SELECT min(at) FROM (
        SELECT min(next_attempt) AS at FROM changeset WHERE destination = $1 AND state = 'pending'
        UNION ALL SELECT min(next_attempt) FROM state_request WHERE destination = $1 AND NOT done
        UNION ALL SELECT min(check_at) FROM changeset WHERE destination = $1 AND check_at IS NOT NULL
                  AND state NOT IN ('pending', 'dead')) AS due";

/// How long a claim is good for, as this process knows it.
pub(super) struct Lease {
    length: Duration,
    valid: Mutex<Deadline>,
    is_lost: AtomicBool,
}

impl Lease {
    /// Returns how much of it is left.
    pub(super) fn left(&self) -> Duration {
        if self.is_lost.load(Ordering::Relaxed) {
            Duration::ZERO
        } else {
            self.valid.lock().expect("no holder panics").left()
        }
    }

    pub(super) fn length(&self) -> Duration {
        self.length
    }
}

/// A destination that this worker holds.
pub(crate) struct Held<'s> {
    session: &'s Session,
    pub destination: Destination,
    /// How its changesets are posted.
    pub settings: String,
    id: i64,
    token: i64,
    account: String,
    lease: Arc<Lease>,
    /// How long Rally may be at work on what was sent.
    settled_by: Duration,
    renewal: JoinHandle<()>,
    /// By how much the database's clock is ahead of ours, in milliseconds.
    ahead: i64,
    pause: Option<Pause>,
    /// Since when workers are there without a gap: what was tried before counts as tried first then.
    resumed: Time,
    /// What is remembered; only who holds the destination writes it.
    cache: HashMap<(String, String), (String, Time)>,
}

impl Session {
    /// Claims a destination of this server that is due, or the one that is named. `settled_by` is how long Rally may be at
    /// work on what is sent.
    pub(crate) fn claim(
        &self,
        worker: &str,
        account: &str,
        server: &str,
        only: Option<&Destination>,
        lease: Duration,
        settled_by: Duration,
    ) -> Result<Option<Held<'_>>, LedgerError> {
        let id = match only {
            Some(destination) => match self.id_of(destination)? {
                Some(id) => Some(id),
                None => return Ok(None),
            },
            None => None,
        };
        let valid = Deadline::after(lease);
        let parameters: [Parameter; 5] = [
            (&worker, Type::TEXT),
            (&millis(lease), Type::INT8),
            (&server, Type::TEXT),
            (&account, Type::TEXT),
            (&id, Type::INT8),
        ];
        let Some(row) = self.connection.first(CLAIM, &parameters)? else { return Ok(None) };
        let lease = Arc::new(Lease { length: lease, valid: Mutex::new(valid), is_lost: AtomicBool::new(false) });
        let (id, token) = (row.get("id"), row.get("token"));
        let renewal = self.common.driver.handle().spawn(renew(Arc::clone(&self.common), Arc::clone(&lease), id, token));
        let now: i64 = row.get("now");
        let mut held = Held {
            session: self,
            destination: destination_of(&row),
            settings: row.get("settings"),
            id,
            token,
            account: account.to_owned(),
            lease,
            settled_by,
            renewal,
            ahead: now - crate::clock::now().millis(),
            pause: row.get::<_, Option<String>>("pause").and_then(|json| serde_json::from_str(&json).ok()),
            resumed: Time::from_millis(0),
            cache: HashMap::new(),
        };
        // Who had it before has not given it back.
        if row.get::<_, Option<String>>("holder_before").is_some() {
            held.note_takeover()?;
        }
        held.load()?;
        // Others wait until one has found out whether the server is back.
        if only.is_none() && held.is_outage() && !held.takes_probe()? {
            held.release()?;
            return Ok(None);
        }
        Ok(Some(held))
    }

    /// Returns in what time something is due at a destination, if anything waits.
    pub(crate) fn due_in(&self, destination: &Destination) -> Result<Option<Duration>, LedgerError> {
        let Some(id) = self.id_of(destination)? else { return Ok(None) };
        let sql = format!("SELECT ({NEXT_DUE}) - now_ms() AS due_in");
        let row = self.connection.first(&sql, &[(&id, Type::INT8)])?;
        let due_in: Option<i64> = row.and_then(|row| row.get("due_in"));
        Ok(due_in.map(|millis| Duration::from_millis(millis.max(0).unsigned_abs())))
    }

    pub(super) fn id_of(&self, destination: &Destination) -> Result<Option<i64>, LedgerError> {
        let Destination { server, workspace, repository } = destination;
        let row = self.connection.first(
            "SELECT id FROM destination WHERE server = $1 AND workspace = $2 AND repository = $3",
            &[(server, Type::TEXT), (workspace, Type::TEXT), (repository, Type::TEXT)],
        )?;
        Ok(row.map(|row| row.get("id")))
    }

    /// Ends the account's pause: its server may be up again, or its credentials are new.
    pub(crate) fn end_outage(&self, account: &str) -> Result<(), LedgerError> {
        self.connection.execute("DELETE FROM pause WHERE account = $1", &[(&account, Type::TEXT)]).map(drop)
    }

    /// Lets others claim at once what this process had claimed when it lost its connection. Its writes of unknown outcome
    /// are looked at as after any takeover.
    pub(crate) fn abandon(&self, (id, token): (i64, i64)) -> Result<(), LedgerError> {
        self.connection
            .execute(
                "UPDATE destination SET lease_until = 0 WHERE id = $1 AND token = $2 AND holder IS NOT NULL",
                &[(&id, Type::INT8), (&token, Type::INT8)],
            )
            .map(drop)
    }
}

pub(super) fn destination_of(row: &Row) -> Destination {
    Destination { server: row.get("server"), workspace: row.get("workspace"), repository: row.get("repository") }
}

/// Renews a lease for as long as the process lives and the database answers. One that has ended is not renewed: this process
/// was stopped, and the database may have been set back meanwhile.
async fn renew(common: Arc<Common>, lease: Arc<Lease>, id: i64, token: i64) {
    loop {
        tokio::time::sleep(lease.length / 3).await;
        let valid = Deadline::after(lease.length);
        if lease.left().is_zero() {
            return lease.is_lost.store(true, Ordering::Relaxed);
        }
        let claim: [Parameter; 2] = [(&id, Type::INT8), (&token, Type::INT8)];
        let length = millis(lease.length);
        let parameters = [claim.as_slice(), &[(&length as _, Type::INT8)]].concat();
        match common.execute(RENEW, &parameters).await {
            Ok(1) => *lease.valid.lock().expect("no holder panics") = valid,
            // Another transaction may have the row at this moment; that must not hold up what shares the connection.
            Ok(_) if matches!(common.execute(IS_CLAIMED, &claim).await, Ok(0)) => {
                return lease.is_lost.store(true, Ordering::Relaxed);
            }
            // There is still time for another attempt.
            _ => {}
        }
    }
}

impl Drop for Held<'_> {
    fn drop(&mut self) {
        self.renewal.abort();
    }
}

impl Held<'_> {
    pub(super) fn lease(&self) -> &Arc<Lease> {
        &self.lease
    }

    pub(super) fn session(&self) -> &Session {
        self.session
    }

    /// Returns what [`Session::abandon`] takes.
    pub(crate) fn claim(&self) -> (i64, i64) {
        (self.id, self.token)
    }

    /// Returns what tells this claim from all others.
    pub(super) fn claim_name(&self) -> String {
        format!("{} {}", self.id, self.token)
    }

    pub(super) fn account(&self) -> &str {
        &self.account
    }

    /// Returns the time by the database's clock.
    pub(crate) fn clock(&self) -> impl Fn() -> Time + use<> {
        let ahead = self.ahead;
        move || Time::from_millis(crate::clock::now().millis() + ahead)
    }

    fn connection(&self) -> &Connection {
        &self.session.connection
    }

    /// Reads what is remembered, and whether the server is known to be down.
    fn load(&mut self) -> Result<(), LedgerError> {
        let since = self.clock()() - ANSWERS_KEPT;
        let parameters: [Parameter; 2] = [(&self.id, Type::INT8), (&since.millis(), Type::INT8)];
        self.connection().execute("DELETE FROM cache WHERE destination = $1 AND at < $2", &parameters)?;
        let rows = self.connection().query("SELECT * FROM cache WHERE destination = $1", &parameters[..1])?;
        let answer =
            |row: &Row| ((row.get("kind"), row.get("key")), (row.get("value"), Time::from_millis(row.get("at"))));
        self.cache = rows.iter().map(answer).collect();
        let outage =
            self.connection().first("SELECT json FROM pause WHERE account = $1", &[(&self.account, Type::TEXT)])?;
        if let Some(outage) = outage.and_then(|row| serde_json::from_str(row.get("json")).ok()) {
            self.pause = Some(outage);
        }
        self.resumed = self.session.resumed(&self.destination.server)?;
        if let Some(pause) = &mut self.pause {
            pause.since = pause.since.max(self.resumed);
        }
        Ok(())
    }

    fn is_outage(&self) -> bool {
        self.pause.as_ref().is_some_and(|pause| pause.is_outage)
    }

    /// Takes it upon this worker to find out whether the server is back.
    fn takes_probe(&self) -> Result<bool, LedgerError> {
        let taken = self.connection().execute(
            "UPDATE pause SET probe_until = now_ms() + $2 WHERE account = $1 AND probe_until <= now_ms()",
            &[(&self.account, Type::TEXT), (&millis(self.lease.length), Type::INT8)],
        )?;
        Ok(taken > 0)
    }

    /// Has those looked up again whose writes the holder before may have sent and not noted.
    fn note_takeover(&self) -> Result<(), LedgerError> {
        self.note(|tx| {
            tx.execute(
                "UPDATE changeset SET check_at = now_ms() WHERE destination = $1 AND state = 'pending' \
                 AND settles_at IS NOT NULL",
                &[(&self.id, Type::INT8)],
            )
            .map(drop)
        })
    }

    /// Returns the revisions that are to be looked up again now, because another worker may have posted them too.
    pub(crate) fn to_check(&self) -> Result<Vec<String>, LedgerError> {
        let rows = self.connection().query(
            "SELECT revision FROM changeset WHERE destination = $1 AND check_at <= now_ms() \
             AND state NOT IN ('pending', 'dead') LIMIT 500",
            &[(&self.id, Type::INT8)],
        )?;
        Ok(rows.iter().map(|row| row.get("revision")).collect())
    }

    /// Notes that these were looked up, and how many of them Rally has twice.
    pub(crate) fn note_checked(&self, revisions: &[String], doubles: usize) -> Result<(), LedgerError> {
        self.note(|tx| {
            tx.execute(
                "UPDATE changeset SET check_at = NULL WHERE destination = $1 AND revision = ANY($2)",
                &[(&self.id, Type::INT8), (&revisions, Type::TEXT_ARRAY)],
            )?;
            tx.execute(
                "UPDATE destination SET checked = checked + $2, doubles = doubles + $3 WHERE id = $1",
                &[(&self.id, Type::INT8), (&(revisions.len() as i64), Type::INT8), (&(doubles as i64), Type::INT8)],
            )
            .map(drop)
        })
    }

    /// Has this destination wait for so long, for a reason that is not the server's and that a person must see to.
    pub(crate) fn put_off(&mut self, error: &LedgerError, span: Duration) -> Result<(), LedgerError> {
        let since = self.clock()();
        let (until, error) = (since + span, with_causes(error));
        let pause = Pause { since, until, attempts: 1, error, needs_person: true, is_outage: false };
        let json = serde_json::to_string(&pause).expect("plain data becomes JSON");
        self.pause = Some(pause);
        self.note(|tx| {
            let sql = "UPDATE destination SET pause = $2 WHERE id = $1";
            tx.execute(sql, &[(&self.id, Type::INT8), (&json, Type::TEXT)]).map(drop)
        })
    }

    /// Ends the claim, and says when the destination is due next.
    pub(crate) fn release(&self) -> Result<(), LedgerError> {
        // Also where the server is down: then one that had no part in that is the first to find out whether it is back.
        let pause = self.pause.as_ref().map_or(0, |pause| pause.until.millis());
        self.note(|tx| {
            let next: Option<i64> = tx.first(NEXT_DUE, &[(&self.id, Type::INT8)])?.and_then(|row| row.get(0));
            tx.execute(
                "WITH probe AS (UPDATE pause SET probe_until = 0 WHERE account = $4 AND probe_until > 0) \
                 UPDATE destination SET holder = NULL, lease_until = 0, due_at = greatest($2, $3) WHERE id = $1",
                &[
                    (&self.id, Type::INT8),
                    (&next, Type::INT8),
                    (&next.map(|_| pause), Type::INT8),
                    (&self.account, Type::TEXT),
                ],
            )
            .map(drop)
        })
    }

    /// Does something in a transaction, if this worker still holds the destination, and renews the lease.
    fn note<T>(&self, work: impl FnOnce(&Connection) -> Result<T, LedgerError>) -> Result<T, LedgerError> {
        let lease = millis(self.lease.length);
        self.connection().transaction(|tx| {
            let is_ours = tx.execute(
                "UPDATE destination SET lease_until = greatest(lease_until, now_ms() + $3) WHERE id = $1 AND token = $2",
                &[(&self.id, Type::INT8), (&self.token, Type::INT8), (&lease, Type::INT8)],
            )?;
            if is_ours == 0 {
                self.lease.is_lost.store(true, Ordering::Relaxed);
                return Err(LedgerError::Lost(self.destination.repository.clone()));
            }
            work(tx)
        })
    }
}
