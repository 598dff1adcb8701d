//! Numbers and reasons for `rally-hook status`, and what workers tell of themselves.

use std::collections::BTreeMap;
use std::time::Duration;

use tokio_postgres::Row;
use tokio_postgres::types::Type;

use super::connection::{Connection, Parameter};
use super::held::destination_of;
use super::migrate::TABLES;
use super::{Destination, LedgerError, Session, millis};
use crate::queue::work::{REQUESTS, UNKNOWN_AUTHORS};
use crate::queue::{DeadLetter, Pause, Status};
use crate::time::Time;

/// A worker of which nothing is heard for longer is stopped, dead or cut off.
const SILENT_AFTER: Duration = Duration::from_secs(30);
/// How long a worker that tells nothing is shown.
const REMEMBERED: Duration = Duration::from_secs(7 * 24 * 3600);

/// What the ledger has of one destination.
#[derive(Debug, Clone, Default)]
pub(crate) struct DestinationStatus {
    /// As of a queue. Pushes, and what only a repository knows, are none.
    pub queue: Status,
    /// Whether a worker holds it, and whether one tells that it is there.
    pub is_held: bool,
    pub has_worker: bool,
    /// Changesets that were looked up again after another worker took over, and those of them that Rally has twice.
    pub checked: i64,
    pub doubles: i64,
    /// Until when no worker claims anything, because the database is another one than before.
    pub blocked_until: Option<Time>,
    /// The repositories that forward to it.
    pub origins: Vec<OriginStatus>,
}

/// A repository that forwards.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct OriginStatus {
    pub host: String,
    pub repository: String,
    pub web: Option<String>,
    pub forwarded_at: Time,
}

/// A worker, as it tells of itself.
#[derive(Debug, Clone)]
pub(crate) struct WorkerStatus {
    pub id: String,
    pub host: String,
    pub version: String,
    /// The server that it delivers to; `None` if it only forwards.
    pub server: Option<String>,
    pub started_at: Time,
    pub seen_at: Time,
}

/// What decides whether a ledger can be relied on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct LedgerHealth {
    /// By its clock.
    pub now: Time,
    /// The setting of that name.
    pub synchronous_commit: String,
    /// Whether this role may write to its tables.
    pub may_write: bool,
}

/// What the ledger has of all.
#[derive(Debug, Clone)]
pub(crate) struct FleetStatus {
    /// By the database's clock.
    pub now: Time,
    pub destinations: BTreeMap<Destination, DestinationStatus>,
    pub workers: Vec<WorkerStatus>,
    pub permits_in_use: i64,
    /// Until when no worker claims anything, because the database is another one than before.
    pub blocked_until: Option<Time>,
}

const CHANGESETS: &str = "\
    SELECT destination, count(*) FILTER (WHERE state = 'pending') AS pending, count(*) FILTER (WHERE state = 'dead') AS failed,
        count(*) FILTER (WHERE state = 'delivered') AS delivered, count(*) FILTER (WHERE state = 'existed') AS existed,
        count(*) FILTER (WHERE state = 'unlinked') AS unlinked, max(done_at) FILTER (WHERE state = 'delivered') AS last_delivery,
        min(recorded_at) FILTER (WHERE state = 'pending') AS oldest, min(next_attempt) FILTER (WHERE state = 'pending') AS next,
        count(*) FILTER (WHERE state = 'pending' AND settles_at > now_ms()) AS unclear,
        max(settles_at) FILTER (WHERE state = 'pending') AS unclear_until,
        (array_agg(last_error ORDER BY state DESC, id DESC) FILTER (WHERE last_error IS NOT NULL AND state IN ('pending', 'dead')))[1]
            AS last_error
    FROM changeset WHERE $1::bigint IS NULL OR destination = $1 GROUP BY destination";

const STATE_REQUESTS: &str = "\
    SELECT destination, count(*) AS count, min(next_attempt) AS next FROM state_request
    WHERE NOT done AND ($1::bigint IS NULL OR destination = $1) GROUP BY destination";

const DEAD_LETTERS: &str = "\
    SELECT destination, revision, coalesce(last_error, '') AS reason FROM changeset
    WHERE state = 'dead' AND ($1::bigint IS NULL OR destination = $1) ORDER BY id";

const ORIGINS: &str = "SELECT * FROM origin WHERE $1::bigint IS NULL OR destination = $1 ORDER BY host, git_dir";

