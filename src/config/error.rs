//! What can be wrong with the configuration, told so that the administrator finds the line.

use std::path::{Path, PathBuf};

use super::merge::Withheld;
use super::show::known_keys;
use crate::files;

/// Keys whose values no message may repeat.
pub(super) const SECRETS: [&str; 4] = ["api_key", "password", "proxy", "store"];

#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error("there is no configuration: {}; copy config.sample.toml there and fill in [rally]", absent(.0))]
    NotConfigured(Vec<PathBuf>),
    #[error("the configuration {} does not exist", .0.display())]
    NoFile(PathBuf),
    #[error(transparent)]
    File(#[from] files::Error),
    #[error("{}, line {line}: unknown key `{key}`{hint}", path.display())]
    UnknownKey { path: PathBuf, line: usize, key: String, hint: String },
    #[error("{}, line {line}: {problem}", path.display())]
    Parse { path: PathBuf, line: usize, problem: String },
    #[error("{}, line {line}: `{key}`: {problem}", path.display())]
    Invalid { path: PathBuf, line: usize, key: String, problem: String },
    #[error(
        "{} holds a secret: only its owner and its group may read it, and only its owner may write it (its mode is \
         {mode:03o}); run: chmod 600 {}, or chmod 640 {} if its group is to read it",
        path.display(), path.display(), path.display()
    )]
    NotPrivate { path: PathBuf, mode: u32 },
    #[error("{key} cannot be used")]
    NamedFile { key: &'static str, source: files::Error },
    #[error("{key} {} must hold the secret alone, on one line", path.display())]
    NotOneLine { key: &'static str, path: PathBuf },
    #[error(
        "[rally] has no {what}: {} sets {}, so credentials from other files and from the environment are not sent \
         there; set {key} in {}", withheld.by.display(), withheld.key, withheld.by.display()
    )]
    Withheld { what: &'static str, key: &'static str, withheld: Withheld },
    #[error("{key} {} holds no PEM certificate", path.display())]
    NoCertificate { key: &'static str, path: PathBuf },
    #[error("{source_name} does not hold an API key; it must hold the key alone, on one line")]
    NotAKey { source_name: String },
    #[error("[rally] has no {what}; set {key}")]
    NotSet { what: &'static str, key: &'static str },
    #[error("[tfvc] has no {key}; set {key} in the file that has this section")]
    TfvcNotSet { key: &'static str },
    #[error(
        "[tfvc] has no token_file: {} sets {}, so the token of another file is not sent there; set token_file in {}",
        .0.by.display(), .0.key, .0.by.display()
    )]
    TokenWithheld(Withheld),
    #[error("authors.map_file {}: {problem}", path.display())]
    AuthorMap { path: PathBuf, problem: String },
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
            let hint = belongs(&key).or_else(|| {
                let near = names.map(|known| (strsim::damerau_levenshtein(&key, known), known));
                near.min_by_key(|(distance, _)| *distance).map(|(_, known)| format!("; did you mean `{known}`?"))
            });
            return Error::UnknownKey { path, line, key, hint: hint.unwrap_or_default() };
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

fn absent(paths: &[PathBuf]) -> String {
    let names: Vec<String> = paths.iter().map(|path| path.display().to_string()).collect();
    match names.as_slice() {
        [one] => format!("{one} does not exist"),
        _ => format!("neither {} exists", names.join(" nor ")),
    }
}

/// Names the sections that know a key, where it stands in none of them.
fn belongs(key: &str) -> Option<String> {
    let all = known_keys();
    let knowing = all.iter().filter(|(_, known)| known == key);
    let sections: Vec<String> = knowing.map(|(section, _)| format!("[{section}]")).collect();
    (!sections.is_empty()).then(|| format!("; it belongs in {}", sections.join(" or ")))
}
