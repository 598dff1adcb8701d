//! What `rally-hook worker` does for the ledger: threads that deliver what other servers have forwarded.

use std::thread::Scope;

use super::deliver::identity;
use super::{Error, store};
use crate::cli::Place;
use crate::config::{self as configuration, Config, Level};
use crate::deliver::Event;
use crate::log::Log;
use crate::messages::tell;
use crate::panics::caught_in_thread;
use crate::process;
use crate::queue::Destination;
use crate::text::with_causes;
use crate::worker::{Fleet, Identity, Ledgers};

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
        let identity = identity();
        let place = ledgers.ledger(&access).map(|ledger| ledger.place().to_owned()).unwrap_or_default();
        tell(&format!("delivering also from the ledger at {place}"));
        for lane in 0..=LANES {
            let (identity, config, named) = (identity.clone(), config.clone(), self.place.clone());
            scope.spawn(move || run(lane, identity, &config, &named, ledgers));
        }
    }
}

/// Works on one thread: the first one tells the ledger that this worker is there.
fn run(lane: usize, identity: Identity, config: &Config, place: &Place, ledgers: &Ledgers) {
    let load = || configuration::load_common(place.config.as_deref());
    let observe = |destination: &Destination, event: &Event| {
        let log = Log::of_service(&config.log, &destination.repository);
        log.write(event.level(), event.name(), &event.fields(), &event.to_string());
    };
    let report = |_: Level, text: &str| tell(text);
    let fleet = Fleet::new(identity, &load, ledgers, &observe, &report, &process::is_terminated);
    while !process::is_terminated() {
        let worked = caught_in_thread(|| if lane == 0 { fleet.keep_telling() } else { fleet.work() });
        if let Err(panic) = worked {
            tell(&with_causes(&Error::Bug(panic)));
        }
    }
}
