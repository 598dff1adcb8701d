//! What `rally-hook status` tells of a repository's part in the ledger, if it is forwarded to one.

use super::{Site, from_now};
use crate::queue::{AtWork, DestinationStatus, LEDGER, LedgerError, Poll, Status};
use crate::text::{plural, printable, with_causes};
use crate::time::Time;
use crate::worker::destination;

/// What the ledger has of a repository.
pub(super) struct Ledger {
    pub(super) part: Result<DestinationStatus, String>,
    pub(super) contact: Poll,
    /// Commits that are queued here and not forwarded.
    pub(super) unforwarded: i64,
}

impl Ledger {
    /// Asks the ledger what it has of a repository, if there is one.
    pub(super) fn of(site: &Site, here: &Status) -> Option<Self> {
        let access = site.config.queue.store_access().transpose()?;
        let contact = site.with_queue(|queue| Ok(queue.last_attempt(LEDGER)?)).unwrap_or_default();
        let part = access.map_err(|error| with_causes(&error)).and_then(|access| {
            let only = destination(&site.config);
            let fleet = site.ledgers.with(&access, |session| session.fleet(Some(&only)));
            let fleet = fleet.map_err(|error: LedgerError| with_causes(&error));
            fleet.map(|mut fleet| fleet.destinations.remove(&only).unwrap_or_default())
        });
        Some(Ledger { part, contact, unforwarded: here.pending })
    }

    /// Returns who is at work, here or in the fleet, on what there is to do.
    pub(super) fn at_work(&self, at_work_here: AtWork, here: &Status) -> AtWork {
        let Ok(part) = &self.part else { return at_work_here };
        let is_forwarded = part.queue.is_work_left();
        match part {
            _ if here.is_work_left() => at_work_here,
            DestinationStatus { is_held: true, .. } if is_forwarded => AtWork::Delivering,
            DestinationStatus { has_worker: true, .. } => AtWork::Waiting,
            _ if is_forwarded => AtWork::Nobody,
            _ => at_work_here,
        }
    }

    /// Adds what the ledger has. What is done is counted there alone: the queue forwards its receipts.
    pub(super) fn add_to(&self, status: &mut Status) {
        let Ok(DestinationStatus { queue: ledger, .. }) = &self.part else { return };
        let earliest = |one: Option<Time>, other: Option<Time>| one.into_iter().chain(other).min();
        status.pending += ledger.pending;
        status.failed += ledger.failed;
        status.state_requests += ledger.state_requests;
        (status.delivered, status.existed, status.unlinked) = (ledger.delivered, ledger.existed, ledger.unlinked);
        status.recorded = status.pending + status.failed + status.delivered + status.existed + status.unlinked;
        status.oldest_pending = earliest(status.oldest_pending, ledger.oldest_pending);
        status.next_attempt = earliest(status.next_attempt, ledger.next_attempt);
        status.unclear += ledger.unclear;
        status.unclear_until = status.unclear_until.max(ledger.unclear_until);
        status.last_delivery = status.last_delivery.max(ledger.last_delivery);
        status.last_error = ledger.pause.as_ref().map(|pause| pause.error.clone()).or(ledger.last_error.clone());
        status.pause = ledger.pause.clone();
        status.requests += ledger.requests;
        status.unknown_authors += ledger.unknown_authors;
        status.dead_letters.extend(ledger.dead_letters.iter().cloned());
    }

    /// Returns the line about it.
    pub(super) fn line(&self) -> String {
        let here = match self.unforwarded {
            0 => "no queued commit is left to forward".to_owned(),
            count => format!("{} not forwarded", plural(count, "commit")),
        };
        let last =
            self.contact.succeeded.map_or("never forwarded".into(), |at| format!("forwarded last {}", from_now(at)));
        let part = match &self.part {
            Ok(part) => part,
            Err(error) => {
                return format!("ledger     {here}; {last}; what was forwarded is not counted: {}", printable(error));
            }
        };
        let why = self.contact.error.as_ref().filter(|_| self.unforwarded > 0);
        let why = why.map(|error| format!(": {};", printable(error))).unwrap_or(",".into());
        let blocked = |until| format!("; nothing is delivered until {until}, after a failover or restore");
        let blocked = part.blocked_until.map(blocked).unwrap_or_default();
        format!("ledger     {here}{why} {} queued there; {last}{blocked}", part.queue.pending)
    }
}
