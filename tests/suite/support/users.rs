//! Users other than the one who runs the tests. They need no entry in the system's list of users.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::Command;

use super::{Ran, Server, copy_program, hermetic, ran, skipped};

/// The group of the users below.
pub const GROUP: u32 = 61_000;
/// Two users, neither of them root.
pub const USERS: [u32; 2] = [61_001, 61_002];

impl Server {
    /// Gives the repository and its clones to another user. Returns false, and says so, where that is not permitted.
    pub fn give_to(&self, user: u32) -> bool {
        let mut own = Command::new("chown");
        own.args(["-R", &format!("{user}:{GROUP}")]).arg(self.path());
        if !ran(own).success {
            skipped("this user may not give files away");
            return false;
        }
        fs::set_permissions(self.path(), fs::Permissions::from_mode(0o755)).expect("it is ours");
        true
    }

    /// Runs a shell script in the repository as another user, with the program as `$0`, as Git runs a hook.
    pub fn run_as(&self, user: u32, script: &str) -> Ran {
        let mut command = self.command_as(user, script);
        command.env("GIT_DIR", ".");
        ran(command)
    }

    /// Returns the command that runs a script as another user.
    pub fn command_as(&self, user: u32, script: &str) -> Command {
        let mut command = hermetic("setpriv");
        let ids = [format!("--reuid={user}"), format!("--regid={GROUP}"), "--clear-groups".to_owned()];
        let program = self.path().join("rally-hook");
        // Other users may not be able to read the one that was built.
        if !program.exists() {
            copy_program(&program);
        }
        command.args(ids).args(["sh", "-c", &format!("umask 077; {script}")]).arg(program);
        command.current_dir(&self.git_dir).env("HOME", self.path()).env_remove("GIT_CONFIG_GLOBAL");
        command
    }
}
