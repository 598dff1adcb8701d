//! The repositories of this host that post to one SCMRepository: by default one is named after the repository's directory,
//! and directories in different places may have the same name.

use std::path::Path;

use super::identity::identify_at;
use super::load_config;
use crate::clock::now;
use crate::config::Config;
use crate::queue::{Host, HostError, Place, identity};

/// So many others are named at most, and their configurations read: a person reads the message.
const MOST_NAMED: usize = 5;

/// Notes where a repository posts to, for the others of this host.
pub(super) fn note(repo_dir: &Path, config: &Config, config_file: Option<&Path>) {
    // Only these messages depend on it, and `doctor` says why it cannot be noted.
    if let (Ok(host), Some(place)) = (Host::open(), place(repo_dir, config, config_file)) {
        host.note(&place, now());
    }
}

/// Notes where a repository posts to, and says which others of this host post there although nobody said so.
///
/// # Errors
/// If it is not known where the others post to.
pub(super) fn look(repo_dir: &Path, config: &Config, config_file: Option<&Path>) -> Result<Option<String>, HostError> {
    let host = Host::open()?;
    let Some(own) = place(repo_dir, config, config_file) else { return Ok(None) };
    host.note(&own, now());
    let others = host.others(&own).unwrap_or_default();
    let mut others = others.iter().filter(|other| clash(&own, other)).collect::<Vec<_>>().into_iter();
    // What was noted counts until the other's configuration says otherwise.
    let still = others.by_ref().filter(|other| current(other).is_none_or(|current| clash(&own, &current)));
    let mut repo_dirs: Vec<&Path> = still.take(MOST_NAMED).map(|other| other.repo_dir.as_path()).collect();
    if repo_dirs.is_empty() {
        return Ok(None);
    }
    repo_dirs.push(repo_dir);
    repo_dirs.sort();
    Ok(Some(sentence(&repo_dirs, others.len(), &config.repository.name)))
}

fn place(repo_dir: &Path, config: &Config, config_file: Option<&Path>) -> Option<Place> {
    Some(Place {
        repo_dir: repo_dir.to_owned(),
        identity: identity(repo_dir)?,
        destination: config.destination(),
        is_named: config.repository.is_named,
        config_file: config_file.and_then(|file| std::path::absolute(file).ok()),
    })
}

/// Returns where another repository would post to now, if its configuration can be read.
fn current(other: &Place) -> Option<Place> {
    let config_file = other.config_file.as_deref();
    let mut config = load_config(config_file, &other.repo_dir).ok()?;
    identify_at(&other.repo_dir, &mut config);
    place(&other.repo_dir, &config, config_file)
}

/// Tells whether two repositories post to one SCMRepository, and not because the configuration of both names it.
fn clash(one: &Place, other: &Place) -> bool {
    one.destination == other.destination && !(one.is_named && other.is_named)
}

/// Says that these repositories, and so many more, post to the SCMRepository of this name.
fn sentence(repo_dirs: &[&Path], more: usize, name: &str) -> String {
    let mut listed: Vec<String> = repo_dirs.iter().map(|repo_dir| repo_dir.display().to_string()).collect();
    listed.extend((more > 0).then(|| format!("{more} more")));
    let last = listed.pop().expect("there are two at least");
    let (all, these) = if listed.len() == 1 { ("both", "one") } else { ("all", "all but one") };
    format!(
        "{} and {last} {all} post to the SCMRepository {name:?}; set repository.name (for example \"{{dir}}\") for {these} \
         of them; {{dir}} needs repository.root",
        listed.join(", ")
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sentence_names_all_and_what_to_do() {
        let [a, b, c] = ["/srv/a/api.git", "/srv/b/api.git", "/srv/c/api.git"].map(Path::new);
        assert_eq!(
            sentence(&[a, b], 0, "api"),
            "/srv/a/api.git and /srv/b/api.git both post to the SCMRepository \"api\"; set repository.name (for example \
             \"{dir}\") for one of them; {dir} needs repository.root"
        );
        let many = sentence(&[a, b, c], 197, "api");
        assert!(many.starts_with("/srv/a/api.git, /srv/b/api.git, /srv/c/api.git and 197 more all post to "), "{many}");
        assert!(many.contains("for all but one of them"), "{many}");
    }
}
