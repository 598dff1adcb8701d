//! The main job before your eyes: a repository, the installed hook, a real push, and what Rally then holds.
//!
//! Run it with `cargo run --example demo`; with `-- --vcs svn`, `hg` or `tfvc` for another kind of repository. With
//! `-- --keep` the simulated Rally stays up, and its web page with it.

#![expect(unreachable_pub, reason = "a program of several modules")]

mod common;

use std::fs;
use std::io::{self, Read};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

use common::{Result, build_program, configure, git, git_command, hg, run};
use rally_simulator::{Changeset, Simulator};
use tfvc_double::{Double, TOKEN};

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
    let kind = kind()?;
    (kind.make)(place.path())?;
    let (server, repository) = (place.path().join(kind.repo_dir), kind.name);
    let links = format!("\n[repository]\n{}\n{}", kind.links, kind.sections);
    println!("{}/rally-hook.toml:\n{}", kind.repo_dir, indent(&configure(&server, &rally.url(), &links)?));
    println!("$ rally-hook install --repo {repository}");
    run(Command::new(&program).args(["install", "--repo"]).arg(&server))?;
    let commits = (kind.push)(place.path(), &program)?;

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

/// A kind of repository, as the demo uses it.
struct Kind {
    /// The repository, and the directory of it that holds the configuration.
    name: &'static str,
    repo_dir: &'static str,
    /// Lines of `[repository]`.
    links: &'static str,
    /// Further sections of the configuration.
    sections: String,
    /// Makes the repository in a directory.
    make: Act<()>,
    /// Commits and pushes in this directory, with this program at hand.
    push: Push,
}

type Act<T> = Box<dyn Fn(&Path) -> Result<T>>;
type Push = Box<dyn Fn(&Path, &Path) -> Result<Commits>>;

/// Returns the kind that `--vcs` names.
fn kind() -> Result<Kind> {
    let arguments: Vec<String> = std::env::args().collect();
    let named = arguments.iter().position(|argument| argument == "--vcs").and_then(|at| arguments.get(at + 1));
    match named.map_or("git", String::as_str) {
        "git" => Ok(Kind {
            name: "payments.git",
            repo_dir: "payments.git",
            links: "web = \"https://git.acme.example/acme/payments\"\nlinks = \"gitlab\"",
            sections: String::new(),
            make: Box::new(|place| git(place, &["init", "--quiet", "--bare", "--initial-branch=main", "payments.git"])),
            push: Box::new(|place, _| push_to_git(place)),
        }),
        "svn" => Ok(Kind {
            name: "payments",
            repo_dir: "payments",
            links: "web = \"https://svn.acme.example/viewvc/payments\"\nlinks = \"viewvc\"",
            sections: AUTHORS.to_owned(),
            make: Box::new(|place| run(Command::new("svnadmin").args(["create", "payments"]).current_dir(place))),
            push: Box::new(|place, _| commit_to_subversion(place)),
        }),
        "hg" => Ok(Kind {
            name: "payments",
            repo_dir: "payments/.hg",
            links: "web = \"https://hg.acme.example/payments\"\nlinks = \"hgweb\"",
            sections: String::new(),
            make: Box::new(|place| hg(place, &["init", "payments"])),
            push: Box::new(|place, _| push_to_mercurial(place)),
        }),
        "tfvc" => {
            let server = Double::start();
            let tfvc = format!(
                "\n[tfvc]\ncollection = {:?}\nproject = \"Payments\"\ntoken_file = \"token\"\n",
                server.collection()
            );
            Ok(Kind {
                name: "payments",
                repo_dir: "payments",
                links: "web = \"https://tfs.acme.example/Acme/Payments\"\nlinks = \"azure-tfvc\"",
                sections: AUTHORS.to_owned() + &tfvc,
                make: Box::new(make_tfvc),
                push: Box::new(move |place, program| check_in(&server, place, program)),
            })
        }
        other => Err(format!("--vcs {other}: known kinds are git, svn, hg and tfvc").into()),
    }
}

/// Lets user names be those of Rally's users.
const AUTHORS: &str = "\n[authors]\ndomain = \"acme.example\"\n";

/// What the demo's history holds.
struct Commits {
    /// Commits that name an artifact.
    matching: usize,
    /// The files that these changed.
    changes: usize,
}

/// The same history in each kind: two changed files, an added one, a renamed one, and a merge.
const COMMITS: Commits = Commits { matching: 4, changes: 2 + 1 + 2 };

fn push_to_git(place: &Path) -> Result<Commits> {
    git(place, &["init", "--quiet", "--initial-branch=main", "clone"])?;
    let clone = place.join("clone");
    git(&clone, &["remote", "add", "origin", "../payments.git"])?;
    let commit = |message: &str| -> Result<()> {
        git(&clone, &["add", "--all"])?;
        git(&clone, &["commit", "--quiet", "--message", message])
    };
    write_first(&clone)?;
    commit("Start the project")?;
    write_second(&clone)?;
    commit("US123, DE45: take a passkey, and ask for the tray")?;
    git(&clone, &["checkout", "--quiet", "-b", "feature/notes"])?;
    fs::write(clone.join("NOTES.md"), "Passkeys work.\n")?;
    commit("TA7: write the release notes, with <b>passkeys</b> in bold")?;
    git(&clone, &["checkout", "--quiet", "main"])?;
    git(&clone, &["mv", "src/printer.rs", "src/print.rs"])?;
    commit("Rename the printer's file [DE45]")?;
    git(&clone, &["merge", "--quiet", "--no-ff", "--message", "Merge the notes for US123", "feature/notes"])?;
    println!("\n$ git push origin main");
    run(&mut git_command(&clone, &["push", "origin", "main"]))?;
    Ok(COMMITS)
}

