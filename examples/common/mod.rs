//! What the demo and the benchmark share: the built program, and Git without this machine's configuration.

use std::error::Error;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

pub type Result<T> = std::result::Result<T, Box<dyn Error>>;

/// Builds the program, which Cargo does not do for an example, in the example's own profile. Returns where it is.
pub fn build_program() -> Result<PathBuf> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut build = Command::new(cargo);
    build.args(["build", "--quiet", "--bin", "rally-hook"]).current_dir(env!("CARGO_MANIFEST_DIR"));
    if !cfg!(debug_assertions) {
        build.arg("--release");
    }
    run(&mut build)?;
    // Examples are built into a directory below the programs'.
    let example = std::env::current_exe()?;
    let directory = example.parent().and_then(Path::parent).ok_or("the example has no directory above it")?;
    Ok(directory.join("rally-hook"))
}

/// Writes the repository's configuration and the API key that it names. Returns the configuration.
pub fn configure(git_dir: &Path, url: &str, more: &str) -> Result<String> {
    let key = git_dir.join("api-key");
    fs::write(&key, "_full-access-key\n")?;
    fs::set_permissions(&key, fs::Permissions::from_mode(0o600))?;
    let key = key.display();
    // The lock files of the account are in the home directory; each simulator has another address.
    let account = "account = \"simulator\"";
    let text =
        format!("[rally]\nserver = \"{url}\"\nworkspace = \"Acme\"\napi_key_file = \"{key}\"\n{account}\n{more}");
    fs::write(git_dir.join("rally-hook.toml"), &text)?;
    Ok(text)
}

/// Returns a Git command for somebody whom the simulated Rally knows.
pub fn git_command(directory: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new("git");
    command.current_dir(directory).args(arguments);
    command.env("GIT_CONFIG_GLOBAL", "/dev/null").env("GIT_CONFIG_NOSYSTEM", "1");
    for role in ["AUTHOR", "COMMITTER"] {
        command.env(format!("GIT_{role}_NAME"), "Jane Roe").env(format!("GIT_{role}_EMAIL"), "jane.roe@acme.example");
    }
    command
}

pub fn git(directory: &Path, arguments: &[&str]) -> Result<()> {
    run(&mut git_command(directory, arguments))
}

/// Returns a command of Mercurial's for the same person, with nobody's settings but the repository's.
pub fn hg_command(directory: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new("hg");
    command.current_dir(directory).args(arguments).env("HGRCPATH", "").env("HGPLAIN", "1");
    command.env("HGUSER", "Jane Roe <jane.roe@acme.example>");
    command
}

pub fn hg(directory: &Path, arguments: &[&str]) -> Result<()> {
    run(&mut hg_command(directory, arguments))
}

/// Runs a command. A proxy that this machine may use is not asked for addresses of its own.
pub fn run(command: &mut Command) -> Result<()> {
    let status = command.env("NO_PROXY", "127.0.0.1").status()?;
    if status.success() { Ok(()) } else { Err(format!("{command:?} ended with {status}").into()) }
}
