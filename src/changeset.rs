//! What is to be posted of a commit: the policy (prefixes, `post`, `max_changes` …) applied to what the commit says.
//! Pure; a [`Changeset`] holds facts only, and neither a reference to a Rally object nor an address nor a secret.

use serde::{Deserialize, Serialize};

use crate::artifact::{FormattedId, MAX_ARTIFACTS, Mentions};
use crate::commit::{Change, Changes, Commit};
use crate::text::{cut, readable, whole_characters};
use crate::time::CommitTime;

/// A commit that is to be posted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Changeset {
    pub revision: String,
    pub committed_at: CommitTime,
    pub author_name: String,
    pub author_email: String,
    pub branch: Option<String>,
    pub message: String,
    /// In the order in which the message names them.
    pub artifacts: Vec<FormattedId>,
    /// How many mentions of more artifacts are left out.
    #[serde(default)]
    pub more_artifacts: usize,
    pub changes: Vec<Change>,
    /// How many changed paths are left out of `changes`, because there are more than `max_changes`.
    pub omitted: usize,
}

/// Nothing is kept of a message beyond this, in bytes: Rally takes some thousand, and what asks for a state stands in few
/// lines.
const MAX_MESSAGE: usize = 64 * 1024;
/// Longer names and addresses are cut, in bytes: Rally has none as long.
const MAX_NAME: usize = 256;

impl Changeset {
    /// Returns about how much text it holds, in bytes.
    pub(crate) fn size(&self) -> usize {
        self.message.len() + self.changes.iter().map(|change| change.path.len()).sum::<usize>()
    }
}

/// A commit whose message may change the states of artifacts. It is made when the commit reaches a branch on which
/// messages do so, which may be long after its Changeset was posted.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct StateRequest {
    pub revision: String,
    pub message: String,
    pub artifacts: Vec<FormattedId>,
    /// Those whose changes were made or refused: a retry for the others leaves them alone.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub settled: Vec<FormattedId>,
}

/// Which commits become Changesets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Post {
    /// Those that name an artifact which Rally has.
    Linked,
    All,
}

/// Decides what is to be posted.
pub(crate) struct Policy {
    pub mentions: Mentions,
    pub from_branch_name: bool,
    pub post: Post,
    pub max_changes: usize,
}

impl Policy {
    /// Returns the changeset of a commit that is to be posted. Only then are its changed paths asked for, with the
    /// number of them that is wanted.
    ///
    /// # Errors
    /// That of `changes`: a commit is not posted without its changed paths, because nothing would ever add them.
    pub(crate) fn changeset<E>(
        &self,
        commit: &Commit,
        changes: impl FnOnce(usize) -> Result<Changes, E>,
    ) -> Result<Option<Changeset>, E> {
        let (artifacts, more_artifacts) = self.artifacts(commit);
        if artifacts.is_empty() && self.post == Post::Linked {
            return Ok(None);
        }
        let Changes { list, omitted } = changes(self.max_changes)?;
        Ok(Some(Changeset {
            revision: commit.revision.to_string(),
            committed_at: commit.committed_at,
            author_name: beginning(&commit.author_name, MAX_NAME),
            author_email: beginning(&commit.author_email, MAX_NAME),
            branch: commit.branch.as_deref().map(|branch| cut(branch, MAX_NAME).to_owned()),
            message: beginning(&commit.message, MAX_MESSAGE),
            artifacts,
            more_artifacts,
            changes: list,
            omitted,
        }))
    }

    /// Returns what a commit's message asks for, if it names an artifact. The branch's name asks for nothing.
    pub(crate) fn state_request(&self, commit: &Commit) -> Option<StateRequest> {
        let artifacts = self.mentions.find(&commit.message);
        let message = || beginning(&commit.message, MAX_MESSAGE);
        (!artifacts.is_empty()).then(|| StateRequest {
            revision: commit.revision.to_string(),
            message: message(),
            artifacts,
            settled: Vec::new(),
        })
    }

