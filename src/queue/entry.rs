//! What waits in the queue, as delivery sees and changes it. Plain data.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use crate::changeset::{Changeset, StateRequest};
use crate::time::Time;

/// A changeset that waits, with all that is known of it.
#[derive(Debug, Clone)]
pub(crate) struct Entry {
    pub id: i64,
    pub changeset: Changeset,
    pub recorded_at: Time,
    pub attempts: Attempts,
    /// The Changeset in Rally, once it is known to be there.
    pub rally_ref: Option<String>,
    /// Whether it was there before we made one.
    pub existed: bool,
    pub writes: Writes,
    /// The places of the changes that are known to be in Rally.
    pub made: BTreeSet<usize>,
}

/// A request for state changes that waits.
#[derive(Debug, Clone)]
pub(crate) struct StateEntry {
    pub id: i64,
    pub request: StateRequest,
    pub attempts: Attempts,
}

impl StateEntry {
    /// Returns what is stored of the request; of one that is done, nothing.
    pub(super) fn json(&self) -> String {
        match self.attempts.is_over {
            true => String::new(),
            false => serde_json::to_string(&self.request).expect("plain data becomes JSON"),
        }
    }
}

/// The attempts to deliver something, and when the next one is due.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Attempts {
    pub failed: u32,
    pub first: Option<Time>,
    pub next: Time,
    pub last_error: Option<String>,
    /// A dead letter: it waits for a person.
    pub is_over: bool,
}

/// The outcomes of the writes that were sent for a changeset.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Writes {
    /// None was sent, or each was answered.
    Answered,
    /// The Changeset was found in Rally; which Changes it has is not known, and somebody may be adding them.
    ChangesUnknown,
    /// One was sent whose outcome is unknown. Before this time a look-up may miss its effect.
    Unanswered { until: Time },
}

/// How a changeset left the queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Outcome {
    Delivered,
    /// Rally had it all.
    Existed,
    /// Rally has none of the artifacts that it names.
    Unlinked,
}

impl Outcome {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Outcome::Delivered => "delivered",
            Outcome::Existed => "existed",
            Outcome::Unlinked => "unlinked",
        }
    }
}

/// Why nothing is delivered at the moment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Pause {
    pub until: Time,
    pub since: Time,
    pub attempts: u32,
    pub error: String,
    /// Whether a person has to act, as opposed to a service that is down.
    pub needs_person: bool,
    /// Whether all who use the account have this trouble, as opposed to one repository.
    #[serde(default)]
    pub is_outage: bool,
}
