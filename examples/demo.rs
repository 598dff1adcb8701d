//! The main job before your eyes: a bare repository, the installed hook, a real `git push`, and what Rally then holds.
//!
//! Run it with `cargo run --example demo`. With `-- --keep` the simulated Rally stays up, and its web page with it.

#![expect(unreachable_pub, reason = "a program of several modules")]

mod common;

use std::fs;
use std::io::{self, Read};
use std::path::Path;
use std::process::Command;

use common::{Result, build_program, configure, git, git_command, run};
use rally_simulator::{Changeset, Simulator};

fn main() -> Result<()> {
    let program = build_program()?;
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
    let links = "\n[repository]\nweb = \"https://git.acme.example/acme/payments\"\nlinks = \"gitlab\"\n";
    println!("payments.git/rally-hook.toml:\n{}", indent(&configure(&server, &rally.url(), links)?));
    println!("$ rally-hook install --repo payments.git");
    run(Command::new(&program).args(["install", "--repo"]).arg(&server))?;

    git(place.path(), &["init", "--quiet", "--initial-branch=main", "clone"])?;
    git(&clone, &["remote", "add", "origin", "../payments.git"])?;
    let commits = commit_some(&clone)?;
    println!("\n$ git push origin main");
    run(&mut git_command(&clone, &["push", "origin", "main"]))?;

    rally.wait_until("every commit with an ID is in Rally, and its files", |world| {
        let held = world.changesets();
        held.len() == commits.matching
            && held.iter().map(|changeset| changeset.changes.len()).sum::<usize>() == commits.changes
    });
    println!("\n$ rally-hook deliver --wait     # it has been delivered in the background already");
    run(Command::new(&program).args(["deliver", "--wait", "--repo"]).arg(&server))?;

    println!("\nRally now holds, by artifact:");
    let held = rally.world(|world| world.changesets());
    for artifact in ["US123", "DE45", "TA7"] {
        print_tree(artifact, &held);
    }
    println!("\nIt took {} requests.\n\n$ rally-hook status", rally.requests().len());
    run(Command::new(&program).args(["status", "--repo"]).arg(&server))?;

    if std::env::args().any(|argument| argument == "--keep") {
        println!("\nThe same as a web page: {}/ (press Enter to end)", rally.url());
        let _ = io::stdin().read(&mut [0])?;
    }
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
    commit("TA7: write the release notes, with <b>passkeys</b> in bold")?;
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

fn indent(text: &str) -> String {
    text.lines().map(|line| format!("    {line}\n")).collect()
}
