//! What the ledger of many servers knows of how a repository is posted: all that a worker needs besides its own `[rally]`,
//! `[authors]` and `[queue]`, and no secret. Another release may have written it, so unknown keys are passed over.

use serde::{Deserialize, Serialize};

use super::{Config, Kind};
use crate::changeset::Post;
use crate::links::Links;

/// How the changesets of a repository are posted.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Posting {
    scm_type: String,
    create: bool,
    projects: Vec<String>,
    web: Option<String>,
    links: Links,
    commit_link: Option<String>,
    file_link: Option<String>,
    prefixes: Vec<String>,
    ignore: Vec<String>,
    ignore_case: bool,
    post: Post,
    backwards: bool,
}

impl Default for Posting {
    fn default() -> Self {
        Config::default().posting()
    }
}

impl Config {
    /// Returns what a worker on another server needs to know.
    pub(crate) fn posting(&self) -> Posting {
        let Config { repository, commits, state, .. } = self.clone();
        Posting {
            scm_type: repository.scm_type.name().to_owned(),
            create: repository.create,
            projects: repository.projects,
            web: repository.web,
            links: repository.links,
            commit_link: repository.commit_link,
            file_link: repository.file_link,
            prefixes: commits.prefixes,
            ignore: commits.ignore,
            ignore_case: commits.ignore_case,
            post: commits.post,
            backwards: state.backwards,
        }
    }

    /// Returns the settings of this worker for what another server has forwarded: to this workspace, under this name.
    pub(crate) fn for_posting(&self, posting: Posting, workspace: &str, repository: &str) -> Config {
        let mut config = self.clone();
        config.rally.workspace = Some(workspace.to_owned());
        config.repository.name = repository.to_owned();
        config.repository.scm_type = Kind::named(&posting.scm_type).unwrap_or_default();
        config.repository.create = posting.create;
        config.repository.projects = posting.projects;
        config.repository.web = posting.web;
        config.repository.links = posting.links;
        config.repository.commit_link = posting.commit_link;
        config.repository.file_link = posting.file_link;
        config.commits.prefixes = posting.prefixes;
        config.commits.ignore = posting.ignore;
        config.commits.ignore_case = posting.ignore_case;
        config.commits.post = posting.post;
        config.state.backwards = posting.backwards;
        config
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_worker_posts_as_the_repository_says_with_its_own_access() {
        let own: Config = toml::from_str("rally.api_key = \"_worker\"\nrally.workspace = \"W\"").expect("valid");
        let theirs: Config = toml::from_str(
            "rally.api_key = \"_canary\"\nrepository.web = \"https://git.acme.example/a\"\ncommits.prefixes = [\"X\"]\n\
             commits.post = \"all\"\nstate.backwards = true\nrepository.create = false",
        )
        .expect("valid");
        let json = serde_json::to_string(&theirs.posting()).expect("plain data becomes JSON");
        assert!(!json.contains("canary"), "{json}");
        let posting: Posting = serde_json::from_str(&json).expect("it was written so");
        let config = own.for_posting(posting, "Other", "a");
        assert_eq!(config.posting(), theirs.posting());
        assert_eq!(config.rally.workspace.as_deref(), Some("Other"));
        assert_eq!(config.rally.api_key, own.rally.api_key);
    }

    #[test]
    fn what_another_release_adds_or_lacks_does_no_harm() {
        let posting: Posting = serde_json::from_str("{\"create\": false, \"new\": 1}").expect("it is taken");
        assert_eq!(posting, Posting { create: false, ..Posting::default() });
    }
}
