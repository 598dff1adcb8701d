//! Finds the configuration files of a repository and reads them.

use std::path::{Path, PathBuf};

use super::{Config, Error, access, merge, resolve};
use crate::environment::variable;

/// Read first; the repository's own file may override it key by key.
const SYSTEM_FILE: &str = "/etc/rally-hook/config.toml";
/// Read second, under `$GIT_DIR`.
const REPOSITORY_FILE: &str = "rally-hook.toml";
/// Names the one file to read instead.
const FILE_VARIABLE: &str = "RALLY_HOOK_CONFIG";

/// Keys whose values are the paths of files to read.
const FILES: [(&str, &str); 4] =
    [("rally", "api_key_file"), ("rally", "password_file"), ("rally", "ca_file"), ("authors", "map_file")];

/// A configuration file that was read.
pub(super) struct Source {
    pub path: PathBuf,
    pub text: String,
    pub table: toml::Table,
}

/// Tells whether the environment names the one file to read.
pub(crate) fn is_named_by_environment() -> bool {
    variable(FILE_VARIABLE).is_some()
}

/// Loads the settings of a repository from the file that is named here or by the environment, or else from the
/// system's file and then the repository's.
///
/// # Errors
/// If there is no file at all, or one cannot be read or does not say what can be done.
pub(crate) fn load(named: Option<&Path>, git_dir: &Path) -> Result<Config, Error> {
    let named = named.map(Path::to_owned).or_else(|| variable(FILE_VARIABLE).map(PathBuf::from));
    let is_named = named.is_some();
    let candidates = match named {
        Some(file) => vec![file],
        None => vec![PathBuf::from(SYSTEM_FILE), git_dir.join(REPOSITORY_FILE)],
    };
    let files: Vec<&PathBuf> = candidates.iter().filter(|file| file.exists()).collect();
    if files.is_empty() {
        return Err(if is_named { Error::NoFile(candidates) } else { Error::NotConfigured(candidates) });
    }
    let sources = files.into_iter().map(|file| read(file)).collect::<Result<Vec<_>, _>>()?;
    resolve::resolve(merge::merged(&sources), &sources)
}

fn read(path: &Path) -> Result<Source, Error> {
    let text = std::fs::read_to_string(path).map_err(|source| Error::Read { path: path.to_owned(), source })?;
    let mut table: toml::Table = text.parse().map_err(|error| Error::parse(&error, &text, path))?;
    if holds_secret(&table) {
        access::check_private(path)?;
    }
    anchor(&mut table, path);
    Ok(Source { path: path.to_owned(), text, table })
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
    for (section, key) in FILES {
        let value = table.get_mut(section).and_then(|section| section.get_mut(key));
        if let Some(toml::Value::String(path)) = value
            && let Some(whole) = dir.join(&path).to_str()
        {
            *path = whole.to_owned();
        }
    }
}
