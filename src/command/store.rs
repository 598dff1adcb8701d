//! `rally-hook store migrate`: the tables of the ledger that many servers share.

use super::{Ended, Error};
use crate::cli::{self, Place};
use crate::config::{self as configuration, Config, StoreAccess};
use crate::messages::tell;
use crate::worker::Ledgers;

pub(super) fn run(place: &Place, action: &cli::Store) -> Result<Ended, Error> {
    let cli::Store::Migrate { grant } = action;
    let (_, access) = common(place)?;
    let ledger = Ledgers::default().ledger(&access)?;
    let migrated = ledger.migrate(grant.as_deref())?;
    let done = match migrated.from {
        0 => format!("made the tables of the ledger at {} (version {})", ledger.place(), migrated.to),
        from if from == migrated.to => format!("the ledger at {} is of version {from} already", ledger.place()),
        from => format!("migrated the ledger at {} from version {from} to {}", ledger.place(), migrated.to),
    };
    tell(&done);
    match grant {
        Some(role) => tell(&format!("the role {role} may use it; let queue.store name that role")),
        None => tell("another role needs --grant ROLE to use it"),
    }
    Ok(Ended::Done)
}

/// Returns the settings that are no single repository's, and how the ledger is reached.
pub(super) fn common(place: &Place) -> Result<(Config, StoreAccess), Error> {
    let config = configuration::load_common(place.config.as_deref())?;
    let access = config.queue.store_access()?;
    let none = || {
        Error::Usage(
            "the configuration names no ledger; set store in [queue], such as \
             \"postgres://rally_hook@db.acme.example/rally_hook\""
                .into(),
        )
    };
    let access = access.ok_or_else(none)?;
    Ok((config, access))
}
