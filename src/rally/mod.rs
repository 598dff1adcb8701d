//! Rally's objects: the workspace that is delivered to, its SCMRepository, artifacts and users, and what is there of a
//! changeset. Answers that seldom change are remembered for a day, so that a push of one commit costs few requests.

mod answers;
mod authors;
mod body;
mod bulk;
mod error;
mod lookup;
mod repository;
mod states;
mod users;

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use crate::artifact::FormattedId;
use crate::changeset::Changeset;
use crate::config::{self, Config};
use crate::links::LinkTemplates;
use crate::permits::FleetPermits;
use crate::queue::{self, WorkQueue};
use crate::time::Time;
use crate::wsapi::{self, Client, Write};
use answers::Answers;
use authors::{Authors, Candidate};

pub(crate) use body::posted_path;
pub(crate) use bulk::{Portion, Refused};
pub(crate) use error::Error;
pub(crate) use lookup::{ArtifactType, Workspace, artifact_types, workspace};
pub(crate) use repository::{find_repository, posted_name, project};
pub(crate) use states::{Allowed, state_names, state_update};
pub(crate) use users::Author;

/// How long an answer is remembered.
pub(crate) const ANSWERS_KEPT: Duration = Duration::from_secs(24 * 3600);

/// A request may be at work in Rally for this many times our time limit, whether or not we wait for it.
const AT_WORK: u32 = 10;
/// Rally ends every request by then (docs/wsapi.md, 6.1).
const LONGEST_REQUEST: Duration = Duration::from_secs(300);

/// The fleet with which permits are shared, if there is one.
pub(crate) type Fleet<'c> = Option<&'c Arc<dyn FleetPermits>>;

impl config::Rally {
    /// Returns how long a look-up may miss the effect of a request of so many writes.
    pub(crate) fn at_work(&self, writes: usize) -> Duration {
        let more_time = Duration::from_secs(writes as u64 - 1);
        (self.timeout * AT_WORK + more_time).min(LONGEST_REQUEST) + self.read_lag
    }

    /// Returns until when a look-up may miss the effect of a write that ended with this error.
    pub(crate) fn settles_at(&self, error: &wsapi::Error, writes: usize, now: Time) -> Time {
        match error.may_be_at_work() {
            true => now + self.at_work(writes),
            false => now + self.read_lag,
        }
    }
}

/// A connection to the workspace, with what is known about it.
pub(crate) struct Rally<'c> {
    pub client: Client,
    pub workspace: Workspace,
    config: &'c Config,
    links: LinkTemplates,
    types: Vec<ArtifactType>,
    authors: Authors,
    answers: Answers,
    portion: Portion,
    /// Part of each key in the cache: another server or workspace has other answers.
    scope: String,
}

/// An artifact that Rally has.
#[derive(Debug, Clone)]
pub(crate) struct Artifact {
    pub rally_ref: String,
    pub kind: ArtifactType,
}

/// The artifacts that Rally has, and those that it gave no answer for.
#[derive(Debug, Default)]
pub(crate) struct Artifacts {
    pub found: HashMap<FormattedId, Artifact>,
    pub refused: Refused<FormattedId>,
}

impl<'c> Rally<'c> {
    /// Connects, finds the workspace and reads its types.
    pub(crate) fn connect(
        config: &'c Config,
        fleet: Fleet,
        queue: &mut dyn WorkQueue,
        portion: &Portion,
        now: Time,
    ) -> Result<Self, Error> {
        let access = config.rally.access()?;
        let name = access.workspace.clone();
        let authors = Authors::new(&config.authors)?;
        let answers = Answers::of(&config.rally, &access);
        let mut client = Client::new(&config.rally, access, fleet);
        let scope = format!("{} {name}", config.rally.server);
        let known = know_workspace(&mut client, &answers, queue, &scope, &name, now);
        if known.as_ref().is_err_and(Error::needs_person) {
            forget_workspace(&answers, queue, &scope)?;
        }
        let (workspace, types) = known?;
        let links = config.repository.link_templates();
        Ok(Rally { client, workspace, config, links, types, authors, answers, portion: portion.clone(), scope })
    }

    /// Forgets what is known of the workspace, because that may be what is wrong.
    pub(crate) fn forget_workspace(&self, queue: &mut dyn WorkQueue) -> Result<(), queue::Error> {
        forget_workspace(&self.answers, queue, &self.scope)
    }

