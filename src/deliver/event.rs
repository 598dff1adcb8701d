//! What happens during delivery, for the log, the counts and the progress bar.

use std::time::Duration;

use crate::artifact::FormattedId;
use crate::changeset::Changeset;
use crate::config::Level;
use crate::queue::{Outcome, Pause};
use crate::text::{cut, plural};

/// Longer names and addresses are cut, in bytes: anybody may choose them.
const MAX_NAME: usize = 200;

/// Takes each event as it happens.
pub(crate) type Observer<'o> = &'o mut dyn FnMut(&Event);

/// One event.
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
        /// Those that Rally has.
        artifacts: &'e [&'e FormattedId],
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

/// A line of the log.
pub(crate) struct Line {
    pub level: Level,
    /// What kind of event it is.
    pub name: &'static str,
    /// What else is told as `key=value`.
    pub fields: Vec<(&'static str, String)>,
    /// What people read.
    pub text: String,
}

impl Event<'_> {
    /// Returns the event as a line of the log.
    pub(crate) fn line(&self) -> Line {
        let (level, name, revision, text) = self.parts();
        let mut fields = Vec::new();
        fields.extend(revision.map(|revision| ("revision", revision.to_owned())));
        if let Event::Finished { artifacts, took, .. } = self {
            let ids: Vec<&str> = artifacts.iter().map(|id| id.as_str()).collect();
            fields.push(("artifacts", ids.join(",")));
            fields.push(("took", humantime::format_duration(*took).to_string()));
        }
        Line { level, name, fields, text }
    }

    /// Returns its level, its name, the commit that it is about, and what people read.
    fn parts(&self) -> (Level, &'static str, Option<&str>, String) {
        use Level::{Debug, Error, Info, Warn};
        match *self {
            Event::Due { changesets, state_requests } => {
                let (commits, states) = (plural(changesets, "commit"), plural(state_requests, "commit"));
                (Debug, "due", None, format!("due: {commits} to post, {states} with state changes"))
            }
            Event::ChangesetsAreHidden => {
                let text =
                    "the workspace does not show Changesets: a Rally administrator must enable \"Build and Changeset\"";
                (Warn, "changesets-hidden", None, text.into())
            }
            Event::ArtifactsMissing { revision, missing } => {
                let text = format!("commit {revision}: Rally has no {}", missing.join(", "));
                (Info, "artifacts-missing", Some(revision), text)
            }
            Event::Unlinked { revision, missing } => {
                let text = format!("commit {revision} is not posted: Rally has no {}", missing.join(", "));
                (Info, "unlinked", Some(revision), text)
            }
            Event::LeftOut { revision, artifact, error } => {
                let text = format!("commit {revision} is posted without {artifact}: {error}");
                (Warn, "artifact-left-out", Some(revision), text)
            }
            Event::AuthorsRefused { error } => {
                (Warn, "authors-refused", None, format!("commits are posted without authors: {error}"))
            }
            Event::AuthorUnknown { commit: Changeset { revision, author_name, author_email, .. } } => {
                let (name, email) = (cut(author_name, MAX_NAME), cut(author_email, MAX_NAME));
                // Subversion's authors have no address.
                let email = if email.is_empty() { String::new() } else { format!(" <{email}>") };
                let text =
                    format!("commit {revision} is posted without its author: Rally has no user for {name}{email}");
                (Info, "author-unknown", Some(revision), text)
            }
            Event::Completing { revision } => {
                let text = format!("commit {revision} was in Rally without all of its Changes");
                (Debug, "completing", Some(revision), text)
            }
            Event::Finished { revision, outcome, .. } => {
                let text = match outcome {
                    Outcome::Existed => format!("commit {revision} was in Rally already"),
                    _ => format!("{} commit {revision}", outcome.name()),
                };
                (Info, outcome.name(), Some(revision), text)
            }
            Event::PutOff { revision, error } => {
                (Warn, "put-off", Some(revision), format!("commit {revision} is not posted yet: {error}"))
            }
            Event::GivenUp { revision, error } => {
                (Error, "given-up", Some(revision), format!("commit {revision} cannot be posted: {error}"))
            }
            Event::Paused { pause: Pause { needs_person, error, .. }, wait } => {
                let how = match wait {
                    _ if *needs_person => "needs a person".to_owned(),
                    Duration::ZERO => "pauses for a moment".to_owned(),
                    wait => format!("pauses for {}", humantime::format_duration(wait)),
                };
                (Error, "paused", None, format!("delivery {how}: {error}"))
            }
            Event::StateSet { revision, artifact, state } => {
                (Info, "state-set", Some(revision), format!("commit {revision} sets {artifact} to {state}"))
            }
            Event::StateKept { revision, artifact, error } => {
                let text = format!("commit {revision}: {artifact} keeps its state: {error}");
                (Warn, "state-kept", Some(revision), text)
            }
            Event::StatesGivenUp { revision, error } => (
                Warn,
                "states-given-up",
                Some(revision),
                format!("commit {revision}: not all of its state changes were made: {error}"),
            ),
            Event::Forwarded { commits } => {
                (Info, "forwarded", None, format!("forwarded {} to the ledger", plural(commits, "commit")))
            }
            Event::LedgerAway { error } => {
                (Warn, "ledger-away", None, format!("queued commits wait for the ledger: {error}"))
            }
            Event::LedgerSetBack => {
                let text = "the ledger has lost commits that it had taken in (a restore or a failover); they are forwarded again";
                (Warn, "ledger-set-back", None, text.into())
            }
            Event::Doubled { revision } => {
                let advice = "delete one of the two Changesets, and please report it";
                (Error, "doubled", Some(revision), format!("Rally has commit {revision} twice; {advice}"))
            }
        }
    }
}
