//! The record in which the Git side and the WSAPI side meet: plain facts about one commit.

use serde::{Deserialize, Serialize};

use crate::artifact::FormattedId;

/// A commit that is to be posted. It holds facts only: no reference to a Rally object, no address, no secret.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Changeset {
    /// The commit's full name in hexadecimal.
    pub revision: String,
    /// The committer's time, in seconds since 1970.
    pub committed_at: i64,
    pub author_name: String,
    pub author_email: String,
    /// The branch whose push brought the commit.
    pub branch: Option<String>,
    pub message: String,
    /// In the order in which the message names them.
    pub artifacts: Vec<FormattedId>,
    pub changes: Vec<Change>,
    /// How many changed paths are left out of `changes`, because there are more than `max_changes`.
    pub omitted: usize,
}

/// A commit whose message may change the states of artifacts. It comes about when the commit reaches a branch on which
/// messages do that, which may be long after its Changeset was posted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StateRequest {
    pub revision: String,
    pub message: String,
    pub artifacts: Vec<FormattedId>,
}

/// One changed path.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Change {
    pub action: Action,
    /// In the form of [`crate::text::readable`].
    pub path: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Action {
    #[serde(rename = "A")]
    Added,
    #[serde(rename = "M")]
    Modified,
    #[serde(rename = "D")]
    Deleted,
}

impl Action {
    pub fn letter(self) -> &'static str {
        match self {
            Action::Added => "A",
            Action::Modified => "M",
            Action::Deleted => "D",
        }
    }
}