    /// Forgets what may have changed after a write failed because an object was gone.
    pub(crate) fn forget(&self, queue: &mut dyn WorkQueue, commit: &Changeset) -> Result<(), Error> {
        for id in &commit.artifacts {
            self.answers.forget(queue, "artifact", &self.key(id.as_str()))?;
        }
        for candidate in self.authors.candidates(commit) {
            self.answers.forget(queue, "user", &self.user_key(&candidate))?;
        }
        self.forget_repository(queue)
    }

    /// Returns which of these artifacts Rally has.
    pub(crate) fn artifacts<'i>(
        &self,
        queue: &mut dyn WorkQueue,
        ids: impl Iterator<Item = &'i FormattedId>,
        now: Time,
    ) -> Result<Artifacts, Error> {
        let mut artifacts = Artifacts::default();
        let mut unknown: HashMap<&str, Vec<FormattedId>> = HashMap::new();
        let mut looked_at = HashSet::new();
        for id in ids {
            let Some(kind) = self.type_of(id) else { continue };
            if !looked_at.insert(id) {
                continue;
            }
            match self.answers.cached_ref(queue, "artifact", &self.key(id.as_str()), now)? {
                Some(rally_ref) => {
                    artifacts.found.insert(id.clone(), Artifact { rally_ref, kind: kind.clone() });
                }
                None => unknown.entry(&kind.path).or_default().push(id.clone()),
            }
        }
        for ids in unknown.values() {
            let kind = self.type_of(&ids[0]).expect("they were grouped by their type");
            let (answer, refused) = self.ask_artifacts(kind, ids)?;
            let to_keep: Vec<_> =
                answer.iter().map(|(id, rally_ref)| (self.key(id.as_str()), rally_ref.clone())).collect();
            self.answers.remember(queue, "artifact", &to_keep, now)?;
            let artifact = |(id, rally_ref)| (id, Artifact { rally_ref, kind: kind.clone() });
            artifacts.found.extend(answer.into_iter().map(artifact));
            artifacts.refused.extend(refused);
        }
        Ok(artifacts)
    }

    fn type_of(&self, id: &FormattedId) -> Option<&ArtifactType> {
        self.types.iter().find(|kind| kind.prefix == id.prefix())
    }

    /// Returns the write that makes a Changeset linked to these artifacts.
    pub(crate) fn changeset_write(
        &self,
        facts: &Changeset,
        repository: &str,
        author: Option<&str>,
        artifacts: &[&str],
    ) -> Write {
        let workspace = self.workspace.rally_ref.as_str();
        let refs = body::References { workspace, repository, author, artifacts };
        body::changeset(facts, &refs, &self.links)
    }

    /// Returns the write that makes one Change.
    pub(crate) fn change_write(&self, facts: &Changeset, place: usize, changeset_ref: &str) -> Write {
        body::change(facts, place, changeset_ref, &self.links)
    }

    /// Remembers that an artifact may not be written to, and so is left out of a commit's Changeset.
    pub(crate) fn leave_out(
        &self,
        queue: &mut dyn WorkQueue,
        revision: &str,
        id: &FormattedId,
        now: Time,
    ) -> Result<(), Error> {
        Ok(queue.remember("left-out", &[(self.key(&format!("{revision} {id}")), String::new())], now)?)
    }

    pub(crate) fn is_left_out(
        &self,
        queue: &dyn WorkQueue,
        revision: &str,
        id: &FormattedId,
        now: Time,
    ) -> Result<bool, Error> {
        let key = self.key(&format!("{revision} {id}"));
        Ok(queue.cached("left-out", &key, now - ANSWERS_KEPT)?.is_some())
    }

    fn key(&self, key: &str) -> String {
        format!("{}\n{key}", self.scope)
    }

    fn user_key(&self, candidate: &Candidate) -> String {
        self.key(&format!("{} {}", candidate.field, candidate.value))
    }
}

/// Finds the workspace, which the client asks from then on, and its types.
fn know_workspace(
    client: &mut Client,
    answers: &Answers,
    queue: &mut dyn WorkQueue,
    scope: &str,
    name: &str,
    now: Time,
) -> Result<(Workspace, Vec<ArtifactType>), Error> {
    let workspace = answers.remembered(queue, "workspace", scope, now, || lookup::workspace(client, name))?;
    client.set_workspace(&workspace.rally_ref);
    let types = answers.remembered(queue, "types", scope, now, || Ok(lookup::artifact_types(client)?))?;
    Ok((workspace, types))
}

fn forget_workspace(answers: &Answers, queue: &mut dyn WorkQueue, scope: &str) -> Result<(), queue::Error> {
    ["workspace", "types"].iter().try_for_each(|kind| answers.forget(queue, kind, scope))
}
