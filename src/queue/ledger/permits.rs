//! The permits of a fleet: rows, each with a lease as long as the request that it is for may last.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use tokio_postgres::types::Type;

use super::connection::Common;
use super::held::Lease;
use super::{Held, LedgerError, Session, millis};
use crate::backoff::random;
use crate::clock::Deadline;
use crate::permits::{FleetPermits, Guard};

/// The shortest and the longest wait before a permit, or an artifact that others have, is asked for again.
const POLL: (Duration, Duration) = (Duration::from_millis(5), Duration::from_millis(30));
/// A request's lease is longer than its time limit by this: the answer has to be told to the ledger too.
const MARGIN: Duration = Duration::from_secs(5);
/// Rally serves no more requests of a user at a time (docs/wsapi.md, 6.1).
const MOST: i32 = 12;

const TAKE: &str = "\
    UPDATE permit SET holder = $2, lease_until = now_ms() + $3 WHERE (account, slot) = (
        SELECT account, slot FROM permit WHERE account = $1 AND slot < $4 AND lease_until <= now_ms()
        ORDER BY slot DESC LIMIT 1 FOR UPDATE SKIP LOCKED)";
const LOCK: &str = "\
    INSERT INTO artifact_lock SELECT $1, artifact, $2, now_ms() + $3 FROM unnest($4::text[]) AS given (artifact)
    ON CONFLICT (account, artifact) DO UPDATE SET holder = excluded.holder, lease_until = excluded.lease_until
    WHERE artifact_lock.lease_until <= now_ms()";

/// The permits for what a worker does with a destination that it holds.
struct LedgerPermits {
    common: Arc<Common>,
    lease: Arc<Lease>,
    account: String,
    /// Tells this claim from all others.
    claim: String,
    limit: i32,
    /// The time limit of a request: none is sent when the claim ends earlier than that.
    timeout: Duration,
    /// Tells the permits of the claim from each other.
    number: AtomicU64,
}

impl Held<'_> {
    /// Returns the permits for what this worker sends: of one account, at most `limit` requests at a time.
    pub(crate) fn permits(&self, limit: usize, timeout: Duration) -> Result<Arc<dyn FleetPermits>, LedgerError> {
        let account = self.account().to_owned();
        self.session().make_permits(&account)?;
        Ok(Arc::new(LedgerPermits {
            common: Arc::clone(&self.session().common),
            lease: Arc::clone(self.lease()),
            account,
            claim: self.claim_name(),
            limit: i32::try_from(limit).unwrap_or(MOST).min(MOST),
            timeout,
            number: AtomicU64::new(0),
        }))
    }
}

impl Session {
    fn make_permits(&self, account: &str) -> Result<(), LedgerError> {
        self.connection
            .execute(
                "INSERT INTO permit SELECT $1, slot FROM generate_series(0, $2 - 1) AS slot ON CONFLICT DO NOTHING",
                &[(&account, Type::TEXT), (&MOST, Type::INT4)],
            )
            .map(drop)
    }
}

impl LedgerPermits {
    fn name(&self) -> String {
        format!("{} {}", self.claim, self.number.fetch_add(1, Ordering::Relaxed))
    }

    fn run(
        &self,
        sql: &str,
        holder: &str,
        lasts: Duration,
        last: super::connection::Parameter,
    ) -> Result<u64, LedgerError> {
        let parameters =
            [(&self.account as _, Type::TEXT), (&holder as _, Type::TEXT), (&millis(lasts) as _, Type::INT8), last];
        self.common.driver.handle().block_on(self.common.execute(sql, &parameters))
    }

    fn given(&self, sql: &'static str, holder: String) -> Guard {
        Box::new(GivenBack { common: Arc::clone(&self.common), sql, account: self.account.clone(), holder })
    }

    /// Makes sure that a request which is sent now is over before somebody else may have the destination.
    fn check(&self) -> Result<(), String> {
        if self.lease.left() >= self.timeout {
            return Ok(());
        }
        Err("this worker was stopped, or cut off from the ledger, for too long; the worker that has taken over sends it".into())
    }
}

impl FleetPermits for LedgerPermits {
    fn permit(&self, lasts: Duration) -> Result<Guard, String> {
        let holder = self.name();
        loop {
            self.check()?;
            let taken = self.run(TAKE, &holder, lasts + MARGIN, (&self.limit, Type::INT4));
            match taken {
                Ok(0) => pause(),
                Ok(_) => break,
                Err(error) => return Err(crate::text::with_causes(&error)),
            }
        }
        let given = self.given("UPDATE permit SET lease_until = 0 WHERE account = $1 AND holder = $2", holder);
        // It may have taken long.
        self.check().map(|()| given)
    }

    fn lock_artifacts(&self, ids: &[&str]) -> Option<Guard> {
        let (holder, deadline) = (self.name(), Deadline::after(self.lease.length()));
        let given = || self.given("DELETE FROM artifact_lock WHERE account = $1 AND holder = $2", holder.clone());
        while !deadline.has_passed() {
            let locked = self.run(LOCK, &holder, self.lease.length(), (&ids, Type::TEXT_ARRAY)).ok()?;
            if locked == ids.len() as u64 {
                return Some(given());
            }
            // All or none: who waits for one must not keep another.
            drop(given());
            pause();
        }
        None
    }
}

fn pause() {
    thread::sleep(POLL.0 + (POLL.1 - POLL.0).mul_f64(random()));
}

/// Gives back, without waiting for the answer. If that fails, the lease ends it.
struct GivenBack {
    common: Arc<Common>,
    sql: &'static str,
    account: String,
    holder: String,
}

impl Drop for GivenBack {
    fn drop(&mut self) {
        let (common, sql) = (Arc::clone(&self.common), self.sql);
        let (account, holder) = (std::mem::take(&mut self.account), std::mem::take(&mut self.holder));
        self.common.driver.handle().spawn(async move {
            let _ = common.execute(sql, &[(&account, Type::TEXT), (&holder, Type::TEXT)]).await;
        });
    }
}
