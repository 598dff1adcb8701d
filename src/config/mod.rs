//! The settings of one repository: the tables of its configuration, with their defaults.
//!
//! [`mod@load`] finds the files, [`layer`] reads one, [`blocks`] knows which of its `[[match]]` blocks count for a
//! repository, [`merge`] lays one over the other, [`resolve`] turns the result into a
//! [`Config`] and checks what its keys say together. Unknown keys and wrong values are errors that name file, line and
//! key. The keys themselves are explained in `config.sample.toml`. Secrets are read only when something is to be sent,
//! see [`access`]; [`show`] hides them.

mod access;
mod blocks;
mod error;
#[cfg(any(test, fuzzing))]
pub(crate) mod fuzzing;
mod kind;
mod layer;
mod load;
mod merge;
mod placeholders;
mod posting;
mod resolve;
mod show;

use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};

pub(crate) use access::{Access, Credentials, Secret, StoreAccess, TfvcAccess, Trust};
pub(crate) use error::Error;
pub(crate) use kind::Kind;
pub(crate) use load::{is_named_by_environment, load, load_common};
pub(crate) use placeholders::Filled;
pub(crate) use posting::Posting;
pub(crate) use show::{Setting, settings};

use crate::artifact::{DEFAULT_PREFIXES, Mentions};
use crate::backoff::Retry;
use crate::changeset::{Policy, Post};
use crate::links::{LinkTemplates, Links};
use crate::refs::Watched;

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Config {
    pub rally: Rally,
    pub repository: Repository,
    pub commits: Commits,
    pub state: State,
    pub svn: Svn,
    pub authors: Authors,
    pub queue: Queue,
    pub log: Log,
    pub tfvc: Tfvc,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Rally {
    pub server: String,
    pub workspace: Option<String>,
    pub api_key: Option<Secret>,
    pub api_key_file: Option<PathBuf>,
    pub username: Option<String>,
    pub password: Option<Secret>,
    pub password_file: Option<PathBuf>,
    /// What stands for the user in the count of requests.
    pub account: Option<String>,
    #[serde(serialize_with = "show::hide_login")]
    pub proxy: Option<Secret>,
    pub ca_file: Option<PathBuf>,
    #[serde(with = "duration")]
    pub timeout: Duration,
    /// How far Rally's reads may lag behind its writes.
    #[serde(with = "duration")]
    pub read_lag: Duration,
    pub max_concurrent_requests: usize,
    pub batch: BatchMode,
    #[serde(skip)]
    pub trust: Trust,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum BatchMode {
    Auto,
    Off,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Repository {
    /// The directory below which `{dir}` begins.
    pub root: Option<PathBuf>,
    pub name: String,
    /// Whether the configuration gives the whole name, as opposed to the place of the repository.
    #[serde(skip)]
    pub is_named: bool,
    #[serde(skip)]
    pub scm_type: Kind,
    pub create: bool,
    pub projects: Vec<String>,
    pub web: Option<String>,
    pub links: Links,
    pub commit_link: Option<String>,
    pub file_link: Option<String>,
    #[serde(skip)]
    pub filled: Option<Filled>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Commits {
    pub refs: Vec<String>,
    pub exclude_refs: Vec<String>,
    pub prefixes: Vec<String>,
    /// IDs that are not Rally's.
    pub ignore: Vec<String>,
    pub ignore_case: bool,
    pub from_branch_name: bool,
    pub post: Post,
    pub max_changes: usize,
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct State {
    pub update: bool,
    pub refs: Vec<String>,
    pub backwards: bool,
}

/// How a Subversion repository is laid out, and what of it is posted.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Svn {
    pub trunk: String,
    pub branches: String,
    pub tags: String,
    pub directory_properties: bool,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Authors {
    pub map_file: Option<PathBuf>,
    #[serde(rename = "match")]
    pub match_by: Vec<MatchBy>,
    pub domain: Option<String>,
    pub default: Option<String>,
    #[serde(skip)]
    pub trust: Trust,
}

/// The User field that an author is looked up by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum MatchBy {
    Email,
    Username,
    DisplayName,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Queue {
    /// The directory below which each repository has its state; in its directory, if none is set.
    pub dir: Option<PathBuf>,
    /// The address of the PostgreSQL database that holds the ledger of many servers.
    #[serde(serialize_with = "show::hide_password")]
    pub store: Option<Secret>,
    pub store_password_file: Option<PathBuf>,
    pub store_ca_file: Option<PathBuf>,
    pub deliver: Deliver,
    #[serde(with = "duration")]
    pub retry_delay: Duration,
    #[serde(with = "duration")]
    pub retry_for: Duration,
    #[serde(skip)]
    pub trust: Trust,
}

/// When a push is delivered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Deliver {
    /// By a process of its own that the hook starts.
    Background,
    /// Before the hook returns: the pusher waits.
    Inline,
    /// By a timer that runs `rally-hook deliver`, or by `rally-hook worker`.
    Later,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Log {
    pub push: PushLog,
    pub target: LogTarget,
    pub file: PathBuf,
    pub level: Level,
}

/// The path on a server that is polled for changesets, in a directory that stands for it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Tfvc {
    pub collection: Option<String>,
    pub project: Option<String>,
    pub path: Option<String>,
    pub token_file: Option<PathBuf>,
    pub ca_file: Option<PathBuf>,
    #[serde(with = "duration")]
    pub every: Duration,
    #[serde(skip)]
    pub trust: Trust,
}

/// Where events go.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum LogTarget {
    File,
    Syslog,
    Journal,
}

/// What the pusher sees.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum PushLog {
    Summary,
    /// Nothing but trouble.
    Quiet,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Level {
    Error,
    Warn,
    Info,
    Debug,
}

impl Default for Rally {
    fn default() -> Self {
        Rally {
            server: "https://rally1.rallydev.com".into(),
            workspace: None,
            api_key: None,
            api_key_file: None,
            username: None,
            password: None,
            password_file: None,
            account: None,
            proxy: None,
            ca_file: None,
            timeout: Duration::from_secs(30),
            read_lag: Duration::from_secs(10),
            max_concurrent_requests: 8,
            batch: BatchMode::Auto,
            trust: Trust::default(),
        }
    }
}

impl Default for Repository {
    fn default() -> Self {
        Repository {
            root: None,
            name: "{name}".into(),
            is_named: false,
            scm_type: Kind::Git,
            create: true,
            projects: Vec::new(),
            web: None,
            links: Links::Github,
            commit_link: None,
            file_link: None,
            filled: None,
        }
    }
}

impl Default for Svn {
    fn default() -> Self {
        let [trunk, branches, tags] = ["trunk", "branches", "tags"].map(str::to_owned);
        Svn { trunk, branches, tags, directory_properties: true }
    }
}

impl Default for Commits {
    fn default() -> Self {
        Commits {
            refs: vec!["refs/heads/*".into(), "refs/tags/*".into()],
            exclude_refs: Vec::new(),
            prefixes: DEFAULT_PREFIXES.map(str::to_owned).to_vec(),
            ignore: Vec::new(),
            ignore_case: false,
            from_branch_name: false,
            post: Post::Linked,
            max_changes: 1000,
        }
    }
}

impl Default for Authors {
    fn default() -> Self {
        let match_by = vec![MatchBy::Email, MatchBy::Username, MatchBy::DisplayName];
        Authors { map_file: None, match_by, domain: None, default: None, trust: Trust::default() }
    }
}

impl Default for Queue {
    fn default() -> Self {
        let (retry_delay, retry_for) = (Duration::from_secs(5), Duration::from_secs(7 * 24 * 3600));
        Queue {
            dir: None,
            store: None,
            store_password_file: None,
            store_ca_file: None,
            deliver: Deliver::Background,
            retry_delay,
            retry_for,
            trust: Trust::default(),
        }
    }
}

impl Default for Log {
    fn default() -> Self {
        Log { push: PushLog::Summary, target: LogTarget::File, file: "rally-hook/log".into(), level: Level::Info }
    }
}

impl Default for Tfvc {
    fn default() -> Self {
        Tfvc {
            collection: None,
            project: None,
            path: None,
            token_file: None,
            ca_file: None,
            every: Duration::from_secs(60),
            trust: Trust::default(),
        }
    }
}

impl Level {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Level::Error => "error",
            Level::Warn => "warn",
            Level::Info => "info",
            Level::Debug => "debug",
        }
    }
}

impl Config {
    /// Fills in what the queue knows: what the repository's host calls it, and the name under which it is posted, with the
    /// template that this was made from. As long as the configuration has this template, the name stays.
    pub(crate) fn identify(&mut self, host_path: Option<&str>, pinned: Option<(&str, &str)>) {
        let Some(repo_dir) = &self.rally.trust.repo_dir else { return };
        self.repository.fill(repo_dir, host_path);
        if let Some((template, name)) = pinned
            && self.repository.template().as_deref() == Some(template)
        {
            self.repository.name = name.to_owned();
        }
    }

    /// Returns where Changesets go: server, workspace and SCMRepository.
    pub(crate) fn destination(&self) -> String {
        let workspace = self.rally.workspace.as_deref().unwrap_or_default();
        format!("{}\n{workspace}\n{}", self.rally.server, self.repository.name)
    }
}

impl Config {
    /// Returns the files that it names to be read.
    pub(crate) fn files(&self) -> impl Iterator<Item = &Path> {
        let Rally { api_key_file, password_file, ca_file, .. } = &self.rally;
        let Tfvc { token_file, ca_file: tfvc_ca_file, .. } = &self.tfvc;
        let Queue { store_password_file, store_ca_file, .. } = &self.queue;
        let files = [
            api_key_file,
            password_file,
            ca_file,
            &self.authors.map_file,
            token_file,
            tfvc_ca_file,
            store_password_file,
            store_ca_file,
        ];
        files.into_iter().flatten().map(PathBuf::as_path)
    }
}

impl Commits {
    /// Returns what decides which commits are posted.
    pub(crate) fn policy(&self) -> Policy {
        Policy {
            mentions: Mentions::new(&self.prefixes, self.ignore_case).ignoring(&self.ignore),
            from_branch_name: self.from_branch_name,
            post: self.post,
            max_changes: self.max_changes,
        }
    }

    pub(crate) fn watched(&self) -> Watched {
        Watched::new(&self.refs, &self.exclude_refs)
    }
}

impl Queue {
    pub(crate) fn retry(&self) -> Retry {
        Retry { delay: self.retry_delay, patience: self.retry_for }
    }
}

impl Repository {
    /// Returns what the administrator has said about the name, unless the settings are those of no repository.
    pub(crate) fn template(&self) -> Option<String> {
        let template = &self.filled.as_ref()?.template;
        let root = self.root.as_ref().filter(|_| template.contains("{dir}"));
        Some(root.map_or(template.clone(), |root| format!("{template} below {}", root.display())))
    }

    /// Returns the name that the template gives at present, if another one counts.
    pub(crate) fn other_name(&self) -> Option<&str> {
        self.filled.as_ref().map(|filled| filled.name.as_str()).filter(|name| *name != self.name)
    }

    pub(crate) fn link_templates(&self) -> LinkTemplates {
        LinkTemplates::new(self.links, self.web.as_deref(), self.commit_link.as_deref(), self.file_link.as_deref())
    }
}

/// A duration such as "30s", "5m" or "7d".
mod duration {
    use std::time::Duration;

    use serde::de::{Deserialize, Deserializer, Error};
    use serde::ser::Serializer;

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
        let text = String::deserialize(deserializer)?;
        humantime::parse_duration(&text)
            .map_err(|_| D::Error::custom(format!("{text:?} is not a duration; write \"30s\", \"5m\" or \"7d\"")))
    }

    pub(super) fn serialize<S: Serializer>(duration: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&humantime::format_duration(*duration))
    }
}