    fn artifacts(&self, commit: &Commit) -> (Vec<FormattedId>, usize) {
        let (mut artifacts, mut more) = self.mentions.find_and_count(&commit.message);
        if self.from_branch_name {
            let message = beginning(&commit.message, MAX_MESSAGE);
            for branch in commit.branch.as_deref().into_iter().chain(merged_branches(&message)) {
                let named = self.mentions.find_in_branch(branch);
                artifacts.extend(named.into_iter().filter(|id| !artifacts.contains(id)).collect::<Vec<_>>());
            }
            more += artifacts.len().saturating_sub(MAX_ARTIFACTS);
            artifacts.truncate(MAX_ARTIFACTS);
        }
        (artifacts, more)
    }
}

/// Returns the readable form of a text, or of its beginning.
fn beginning(text: &[u8], limit: usize) -> String {
    cut(&readable(whole_characters(text, limit)), limit).to_owned()
}

/// Returns the names in the subject that Git gives a merge: `Merge branch 'a'`, `Merge branches 'a' and 'b' into c`
/// (`git help fmt-merge-msg`).
fn merged_branches(message: &str) -> impl Iterator<Item = &str> {
    let subject = message.lines().next().unwrap_or_default();
    let is_merge = ["Merge branch ", "Merge branches ", "Merge remote-tracking branch "]
        .iter()
        .any(|start| subject.starts_with(start));
    subject.split('\'').skip(1).step_by(2).filter(move |_| is_merge)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::commit::Action;

    fn commit(message: &str) -> Commit<'_> {
        Commit {
            revision: &"r1",
            committed_at: CommitTime::from_seconds(1),
            author_name: b"Ren\xe9".into(),
            author_email: b"r@x".into(),
            branch: Some("feature/US9".into()),
            ref_name: None,
            message: message.as_bytes().into(),
        }
    }

    fn policy(post: Post, from_branch_name: bool) -> Policy {
        Policy { mentions: Mentions::new(&["US".to_owned()], false), from_branch_name, post, max_changes: 7 }
    }

    fn posted(policy: &Policy, message: &str) -> Option<Vec<String>> {
        let changeset = policy.changeset(&commit(message), |_| Ok::<_, ()>(Changes::default())).expect("no error");
        changeset.map(|changeset| changeset.artifacts.iter().map(FormattedId::to_string).collect())
    }

    #[test]
    fn a_commit_without_a_mention_is_posted_only_if_all_are() {
        assert_eq!(posted(&policy(Post::Linked, false), "nothing"), None);
        assert_eq!(posted(&policy(Post::All, false), "nothing"), Some(vec![]));
    }

    #[test]
    fn the_branch_name_adds_its_artifacts_once() {
        assert_eq!(posted(&policy(Post::Linked, true), "US1 US9"), Some(vec!["US1".into(), "US9".into()]));
        assert_eq!(posted(&policy(Post::Linked, true), "nothing"), Some(vec!["US9".into()]));
    }

    #[test]
    fn the_branches_that_a_merge_names_add_their_artifacts() {
        let from_branches = policy(Post::Linked, true);
        let merge = "Merge branches 'feature/US15_foo' and 'US16' into main";
        assert_eq!(posted(&from_branches, merge), Some(["US16", "US9", "US15"].map(str::to_owned).to_vec()));
        assert_eq!(posted(&policy(Post::Linked, false), "Merge branch 'feature/US15_foo'"), None);
        assert_eq!(posted(&from_branches, "don't take 'US15_foo'"), Some(vec!["US9".into()]));
    }

    #[test]
    fn changed_paths_are_asked_for_only_if_the_commit_is_posted() {
        let linked = policy(Post::Linked, false);
        assert_eq!(linked.changeset(&commit("nothing"), |_| Err("asked")), Ok(None));
        assert_eq!(linked.changeset(&commit("US1"), |_| Err("unreadable")), Err("unreadable"));
        let change = Change { action: Action::Added, path: "a".into() };
        let asked = |limit| Ok::<_, ()>(Changes { list: vec![change.clone(); limit], omitted: 3 });
        let changeset = linked.changeset(&commit("US1"), asked).expect("readable").expect("posted");
        assert_eq!((changeset.changes.len(), changeset.omitted), (7, 3));
        assert_eq!(changeset.author_name, r"Ren\xE9");
    }

    #[test]
    fn a_branch_name_asks_for_no_state() {
        let policy = policy(Post::All, true);
        assert_eq!(policy.state_request(&commit("nothing")), None);
        assert_eq!(policy.state_request(&commit("US1")).map(|request| request.artifacts.len()), Some(1));
    }
}
