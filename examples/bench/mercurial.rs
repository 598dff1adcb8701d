//! What a push to a Mercurial repository costs, and how fast its history is read.

use std::fs::OpenOptions;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use rally_simulator::Simulator;

use super::Plan;
use super::common::{Result, configure, hg, hg_command, run};
use super::measure::{Hooked, Table, is_installed, median, timed};

pub fn mercurial(plan: &Plan, table: &mut Table) -> Result<()> {
    if !is_installed("hg") {
        eprintln!("hg is not installed: no rows about Mercurial");
        return Ok(());
    }
    pushes(plan, table)?;
    history(plan, table)
}

/// Pushes with our hook against pushes without any.
fn pushes(plan: &Plan, table: &mut Table) -> Result<()> {
    let place = tempfile::tempdir()?;
    let rally = Simulator::start();
    rally.world(|world| world.add_artifact("US1", "An artifact"));
    for name in ["plain", "hooked", "clone"] {
        hg(place.path(), &["init", name])?;
    }
    let (hooked, clone) = (place.path().join("hooked/.hg"), place.path().join("clone"));
    configure(&hooked, &rally.url(), "timeout = \"1s\"\n[queue]\nretry_for = \"1s\"\n")?;
    run(Command::new(&plan.program).args(["install", "--repo"]).arg(&hooked).stderr(Stdio::null()))?;
    let mut times = Hooked::default();
    for _ in 0..if plan.small { 7 } else { 31 } {
        commit(&clone, "US1: work")?;
        times.measure(|is_hooked| {
            let repository = if is_hooked { "../hooked" } else { "../plain" };
            hg(&clone, &["push", "--quiet", repository])
        })?;
        // What goes on in the background is not what the next push is measured by.
        run(Command::new(&plan.program).args(["deliver", "--wait", "--repo"]).arg(&hooked).stderr(Stdio::null()))?;
    }
    times.add_to(table, "push to Mercurial", 1.1);
    Ok(())
}

/// All changesets with their paths.
fn history(plan: &Plan, table: &mut Table) -> Result<()> {
    let place = tempfile::tempdir()?;
    let count = if plan.small { 200 } else { 1_000 };
    let repository = imported(place.path(), count)?;
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    for _ in 0..if plan.small { 3 } else { 7 } {
        let mut backfill = Command::new(&plan.program);
        backfill.args(["backfill", "--dry-run", "--json", "--all", "--repo"]).arg(&repository);
        ours.push(timed(&mut backfill)?.time);
        let template = "{node} {date|hgdate} {user} {desc} {file_adds} {file_mods} {file_dels}\\n";
        theirs.push(timed(&mut hg_command(&repository, &["log", "-r", "all()", "-T", template]))?.time);
    }
    let what = format!("{count} changesets, each with its paths");
    table.add_times(what, median(ours), ("hg log with file_adds", median(theirs)), 1.3);
    Ok(())
}

/// Returns a repository with so many changesets of three files each: `hg import` makes them in one process.
fn imported(place: &Path, count: usize) -> Result<PathBuf> {
    hg(place, &["init", "history"])?;
    let path = place.join("history");
    let mut import = hg_command(&path, &["import", "--quiet", "--bypass", "-"]).stdin(Stdio::piped()).spawn()?;
    let mut patches = std::io::BufWriter::new(import.stdin.take().ok_or("no pipe")?);
    for number in 0..count {
        writeln!(
            patches,
            "# HG changeset patch\n# User A <a@x>\n# Date {} 0\nUS{number}: work\n",
            1_600_000_000 + number
        )?;
        for file in 0..3 {
            let name = format!("dir{}/file{number}-{file}", number % 13);
            writeln!(patches, "diff --git a/{name} b/{name}\nnew file mode 100644\n--- /dev/null\n+++ b/{name}")?;
            writeln!(patches, "@@ -0,0 +1,1 @@\n+text")?;
        }
        writeln!(patches)?;
    }
    drop(patches);
    if !import.wait()?.success() {
        return Err("hg import failed".into());
    }
    Ok(path)
}

fn commit(clone: &Path, message: &str) -> Result<()> {
    let mut file = OpenOptions::new().create(true).append(true).open(clone.join("file"))?;
    writeln!(file, "{message}")?;
    hg(clone, &["commit", "--quiet", "--addremove", "--message", message])
}
