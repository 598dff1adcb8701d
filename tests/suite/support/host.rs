//! Several repositories of one host, whose processes share a directory.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::{Server, hermetic, program, twin};

/// Sets up a repository with the hook, with these lines of `[rally]` and these sections.
pub fn repository(server: &Server, name: &str, rally: &str, sections: &str) -> PathBuf {
    let git_dir = server.path().join(format!("{name}.git"));
    twin(&server.git_dir, &git_dir);
    let configuration =
        server.configuration().credentials("api_key_file = \"api-key\"").rally(rally).sections(sections);
    fs::write(git_dir.join("rally-hook.toml"), configuration.to_string()).expect("it can be written");
    git_dir
}

/// Lets a command share the host's directory with the others of this server.
pub fn sharing(server: &Server, mut command: Command) -> Command {
    let dir = server.path().join("run");
    fs::create_dir_all(&dir).expect("directories can be made");
    command.env("XDG_RUNTIME_DIR", dir);
    command
}

/// Returns the command that delivers until the queue is empty.
pub fn delivering(server: &Server, git_dir: &Path) -> Command {
    let mut command = hermetic(program());
    command.args(["deliver", "--wait", "--repo"]).arg(git_dir);
    sharing(server, command)
}

/// Pushes a commit that names US1.
pub fn queue_a_commit(server: &Server, git_dir: &Path) {
    let clone = server.new_clone();
    clone.commit("US1", &[("a", Some("1"))]);
    clone.push(&[&git_dir.display().to_string(), "HEAD"]);
}
