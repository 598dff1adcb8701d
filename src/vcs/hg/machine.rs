//! What is configured for Mercurial on this machine: by its files for the system and for this user.

use std::path::Path;

use super::server::command;
use super::{Error, HG};
use crate::text::readable;
use crate::vcs::program::{self, NO_REASON};

/// Returns the hooks that run in all repositories, one `hooks.name=command` a line.
pub(crate) fn machine_hooks() -> Result<String, Error> {
    settings("hooks")
}

/// Returns the owner of a repository's configuration, if Mercurial does not trust this user: then it runs no hooks of that
/// file for others (`hg help config.trusted`).
pub(crate) fn distrusted_owner(file: &Path) -> Result<Option<String>, Error> {
    let mut stat = program::command("stat");
    let printed = program::ask("stat", stat.args(["-L", "-c", "%U\n%u\n%G\n%g"]).arg(file), file)?;
    let printed = readable(&printed);
    let mut names = printed.lines();
    // Mercurial, too, calls one without a name by the number.
    let mut next = || match (names.next(), names.next()) {
        (Some("UNKNOWN"), number) => number.unwrap_or_default(),
        (name, _) => name.unwrap_or_default(),
    };
    let (owner, group) = (next(), next());
    Ok((!trusts(&settings("trusted")?, owner, group)).then(|| owner.to_owned()))
}

fn trusts(settings: &str, owner: &str, group: &str) -> bool {
    let names = |setting: &str, name: &str| {
        let listed =
            settings.lines().filter_map(|line| line.strip_prefix(setting)).map(|list| list.replace("\\n", " "));
        listed
            .flat_map(|list| list.split([',', ' ']).map(|one| one == "*" || one == name).collect::<Vec<_>>())
            .any(|is| is)
    };
    names("trusted.users=", owner) || names("trusted.groups=", group)
}

/// Returns the settings of a section. The current directory of the command lies in no repository.
fn settings(section: &str) -> Result<String, Error> {
    match program::ask(HG, command().args(["config", section]), Path::new("/")) {
        Ok(printed) => Ok(readable(&printed).into_owned()),
        // So it ends if there are none.
        Err(Error::Says { message, .. }) if message == NO_REASON => Ok(String::new()),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn users_and_groups_are_trusted_by_name_or_all_of_them() {
        let settings = "trusted.users=alice, bob\\ncarol\ntrusted.groups=hg\n";
        for (owner, group, expected) in
            [("bob", "x", true), ("carol", "x", true), ("x", "hg", true), ("hg", "bob", false)]
        {
            assert_eq!(trusts(settings, owner, group), expected, "{owner} {group}");
        }
        assert!(trusts("trusted.groups=*\n", "x", "y"));
        assert!(!trusts("", "x", "y"));
    }
}
