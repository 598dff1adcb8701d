//! Finds the configuration files of a repository and reads them.

use std::io::ErrorKind;
use std::path::{Component, Path, PathBuf};

use super::layer::{Layer, Source};
use super::merge::{self, Merged};
use super::{Config, Error, Trust, access, resolve, show};
use crate::environment::variable;
use crate::files::{self, Links, Owners};

/// Read first; the repository's own file may override it key by key.
const SYSTEM_FILE: &str = "/etc/rally-hook/config.toml";
/// Read second, under `$GIT_DIR`.
const REPOSITORY_FILE: &str = "rally-hook.toml";
/// Names the one file to read instead.
const FILE_VARIABLE: &str = "RALLY_HOOK_CONFIG";

/// Keys whose values are the paths of files to read.
const FILES: [&str; 8] = [
    "rally.api_key_file",
    "rally.password_file",
    "rally.ca_file",
    "authors.map_file",
    "tfvc.token_file",
    "tfvc.ca_file",
    "queue.store_password_file",
    "queue.store_ca_file",
];
/// The key whose value is the path of a file to write.
const LOG_FILE: &str = "log.file";
/// Keys that say where the state of many repositories lies.
const PLACES: [&str; 4] = ["queue.dir", "queue.store", "queue.store_password_file", "queue.store_ca_file"];

/// Longer configurations are refused, in bytes.
const MAX_SIZE: u64 = 1024 * 1024;

/// Tells whether the environment names the one file to read.
pub(crate) fn is_named_by_environment() -> bool {
    variable(FILE_VARIABLE).is_some()
}

/// Loads the settings of a repository from the file that is named here or by the environment, or else from the
/// system's file and then the repository's. `owners` are the users whose files count in this repository.
///
/// # Errors
/// If there is no file at all, or one cannot be read, may be written by others, or has an error.
pub(crate) fn load(named: Option<&Path>, repo_dir: &Path, owners: Owners) -> Result<Config, Error> {
    resolved(layers(named, Some(repo_dir), owners)?, Some(repo_dir), owners)
}

/// Loads the settings that hold for the whole host: those of the file that is named here or by the environment, or else of
/// the system's file, without its `[[match]]` blocks.
///
/// # Errors
/// As [`load`] has them.
pub(crate) fn load_common(named: Option<&Path>) -> Result<Config, Error> {
    let owners = Owners::of_system();
    resolved(layers(named, None, owners)?, None, owners)
}

/// Returns what the files say that count for a repository, or for the whole host; what wins comes last.
pub(super) fn layers(named: Option<&Path>, repo_dir: Option<&Path>, owners: Owners) -> Result<Vec<Layer>, Error> {
    let named = named.map(Path::to_owned).or_else(|| variable(FILE_VARIABLE).map(PathBuf::from));
    let is_named = named.is_some();
    // A hook names a file as well, and in a shared repository somebody else may have written that hook.
    let owners = if is_named { Owners::of_system() } else { owners };
    let candidates = match &named {
        Some(file) => vec![file.clone()],
        None => [SYSTEM_FILE.into()].into_iter().chain(repo_dir.map(|dir| dir.join(REPOSITORY_FILE))).collect(),
    };
    let is_missing = |file: &Path| file.symlink_metadata().is_err_and(|error| error.kind() == ErrorKind::NotFound);
    let files: Vec<&PathBuf> = candidates.iter().filter(|file| !is_missing(file)).collect();
    if files.is_empty() {
        return Err(named.map_or(Error::NotConfigured(candidates), Error::NoFile));
    }
    let mut layers = Vec::new();
    for file in files {
        let own_of = repo_dir.filter(|dir| *file == dir.join(REPOSITORY_FILE));
        let source = read(file, if own_of.is_some() { Links::Refuse } else { Links::Follow }, owners)?;
        if let Some(repo_dir) = own_of {
            confine(&source, repo_dir)?;
        }
        layers.extend(source.layers_for(repo_dir));
    }
    Ok(layers)
}

/// Returns the settings that layers make together.
pub(super) fn resolved(layers: Vec<Layer>, repo_dir: Option<&Path>, owners: Owners) -> Result<Config, Error> {
    let Merged { table, withheld, withheld_token } = merge::merged(&layers);
    let trust = Trust { repo_dir: repo_dir.map(Path::to_owned), owners, withheld, withheld_token };
    resolve::resolve(table, layers, trust)
}

