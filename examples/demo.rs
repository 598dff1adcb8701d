//! The main job before your eyes: a bare repository, the installed hook, a real `git push`, and what Rally then holds.
//!
//! Run it with `cargo run --example demo`. With `-- --keep` the simulated Rally stays up, and its web page with it.

use std::error::Error;
use std::fs;
use std::io::{self, Read};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use rally_simulator::{Changeset, Simulator};

type Result<T> = std::result::Result<T, Box<dyn Error>>;

fn main() -> Result<()> {
    let program = build_rally_hook()?;
    let rally = Simulator::start();
    rally.world(|world| {
        world.add_artifact("US123", "Log in with a passkey");
        world.add_artifact("DE45", "Printer jams on empty tray");
        world.add_artifact("TA7", "Write the release notes");
    });
    println!("A simulated Rally is at {} and holds US123, DE45 and TA7.\n", rally.url());

    let place = tempfile::tempdir()?;
    let (server, clone) = (place.path().join("payments.git"), place.path().join("clone"));
    git(place.path(), &["init", "--quiet", "--bare", "--initial-branch=main", "payments.git"])?;
    write_configuration(&server, &rally.url())?;
    println!("$ rally-hook install --repo payments.git");
    run(Command::new(&program).args(["install", "--repo"]).arg(&server))?;

    git(place.path(), &["clone", "--quiet", "payments.git", "clone"])?;
    let commits = commit_some(&clone)?;
    println!("\n$ git push origin main");
    run(in_repository("git", &clone).args(["push", "origin", "main"]))?;

    rally.wait_until("every commit with an ID is in Rally, and its files", |world| {
        let held = world.changesets();
        held.len() == commits.matching
            && held.iter().map(|changeset| changeset.changes.len()).sum::<usize>() == commits.changes
    });
    run(Command::new(&program).args(["deliver", "--wait", "--repo"]).arg(&server))?;

    println!("\nRally now holds, by artifact:");
    let held = rally.world(|world| world.changesets());
    for artifact in ["US123", "DE45", "TA7"] {
        print_tree(artifact, &held);
    }
    println!("\nIt took {} requests. $ rally-hook status", rally.requests().len());
    run(Command::new(&program).args(["status", "--repo"]).arg(&server))?;

    if std::env::args().any(|argument| argument == "--keep") {
        println!("\nThe same as a web page: {}/ (press Enter to end)", rally.url());
        io::stdin().read_exact(&mut [0])?;
    }
    Ok(())
}

/// Builds the program itself, which an example does not do by itself, and returns where it is.
fn build_rally_hook() -> Result<PathBuf> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    run(Command::new(cargo).args(["build", "--quiet", "--bin", "rally-hook"]).current_dir(env!("CARGO_MANIFEST_DIR")))?;
    // Examples are built into a directory below the programs'.
    let example = std::env::current_exe()?;
    let directory = example.parent().and_then(Path::parent).ok_or("the example has no directory above it")?;
    Ok(directory.join("rally-hook"))
}

fn write_configuration(server: &Path, url: &str) -> Result<()> {
    let key = server.join("api-key");
    fs::write(&key, "_full-access-key\n")?;
    fs::set_permissions(&key, fs::Permissions::from_mode(0o600))?;
    let configuration = format!(
        "[rally]\nserver = \"{url}\"\nworkspace = \"Acme\"\napi_key_file = \"{}\"\n\n\
         [repository]\nweb = \"https://git.acme.example/acme/payments\"\nlinks = \"gitlab\"\n",
        key.display()
    );
    println!("payments.git/rally-hook.toml:\n{}", indent(&configuration));
    fs::write(server.join("rally-hook.toml"), configuration)?;
    Ok(())
}

/// What the demo's history holds.
struct Commits {
    /// Commits that name an artifact.
    matching: usize,
    /// The files that these changed.
    changes: usize,
}

fn commit_some(clone: &Path) -> Result<Commits> {
    let write = |name: &str, text: &str| fs::write(clone.join(name), text);
    let commit = |message: &str| -> Result<()> {
        git(clone, &["add", "--all"])?;
        git(clone, &["commit", "--quiet", "--message", message])
    };
    fs::create_dir(clone.join("src"))?;
    write("src/login.rs", "fn login() {}\n")?;
    write("src/printer.rs", "fn print() {}\n")?;
    commit("Start the project")?;
    write("src/login.rs", "fn login(passkey: &[u8]) {}\n")?;
    write("src/printer.rs", "fn print(tray: u8) {}\n")?;
    commit("US123, DE45: take a passkey, and ask for the tray")?;
    git(clone, &["checkout", "--quiet", "-b", "feature/notes"])?;
    write("NOTES.md", "Passkeys work.\n")?;
    commit("TA7: write the release notes")?;
    git(clone, &["checkout", "--quiet", "main"])?;
    git(clone, &["mv", "src/printer.rs", "src/print.rs"])?;
    commit("Rename the printer's file [DE45]")?;
    git(clone, &["merge", "--quiet", "--no-ff", "--message", "Merge the notes for US123", "feature/notes"])?;
    Ok(Commits { matching: 4, changes: 2 + 1 + 2 })
}

fn print_tree(artifact: &str, held: &[Changeset]) {
    println!("{artifact}");
    for changeset in held.iter().filter(|changeset| changeset.artifacts.iter().any(|id| id == artifact)) {
        let subject = changeset.message.lines().next().unwrap_or_default();
        let author = changeset.author.as_deref().unwrap_or("nobody");
        println!("  {} {subject} ({author})", &changeset.revision[..8]);
        println!("    {}", changeset.uri.as_deref().unwrap_or("no link"));
        for change in &changeset.changes {
            println!("    {} {}", change.action, change.path);
        }
    }
}

fn git(directory: &Path, arguments: &[&str]) -> Result<()> {
    run(in_repository("git", directory).args(arguments))
}

/// Runs Git as somebody whom the simulated Rally knows, and without this machine's own configuration.
fn in_repository(program: &str, directory: &Path) -> Command {
    let mut command = Command::new(program);
    command.current_dir(directory).env("GIT_CONFIG_GLOBAL", "/dev/null").env("GIT_CONFIG_SYSTEM", "/dev/null");
    for role in ["AUTHOR", "COMMITTER"] {
        command.env(format!("GIT_{role}_NAME"), "Jane Roe").env(format!("GIT_{role}_EMAIL"), "jane.roe@acme.example");
    }
    // A proxy would be asked for the simulator.
    command.env("NO_PROXY", "127.0.0.1");
    command
}

fn run(command: &mut Command) -> Result<()> {
    let status = command.env("NO_PROXY", "127.0.0.1").status()?;
    if status.success() { Ok(()) } else { Err(format!("{command:?} ended with {status}").into()) }
}

fn indent(text: &str) -> String {
    text.lines().map(|line| format!("    {line}\n")).collect()
}
