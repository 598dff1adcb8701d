//! The hook of a Mercurial repository: lines of a file of ours, which the repository's `.hg/hgrc` includes.
//!
//! Files are written under another name, synced and renamed: a crash leaves the old one or the new one.

use std::fs::{self, DirBuilder, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use super::hook_file::{self, Hook, MARK, file_error};
use super::{Error, sharing};
use crate::PROGRAM;
use crate::files::{self, Links};
use crate::messages::tell;
use crate::queue::Sharing;
use crate::vcs;

/// What the repository's configuration gets. The path is relative to that file, so it moves with the repository.
const INCLUDE: &[u8] = b"%include rally-hook/hgrc";
/// What Mercurial runs after each transaction, and the name that it knows our hook by.
const HOOK: &str = "txnclose.rally-hook";
/// What a configuration begins with that was not there before.
const OWN_BEGINNING: &str = "# Made by rally-hook; `rally-hook uninstall` removes this line.\n";
/// No configuration is longer, in bytes.
const MAX_SIZE: u64 = 1024 * 1024;

/// Returns the file of ours.
pub(super) fn own(repo_dir: &Path) -> PathBuf {
    repo_dir.join(PROGRAM).join("hgrc")
}

/// Looks at the hook. Returns the file that has a problem, or else ours.
pub(super) fn look(repo_dir: &Path) -> Result<(PathBuf, Hook), vcs::Error> {
    let (own, hgrc) = (own(repo_dir), repo_dir.join("hgrc"));
    let text = read(&hgrc).ok().flatten().unwrap_or_default();
    let includes = lines(&text).any(|line| line == INCLUDE);
    let is_of_machine = || vcs::machine_hooks().map(|hooks| hooks.lines().any(calls_us));
    if !includes && !String::from_utf8_lossy(&text).lines().any(calls_us) {
        return Ok(match own.exists() {
            _ if is_of_machine()? => (hgrc, Hook::Runs),
            true => (hgrc, Hook::NotIncluded),
            false => (own, Hook::Missing),
        });
    }
    if includes && !own.exists() {
        return Ok((own, Hook::Missing));
    }
    if includes && program_in(&own).is_some_and(|program| !program.exists()) {
        return Ok((own, Hook::ProgramGone));
    }
    let is_for_others = sharing(repo_dir) == Sharing::Group || hgrc.metadata().is_ok_and(|meta| !files::is_own(&meta));
    if is_for_others
        && let Some(owner) = vcs::distrusted_owner(&hgrc)?
        && !is_of_machine()?
    {
        return Ok((hgrc, Hook::Untrusted(owner)));
    }
    Ok((if includes { own } else { hgrc }, Hook::Runs))
}

/// Tells whether a setting is a hook that calls this program: `txnclose.name = …`, or as Mercurial prints it.
fn calls_us(setting: &str) -> bool {
    let setting = setting.strip_prefix("hooks.").unwrap_or(setting);
    setting.starts_with("txnclose") && setting.contains(PROGRAM)
}

/// Puts the hook into a repository.
pub(super) fn put(repo_dir: &Path, config_file: Option<&Path>) -> Result<(), Error> {
    let (own, hgrc) = (own(repo_dir), repo_dir.join("hgrc"));
    let program = std::env::current_exe().map_err(Error::OwnFile)?;
    let command = hook_file::quoted(hook_file::text_of(&program)?);
    let config = hook_file::config_line(config_file)?;
    let text = format!("{MARK}\n{config}[hooks]\n{HOOK} = {command} txnclose\n");
    let before = own_hgrc(&hgrc)?;
    make_reachable(repo_dir, &own).map_err(|source| file_error("write", &own, source))?;
    write(&own, text.as_bytes(), 0o644)?;
    match before {
        Some((text, _)) if lines(&text).any(|line| line == INCLUDE) => {}
        Some((text, mode)) => write(&hgrc, &included(&text), mode)?,
        None => write(&hgrc, &included(OWN_BEGINNING.as_bytes()), 0o644)?,
    }
    tell(&format!("installed {}, which {} includes", own.display(), hgrc.display()));
    Ok(())
}

/// Removes the hook. Returns whether it was there.
pub(super) fn remove(repo_dir: &Path) -> Result<bool, Error> {
    let (own, hgrc) = (own(repo_dir), repo_dir.join("hgrc"));
    let found = own_hgrc(&hgrc)?.and_then(|(text, mode)| Some((without_include(&text)?, mode)));
    if found.is_none() && !own.exists() {
        tell(&format!("{} does not exist; nothing was changed", own.display()));
        return Ok(false);
    }
    match found {
        // It was not there before. What was added since stays.
        Some((rest, mode)) if rest.starts_with(OWN_BEGINNING.as_bytes()) => match &rest[OWN_BEGINNING.len()..] {
            [] => fs::remove_file(&hgrc).map_err(|source| file_error("remove", &hgrc, source))?,
            added => write(&hgrc, added, mode)?,
        },
        Some((rest, mode)) => write(&hgrc, &rest, mode)?,
        None => {}
    }
    if own.exists() {
        fs::remove_file(&own).map_err(|source| file_error("remove", &own, source))?;
    }
    // It holds the queue, unless that is elsewhere.
    let _ = own.parent().map(fs::remove_dir);
    tell(&format!("removed {}; {} is as it was before", own.display(), hgrc.display()));
    Ok(true)
}

/// Returns the program that our hook calls.
fn program_in(own: &Path) -> Option<PathBuf> {
    let text = hook_file::own_text(own)?;
    let start = format!("{HOOK} = '");
    let (program, _) = text.lines().find_map(|line| line.strip_prefix(&start)?.split_once("' txnclose"))?;
    Some(program.replace(r"'\''", "'").into())
}

/// Makes the directory of our file. If a user may read the repository but not the file, each of this user's commands would
/// complain about it, or end there. The directory's other files have modes of their own.
fn make_reachable(repo_dir: &Path, own: &Path) -> io::Result<()> {
    let dir = own.parent().unwrap_or(repo_dir);
    match DirBuilder::new().mode(0o700).create(dir) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
        _ => {}
    }
    let (mode, wanted) = (dir.metadata()?.mode() & 0o7777, repo_dir.metadata()?.mode() & 0o011);
    if mode | wanted == mode { Ok(()) } else { fs::set_permissions(dir, Permissions::from_mode(mode | wanted)) }
}

