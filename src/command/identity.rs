//! What a repository is called: by its directory, by its host, and in Rally.
//!
//! The name under which it is posted is kept in the queue when the hook is installed, or when something is recorded for the
//! first time. A repository that is renamed later is posted under the same name, until the configuration asks for
//! another one.

use std::path::Path;
use std::time::Duration;

use super::{Error, Site, state_dir};
use crate::config::{Config, Level};
use crate::environment::text_variable;
use crate::queue::{self, Home, Pin, Queue, StateDir, Store, Trace};
use crate::text::printable;

/// A host's path is no longer than this, in bytes.
const MAX_PATH: usize = 512;

/// How long another process is waited for by somebody who can do without its queue.
const BRIEFLY: Duration = Duration::from_secs(1);

/// What there is to say about the name under which a repository is posted.
pub(super) enum Naming {
    Usual(String),
    /// It is not what the directory says, or the repository is a copy.
    Notable(String),
    /// Its original is posted under the same name.
    Clash(String),
}

impl Naming {
    pub(super) fn of(config: &Config, home: &Home) -> Self {
        let name = &config.repository.name;
        match (home.original(), config.repository.other_name()) {
            (Some(original), _) if original.name.as_ref() == Some(name) => Naming::Clash(format!(
                "posts to {name:?}, as does {}, of which it is a copy; set another repository.name for one of them, such as \
                 \"{{dir}}\" with repository.root, or in a [[match]] block",
                original.path().display()
            )),
            (Some(original), _) => {
                let others =
                    original.name.as_ref().map(|name| format!(", which posts to {name:?}")).unwrap_or_default();
                Naming::Notable(format!("posts to {name:?}; it is a copy of {}{others}", original.path().display()))
            }
            (None, Some(other)) => Naming::Notable(format!(
                "posts to {name:?}, its name when it was installed (now it would be {other:?}); to change it, set \
                 repository.name"
            )),
            (None, None) => Naming::Usual(format!("posts to {name:?}")),
        }
    }

    pub(super) fn text(&self) -> &str {
        let (Naming::Usual(text) | Naming::Notable(text) | Naming::Clash(text)) = self;
        text
    }
}

/// Fills in what the queue knows of the repository.
pub(super) fn identify(config: &mut Config, home: &Home) {
    let pinned = home.pin.as_ref().map(|pin| (pin.template.as_str(), pin.name.as_str()));
    config.identify(home.host_path.as_deref(), pinned);
}

/// Does the same for a repository whose queue is not open, if it has one that can be opened. Whoever needs it is told what
/// is wrong with it.
pub(super) fn identify_at(repo_dir: &Path, config: &mut Config) -> Option<Home> {
    let base = config.queue.dir.as_deref();
    let Ok(Trace::Present(_)) = StateDir::trace(repo_dir, base) else { return None };
    let home =
        state_dir(repo_dir, base).and_then(|state| Store::new(state, BRIEFLY).run(|queue| Ok(queue.home().clone())));
    let home = home.ok()?;
    identify(config, &home);
    Some(home)
}

/// Does the same, and keeps the name under which the repository is posted. Returns what should be logged, once.
fn settle(config: &mut Config, queue: &mut Queue, host_path: Option<String>) -> Result<Option<String>, queue::Error> {
    let mut home = queue.home().clone();
    home.host_path = host_path.or(home.host_path);
    identify(config, &home);
    let repository = &config.repository;
    let Some(template) = repository.template() else { return Ok(None) };
    let told = repository.other_name().map(str::to_owned);
    let pin = Pin { template, name: repository.name.clone(), told };
    let is_news = pin.told.is_some() && home.pin.as_ref().is_none_or(|known| known.told != pin.told);
    if (Some(&pin), &home.host_path) != (home.pin.as_ref(), &queue.home().host_path) {
        queue.name_home(home.host_path, pin)?;
    }
    Ok(is_news.then(|| Naming::of(config, queue.home()).text().to_owned()))
}

impl Site {
    /// Lets the name count that the queue has kept, or keeps the one that counts. A host tells its hook how it calls the
    /// repository.
    pub(super) fn settle_name(&mut self, store: &mut Store, host_path: Option<String>) -> Result<(), Error> {
        let Site { config, home, .. } = self;
        let news = store.run(|queue| {
            let news = settle(config, queue, host_path.clone())?;
            *home = queue.home().clone();
            Ok::<_, queue::Error>(news)
        })?;
        news.into_iter().for_each(|news| self.log.write(Level::Info, "name", &[], &news));
        Ok(())
    }
}

/// Returns how the host that runs the hook calls the repository: its directory may be a hash.
pub(super) fn host_path() -> Option<String> {
    path_of_host(&text_variable)
}

fn path_of_host(variable: &dyn Fn(&str) -> Option<String>) -> Option<String> {
    // GitLab has the wiki of a project under the path of the project.
    let is_other = |id: String| !id.starts_with("project-");
    let gitlab = || variable("GL_PROJECT_PATH").filter(|_| !variable("GL_REPOSITORY").is_some_and(is_other));
    // GitLab once had its own numbers in the variable of gitolite.
    let is_number = |path: &String| {
        path.split_once('-').is_some_and(|(_, number)| number.bytes().all(|byte| byte.is_ascii_digit()))
            && ["project-", "wiki-", "snippet-"].iter().any(|kind| path.starts_with(kind))
    };
    let gitolite = || variable("GL_REPO").filter(|path| !is_number(path));
    let gitea = || Some(format!("{}/{}", variable("GITEA_REPO_USER_NAME")?, variable("GITEA_REPO_NAME")?));
    gitlab().or_else(gitolite).or_else(gitea).filter(|path| is_path(path))
}

/// Tells whether a text is a path that can be shown and be part of an address.
fn is_path(text: &str) -> bool {
    let is_name = |name: &str| !matches!(name, "" | "." | "..") && name == printable(name);
    text.len() <= MAX_PATH && text.split('/').all(is_name)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Returns the path that these variables give, `NAME=value` each.
    fn path(variables: &[&str]) -> Option<String> {
        let value = |variable: &&str, name: &str| Some(variable.strip_prefix(name)?.strip_prefix('=')?.to_owned());
        path_of_host(&|name| variables.iter().find_map(|variable| value(variable, name)))
    }

    #[test]
    fn hosts_tell_how_they_call_a_repository() {
        for (variables, expected) in [
            (&["GL_PROJECT_PATH=team/api", "GL_REPOSITORY=project-12"][..], Some("team/api")),
            (&["GL_PROJECT_PATH=team/api", "GL_REPOSITORY=wiki-12"], None),
            (&["GL_REPO=team/project-x"], Some("team/project-x")),
            (&["GL_REPO=project-12"], None),
            (&["GITEA_REPO_USER_NAME=team", "GITEA_REPO_NAME=api"], Some("team/api")),
            (&["GITEA_REPO_NAME=api"], None),
            (&[], None),
        ] {
            assert_eq!(path(variables).as_deref(), expected, "{variables:?}");
        }
    }

    #[test]
    fn a_path_that_could_lead_elsewhere_or_cannot_be_shown_is_ignored() {
        let long = "a".repeat(MAX_PATH + 1);
        for text in ["../etc", "a/../b", "/a", "a//b", "a/", "a\nb", "a\u{1b}[31m", "a\u{202e}b", &long] {
            assert_eq!(path(&[&format!("GL_REPO={text}")]), None, "{text:?}");
        }
        assert!(path(&["GL_REPO=gruppe ä/{dir}.x"]).is_some());
    }
}