impl Session {
    /// Returns how all destinations stand, or the one that is named.
    pub(crate) fn fleet(&self, only: Option<&Destination>) -> Result<FleetStatus, LedgerError> {
        let id = only.map(|only| self.id_of(only)).transpose()?.map(|id| id.unwrap_or(-1));
        let only: [Parameter; 1] = [(&id, Type::INT8)];
        let db = &self.connection;
        let mut known: BTreeMap<i64, (Destination, DestinationStatus)> = BTreeMap::new();
        let destinations = "SELECT *, lease_until > now_ms() AND holder IS NOT NULL AS is_held FROM destination \
                            WHERE $1::bigint IS NULL OR id = $1";
        for row in db.query(destinations, &only)? {
            known.insert(row.get("id"), (destination_of(&row), of_destination(&row)));
        }
        let mut each = |sql: &str, add: fn(&mut DestinationStatus, &Row)| -> Result<(), LedgerError> {
            for row in db.query(sql, &only)? {
                if let Some((_, status)) = known.get_mut(&row.get("destination")) {
                    add(status, &row);
                }
            }
            Ok(())
        };
        each(CHANGESETS, add_changesets)?;
        each(STATE_REQUESTS, |status, row| {
            status.queue.state_requests = row.get("count");
            status.queue.next_attempt = [status.queue.next_attempt, time(row, "next")].into_iter().flatten().min();
        })?;
        each(DEAD_LETTERS, |status, row| {
            status.queue.dead_letters.push(DeadLetter { revision: row.get("revision"), reason: row.get("reason") });
        })?;
        each(ORIGINS, |status, row| status.origins.push(origin(row)))?;
        self.add_common(known)
    }

    pub(crate) fn health(&self) -> Result<LedgerHealth, LedgerError> {
        let row = self
            .connection
            .first(
                "SELECT now_ms() AS now, current_setting('synchronous_commit') AS synchronous_commit, \
                 bool_and(has_table_privilege(name, 'INSERT') AND has_table_privilege(name, 'UPDATE') \
                 AND has_table_privilege(name, 'DELETE')) AS may_write \
                 FROM unnest($1::text[]) AS name",
                &[(&TABLES.as_slice(), Type::TEXT_ARRAY)],
            )?
            .expect("a row");
        Ok(LedgerHealth {
            now: Time::from_millis(row.get("now")),
            synchronous_commit: row.get("synchronous_commit"),
            may_write: row.get("may_write"),
        })
    }

    /// Adds what concerns all destinations.
    fn add_common(&self, known: BTreeMap<i64, (Destination, DestinationStatus)>) -> Result<FleetStatus, LedgerError> {
        let db = &self.connection;
        let row = db
            .first(
                "SELECT now_ms() AS now, (SELECT count(*) FROM permit WHERE lease_until > now_ms()) AS permits, \
                 (SELECT value::bigint FROM meta WHERE key = 'blocked') AS blocked",
                &[],
            )?
            .expect("a row");
        let now = Time::from_millis(row.get("now"));
        // A person who has no worker may have noted one; to which server is not known then.
        let outages = db.query(
            "SELECT DISTINCT server, json, until FROM pause LEFT JOIN worker USING (account) ORDER BY until DESC",
            &[],
        )?;
        let outage = |row: &Row| Some((row.get("server"), serde_json::from_str(row.get("json")).ok()?));
        let outages: Vec<(Option<String>, Pause)> = outages.iter().filter_map(outage).collect();
        let outage_of = |server: &String| {
            let mut outages = outages.iter();
            outages.find(|(of, _)| of.as_ref().is_none_or(|of| of == server)).map(|(_, pause)| pause.clone())
        };
        let workers: Vec<WorkerStatus> =
            db.query("SELECT * FROM worker ORDER BY host, started_at", &[])?.iter().map(worker).collect();
        let blocked_until = time(&row, "blocked").filter(|until| *until > now);
        let destinations = known.into_values().map(|(destination, mut status)| {
            status.blocked_until = blocked_until;
            status.has_worker = workers.iter().any(|worker| worker.serves(&destination.server, now));
            status.queue.pause = status.queue.pause.or_else(|| outage_of(&destination.server));
            if let Some(pause) = &status.queue.pause {
                status.queue.next_attempt = status.queue.next_attempt.map(|next| next.max(pause.until));
            }
            (destination, status)
        });
        Ok(FleetStatus {
            now,
            destinations: destinations.collect(),
            workers,
            permits_in_use: row.get("permits"),
            blocked_until,
        })
    }

    /// Notes that a worker is there and, if it delivers, to which server and under which account. Time in which no worker
    /// delivered, or the database was away, does not count against `retry_for`.
    pub(crate) fn send_heartbeat(
        &self,
        id: &str,
        host: &str,
        version: &str,
        delivers: Option<(&str, &str)>,
    ) -> Result<(), LedgerError> {
        let (server, account) = delivers.unzip();
        self.connection.transaction(|tx| {
            if let Some(server) = server {
                note_presence(tx, server)?;
            }
            tx.execute(
                "INSERT INTO worker VALUES ($1, $2, $3, $4, $5, now_ms(), now_ms()) ON CONFLICT (id) DO UPDATE SET server = $4, \
                 account = $5, seen_at = now_ms()",
                &[(&id, Type::TEXT), (&host, Type::TEXT), (&version, Type::TEXT), (&server, Type::TEXT), (&account, Type::TEXT)],
            )?;
            // One of which nothing is heard any more has a successor, if it is on this host.
            tx.execute(
                "DELETE FROM worker WHERE seen_at < now_ms() - $1 OR host = $2 AND id <> $3 AND seen_at < now_ms() - $4",
                &[
                    (&millis(REMEMBERED), Type::INT8),
                    (&host, Type::TEXT),
                    (&id, Type::TEXT),
                    (&millis(SILENT_AFTER), Type::INT8),
                ],
            )?;
            // Nobody uses these credentials any more.
            tx.execute(
                "DELETE FROM pause WHERE until < now_ms() - $1 AND NOT EXISTS (SELECT FROM worker WHERE worker.account = pause.account)",
                &[(&millis(SILENT_AFTER), Type::INT8)],
            )?;
            tx.execute("DELETE FROM artifact_lock WHERE lease_until < now_ms()", &[]).map(drop)
        })
    }

