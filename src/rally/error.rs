//! Why Rally cannot be used, now or before somebody acts.

use crate::time::Time;
use crate::wsapi::Verdict;
use crate::{config, queue, wsapi};

#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error(transparent)]
    Api(#[from] wsapi::Error),
    #[error(transparent)]
    Config(#[from] config::Error),
    #[error(transparent)]
    Queue(#[from] queue::Error),
    #[error("Rally has no open workspace {name:?} for this user, who sees: {seen}; set rally.workspace")]
    NoWorkspace { name: String, seen: String },
    #[error("Rally has no project {name:?} that this user sees; set repository.projects")]
    NoProject { name: String },
    #[error(
        "Rally has no SCMRepository {name:?}, and repository.create is off; create it in Rally or set create = true"
    )]
    NoRepository { name: String },
    #[error(
        "the SCMRepository {name:?} in Rally is one of {found}, and this repository is one of {own}; set another \
         repository.name"
    )]
    OtherKind { name: String, found: &'static str, own: &'static str },
    /// Without the SCMRepository there is nothing to deliver to.
    #[error("cannot create the SCMRepository")]
    CreateRepository(#[source] wsapi::Error),
    #[error(
        "Rally may still be creating the SCMRepository {name:?}; after {until} it is asked whether it has, before the \
         next attempt"
    )]
    Unsettled { name: String, until: Time },
}

impl Error {
    /// Tells whether nothing will succeed before a person has acted, as opposed to a service that is down.
    pub(crate) fn needs_person(&self) -> bool {
        match self {
            Error::Api(error) | Error::CreateRepository(error) => {
                matches!(error.verdict(), Verdict::Stop | Verdict::Refused)
            }
            Error::Unsettled { .. } | Error::Queue(_) => false,
            Error::Config(_)
            | Error::NoWorkspace { .. }
            | Error::NoProject { .. }
            | Error::NoRepository { .. }
            | Error::OtherKind { .. } => true,
        }
    }

    /// Tells whether all who use the account have this trouble, as opposed to one repository.
    pub(crate) fn is_outage(&self) -> bool {
        match self {
            Error::Api(error) | Error::CreateRepository(error) => {
                !matches!(error.verdict(), Verdict::Refused | Verdict::Reject | Verdict::Missing)
            }
            _ => false,
        }
    }

    /// Returns how long to wait before the next attempt, where that is known.
    pub(crate) fn retry_after(&self, now: Time) -> Option<std::time::Duration> {
        match self {
            Error::Api(error) | Error::CreateRepository(error) => error.retry_after(),
            Error::Unsettled { until, .. } => Some(until.since(now)),
            _ => None,
        }
    }
}
