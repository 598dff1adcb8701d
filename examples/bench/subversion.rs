//! What a commit to a Subversion repository costs, and how fast its history is read.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use rally_simulator::Simulator;

use super::Plan;
use super::common::{Result, configure, run};
use super::measure::{Hooked, Table, is_installed, median, timed};

pub fn subversion(plan: &Plan, table: &mut Table) -> Result<()> {
    if !is_installed("svn") {
        eprintln!("svn is not installed: no rows about Subversion");
        return Ok(());
    }
    commits(plan, table)?;
    history(plan, table)?;
    wide(plan, table)
}

/// Commits with our hooks against commits without any.
fn commits(plan: &Plan, table: &mut Table) -> Result<()> {
    let place = tempfile::tempdir()?;
    let rally = Simulator::start();
    rally.world(|world| world.add_artifact("US1", "An artifact"));
    let (plain, hooked) = (repository(place.path(), "plain")?, repository(place.path(), "hooked")?);
    configure(&hooked, &rally.url(), "timeout = \"1s\"\n[queue]\nretry_for = \"1s\"\n")?;
    run(Command::new(&plan.program).args(["install", "--repo"]).arg(&hooked).stderr(Stdio::null()))?;
    let mut times = Hooked::default();
    for round in 0..if plan.small { 7 } else { 31 } {
        times.measure(|is_hooked| {
            let repository = if is_hooked { &hooked } else { &plain };
            run(&mut mucc(repository, "US1: work", &["put", "/dev/null", &format!("file{round}")]))
        })?;
    }
    times.add_to(table, "commit to Subversion", 1.2);
    Ok(())
}

/// All revisions with their paths.
fn history(plan: &Plan, table: &mut Table) -> Result<()> {
    let place = tempfile::tempdir()?;
    let count = if plan.small { 200 } else { 3_000 };
    let repository = loaded(place.path(), count)?;
    let (ours, theirs) = compare(plan, &repository, "1:HEAD")?;
    table.add_times(format!("{count} revisions, each with its paths"), ours, ("svn log -v", theirs), 1.3);
    Ok(())
}

/// One revision of many paths.
fn wide(plan: &Plan, table: &mut Table) -> Result<()> {
    let place = tempfile::tempdir()?;
    let count = if plan.small { 1_000 } else { 10_000 };
    let (repository, tree) = (repository(place.path(), "wide")?, place.path().join("tree"));
    std::fs::create_dir(&tree)?;
    for number in 0..count {
        std::fs::write(tree.join(number.to_string()), "")?;
    }
    let url = format!("file://{}/tree", repository.display());
    run(Command::new("svn").args(["import", "--quiet", "--message", "US1: many"]).arg(&tree).arg(url))?;
    let (ours, theirs) = compare(plan, &repository, "1")?;
    let allowed = ("svn log -v + 100 ms:", theirs + Duration::from_millis(100));
    table.add_times(format!("a revision of {count} paths"), ours, allowed, 1.0);
    Ok(())
}

fn compare(plan: &Plan, repository: &Path, range: &str) -> Result<(Duration, Duration)> {
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    for _ in 0..if plan.small { 3 } else { 7 } {
        let mut backfill = Command::new(&plan.program);
        backfill.args(["backfill", "--dry-run", "--json", range, "--repo"]).arg(repository);
        ours.push(timed(&mut backfill)?.time);
        let mut log = Command::new("svn");
        log.args(["log", "-v", "-r", range]).arg(format!("file://{}", repository.display()));
        theirs.push(timed(&mut log)?.time);
    }
    Ok((median(ours), median(theirs)))
}

fn repository(place: &Path, name: &str) -> Result<PathBuf> {
    let path = place.join(name);
    run(Command::new("svnadmin").arg("create").arg(&path))?;
    Ok(path)
}

/// Returns a repository with so many revisions, loaded from a dump: to commit them would take long.
fn loaded(place: &Path, count: usize) -> Result<PathBuf> {
    let path = repository(place, "loaded")?;
    let mut dump = String::from("SVN-fs-dump-format-version: 2\n\n");
    for revision in 1..=count {
        let message = format!("US{revision}: work");
        let properties = format!("K 7\nsvn:log\nV {}\n{message}\nPROPS-END\n", message.len());
        let length = properties.len();
        dump += &format!("Revision-number: {revision}\nProp-content-length: {length}\nContent-length: {length}\n\n");
        dump += &properties;
        for file in 0..3 {
            dump += &format!(
                "\nNode-path: file{revision}-{file}\nNode-kind: file\nNode-action: add\nProp-content-length: 10\n\
                 Text-content-length: 0\nContent-length: 10\n\nPROPS-END\n\n"
            );
        }
        dump += "\n";
    }
    let mut load = Command::new("svnadmin").args(["load", "--quiet"]).arg(&path).stdin(Stdio::piped()).spawn()?;
    std::io::Write::write_all(&mut load.stdin.take().ok_or("no pipe")?, dump.as_bytes())?;
    if !load.wait()?.success() {
        return Err("svnadmin load failed".into());
    }
    Ok(path)
}

fn mucc(repository: &Path, message: &str, words: &[&str]) -> Command {
    let mut command = Command::new("svnmucc");
    command.arg("--root-url").arg(format!("file://{}", repository.display())).args(["--message", message]).args(words);
    command.stdout(Stdio::null());
    command
}
