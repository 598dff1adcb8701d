//! When the server of a repository without hooks was asked last, and how that went.

use super::{Error, Queue, meta, set_meta};
use crate::time::Time;

const TRIED: &str = "poll tried";
const SUCCEEDED: &str = "poll succeeded";
const ERROR: &str = "poll error";

/// The last polls.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Poll {
    pub tried: Option<Time>,
    pub succeeded: Option<Time>,
    /// Why the last one failed, if it did.
    pub error: Option<String>,
}

impl Queue {
    pub(crate) fn poll(&self) -> Result<Poll, Error> {
        self.read(|db| {
            let time = |key| Ok::<_, rusqlite::Error>(meta(db, key)?.map(Time::from_millis));
            let error = meta::<String>(db, ERROR)?.filter(|error| !error.is_empty());
            Ok(Poll { tried: time(TRIED)?, succeeded: time(SUCCEEDED)?, error })
        })
    }

    pub(crate) fn note_poll(&mut self, at: Time, error: Option<&str>) -> Result<(), Error> {
        let millis = at.millis().to_string();
        self.write(|tx| {
            set_meta(tx, TRIED, &millis)?;
            set_meta(tx, ERROR, error.unwrap_or_default())?;
            if error.is_none() { set_meta(tx, SUCCEEDED, &millis) } else { Ok(()) }
        })
    }
}
