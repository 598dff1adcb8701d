//! What the administrator decides: one or two TOML files and a few environment variables become a [`Config`].
//!
//! Unknown keys and wrong values are errors that name file, line and key. The keys themselves are explained
//! in `config.sample.toml`. Secrets are read only when something is to be sent, see [`credentials`].

mod check;
pub mod credentials;
mod error;

use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Deserializer};

pub use error::Error;

use crate::links::Links;
use credentials::Secret;

/// Read first; the repository's own file may override it key by key.
pub const SYSTEM_FILE: &str = "/etc/rally-hook/config.toml";
/// Read second, under `$GIT_DIR`.
pub const REPOSITORY_FILE: &str = "rally-hook.toml";
/// Names the one file to read instead.
pub const FILE_VARIABLE: &str = "RALLY_HOOK_CONFIG";

/// The prefixes that Rally gives a new workspace and that everyday text does not use.
pub const DEFAULT_PREFIXES: [&str; 6] = ["US", "DE", "DS", "TA", "TC", "TS"];

#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    pub rally: Rally,
    pub repository: Repository,
    pub commits: Commits,
    pub state: State,
    pub authors: Authors,
    pub queue: Queue,
    pub log: Log,
}

#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Rally {
    pub server: String,
    pub workspace: Option<String>,
    pub api_key: Option<Secret>,
    pub api_key_file: Option<PathBuf>,
    pub username: Option<String>,
    pub password: Option<Secret>,
    pub password_file: Option<PathBuf>,
    pub proxy: Option<Secret>,
    pub ca_file: Option<PathBuf>,
    #[serde(deserialize_with = "duration")]
    pub timeout: Duration,
    pub max_concurrent_requests: usize,
    pub batch: BatchMode,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum BatchMode {
    Auto,
    Off,
}

#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Repository {
    pub name: Option<String>,
    pub create: bool,
    pub projects: Vec<String>,
    pub web: Option<String>,
    pub links: Links,
    pub commit_link: Option<String>,
    pub file_link: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Commits {
    pub refs: Vec<String>,
    pub exclude_refs: Vec<String>,
    pub prefixes: Vec<String>,
    pub ignore_case: bool,
    pub from_branch_name: bool,
    pub post: Post,
    pub max_changes: usize,
}

/// Which commits become Changesets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Post {
    /// Those that name an artifact which Rally has.
    Linked,
    All,
}

#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct State {
    pub update: bool,
    pub refs: Vec<String>,
    pub backwards: bool,
}

#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Authors {
    pub map_file: Option<PathBuf>,
    #[serde(rename = "match")]
    pub match_by: Vec<MatchBy>,
    pub domain: Option<String>,
    pub default: Option<String>,
}

/// The User field that an author is looked up by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum MatchBy {
    Email,
    Username,
    DisplayName,
}

#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Queue {
    pub deliver: Deliver,
    #[serde(deserialize_with = "duration")]
    pub retry_delay: Duration,
    #[serde(deserialize_with = "duration")]
    pub retry_for: Duration,
}

/// When a push is delivered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Deliver {
    /// By a process of its own that the hook starts.
    Background,
    /// Before the hook returns: the pusher waits.
    Inline,
    /// By a timer that runs `rally-hook deliver`.
    Later,
}

#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Log {
    pub push: PushLog,
    pub file: PathBuf,
    pub level: Level,
}

/// What the pusher sees.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum PushLog {
    Summary,
    /// Nothing but trouble.
    Quiet,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Level {
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
            proxy: None,
            ca_file: None,
            timeout: Duration::from_secs(30),
            max_concurrent_requests: 8,
            batch: BatchMode::Auto,
        }
    }
}

impl Default for Repository {
    fn default() -> Self {
        let (name, web, commit_link, file_link) = (None, None, None, None);
        Repository { name, create: true, projects: Vec::new(), web, links: Links::Github, commit_link, file_link }
    }
}

