//! The SCMRepository that Changesets belong to.

use serde_json::json;

use super::answers::is_ref;
use super::{ANSWERS_KEPT, Error, Rally, lookup};
use crate::config::{Kind, Repository};
use crate::queue::WorkQueue;
use crate::text::cut;
use crate::time::Time;
use crate::wsapi::{self, Client, MAX_SHORT_TEXT, Write};

/// The kind in the cache that holds the SCMRepository, by its name.
const REPOSITORY: &str = "repository";
/// The kind in the cache that holds, for a repository whose create has an unknown outcome, when Rally can tell it.
const UNSETTLED: &str = "repository-settles-at";

impl Rally<'_> {
    /// Returns the SCMRepository, if Rally has it.
    pub(crate) fn repository(&self, queue: &mut dyn WorkQueue, now: Time) -> Result<Option<String>, Error> {
        let key = self.repository_key();
        if let Some(rally_ref) = queue.cached(REPOSITORY, &key, now - ANSWERS_KEPT)? {
            return Ok(Some(rally_ref));
        }
        // Rally may not show it yet to who did not create it.
        let found = match self.answers.told(REPOSITORY, &key, now).filter(|text| is_ref(text)) {
            Some(rally_ref) => Some(rally_ref),
            None => find_repository(&self.client, &self.config.repository)?,
        };
        if let Some(rally_ref) = &found {
            queue.remember(REPOSITORY, &[(key, rally_ref.clone())], now)?;
        }
        Ok(found)
    }

    /// Returns the SCMRepository, which is created if Rally lacks it. Rally allows two of one name, so all processes of
    /// the host that look for this one before they create it do so one after the other.
    pub(crate) fn ensure_repository(&self, queue: &mut dyn WorkQueue, now: &dyn Fn() -> Time) -> Result<String, Error> {
        let key = self.repository_key();
        if let Some(rally_ref) = queue.cached(REPOSITORY, &key, now() - ANSWERS_KEPT)? {
            return Ok(rally_ref);
        }
        let _lock = self.client.permits().lock_repository(&key);
        match self.repository(queue, now())? {
            Some(repository) => Ok(repository),
            None => self.create_repository(queue, now),
        }
    }

    /// Creates the SCMRepository, which must have been looked for just before; not while an earlier attempt may be under
    /// way or hidden from look-ups.
    fn create_repository(&self, queue: &mut dyn WorkQueue, now: &dyn Fn() -> Time) -> Result<String, Error> {
        let config = self.config;
        let name = config.repository.name.clone();
        if !config.repository.create {
            return Err(Error::NoRepository { name });
        }
        let key = self.repository_key();
        let own = queue.cached(UNSETTLED, &key, now() - ANSWERS_KEPT)?;
        let of_others = self.answers.told(UNSETTLED, &key, now());
        let until = [own, of_others].into_iter().flatten().filter_map(|until| until.parse().ok()).max();
        if let Some(until) = until.map(Time::from_millis).filter(|until| *until > now()) {
            return Err(Error::Unsettled { name, until });
        }
        let projects = self.projects(queue, now())?;
        let mut body = json!({
            "Workspace": self.workspace.rally_ref,
            "Name": posted_name(&name),
            "SCMType": config.repository.scm_type.name(),
            "Description": "Posted by rally-hook",
        });
        if let Some(web) = &config.repository.web {
            body["Uri"] = json!(web);
        }
        if !projects.is_empty() {
            body["Projects"] = projects.iter().map(|project| json!({"_ref": project})).collect();
        }
        // What is noted begins now, so nothing may be waited for after it.
        let not_sent = |reason| wsapi::Error::NotSent { request: "POST /scmrepository/create".into(), reason };
        self.client.permits().reserve(self.client.timeout()).map_err(not_sent)?;
        self.note_unsettled(queue, now() + config.rally.at_work(1), now())?;
        match self.client.write(&Write { path: "/scmrepository/create".into(), body: json!({"SCMRepository": body}) }) {
            Ok(created) => {
                self.answers.tell(REPOSITORY, &key, &created.rally_ref, now());
                queue.remember(REPOSITORY, &[(key.clone(), created.rally_ref.clone())], now())?;
                self.answers.forget(queue, UNSETTLED, &key)?;
                Ok(created.rally_ref)
            }
            Err(error) => {
                match error.is_without_effect() {
                    true => self.answers.forget(queue, UNSETTLED, &key)?,
                    false => self.note_unsettled(queue, config.rally.settles_at(&error, 1, now()), now())?,
                }
                Err(Error::CreateRepository(error))
            }
        }
    }

    fn note_unsettled(&self, queue: &mut dyn WorkQueue, until: Time, now: Time) -> Result<(), Error> {
        let (key, until) = (self.repository_key(), until.millis().to_string());
        self.answers.tell(UNSETTLED, &key, &until, now);
        Ok(queue.remember(UNSETTLED, &[(key, until)], now)?)
    }

    /// Returns the refs of the configured projects.
    fn projects(&self, queue: &mut dyn WorkQueue, now: Time) -> Result<Vec<String>, Error> {
        let mut refs = Vec::new();
        for name in &self.config.repository.projects {
            let key = self.key(name);
            refs.push(match self.answers.cached_ref(queue, "project", &key, now)? {
                Some(rally_ref) => rally_ref,
                None => {
                    let rally_ref = project(&self.client, name)?;
                    self.answers.remember(queue, "project", &[(key, rally_ref.clone())], now)?;
                    rally_ref
                }
            });
        }
        Ok(refs)
    }

    pub(super) fn forget_repository(&self, queue: &mut dyn WorkQueue) -> Result<(), Error> {
        Ok(self.answers.forget(queue, REPOSITORY, &self.repository_key())?)
    }

    fn repository_key(&self) -> String {
        self.key(&self.config.repository.name)
    }
}

/// Finds an SCMRepository by its name; the oldest, if there are several.
///
/// # Errors
/// If it is of another kind: revisions of Subversion and of TFVC are the same numbers. Other connectors may have named our
/// kind in other words.
pub(crate) fn find_repository(client: &Client, repository: &Repository) -> Result<Option<String>, Error> {
    let name = &repository.name;
    let found = lookup::named(client, "/scmrepository", posted_name(name), "ObjectID,Name,SCMType")?;
    let Some(row) = found else { return Ok(None) };
    if let Some(found) = Kind::named(row["SCMType"].as_str().unwrap_or_default())
        && found != repository.scm_type
    {
        return Err(Error::OtherKind { name: name.clone(), found: found.name(), own: repository.scm_type.name() });
    }
    Ok(Some(lookup::object_ref(&row)?))
}

/// Returns the ref of a project that an SCMRepository is attached to when it is created.
///
/// # Errors
/// If Rally lacks it.
pub(crate) fn project(client: &Client, name: &str) -> Result<String, Error> {
    let row = lookup::named(client, "/project", name, "ObjectID,Name")?;
    let row = row.ok_or_else(|| Error::NoProject { name: name.to_owned() })?;
    Ok(lookup::object_ref(&row)?)
}

/// Returns the repository's name as Rally can hold it.
pub(crate) fn posted_name(name: &str) -> &str {
    cut(name, MAX_SHORT_TEXT)
}
