//! The users whom Rally has for the authors of commits. Authors are a courtesy: no answer about them keeps a commit.

use std::collections::HashMap;
use std::time::Duration;

use super::answers::is_ref;
use super::authors::Candidate;
use super::{ANSWERS_KEPT, Error, Rally};
use crate::changeset::Changeset;
use crate::queue::WorkQueue;
use crate::time::Time;
use crate::wsapi::{self, Verdict};

/// How long it is remembered that Rally does not know a user: somebody may be waiting for the account.
const NOBODY_KEPT: Duration = Duration::from_secs(3600);
/// What stands in the cache for a user that Rally does not have.
const NOBODY: &str = "";

/// Who a commit's author is in Rally.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Author {
    User(String),
    /// Rally has none of the users that it could be.
    Unknown,
    /// There was nobody to look for, or Rally refused to tell.
    NotLookedFor,
}

impl Author {
    /// Returns the user's ref.
    pub(crate) fn user(&self) -> Option<&str> {
        match self {
            Author::User(rally_ref) => Some(rally_ref),
            Author::Unknown | Author::NotLookedFor => None,
        }
    }
}

impl Rally<'_> {
    /// Returns each commit's author, in order: the first candidate that Rally knows. A refusal costs the authors only; the
    /// first one is returned besides.
    pub(crate) fn authors(
        &self,
        queue: &mut dyn WorkQueue,
        commits: &[&Changeset],
        now: Time,
    ) -> Result<(Vec<Author>, Option<wsapi::Error>), Error> {
        let candidates: Vec<Vec<Candidate>> = commits.iter().map(|commit| self.authors.candidates(commit)).collect();
        let mut users: HashMap<&Candidate, String> = HashMap::new();
        let mut unknown: HashMap<&'static str, Vec<&Candidate>> = HashMap::new();
        for candidate in candidates.iter().flatten() {
            let known = self.answers.cached(queue, "user", &self.user_key(candidate), now - ANSWERS_KEPT)?;
            match known.filter(|rally_ref| rally_ref == NOBODY || is_ref(rally_ref)) {
                Some(rally_ref) => drop(users.insert(candidate, rally_ref)),
                None => unknown.entry(candidate.field).or_default().push(candidate),
            }
        }
        let mut refusal = None;
        for (field, mut asked) in unknown {
            asked.sort_unstable();
            asked.dedup();
            let found = match self.ask_users(field, &asked) {
                Ok((found, refused)) => {
                    refusal = refusal.or(refused);
                    found
                }
                // This user may not ask.
                Err(error) if matches!(error.verdict(), Verdict::Refused | Verdict::Missing) => {
                    refusal = Some(error);
                    break;
                }
                Err(error) => return Err(error.into()),
            };
            for candidate in asked {
                // Whether Rally's own comparison heeds case is not known; addresses do not.
                let user = found.iter().find(|(found, _)| found.eq_ignore_ascii_case(&candidate.value));
                let rally_ref = user.map_or(NOBODY, |(_, rally_ref)| rally_ref).to_owned();
                let age = if rally_ref == NOBODY { ANSWERS_KEPT - NOBODY_KEPT } else { Duration::ZERO };
                self.answers.remember(queue, "user", &[(self.user_key(candidate), rally_ref.clone())], now - age)?;
                users.insert(candidate, rally_ref);
            }
        }
        let user = |candidate| users.get(candidate).filter(|rally_ref| *rally_ref != NOBODY).cloned();
        let authors = candidates.iter().map(|candidates| match candidates.iter().find_map(user) {
            Some(rally_ref) => Author::User(rally_ref),
            None if candidates.is_empty() || candidates.iter().any(|one| !users.contains_key(one)) => {
                Author::NotLookedFor
            }
            None => Author::Unknown,
        });
        Ok((authors.collect(), refusal))
    }
}
