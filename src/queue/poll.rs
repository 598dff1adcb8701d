//! When a service that a repository depends on was asked last, and how that went: the server of one without hooks, and the
//! ledger.

use super::{Error, Queue, meta, set_meta};
use crate::time::Time;

/// The server of a repository without hooks.
pub(crate) const SERVER: &str = "poll";
/// The ledger, to which something is forwarded.
pub(crate) const LEDGER: &str = "ledger";

/// The last attempts.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Poll {
    pub tried: Option<Time>,
    pub succeeded: Option<Time>,
    /// Why the last one failed, if it did.
    pub error: Option<String>,
}

impl Queue {
    /// Returns what was noted of the attempts to use a service.
    pub(crate) fn last_attempt(&self, service: &str) -> Result<Poll, Error> {
        self.read(|db| {
            let time = |what| Ok::<_, rusqlite::Error>(meta(db, &format!("{service} {what}"))?.map(Time::from_millis));
            let error = meta::<String>(db, &format!("{service} error"))?.filter(|error| !error.is_empty());
            Ok(Poll { tried: time("tried")?, succeeded: time("succeeded")?, error })
        })
    }

    pub(crate) fn note_attempt(&mut self, service: &str, at: Time, error: Option<&str>) -> Result<(), Error> {
        let millis = at.millis().to_string();
        self.write(|tx| {
            set_meta(tx, &format!("{service} tried"), &millis)?;
            set_meta(tx, &format!("{service} error"), error.unwrap_or_default())?;
            if error.is_none() { set_meta(tx, &format!("{service} succeeded"), &millis) } else { Ok(()) }
        })
    }
}