impl Default for Commits {
    fn default() -> Self {
        Commits {
            refs: vec!["refs/heads/*".into(), "refs/tags/*".into()],
            exclude_refs: Vec::new(),
            prefixes: DEFAULT_PREFIXES.map(str::to_owned).to_vec(),
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
        Authors { map_file: None, match_by, domain: None, default: None }
    }
}

impl Default for Queue {
    fn default() -> Self {
        let (retry_delay, retry_for) = (Duration::from_secs(5), Duration::from_secs(7 * 24 * 3600));
        Queue { deliver: Deliver::Background, retry_delay, retry_for }
    }
}

impl Default for Log {
    fn default() -> Self {
        Log { push: PushLog::Summary, file: "rally-hook/log".into(), level: Level::Info }
    }
}

impl Config {
    /// Reads the configuration for a repository: the file named here or by the environment, or the system's and
    /// then the repository's.
    ///
    /// # Errors
    /// If there is no file at all, or one cannot be read or does not say what can be done.
    pub fn load(named: Option<&Path>, git_dir: &Path) -> Result<Self, Error> {
        let named = named.map(Path::to_owned).or_else(|| std::env::var_os(FILE_VARIABLE).map(PathBuf::from));
        let candidates = match named {
            Some(file) => {
                if !file.exists() {
                    return Err(Error::Missing(vec![file]));
                }
                vec![file]
            }
            None => vec![PathBuf::from(SYSTEM_FILE), git_dir.join(REPOSITORY_FILE)],
        };
        let files: Vec<&PathBuf> = candidates.iter().filter(|file| file.exists()).collect();
        if files.is_empty() {
            return Err(Error::Missing(candidates));
        }
        let mut texts = Vec::new();
        let mut merged = toml::Table::new();
        for file in files {
            let text = std::fs::read_to_string(file).map_err(|source| Error::Read { path: file.clone(), source })?;
            let mut table: toml::Table = text.parse().map_err(|error| Error::parse(&error, &text, file))?;
            if holds_secret(&table) {
                credentials::check_private(file)?;
            }
            anchor(&mut table, file);
            replace_credentials(&mut merged, &table);
            merge(&mut merged, table);
            texts.push((file.as_path(), text));
        }
        let whole: Config = match merged.try_into() {
            Ok(whole) => whole,
            // Only a file by itself can tell which line is wrong.
            Err(error) => {
                texts.iter().try_for_each(|(file, text)| Config::parse(text, file).map(drop))?;
                return Err(Error::parse(&error, "", texts[0].0));
            }
        };
        whole.check(&texts).map(|()| whole)
    }

