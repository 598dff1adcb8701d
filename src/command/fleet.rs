//! What `rally-hook worker` does for the ledger: threads that deliver from it, whichever server has forwarded.

use std::thread::{self, Scope};

use super::deliver::identity;
use super::{Error, store};
use crate::cli::Place;
use crate::config as configuration;
use crate::deliver::{Event, Line};
use crate::log::Log;
use crate::messages::tell;
use crate::panics::caught_in_thread;
use crate::process;
use crate::queue::Destination;
use crate::text::with_causes;
use crate::worker::{Fleet, Ledgers, Shared};

/// How many destinations this worker delivers to at the same time. Requests are limited by permits.
const LANES: usize = 8;

/// Starts the threads that deliver from the ledger, if the configuration names one. Returns whether it does.
pub(super) fn start<'s>(scope: &'s Scope<'s, '_>, place: &'s Place, ledgers: &'s Ledgers) -> bool {
    // What is wrong with the configuration is told of each repository.
    let Ok((config, access)) = store::common(place) else { return false };
    let ledger = ledgers.place(&access);
    match config.rally.has_credentials() {
        true => tell(&format!("delivering from the ledger at {ledger}")),
        false => tell(&format!(
            "forwarding to the ledger at {ledger}; others deliver from it, for there are no credentials for Rally here"
        )),
    }
    scope.spawn(|| work(place, ledgers));
    true
}

fn work(place: &Place, ledgers: &Ledgers) {
    let load = || configuration::load_common(place.config.as_deref());
    let observe = |log: &configuration::Log, destination: &Destination, event: &Event| {
        let log = Log::of_service(log, &destination.repository);
        let Line { level, name, fields, text } = event.line();
        log.write(level, name, &fields, &text);
    };
    let fleet = Fleet {
        identity: identity(),
        load: &load,
        ledgers,
        observe: &observe,
        report: &|text| tell(text),
        is_stopped: &process::is_terminated,
        shared: Shared::default(),
    };
    thread::scope(|scope| {
        for _ in 0..LANES {
            scope.spawn(|| until_the_end(&|| fleet.work()));
        }
        until_the_end(&|| fleet.send_heartbeats());
    });
}

/// Does some work until the process is to end, also after a bug in it.
fn until_the_end(work: &dyn Fn()) {
    while !process::is_terminated() {
        if let Err(panic) = caught_in_thread(work) {
            tell(&with_causes(&Error::Bug(panic)));
        }
    }
}