    /// Notes that a worker is there that delivers to this server. To be called before it claims anything: time in which none
    /// was there, or the database was away, does not count against `retry_for`.
    pub(crate) fn note_presence(&self, server: &str) -> Result<(), LedgerError> {
        self.connection.transaction(|tx| note_presence(tx, server))
    }

    /// Returns since when workers are there without a gap that deliver to this server.
    pub(super) fn resumed(&self, server: &str) -> Result<Time, LedgerError> {
        let key = format!("resumed {server}");
        let sql = "SELECT value::bigint AS at FROM meta WHERE key = $1";
        let row = self.connection.first(sql, &[(&key, Type::TEXT)])?;
        Ok(Time::from_millis(row.map_or(0, |row| row.get("at"))))
    }

    /// Tells that a worker has ended.
    pub(crate) fn sign_off(&self, id: &str) -> Result<(), LedgerError> {
        self.connection.execute("DELETE FROM worker WHERE id = $1", &[(&id, Type::TEXT)]).map(drop)
    }
}

/// Notes that a worker is there that delivers to this server, and since when one is without a gap.
fn note_presence(tx: &Connection, server: &str) -> Result<(), LedgerError> {
    let keys = [format!("alive {server}"), format!("resumed {server}")];
    let sql = "SELECT now_ms() - value::bigint AS gap FROM meta WHERE key = $1 FOR UPDATE";
    let gap: i64 = tx.first(sql, &[(&keys[0], Type::TEXT)])?.map_or(0, |row| row.get("gap"));
    let to_set = if gap > millis(SILENT_AFTER) { &keys[..] } else { &keys[..1] };
    tx.execute(
        "INSERT INTO meta SELECT key, now_ms()::text FROM unnest($1::text[]) AS given (key) \
         ON CONFLICT (key) DO UPDATE SET value = excluded.value",
        &[(&to_set, Type::TEXT_ARRAY)],
    )
    .map(drop)
}

impl WorkerStatus {
    /// Tells whether nothing was heard of it for so long that it is stopped, dead or cut off.
    pub(crate) fn is_gone(&self, now: Time) -> bool {
        now.since(self.seen_at) > SILENT_AFTER
    }

    /// Tells whether it is at work and delivers to this server.
    pub(crate) fn serves(&self, server: &str, now: Time) -> bool {
        !self.is_gone(now) && self.server.as_deref() == Some(server)
    }
}

fn time(row: &Row, column: &str) -> Option<Time> {
    row.get::<_, Option<i64>>(column).map(Time::from_millis)
}

fn of_destination(row: &Row) -> DestinationStatus {
    let pause = row.get::<_, Option<String>>("pause").and_then(|json| serde_json::from_str::<Pause>(&json).ok());
    let (requests, unknown_authors) = (row.get(REQUESTS), row.get(UNKNOWN_AUTHORS));
    DestinationStatus {
        queue: Status { pause, requests, unknown_authors, ..Status::default() },
        checked: row.get("checked"),
        doubles: row.get("doubles"),
        is_held: row.get("is_held"),
        ..DestinationStatus::default()
    }
}

fn add_changesets(DestinationStatus { queue, .. }: &mut DestinationStatus, row: &Row) {
    queue.pending = row.get("pending");
    queue.failed = row.get("failed");
    queue.delivered = row.get("delivered");
    queue.existed = row.get("existed");
    queue.unlinked = row.get("unlinked");
    queue.last_delivery = time(row, "last_delivery");
    queue.oldest_pending = time(row, "oldest");
    queue.next_attempt = time(row, "next");
    queue.unclear = row.get("unclear");
    queue.unclear_until = time(row, "unclear_until").filter(|_| queue.unclear > 0);
    queue.last_error = row.get("last_error");
}

fn origin(row: &Row) -> OriginStatus {
    OriginStatus {
        host: row.get("host"),
        repository: row.get("git_dir"),
        web: row.get("web"),
        forwarded_at: Time::from_millis(row.get("forwarded_at")),
    }
}

fn worker(row: &Row) -> WorkerStatus {
    WorkerStatus {
        id: row.get("id"),
        host: row.get("host"),
        version: row.get("version"),
        server: row.get("server"),
        started_at: Time::from_millis(row.get("started_at")),
        seen_at: Time::from_millis(row.get("seen_at")),
    }
}
