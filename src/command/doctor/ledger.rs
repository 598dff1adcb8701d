//! What the doctor finds out about the ledger of many servers.

use std::time::Duration;

use super::Finding::{self, Fine, Note, Wrong};
use super::wrong;
use crate::clock::now;
use crate::command::{Error, Site};
use crate::queue::{DestinationStatus, LedgerError, LedgerHealth};
use crate::text::plural;
use crate::worker::destination;

/// A clock that is off by more confuses people who compare logs. Nothing else depends on it.
const CLOCKS_AGREE: Duration = Duration::from_secs(30);

/// Tells whether the ledger can be used and somebody delivers from it, and who else forwards to this SCMRepository.
pub(super) fn ledger(site: &Site) -> Finding {
    look(site).unwrap_or_else(|error| wrong(&error))
}

fn look(site: &Site) -> Result<Finding, Error> {
    let Some(access) = site.config.queue.store_access()? else {
        return Ok(Fine("none; this server delivers its queues itself".into()));
    };
    let only = destination(&site.config);
    let (health, mut fleet) =
        site.ledgers.with::<_, LedgerError>(&access, |session| Ok((session.health()?, session.fleet(Some(&only))?)))?;
    let status = fleet.destinations.remove(&only);
    let place = site.ledgers.place(&access);
    let server = &site.config.rally.server;
    let serving = fleet.workers.iter().filter(|worker| worker.serves(server, health.now)).count();
    Ok(match (problem(&health), status.as_ref().and_then(|status| clash(site, status))) {
        (Some(problem), _) => Wrong(format!("{place}: {problem}")),
        (None, Some(clash)) => Wrong(clash),
        (None, None) if serving == 0 => Wrong(format!(
            "{place}: no worker delivers from it to {server}; start `rally-hook worker` on a server that has credentials"
        )),
        (None, None) if differ(&health) => Note(format!("{place}: its clock and that of this host differ; set up NTP")),
        (None, None) => {
            let origins = status.map_or(0, |status| status.origins.len());
            let (workers, origins) = (plural(serving, "worker"), plural(origins, "repository"));
            Fine(format!(
                "{place}: {workers} for {server}; {origins} of the fleet so far forward to {}",
                only.repository
            ))
        }
    })
}

fn problem(health: &LedgerHealth) -> Option<String> {
    if !health.may_write {
        return Some("this role may not use its tables; run `rally-hook store migrate --grant ROLE`".into());
    }
    (health.synchronous_commit == "off").then(|| {
        "synchronous_commit is off, so a crash may lose what was noted before a write, and Rally gets commits twice; set it to \
         on for this database"
            .into()
    })
}

fn differ(health: &LedgerHealth) -> bool {
    health.now.since(now()) > CLOCKS_AGREE || now().since(health.now) > CLOCKS_AGREE
}

/// Returns the other repository that forwards to this SCMRepository, if its web page tells that it is not a replica.
fn clash(site: &Site, status: &DestinationStatus) -> Option<String> {
    let web = site.config.repository.web.as_ref()?;
    let other = status.origins.iter().find(|origin| origin.web.as_ref().is_some_and(|other| other != web))?;
    Some(format!(
        "{} on {} posts to {:?} too, and its web page is another one ({}); set another repository.name for one of them",
        other.repository,
        other.host,
        site.config.repository.name,
        other.web.as_deref().unwrap_or_default()
    ))
}
