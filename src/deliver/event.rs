//! What happens during delivery, for the log, the counts and the progress bar.

use std::fmt;
use std::time::Duration;

use crate::artifact::FormattedId;
use crate::changeset::Changeset;
use crate::config::Level;
use crate::queue::{Outcome, Pause};
use crate::text::{cut, plural};

/// Anybody may choose a longer name or address, in bytes.
const MAX_NAME: usize = 200;

/// Takes each event as it happens.
pub(crate) type Observer<'o> = &'o mut dyn FnMut(&Event);

/// One event. Its text is the message of a line in the log.
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
        artifacts: &'e [FormattedId],
        /// Since it was recorded.
        took: Duration,
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
    /// The ledger has what was queued.
    Forwarded {
        commits: usize,
    },
    LedgerAway {
        error: &'e str,
    },
    /// The ledger lacks what it had taken in before.
    LedgerSetBack,
    /// Rally has a commit twice.
    Doubled {
        revision: &'e str,
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
            | Event::Forwarded { .. }
            | Event::StateSet { .. } => Level::Info,
            Event::ChangesetsAreHidden
            | Event::PutOff { .. }
            | Event::LeftOut { .. }
            | Event::AuthorsRefused { .. }
            | Event::StateKept { .. }
            | Event::LedgerAway { .. }
            | Event::LedgerSetBack
            | Event::StatesGivenUp { .. } => Level::Warn,
            Event::GivenUp { .. } | Event::Paused { .. } | Event::Doubled { .. } => Level::Error,
        }
    }
}

impl Event<'_> {
    /// Returns the event's name in the log.
    pub(crate) fn name(&self) -> &'static str {
        match self {
            Event::Due { .. } => "due",
            Event::ChangesetsAreHidden => "changesets-hidden",
            Event::ArtifactsMissing { .. } => "artifacts-missing",
            Event::Unlinked { .. } => "unlinked",
            Event::LeftOut { .. } => "artifact-left-out",
            Event::AuthorsRefused { .. } => "authors-refused",
            Event::AuthorUnknown { .. } => "author-unknown",
            Event::Completing { .. } => "completing",
            Event::Finished { outcome, .. } => outcome.name(),
            Event::PutOff { .. } => "put-off",
            Event::GivenUp { .. } => "given-up",
            Event::Paused { .. } => "paused",
            Event::StateSet { .. } => "state-set",
            Event::StateKept { .. } => "state-kept",
            Event::StatesGivenUp { .. } => "states-given-up",
            Event::Forwarded { .. } => "forwarded",
            Event::LedgerAway { .. } => "ledger-away",
            Event::LedgerSetBack => "ledger-set-back",
            Event::Doubled { .. } => "doubled",
        }
    }

    /// Returns what the log has of the event as `key=value`.
    pub(crate) fn fields(&self) -> Vec<(&'static str, String)> {
        let mut fields: Vec<_> =
            self.revision().map(|revision| ("revision", revision.to_owned())).into_iter().collect();
        if let Event::Finished { artifacts, took, .. } = self {
            let ids: Vec<&str> = artifacts.iter().map(FormattedId::as_str).collect();
            fields.push(("artifacts", ids.join(",")));
            fields.push(("took", humantime::format_duration(*took).to_string()));
        }
        fields
    }

    /// Returns the commit that the event is about.
    fn revision(&self) -> Option<&str> {
        match self {
            Event::Due { .. }
            | Event::ChangesetsAreHidden
            | Event::AuthorsRefused { .. }
            | Event::Paused { .. }
            | Event::Forwarded { .. }
            | Event::LedgerAway { .. }
            | Event::LedgerSetBack => None,
            Event::AuthorUnknown { commit } => Some(&commit.revision),
            Event::ArtifactsMissing { revision, .. }
            | Event::Unlinked { revision, .. }
            | Event::LeftOut { revision, .. }
            | Event::Completing { revision }
            | Event::Finished { revision, .. }
            | Event::PutOff { revision, .. }
            | Event::GivenUp { revision, .. }
            | Event::StateSet { revision, .. }
            | Event::StateKept { revision, .. }
            | Event::StatesGivenUp { revision, .. }
            | Event::Doubled { revision } => Some(revision),
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
                write!(f, "commit {revision} is posted without its author: Rally has no user for ")?;
                f.write_str(cut(author_name, MAX_NAME))?;
                // Subversion's authors have no address.
                if author_email.is_empty() { Ok(()) } else { write!(f, " <{}>", cut(author_email, MAX_NAME)) }
            }
            Event::LeftOut { revision, artifact, error } => {
                write!(f, "commit {revision} is posted without {artifact}: {error}")
            }
            Event::Completing { revision } => write!(f, "commit {revision} was in Rally without all of its Changes"),
            Event::Finished { revision, outcome, .. } => write!(f, "{} commit {revision}", outcome.name()),
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
            Event::Forwarded { commits } => write!(f, "forwarded {} to the ledger", plural(*commits, "commit")),
            Event::LedgerAway { error } => write!(f, "what is queued waits for the ledger: {error}"),
            Event::LedgerSetBack => {
                write!(f, "the ledger lacks what it had taken in before, as after a restore; it is forwarded again")
            }
            Event::Doubled { revision } => {
                write!(f, "Rally has commit {revision} twice; delete one of the two Changesets, and please report it")
            }
        }
    }
}
