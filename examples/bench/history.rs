//! Reading history, against `git log`.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use super::Plan;
use super::common::{Result, git_command};
use super::measure::{Table, Usage, median, timed};

pub fn read(plan: &Plan, table: &mut Table) -> Result<()> {
    let place = tempfile::tempdir()?;
    let repository = match &plan.repository {
        Some(path) => fs::canonicalize(path)?,
        None => make_history(place.path(), if plan.small { 2_000 } else { 20_000 })?,
    };
    let every = place.path().join("every.toml");
    fs::write(&every, "[commits]\npost = \"all\"\nmax_changes = 10000000\n")?;
    let few = place.path().join("few.toml");
    fs::write(&few, "[commits]\nprefixes = [\"RALLYHOOK\"]\n")?;
    let commits = count(&repository, "--all")?;
    let rounds = if plan.small { 3 } else { 5 };

    let (ours, git) = in_turn(plan, &repository, &every, "--all", &RAW, rounds)?;
    let peak = ours.iter().map(|usage| usage.peak_mb).fold(0.0, f64::max);
    let what = format!("{commits} commits, each with its paths (peak {peak:.0} MB with the mapped packs)");
    // Of a short history the start of a process and of its threads is a good part.
    let bound = |of_long: f64| if plan.small { 1.5 } else { of_long };
    table.add_times(what, times(ours), ("git log --raw -c", times(git)), bound(0.7));

    let range = format!("{}..HEAD", older_half(&repository)?);
    let (ours, git) = in_turn(plan, &repository, &every, &range, &RAW, rounds)?;
    let commits_of_range = count(&repository, &range)?;
    let what = format!("{commits_of_range} commits of a range that hides the others, each with its paths");
    table.add_times(what, times(ours), ("git log --raw -c", times(git)), bound(0.6));

    let messages = ["log", "--format=%H%n%B"];
    let (ours, git) = in_turn(plan, &repository, &few, "--all", &messages, rounds)?;
    table.add_times(
        format!("{commits} commits, none with an ID"),
        times(ours),
        ("git log --format=%H%n%B", times(git)),
        1.0,
    );
    Ok(())
}

/// What git is to print of each commit: its changed paths.
const RAW: [&str; 5] = ["log", "--raw", "--no-renames", "--no-abbrev", "-c"];

/// Reads a history with wide directories: many versions of large trees, which libgit2's cache of packs does not hold.
pub fn read_wide(plan: &Plan, table: &mut Table) -> Result<()> {
    let place = tempfile::tempdir()?;
    let (commits, width) = if plan.small { (1_000, 500) } else { (20_000, 2_900) };
    let repository = make_wide_history(place.path(), commits, width)?;
    let every = place.path().join("every.toml");
    fs::write(&every, "[commits]\npost = \"all\"\nmax_changes = 10000000\n")?;
    let (ours, git) = in_turn(plan, &repository, &every, "--all", &RAW, if plan.small { 3 } else { 1 })?;
    let what = format!("{commits} commits in directories of {width} entries");
    table.add_times(what, times(ours), ("git log --raw -c", times(git)), 5.0);
    Ok(())
}

/// Makes a packed repository in which each commit changes one file of a wide directory.
fn make_wide_history(place: &Path, commits: usize, width: usize) -> Result<PathBuf> {
    super::common::git(place, &["init", "--quiet", "--bare", "--initial-branch=main", "wide.git"])?;
    let bare = place.join("wide.git");
    let mut import = git_command(&bare, &["fast-import", "--quiet"]).stdin(Stdio::piped()).spawn()?;
    let mut out = std::io::BufWriter::new(import.stdin.take().ok_or("no pipe")?);
    for number in 0..commits {
        let time = 1_600_000_000 + number * 60;
        writeln!(out, "commit refs/heads/main\ncommitter A <a@x> {time} +0000\ndata 4\nUS1 ")?;
        let files =
            if number == 0 { 0..4 * width } else { number * 7919 % (4 * width)..number * 7919 % (4 * width) + 1 };
        for file in files {
            let text = format!("{number}\n");
            writeln!(out, "M 644 inline wide{}/a-name-of-some-length-{file}\ndata {}\n{text}", file % 4, text.len())?;
        }
    }
    drop(out);
    import.wait()?;
    super::common::git(&bare, &["repack", "-adq"])?;
    Ok(bare)
}

fn times(runs: Vec<Usage>) -> std::time::Duration {
    median(runs.into_iter().map(|usage| usage.time).collect())
}

fn in_turn(
    plan: &Plan,
    repository: &Path,
    config: &Path,
    revisions: &str,
    log: &[&str],
    rounds: usize,
) -> Result<(Vec<Usage>, Vec<Usage>)> {
    let (mut ours, mut git) = (Vec::new(), Vec::new());
    for _ in 0..rounds {
        let mut backfill = Command::new(&plan.program);
        backfill
            .args(["backfill", "--dry-run", "--json", revisions, "--config"])
            .arg(config)
            .arg("--repo")
            .arg(repository);
        ours.push(timed(&mut backfill)?);
        git.push(timed(git_command(repository, log).arg(revisions))?);
    }
    Ok((ours, git))
}

fn count(repository: &Path, revisions: &str) -> Result<String> {
    let output = git_command(repository, &["rev-list", "--count", revisions]).output()?;
    Ok(String::from_utf8(output.stdout)?.trim().to_owned())
}

/// Returns the commit of HEAD's own line that has half of that line behind it.
fn older_half(repository: &Path) -> Result<String> {
    let output = git_command(repository, &["rev-list", "--first-parent", "HEAD"]).output()?;
    let lines: Vec<String> = String::from_utf8(output.stdout)?.lines().map(str::to_owned).collect();
    Ok(lines.get(lines.len() / 2).ok_or("HEAD names no commit")?.clone())
}

/// Makes a packed repository: directories of files, of which each commit changes three; every tenth is a merge.
pub fn make_history(place: &Path, commits: usize) -> Result<PathBuf> {
    super::common::git(place, &["init", "--quiet", "--bare", "--initial-branch=main", "history.git"])?;
    let bare = place.join("history.git");
    let mut import = git_command(&bare, &["fast-import", "--quiet"]).stdin(Stdio::piped()).spawn()?;
    let mut out = std::io::BufWriter::new(import.stdin.take().ok_or("no pipe")?);
    for number in 0..commits {
        let message =
            format!("US{}: change something\n\nWith a body of some length, as people write it.\n", number % 100 + 1);
        writeln!(
            out,
            "commit refs/heads/main\nmark :{}\ncommitter A <a@x> {} +0000",
            number + 1,
            1_600_000_000 + number * 60
        )?;
        write!(out, "data {}\n{message}", message.len())?;
        if number % 10 == 9 {
            writeln!(out, "merge :{}", number - 3)?;
        }
        for file in 0..3 {
            let (seed, text) = (number * 7 + file * 131, format!("{number} {file}\n"));
            writeln!(out, "M 644 inline dir{}/sub{}/file{}", seed % 13, seed % 7, seed % 29)?;
            write!(out, "data {}\n{text}", text.len())?;
        }
        writeln!(out)?;
    }
    drop(out);
    import.wait()?;
    super::common::git(&bare, &["repack", "-adfq"])?;
    Ok(bare)
}