fn read(path: &Path, links: Links, owners: Owners) -> Result<Source, Error> {
    let invalid = || files::Error::Read { path: path.to_owned(), source: ErrorKind::InvalidData.into() };
    let text = String::from_utf8(files::read_trusted(path, MAX_SIZE, links, owners, None)?).map_err(|_| invalid())?;
    let mut source = Source::parse(path, &text)?;
    if source.layers_mut().any(|layer| holds_secret(&layer.table)) {
        access::check_private(path)?;
    }
    source.layers_mut().for_each(|layer| anchor(&mut layer.table, path));
    Ok(source)
}

/// Refuses a repository's file that names files elsewhere: whoever may write in one repository's directory does not decide
/// which other files of this user are read, sent or written. Nor does it say anything about other repositories.
fn confine(source: &Source, repo_dir: &Path) -> Result<(), Error> {
    let layer = &source.own;
    if let Some(block) = source.blocks.first() {
        let problem = format!("the configuration of a repository has no [[match]] blocks; write them in {SYSTEM_FILE}");
        return Err(Error::Parse { path: layer.path.clone(), line: block.line, problem });
    }
    if let Some(key) = PLACES.into_iter().find(|key| layer.lines.contains_key(*key)) {
        let problem =
            format!("the configuration of a repository does not say where state lies; set it in {SYSTEM_FILE}");
        return Err(layer.invalid(key, problem));
    }
    let named = |section: &str, key: &str| layer.table.get(section)?.get(key)?.as_str().map(PathBuf::from);
    let is_within = |path: &Path, dir: &Path| {
        path.starts_with(dir) && !path.components().any(|component| component == Component::ParentDir)
    };
    let is_outside = |key: &&str| {
        let (section, name) = key.split_once('.').expect("a section and a key");
        let dir = if *key == LOG_FILE { repo_dir.join(crate::PROGRAM) } else { repo_dir.to_owned() };
        named(section, name).is_some_and(|path| !is_within(&real(repo_dir.join(path)), &dir))
    };
    let Some(key) = FILES.iter().copied().chain([LOG_FILE]).find(is_outside) else { return Ok(()) };
    let below = if key == LOG_FILE { "below rally-hook/ " } else { "" };
    let problem = format!(
        "the configuration of a repository names files {below}in the repository's directory only; set it in {SYSTEM_FILE}"
    );
    Err(layer.invalid(key, problem))
}

/// Tells whether a file holds a secret itself.
fn holds_secret(table: &toml::Table) -> bool {
    let rally = table.get("rally").and_then(toml::Value::as_table);
    // A proxy's address may have the password for it in front of the host.
    let proxy = |rally: &toml::Table| rally.get("proxy")?.as_str().map(|proxy| proxy.contains('@'));
    // That of the ledger's database may have one too.
    let store = || table.get("queue")?.get("store")?.as_str().map(show::has_password);
    rally.is_some_and(|rally| {
        rally.contains_key("api_key") || rally.contains_key("password") || proxy(rally) == Some(true)
    }) || store() == Some(true)
}

/// Makes relative paths absolute, starting at the directory of the file that holds them, and resolves links to their
/// directories. A relative path would depend on the current directory, which differs between commands and the background
/// delivery.
fn anchor(table: &mut toml::Table, file: &Path) {
    let Some(dir) = std::path::absolute(file).ok().and_then(|file| file.parent().map(Path::to_owned)) else { return };
    for (section, key) in FILES.iter().filter_map(|key| key.split_once('.')) {
        let value = table.get_mut(section).and_then(|section| section.get_mut(key));
        if let Some(toml::Value::String(path)) = value
            && let Some(text) = real(dir.join(&path)).to_str()
        {
            *path = text.to_owned();
        }
    }
}

/// Resolves the links that lead to a file's directory, if it is there.
fn real(path: PathBuf) -> PathBuf {
    let resolved = path.parent().and_then(|dir| Some(dir.canonicalize().ok()?.join(path.file_name()?)));
    resolved.unwrap_or(path)
}