    /// Reads one file's text; `path` is for messages.
    pub fn parse(text: &str, path: &Path) -> Result<Self, Error> {
        let config: Config = toml::from_str(text).map_err(|error| Error::parse(&error, text, path))?;
        Ok(config)
    }
}

/// The keys by which a file says who we are. One that has any of them replaces all those of the file before: a
/// repository may use a password where the system's file names a key.
const CREDENTIALS: [&str; 5] = ["api_key", "api_key_file", "username", "password", "password_file"];

fn replace_credentials(table: &mut toml::Table, over: &toml::Table) {
    let own = over.get("rally").and_then(toml::Value::as_table);
    if own.is_some_and(|rally| CREDENTIALS.iter().any(|key| rally.contains_key(*key)))
        && let Some(toml::Value::Table(rally)) = table.get_mut("rally")
    {
        CREDENTIALS.iter().for_each(|key| drop(rally.remove(*key)));
    }
}

/// Tells whether a file holds a secret itself.
fn holds_secret(table: &toml::Table) -> bool {
    let rally = table.get("rally").and_then(toml::Value::as_table);
    // A proxy's address may have the password for it in front of the host.
    let proxy = |rally: &toml::Table| rally.get("proxy")?.as_str().map(|proxy| proxy.contains('@'));
    rally.is_some_and(|rally| {
        rally.contains_key("api_key") || rally.contains_key("password") || proxy(rally) == Some(true)
    })
}

/// Makes paths absolute that are relative to their file: the delivery in the background has another current directory
/// than the person who tries the configuration out.
fn anchor(table: &mut toml::Table, file: &Path) {
    let Some(dir) = std::path::absolute(file).ok().and_then(|file| file.parent().map(Path::to_owned)) else { return };
    for (section, key) in
        [("rally", "api_key_file"), ("rally", "password_file"), ("rally", "ca_file"), ("authors", "map_file")]
    {
        let value = table.get_mut(section).and_then(|section| section.get_mut(key));
        if let Some(toml::Value::String(path)) = value
            && let Some(whole) = dir.join(&path).to_str()
        {
            *path = whole.to_owned();
        }
    }
}

/// Lays the keys of `over` over those of `table`, section by section.
fn merge(table: &mut toml::Table, over: toml::Table) {
    for (key, value) in over {
        match (table.get_mut(&key), value) {
            (Some(toml::Value::Table(below)), toml::Value::Table(above)) => merge(below, above),
            (_, value) => drop(table.insert(key, value)),
        }
    }
}

/// Reads a duration such as "30s", "5m" or "7d".
fn duration<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
    let text = String::deserialize(deserializer)?;
    humantime::parse_duration(&text).map_err(|_| {
        serde::de::Error::custom(format!("{text:?} is no duration; it looks like \"30s\", \"5m\" or \"7d\""))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Config, String> {
        let path = Path::new("config.toml");
        let config = Config::parse(text, path).map_err(|error| error.to_string())?;
        config.check(&[(path, text.to_owned())]).map(|()| config).map_err(|error| error.to_string())
    }

    #[test]
    fn the_sample_lists_every_key_with_its_default() {
        let sample = include_str!("../config.sample.toml");
        let sampled = parse(sample).expect("the sample is valid");
        assert_eq!(sampled.rally.workspace.as_deref(), Some("Acme"));
        // With every key switched on it is still valid, so that each can be used as it stands there.
        let uncommented: String = sample
            .lines()
            .map(|line| {
                line.strip_prefix('#').filter(|rest| rest.split(" = ").next().is_some_and(is_key)).unwrap_or(line)
            })
            .flat_map(|line| [line, "\n"])
            .collect();
        let all: toml::Table = uncommented.parse().expect("every line is valid TOML");
        toml::from_str::<Config>(&uncommented).expect("every key is known");
        for (section, keys) in
            [("rally", 12), ("repository", 7), ("commits", 7), ("state", 3), ("authors", 4), ("queue", 3), ("log", 3)]
        {
            assert_eq!(all[section].as_table().map(toml::Table::len), Some(keys), "keys of [{section}]");
        }
    }

    fn is_key(text: &str) -> bool {
        !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_')
    }

    #[test]
    fn an_error_names_file_line_key_and_the_nearest_key() {
        let cases = [
            ("[commits]\nref = []", "config.toml, line 2: unknown key `ref`; the nearest known one is `refs`"),
            ("[comits]\nrefs = []", "config.toml, line 1: unknown key `comits`; the nearest known one is `commits`"),
            ("[queue]\n\nretry_for = \"soon\"", "config.toml, line 3: `retry_for`: \"soon\" is no duration"),
            ("[rally]\ntimeout = 30", "config.toml, line 2: `timeout`: invalid type: integer `30`"),
            (
                "[rally]\nserver = \"http://rally.example\"",
                "config.toml, line 2: `rally.server`: http://rally.example would send",
            ),
            (
                "[rally]\napi_key = \"_x\"\nusername = \"u\"",
                "config.toml, line 3: `rally.username`: an API key is set too",
            ),
            (
                "[commits]\nprefixes = [\"U S\"]",
                "config.toml, line 2: `commits.prefixes`: \"U S\" is not made of letters",
            ),
            ("[rally]\ntimeout = \"0s\"", "config.toml, line 2: `rally.timeout`: it must not be 0"),
            ("[repository]\nweb = \"host/r\"", "config.toml, line 2: `repository.web`: it is no address"),
            (
                "[repository]\ncommit_link = \"https://h/{revision}/{name}\"",
                "config.toml, line 2: `repository.commit_link`: {name} is none of the places",
            ),
            (
                "[rally]\nserver = \"https://h/slm/webservice/v2.0\"",
                "config.toml, line 2: `rally.server`: it ends with the host",
            ),
            ("[rally", "config.toml, line 1: "),
        ];
        for (text, expected) in cases {
            let error = parse(text).expect_err(text);
            assert!(error.starts_with(expected), "{error}");
        }
    }

    #[test]
    fn a_broken_line_with_a_secret_is_not_repeated() {
        let error = parse("[rally]\napi_key = \"_very-secret\" oops").expect_err("not TOML");
        assert!(!error.contains("_very-secret"), "{error}");
        let shown = format!("{:?}", parse("[rally]\napi_key = \"_very-secret\"").expect("valid"));
        assert!(!shown.contains("_very-secret"), "{shown}");
    }

    #[test]
    fn a_later_file_wins_key_by_key() {
        let mut table: toml::Table = "[rally]\nworkspace = \"A\"\nbatch = \"off\"".parse().expect("TOML");
        merge(&mut table, "[rally]\nworkspace = \"B\"\n[commits]\nmax_changes = 1".parse().expect("TOML"));
        let config: Config = table.try_into().expect("known keys");
        assert_eq!(config.rally.workspace.as_deref(), Some("B"));
        assert_eq!((config.rally.batch, config.commits.max_changes), (BatchMode::Off, 1));
    }
}