/// Returns the text and mode of a repository's configuration that this user may write anew.
fn own_hgrc(hgrc: &Path) -> Result<Option<(Vec<u8>, u32)>, Error> {
    let Some(text) = read(hgrc).map_err(|source| file_error("read", hgrc, source))? else { return Ok(None) };
    let meta = hgrc.metadata().map_err(|source| file_error("read", hgrc, source))?;
    if !files::is_own(&meta) {
        let (file, owner) = (hgrc.display(), meta.uid());
        return Err(Error::Failed(format!("{file} belongs to user {owner}; run this as that user")));
    }
    Ok(Some((text, meta.mode() & 0o7777)))
}

/// Returns the text of a file, if it is there.
fn read(path: &Path) -> io::Result<Option<Vec<u8>>> {
    match files::read(path, MAX_SIZE, Links::Refuse) {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

fn write(path: &Path, text: &[u8], mode: u32) -> Result<(), Error> {
    let fill = |file: &mut fs::File| {
        file.write_all(text)?;
        // Whatever the umask is.
        file.set_permissions(Permissions::from_mode(mode))
    };
    files::replace(path, mode, fill).map_err(|source| file_error("write", path, source))
}

fn lines(text: &[u8]) -> impl Iterator<Item = &[u8]> {
    text.split(|&byte| byte == b'\n').map(<[u8]>::trim_ascii_end)
}

/// Returns a text with our line at its end: with a line break after it only if there was one.
fn included(text: &[u8]) -> Vec<u8> {
    let (before, after): (&[u8], &[u8]) =
        if text.is_empty() || text.ends_with(b"\n") { (b"", b"\n") } else { (b"\n", b"") };
    [text, before, INCLUDE, after].concat()
}

/// Returns a text without our line, if that is there.
fn without_include(text: &[u8]) -> Option<Vec<u8>> {
    let mut parts: Vec<&[u8]> = text.split(|&byte| byte == b'\n').collect();
    let at = parts.iter().position(|line| line.trim_ascii_end() == INCLUDE)?;
    parts.remove(at);
    Some(parts.join(&b'\n'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_configuration_comes_back_byte_for_byte() {
        for text in ["", "\n", "[ui]\n", "[ui]", "[ui]\r\nx = y\r\n", "\n\n# \u{e9}\n "] {
            let with = included(text.as_bytes());
            assert!(lines(&with).any(|line| line == INCLUDE), "{text:?}");
            assert_eq!(without_include(&with).as_deref(), Some(text.as_bytes()), "{text:?}");
        }
        assert_eq!(without_include(b"[ui]\n"), None);
    }

    #[test]
    fn only_a_hook_that_calls_this_program_is_ours() {
        for line in ["txnclose.x = /usr/bin/rally-hook txnclose", "hooks.txnclose.rally-hook='/x/rally-hook' txnclose"]
        {
            assert!(calls_us(line), "{line}");
        }
        for line in ["# txnclose = rally-hook txnclose", "changegroup = rally-hook", "txnclose = /bin/true"] {
            assert!(!calls_us(line), "{line}");
        }
    }
}