fn push_to_mercurial(place: &Path) -> Result<Commits> {
    hg(place, &["clone", "--quiet", "payments", "clone"])?;
    let clone = place.join("clone");
    let commit = |message: &str| hg(&clone, &["commit", "--quiet", "--addremove", "--message", message]);
    write_first(&clone)?;
    commit("Start the project")?;
    write_second(&clone)?;
    commit("US123, DE45: take a passkey, and ask for the tray")?;
    hg(&clone, &["branch", "--quiet", "feature/notes"])?;
    fs::write(clone.join("NOTES.md"), "Passkeys work.\n")?;
    commit("TA7: write the release notes")?;
    hg(&clone, &["update", "--quiet", "default"])?;
    hg(&clone, &["mv", "src/printer.rs", "src/print.rs"])?;
    commit("Rename the printer's file [DE45]")?;
    hg(&clone, &["merge", "--quiet", "feature/notes"])?;
    commit("Merge the notes for US123")?;
    println!("\n$ hg push --new-branch");
    hg(&clone, &["push", "--new-branch"])?;
    Ok(COMMITS)
}

/// Commits what the other kinds do, but for the merge: a merge is no commit of its own kind in Subversion.
fn commit_to_subversion(place: &Path) -> Result<Commits> {
    let url = format!("file://{}/payments", place.display());
    run(Command::new("svn").args(["checkout", "--quiet", &url, "clone"]).current_dir(place))?;
    let clone = place.join("clone");
    let svn = |arguments: &[&str]| run(Command::new("svn").arg("--quiet").args(arguments).current_dir(&clone));
    let commit = |message: &str| {
        println!("$ svn commit --message {message:?}");
        svn(&["commit", "--username", "jane.roe", "--message", message])
    };
    println!();
    svn(&["mkdir", "trunk", "branches"])?;
    write_first(&clone.join("trunk"))?;
    svn(&["add", "trunk/src"])?;
    commit("Start the project")?;
    write_second(&clone.join("trunk"))?;
    commit("US123, DE45: take a passkey, and ask for the tray")?;
    fs::write(clone.join("trunk/NOTES.md"), "Passkeys work.\n")?;
    svn(&["add", "trunk/NOTES.md"])?;
    commit("TA7: write the release notes")?;
    svn(&["mv", "trunk/src/printer.rs", "trunk/src/print.rs"])?;
    commit("Rename the printer's file [DE45]")?;
    Ok(Commits { matching: 3, ..COMMITS })
}

/// Makes the directory that stands for a path on a TFVC server.
fn make_tfvc(place: &Path) -> Result<()> {
    let dir = place.join("payments");
    fs::create_dir(&dir)?;
    fs::write(dir.join("token"), format!("{TOKEN}\n"))?;
    Ok(fs::set_permissions(dir.join("token"), fs::Permissions::from_mode(0o600))?)
}

/// Checks in what the other kinds commit, on a double of a server; a worker would poll it each minute.
fn check_in(server: &Double, place: &Path, program: &Path) -> Result<Commits> {
    let [login, printer, print] = ["login", "printer", "print"].map(|name| format!("$/Payments/src/{name}.cs"));
    server.world(|world| {
        world.check_in("US123, DE45: take a passkey, and ask for the tray", &[("edit", &login), ("edit", &printer)]);
        world.check_in("TA7: write the release notes", &[("add", "$/Payments/NOTES.md")]);
        world.check_in("Rename the printer's file [DE45]", &[("delete", &printer), ("add", &print)]);
    });
    println!("\n$ rally-hook catch-up     # `rally-hook worker` would poll the server each minute");
    run(Command::new(program).args(["catch-up", "--repo"]).arg(place.join("payments")))?;
    Ok(Commits { matching: 3, ..COMMITS })
}

fn write_first(clone: &Path) -> Result<()> {
    fs::create_dir(clone.join("src"))?;
    fs::write(clone.join("src/login.rs"), "fn login() {}\n")?;
    Ok(fs::write(clone.join("src/printer.rs"), "fn print() {}\n")?)
}

fn write_second(clone: &Path) -> Result<()> {
    fs::write(clone.join("src/login.rs"), "fn login(passkey: &[u8]) {}\n")?;
    Ok(fs::write(clone.join("src/printer.rs"), "fn print(tray: u8) {}\n")?)
}

fn print_tree(artifact: &str, held: &[Changeset]) {
    println!("{artifact}");
    for changeset in held.iter().filter(|changeset| changeset.artifacts.iter().any(|id| id == artifact)) {
        let subject = changeset.message.lines().next().unwrap_or_default();
        let author = changeset.author.as_deref().unwrap_or("nobody");
        println!("  {} {subject} ({author})", changeset.revision.get(..8).unwrap_or(&changeset.revision));
        println!("    {}", changeset.uri.as_deref().unwrap_or("no link"));
        for change in &changeset.changes {
            println!("    {} {}", change.action, change.path);
        }
    }
}

fn indent(text: &str) -> String {
    text.lines().map(|line| format!("    {line}\n")).collect()
}
