//! What `rally-hook worker` does for the ledger: threads that deliver what other servers have forwarded.

use std::sync::Arc;
use std::thread::Scope;

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
use crate::worker::{Fleet, Identity, Ledgers, Shared};

/// How many destinations this worker delivers to at the same time. Requests are limited by permits.
const LANES: usize = 8;

/// The threads that deliver from the ledger, once the configuration names one.
pub(super) struct Deliverers {
    place: Place,
    is_started: bool,
}

impl Deliverers {
    pub(super) fn new(place: &Place) -> Self {
        Deliverers { place: place.clone(), is_started: false }
    }

    /// Starts them, if that was not done and there is a ledger.
    pub(super) fn start_if_configured<'s>(&mut self, scope: &'s Scope<'s, '_>, ledgers: &'s Ledgers) {
        if self.is_started {
            return;
        }
        // What is wrong with the configuration is told of each repository.
        let Ok((config, access)) = store::common(&self.place) else { return };
        self.is_started = true;
        let (identity, shared) = (identity(), Arc::new(Shared::default()));
        let place = ledgers.place(&access);
        match config.rally.has_credentials() {
            true => tell(&format!("delivering from the ledger at {place}")),
            false => tell(&format!(
                "forwarding to the ledger at {place}; others deliver from it, for there are no credentials for Rally here"
            )),
        }
        for lane in 0..=LANES {
            let (identity, named, shared) = (identity.clone(), self.place.clone(), Arc::clone(&shared));
            scope.spawn(move || run(lane, identity, &named, ledgers, &shared));
        }
    }
}

/// Works on one thread: the first one tells the ledger that this worker is there.
fn run(lane: usize, identity: Identity, place: &Place, ledgers: &Ledgers, shared: &Shared) {
    let load = || configuration::load_common(place.config.as_deref());
    let observe = |destination: &Destination, event: &Event| {
        let Ok(config) = load() else { return };
        let log = Log::of_service(&config.log, &destination.repository);
        let Line { level, name, fields, text } = event.line();
        log.write(level, name, &fields, &text);
    };
    let fleet = Fleet {
        identity,
        load: &load,
        ledgers,
        observe: &observe,
        report: &|text| tell(text),
        is_stopped: &process::is_terminated,
        shared,
    };
    while !process::is_terminated() {
        let worked = caught_in_thread(|| if lane == 0 { fleet.send_heartbeats() } else { fleet.work() });
        if let Err(panic) = worked {
            tell(&with_causes(&Error::Bug(panic)));
        }
    }
}
