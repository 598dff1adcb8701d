//! A commit as any kind of repository tells it, before anybody has decided whether it is to be posted.

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::time::CommitTime;

/// What a commit says. Which paths it changes is asked for separately, because that costs more than all the rest.
///
/// Texts are bytes in an encoding that contains ASCII, UTF-8 for the most part. What was in another one is decoded.
pub(crate) struct Commit<'c> {
    /// The revision in the repository's own words: hexadecimal digits, or a number. It is written out for few commits.
    pub revision: &'c dyn fmt::Display,
    pub committed_at: CommitTime,
    pub author_name: Cow<'c, [u8]>,
    pub author_email: Cow<'c, [u8]>,
    /// The branch whose push brought the commit, where it is known.
    pub branch: Option<Arc<str>>,
    /// The ref on which the commit was made, in repositories that know it. Git's commits have none.
    pub ref_name: Option<String>,
    pub message: Cow<'c, [u8]>,
}

/// The paths that a commit changes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Changes {
    pub list: Vec<Change>,
    /// How many more there are; at least this many if the commit is too large to compare it whole.
    pub omitted: usize,
}

/// One changed path.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Change {
    pub action: Action,
    /// In the form of [`crate::text::readable`].
    pub path: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Action {
    #[serde(rename = "A")]
    Added,
    #[serde(rename = "M")]
    Modified,
    #[serde(rename = "D")]
    Deleted,
}

impl Action {
    pub(crate) fn letter(self) -> &'static str {
        match self {
            Action::Added => "A",
            Action::Modified => "M",
            Action::Deleted => "D",
        }
    }
}

/// A place in a repository's history up to which everything has been recorded ("seen"). What identifies it is the
/// repository's own business; the time orders the tips, the youngest first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Tip {
    pub id: Vec<u8>,
    pub time: CommitTime,
}

/// How the seen tips move when commits are recorded.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct MovedTips {
    pub new: Vec<Tip>,
    /// The ids of commits, seen tips among them, that another seen tip reaches.
    pub covered: Vec<Vec<u8>>,
}
