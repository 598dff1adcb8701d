//! What happens during delivery, for the log, the counts and the progress bar.

use std::fmt;
use std::time::Duration;

use crate::changeset::Changeset;
use crate::config::Level;
use crate::queue::{Outcome, Pause};
use crate::text::{cut, plural};

/// Anybody may choose a longer name or address, in bytes.
const MAX_NAME: usize = 200;

/// Takes each event as it happens.
pub(crate) type Observer<'o> = &'o mut dyn FnMut(&Event);

/// One event. Its text is a line for the log.
#[derive(Debug)]
pub(crate) enum Event<'e> {
    Due {
        changesets: usize,
        state_requests: usize,
    },
    ChangesetsAreHidden,
    ArtifactsMissing {
        revision: &'e str,
        missing: &'e [String],
    },
    Unlinked {
        revision: &'e str,
        missing: &'e [String],
    },
    /// This user may not write to an artifact, so the commit is posted without it.
    LeftOut {
        revision: &'e str,
        artifact: &'e str,
        error: &'e str,
    },
    /// Rally refused to tell its users, so commits are posted without their authors.
    AuthorsRefused {
        error: &'e str,
    },
    AuthorUnknown {
        commit: &'e Changeset,
    },
    Completing {
        revision: &'e str,
    },
    Finished {
        revision: &'e str,
        outcome: Outcome,
    },
    PutOff {
        revision: &'e str,
        error: &'e str,
    },
    GivenUp {
        revision: &'e str,
        error: &'e str,
    },
    Paused {
        pause: &'e Pause,
        wait: Duration,
    },
    StateSet {
        revision: &'e str,
        artifact: &'e str,
        state: &'e str,
    },
    StateKept {
        revision: &'e str,
        artifact: &'e str,
        error: &'e str,
    },
    StatesGivenUp {
        revision: &'e str,
        error: &'e str,
    },
}

impl Event<'_> {
    pub(crate) fn level(&self) -> Level {
        match self {
            Event::Due { .. } | Event::Completing { .. } => Level::Debug,
            Event::ArtifactsMissing { .. }
            | Event::Unlinked { .. }
            | Event::AuthorUnknown { .. }
            | Event::Finished { .. }
            | Event::StateSet { .. } => Level::Info,
            Event::ChangesetsAreHidden
            | Event::PutOff { .. }
            | Event::LeftOut { .. }
            | Event::AuthorsRefused { .. }
            | Event::StateKept { .. }
            | Event::StatesGivenUp { .. } => Level::Warn,
            Event::GivenUp { .. } | Event::Paused { .. } => Level::Error,
        }
    }
}

impl fmt::Display for Event<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Event::Due { changesets, state_requests } => {
                let (commits, states) = (plural(*changesets, "commit"), plural(*state_requests, "commit"));
                write!(f, "due: {commits} to post, {states} with state changes")
            }
            Event::ChangesetsAreHidden => write!(
                f,
                "the workspace does not show Changesets: a Rally administrator must enable \"Build and Changeset\""
            ),
            Event::ArtifactsMissing { revision, missing } => {
                write!(f, "commit {revision}: Rally has no {}", missing.join(", "))
            }
            Event::Unlinked { revision, missing } => {
                write!(f, "commit {revision} is not posted: Rally has no {}", missing.join(", "))
            }
            Event::AuthorsRefused { error } => write!(f, "commits are posted without authors: {error}"),
            Event::AuthorUnknown { commit: Changeset { revision, author_name, author_email, .. } } => {
                let (name, email) = (cut(author_name, MAX_NAME), cut(author_email, MAX_NAME));
                write!(f, "commit {revision} is posted without its author: Rally has no user for {name} <{email}>")
            }
            Event::LeftOut { revision, artifact, error } => {
                write!(f, "commit {revision} is posted without {artifact}: {error}")
            }
            Event::Completing { revision } => write!(f, "commit {revision} was in Rally without all of its Changes"),
            Event::Finished { revision, outcome } => write!(f, "{} commit {revision}", outcome.name()),
            Event::PutOff { revision, error } => write!(f, "commit {revision} is not posted yet: {error}"),
            Event::GivenUp { revision, error } => write!(f, "commit {revision} cannot be posted: {error}"),
            Event::Paused { pause, .. } if pause.needs_person => {
                write!(f, "delivery stops until somebody acts: {}", pause.error)
            }
            Event::Paused { pause, wait } if wait.is_zero() => {
                write!(f, "delivery pauses for a moment: {}", pause.error)
            }
            Event::Paused { pause, wait } => {
                write!(f, "delivery pauses for {}: {}", humantime::format_duration(*wait), pause.error)
            }
            Event::StateSet { revision, artifact, state } => write!(f, "commit {revision} sets {artifact} to {state}"),
            Event::StateKept { revision, artifact, error } => {
                write!(f, "commit {revision}: {artifact} keeps its state: {error}")
            }
            Event::StatesGivenUp { revision, error } => write!(f, "commit {revision} changes no states: {error}"),
        }
    }
}
