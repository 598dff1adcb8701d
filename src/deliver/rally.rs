//! The workspace that is delivered to, with what is known about it. Answers that seldom change are remembered in the
//! queue for a day, so that a push of one commit costs few requests.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::json;

use super::authors::{Authors, Candidate};
use super::lookup::{self, ArtifactType, Workspace};
use super::{lag, settles_at};
use crate::artifact::FormattedId;
use crate::changeset::Changeset;
use crate::config::Config;
use crate::config::credentials::Credentials;
use crate::context::{Context, now};
use crate::links::LinkTemplates;
use crate::queue::{self, Queue};
use crate::text::cut;
use crate::wsapi::{Client, Error, MAX_SHORT_TEXT, Verdict, Write};

/// How long an answer is remembered, in milliseconds.
pub const ANSWERS_KEPT: i64 = 24 * 3600 * 1000;
/// How long it is remembered that Rally does not know a user: somebody may be waiting for the account.
const NOBODY_KEPT: i64 = 3600 * 1000;

/// What stands in the cache for a user that Rally does not have.
const NOBODY: &str = "";
/// The kind in the cache that holds, for a repository whose create has no known outcome, when Rally can tell it.
const UNSETTLED: &str = "repository-settles-at";

/// Why delivery cannot go on.
#[derive(Debug, thiserror::Error)]
pub enum Halt {
    #[error(transparent)]
    Rally(#[from] Error),
    /// The SCMRepository cannot be made, without which there is nothing to deliver to.
    #[error("cannot make the SCMRepository: {0}")]
    Repository(Error),
    #[error(transparent)]
    Config(#[from] crate::config::Error),
    #[error(transparent)]
    Queue(#[from] queue::Error),
}

pub struct Rally {
    pub client: Client,
    pub workspace: Workspace,
    pub links: LinkTemplates,
    types: Vec<ArtifactType>,
    authors: Authors,
    /// Part of each key in the cache: another server or workspace has other answers.
    scope: String,
}

/// An artifact that Rally has.
#[derive(Debug, Clone)]
pub struct Artifact {
    pub rally_ref: String,
    pub kind: ArtifactType,
}

impl Rally {
    /// Connects, finds the workspace and reads its types.
    pub fn connect(context: &Context, queue: &mut Queue) -> Result<Self, Halt> {
        let config = &context.config;
        let (mut client, name) = client(config)?;
        let scope = format!("{} {name}", config.rally.server);
        let workspace = remembered(queue, "workspace", &scope, || lookup::workspace(&client, &name))?;
        client.set_workspace(&workspace.rally_ref);
        if workspace.changesets_enabled == Some(false) {
            context
                .log
                .warn(&format!("workspace {name:?} does not show Changesets: a Rally administrator has to enable \"Build and Changeset\""));
        }
        let types = remembered(queue, "types", &scope, || lookup::artifact_types(&client))?;
        let (links, authors) = (LinkTemplates::new(&config.repository), Authors::new(&config.authors)?);
        Ok(Rally { client, workspace, links, types, authors, scope })
    }

    /// Forgets what may have changed after a write failed because an object was gone.
    pub fn forget(&self, queue: &mut Queue, commit: &Changeset, repository: &str) -> Result<(), Halt> {
        for id in &commit.artifacts {
            queue.forget("artifact", Some(&self.key(id.as_str())))?;
        }
        for (field, value) in self.authors.candidates(commit) {
            queue.forget("user", Some(&self.key(&format!("{field} {value}"))))?;
        }
        Ok(queue.forget("repository", Some(&self.key(repository)))?)
    }

    /// Returns which of these artifacts Rally has.
    pub fn artifacts<'i>(
        &self,
        queue: &mut Queue,
        ids: impl Iterator<Item = &'i FormattedId>,
    ) -> Result<HashMap<FormattedId, Artifact>, Halt> {
        let mut found = HashMap::new();
        let mut unknown: HashMap<&str, Vec<FormattedId>> = HashMap::new();
        let mut looked_at = HashSet::new();
        for id in ids {
            let Some(kind) = self.type_of(id) else { continue };
            if !looked_at.insert(id) {
                continue;
            }
            match queue.cached("artifact", &self.key(id.as_str()), now() - ANSWERS_KEPT)? {
                Some(rally_ref) => drop(found.insert(id.clone(), Artifact { rally_ref, kind: kind.clone() })),
                None => unknown.entry(&kind.path).or_default().push(id.clone()),
            }
        }
        for ids in unknown.values() {
            let kind = self.type_of(&ids[0]).expect("they were grouped by their type");
            let answer = lookup::artifacts(&self.client, kind, ids)?;
            let to_keep: Vec<_> =
                answer.iter().map(|(id, rally_ref)| (self.key(id.as_str()), rally_ref.clone())).collect();
            queue.remember("artifact", &to_keep, now())?;
            found.extend(answer.into_iter().map(|(id, rally_ref)| (id, Artifact { rally_ref, kind: kind.clone() })));
        }
        Ok(found)
    }

    pub fn type_of(&self, id: &FormattedId) -> Option<&ArtifactType> {
        self.types.iter().find(|kind| kind.prefix == id.prefix())
    }

    pub fn types(&self) -> &[ArtifactType] {
        &self.types
    }

    /// Returns each commit's author, in order: the first candidate that Rally knows.
    pub fn authors(&self, queue: &mut Queue, commits: &[&Changeset]) -> Result<Vec<Option<String>>, Halt> {
        let candidates: Vec<Vec<Candidate>> = commits.iter().map(|commit| self.authors.candidates(commit)).collect();
        let mut known: HashMap<&Candidate, String> = HashMap::new();
        let mut unknown: HashMap<&'static str, Vec<String>> = HashMap::new();
        for candidate in candidates.iter().flatten() {
            let key = self.key(&format!("{} {}", candidate.0, candidate.1));
            match queue.cached("user", &key, now() - ANSWERS_KEPT)? {
                Some(rally_ref) => drop(known.insert(candidate, rally_ref)),
                None => {
                    let values = unknown.entry(candidate.0).or_default();
                    if !values.contains(&candidate.1) {
                        values.push(candidate.1.clone());
                    }
                }
            }
        }
        let mut answers: HashMap<(&str, String), String> = HashMap::new();
        for (field, values) in unknown {
            let found = match lookup::users(&self.client, field, &values) {
                // A question that Rally will not answer, about names that anybody may choose, costs the author only.
                Err(error) if error.verdict() == Verdict::Reject => Vec::new(),
                other => other?,
            };
            for value in values {
                // Whether Rally's own comparison heeds case is not known; addresses do not.
                let user = found.iter().find(|(found, _)| found.eq_ignore_ascii_case(&value));
                let rally_ref = user.map_or(NOBODY.to_owned(), |(_, rally_ref)| rally_ref.clone());
                let age = if rally_ref == NOBODY { ANSWERS_KEPT - NOBODY_KEPT } else { 0 };
                queue.remember("user", &[(self.key(&format!("{field} {value}")), rally_ref.clone())], now() - age)?;
                answers.insert((field, value), rally_ref);
            }
        }
        let user = |candidate: &Candidate| {
            let answer = known.get(candidate).or_else(|| answers.get(&(candidate.0, candidate.1.clone())));
            answer.filter(|rally_ref| *rally_ref != NOBODY).cloned()
        };
        Ok(candidates.iter().map(|candidates| candidates.iter().find_map(user)).collect())
    }

    /// Returns the SCMRepository, if Rally has it.
    pub fn repository(&self, queue: &mut Queue, name: &str) -> Result<Option<String>, Halt> {
        if let Some(rally_ref) = queue.cached("repository", &self.key(name), now() - ANSWERS_KEPT)? {
            return Ok(Some(rally_ref));
        }
        let found = lookup::by_name(&self.client, "/scmrepository", posted_name(name))?;
        if let Some(rally_ref) = &found {
            queue.remember("repository", &[(self.key(name), rally_ref.clone())], now())?;
        }
        Ok(found)
    }

    /// Makes the SCMRepository. Rally lets there be two of a name, so it must have been looked for just before, and
    /// is not made while an earlier create may be under way or hidden from look-ups.
    pub fn create_repository(&self, queue: &mut Queue, name: &str, config: &Config) -> Result<String, Halt> {
        if !config.repository.create {
            let text = format!(
                "Rally has no SCMRepository {name:?}, and repository.create is off: make it there, or switch it on"
            );
            return Err(Error::Wrong(text).into());
        }
        let unsettled_until = queue.cached(UNSETTLED, &self.key(name), now() - ANSWERS_KEPT)?;
        let left = unsettled_until.and_then(|at| at.parse().ok()).map_or(0, |at: i64| at - now());
        if left > 0 {
            let wait = Duration::from_millis(left.unsigned_abs());
            return Err(Error::Unsettled { what: format!("the SCMRepository {name:?}"), wait }.into());
        }
        let projects = projects(&self.client, config)?;
        let mut body = json!({
            "Workspace": self.workspace.rally_ref,
            "Name": posted_name(name),
            "SCMType": "Git",
            "Description": "Posted by rally-hook",
        });
        if let Some(web) = &config.repository.web {
            body["Uri"] = json!(web);
        }
        if !projects.is_empty() {
            body["Projects"] = projects.iter().map(|project| json!({"_ref": project})).collect();
        }
        let unsettled = |at: i64| [(self.key(name), at.to_string())];
        queue.remember(UNSETTLED, &unsettled(now() + lag()), now())?;
        match self.client.write(&Write { path: "/scmrepository/create".into(), body: json!({"SCMRepository": body}) }) {
            Ok(made) => {
                queue.remember("repository", &[(self.key(name), made.rally_ref.clone())], now())?;
                Ok(made.rally_ref)
            }
            Err(error) => {
                match error.is_without_effect() {
                    true => queue.forget(UNSETTLED, Some(&self.key(name)))?,
                    false => {
                        queue.remember(UNSETTLED, &unsettled(settles_at(&error, config.rally.timeout)), now())?;
                    }
                }
                Err(Halt::Repository(error))
            }
        }
    }

    /// Tells whether Changesets may be given a Branch: servers that do not know the field say that they ignore it.
    pub fn knows_branch(&self, queue: &Queue) -> Result<bool, Halt> {
        Ok(queue.cached("no-branch", &self.scope, now() - ANSWERS_KEPT)?.is_none())
    }

    pub fn note_warnings(&self, queue: &mut Queue, warnings: &[String]) -> Result<(), Halt> {
        if warnings.iter().any(|text| text.contains("Ignored") && text.contains("Branch")) {
            queue.remember("no-branch", &[(self.scope.clone(), "ignored".into())], now())?;
        }
        Ok(())
    }

    /// Returns a remembered answer, or asks for it and remembers it.
    pub fn remembered<T: Serialize + DeserializeOwned>(
        &self,
        queue: &mut Queue,
        kind: &str,
        key: &str,
        ask: impl FnOnce() -> Result<T, Error>,
    ) -> Result<T, Halt> {
        remembered(queue, kind, &self.key(key), ask)
    }

    fn key(&self, key: &str) -> String {
        format!("{}\n{key}", self.scope)
    }
}

/// Returns the refs of the projects that an SCMRepository is attached to when it is made.
///
/// # Errors
/// If Rally lacks one of them.
pub fn projects(client: &Client, config: &Config) -> Result<Vec<String>, Error> {
    let find = |project: &String| {
        lookup::by_name(client, "/project", project)?.ok_or_else(|| {
            Error::Wrong(format!("Rally has no project {project:?} that this user sees; set repository.projects"))
        })
    };
    config.repository.projects.iter().map(find).collect()
}

/// Makes a client for the configured server, and returns the workspace's name with it.
pub fn client(config: &Config) -> Result<(Client, String), Halt> {
    let credentials = Credentials::find(&config.rally)?;
    let not_set = crate::config::Error::NotSet { what: "workspace", key: "rally.workspace" };
    let name = config.rally.workspace.clone().ok_or(not_set)?;
    Ok((Client::new(&config.rally, credentials), name))
}

fn remembered<T: Serialize + DeserializeOwned>(
    queue: &mut Queue,
    kind: &str,
    key: &str,
    ask: impl FnOnce() -> Result<T, Error>,
) -> Result<T, Halt> {
    let answer = queue.cached(kind, key, now() - ANSWERS_KEPT)?;
    if let Some(answer) = answer.and_then(|json| serde_json::from_str(&json).ok()) {
        return Ok(answer);
    }
    let answer = ask()?;
    let json = serde_json::to_string(&answer).expect("plain data becomes JSON");
    queue.remember(kind, &[(key.to_owned(), json)], now())?;
    Ok(answer)
}

/// Returns the repository's name as Rally can hold it.
pub fn posted_name(name: &str) -> &str {
    cut(name, MAX_SHORT_TEXT)
}
