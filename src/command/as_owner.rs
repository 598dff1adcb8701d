//! Running a command as the user who owns the repository, for an administrator who is root: root may read what the hook's
//! user may not, so its findings would say nothing about pushes.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::Command;

use super::{Ended, Error};
use crate::files::program;
use crate::messages::tell;
use crate::process::effective_user;

/// Runs this command again as the owner of the repository, if that is not who runs it and root does. Returns how that
/// ended, or `None` where there is nothing to change.
pub(super) fn run_again(repository: &Path) -> Result<Option<Ended>, Error> {
    let owner = fs::metadata(repository).map(|meta| (meta.uid(), meta.gid()));
    let (Ok((user, group)), 0) = (owner, effective_user()) else { return Ok(None) };
    let Some(setpriv) = program("setpriv").filter(|_| user != 0) else { return Ok(None) };
    let (Account { name, group, home }, groups) = match account(user) {
        Some(account) => (account, "--init-groups"),
        None => {
            (Account { name: format!("user {user}"), group: group.to_string(), home: "/".into() }, "--clear-groups")
        }
    };
    tell(&format!("{} belongs to {name}; this runs as {name}, as hooks do", repository.display()));
    let mut again = Command::new(setpriv);
    again.args([&format!("--reuid={user}"), &format!("--regid={group}"), groups]).env("HOME", home);
    again.env_remove("XDG_RUNTIME_DIR").env_remove("XDG_CONFIG_HOME");
    again.arg("--").arg(std::env::current_exe().map_err(Error::OwnFile)?).args(std::env::args_os().skip(1));
    let status = again.status().map_err(|source| Error::File { doing: "run", path: "setpriv".into(), source })?;
    match status.code() {
        Some(0) => Ok(Some(Ended::Done)),
        Some(1) => Ok(Some(Ended::NotAll)),
        _ => Err(Error::Usage(format!("the command that ran as user {user} ended with {status}"))),
    }
}

/// A user as the system knows it.
struct Account {
    name: String,
    group: String,
    home: String,
}

/// Asks the system for a user, wherever it keeps its users.
fn account(user: u32) -> Option<Account> {
    let output = Command::new(program("getent")?).args(["passwd", &user.to_string()]).output().ok()?;
    let line = String::from_utf8(output.stdout).ok()?;
    let fields: Vec<&str> = line.trim_end().split(':').collect();
    match fields.as_slice() {
        [name, _, _, group, _, home, ..] => {
            Some(Account { name: (*name).into(), group: (*group).into(), home: (*home).into() })
        }
        _ => None,
    }
}
