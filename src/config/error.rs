//! What can be wrong with the configuration, told so that the administrator finds the line.

use std::io;
use std::path::{Path, PathBuf};

/// Keys whose values no message may repeat.
const SECRETS: [&str; 3] = ["api_key", "password", "proxy"];

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("no configuration: {}; copy config.sample.toml there and fill in [rally]", missing(.0))]
    Missing(Vec<PathBuf>),
    #[error("cannot read {}: {source}", path.display())]
    Read { path: PathBuf, source: io::Error },
    #[error("{}, line {line}: unknown key `{key}`{}", path.display(), nearest_hint(nearest.as_ref()))]
    UnknownKey { path: PathBuf, line: usize, key: String, nearest: Option<String> },
    #[error("{}, line {line}: {problem}", path.display())]
    Parse { path: PathBuf, line: usize, problem: String },
    #[error("{}{}: `{key}`: {problem}", path.display(), line.map(|line| format!(", line {line}")).unwrap_or_default())]
    Invalid { path: PathBuf, line: Option<usize>, key: &'static str, problem: String },
    #[error("{} holds a secret and others may read it (mode {mode:03o}); run: chmod 600 {}", path.display(), path.display())]
    NotPrivate { path: PathBuf, mode: u32 },
    #[error("{} is empty; it should hold the {what}", path.display())]
    EmptySecret { path: PathBuf, what: &'static str },
    #[error("the API key holds characters that no key has; {source_name} must hold the key alone, on one line")]
    NoKey { source_name: String },
    #[error("[rally] names no {what}; set {key}")]
    NotSet { what: &'static str, key: &'static str },
}

impl Error {
    /// Turns the parser's error into ours. The parser's own display repeats the line, which may hold a secret.
    pub(super) fn parse(error: &toml::de::Error, text: &str, path: &Path) -> Self {
        let path = path.to_owned();
        let start = error.span().map_or(0, |span| span.start);
        let line_start = text[..start].rfind('\n').map_or(0, |at| at + 1);
        let line = text[..start].matches('\n').count() + 1;
        let message = error.message();
        let mut names = message.split('`').skip(1).step_by(2);
        if message.starts_with("unknown field") {
            let key = names.next().unwrap_or_default().to_owned();
            if key.starts_with('_') {
                let problem = "an API key stands here by itself; write api_key = \"…\"".to_owned();
                return Error::Parse { path, line, problem };
            }
            let nearest = names
                .map(|known| (strsim::damerau_levenshtein(&key, known), known))
                .min_by_key(|(distance, _)| *distance)
                .map(|(_, known)| known.to_owned());
            return Error::UnknownKey { path, line, key, nearest };
        }
        let whole_line = text[line_start..].lines().next().unwrap_or_default();
        let key = whole_line.split('=').next().unwrap_or_default().trim();
        let problem = match SECRETS.iter().any(|secret| whole_line.contains(secret)) {
            // What it found may be the secret, or a part of it.
            true => "its value must be text in quotes, on one line".to_owned(),
            false => message.replace('\n', ", "),
        };
        let known_key = !key.is_empty()
            && !key.starts_with('_')
            && key.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_.-".contains(&byte));
        Error::Parse { path, line, problem: if known_key { format!("`{key}`: {problem}") } else { problem } }
    }
}

fn missing(paths: &[PathBuf]) -> String {
    let names: Vec<String> = paths.iter().map(|path| path.display().to_string()).collect();
    match names.as_slice() {
        [one] => format!("{one} does not exist"),
        several => format!("there is neither {}", several.join(" nor ")),
    }
}

fn nearest_hint(nearest: Option<&String>) -> String {
    nearest.map(|known| format!("; the nearest known one is `{known}`")).unwrap_or_default()
}
