//! What Subversion runs after a commit and after a change of a revision's property, and Mercurial after a transaction.
//!
//! They keep what they are told, and return: the process in the background reads the repository. On success nothing is
//! written. Subversion shows what a hook writes only if the hook fails, as a warning; its client ends well all the same.

use std::ffi::OsString;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use super::post_receive::{Event, run_with};
use super::{Ended, Error, hgrc};
use crate::cli::Place;
use crate::environment::variables;
use crate::messages::is_pusher_told;
use crate::process;
use crate::vcs::{self, Named};

/// Runs a hook of Subversion: its own file, if our script names it, and the arguments that Subversion gives, of which the
/// first is the repository.
pub(super) fn run(place: &Place, name: &str, arguments: &[OsString]) -> Result<Ended, Error> {
    process::ignore_hang_ups();
    let (hook, given) = match arguments {
        [hook, given @ ..] if Path::new(hook).file_name().is_some_and(|file| file == name) => (Some(hook), given),
        given => (None, given),
    };
    let [repository, _, ..] = given else {
        return Err(Error::Usage(format!(
            "{name} needs what Subversion gives its hook: the repository and a revision"
        )));
    };
    let place = Place { repo: Some(repository.into()), ..place.clone() };
    let input = event(name, given);
    run_with(&place, &Event { hook: hook.map(Path::new), input: &input, arguments: Some(given) });
    Ok(Ended::done_if(!is_pusher_told()))
}

/// Runs a hook of Mercurial, whose client waits until it ends. The current directory is the repository's, or a share's. What
/// happened is in the environment; a name there may hold a line break.
pub(super) fn run_txnclose(place: &Place) -> Ended {
    process::ignore_hang_ups();
    // A variable of Git must not lead elsewhere.
    let repo = place.repo.clone().unwrap_or_else(|| ".".into());
    let input = event("txnclose", &variables("HG_"));
    let hook = vcs::discover(&repo, Named::ByHost).ok().map(|repo_dir| hgrc::own(&repo_dir));
    let place = Place { repo: Some(repo), ..place.clone() };
    run_with(&place, &Event { hook: hook.as_deref(), input: &input, arguments: Some(&[]) })
}

/// Returns what the queue keeps: the hook's name and what it was told, with NUL between them, which neither can hold.
fn event(name: &str, told: &[OsString]) -> Vec<u8> {
    let told = told.iter().map(|part| part.as_bytes());
    std::iter::once(name.as_bytes()).chain(told).collect::<Vec<_>>().join(&0)
}
