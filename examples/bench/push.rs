//! What a push and a start cost.

use std::fs;
use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use rally_simulator::{Action, Fault, Match, Simulator};

use super::Plan;
use super::common::{Result, configure, git, git_command, run};
use super::measure::{Hooked, Table, median, timed};

/// What the whole start may take longer than Git's own, which opens the repository and no more.
const START_UP_ALLOWANCE: Duration = Duration::from_millis(2);

/// Starting the program, and a push that matches nothing, against a C program that opens the repository.
pub fn start_up(plan: &Plan, table: &mut Table) -> Result<()> {
    let place = tempfile::tempdir()?;
    let bare = bare_repository(place.path(), "start.git")?;
    configure(&bare, "http://127.0.0.1:9", "[queue]\ndeliver = \"later\"\n")?;
    install(plan, &bare)?;
    let clone = clone_with(place.path(), &[("origin", &bare)])?;
    commits(&clone, 1, "Nothing to post")?;
    git(&clone, &["push", "--quiet", "origin", "main"])?;
    let head = head(&clone)?;
    let input = format!("{} {head} refs/heads/main\n", "0".repeat(40));
    let rounds = if plan.small { 15 } else { 61 };
    let (mut version, mut unmatched, mut opened) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..rounds {
        opened.push(timed(&mut git_command(&bare, &["rev-parse", "--git-dir"]))?.time);
        version.push(timed(Command::new(&plan.program).arg("--version"))?.time);
        unmatched.push(hook(plan, &bare, &input)?);
    }
    let allowed = ("git rev-parse + 2 ms:", median(opened) + START_UP_ALLOWANCE);
    table.add_times("`rally-hook --version`", median(version), allowed, 1.0);
    table.add_times(
        "the hook's process, nothing to post",
        median(unmatched),
        ("the bound:", Duration::from_millis(10)),
        1.0,
    );
    Ok(())
}

/// Pushes with our hook against pushes without any.
pub fn pushes(plan: &Plan, table: &mut Table) -> Result<()> {
    for (what, commits, refs, hangs) in [
        ("push of 1 commit", 1, 0, false),
        ("push of 100 commits", 100, 0, false),
        ("push of 1 commit, 10,000 refs", 1, 10_000, false),
        ("push of 1 commit, Rally hangs", 1, 0, true),
    ] {
        let rounds = if plan.small { 7 } else { 31 };
        compare_pushes(plan, commits, refs, hangs, rounds)?.add_to(table, what, 1.2);
    }
    Ok(())
}

fn compare_pushes(plan: &Plan, count: usize, refs: usize, hangs: bool, rounds: usize) -> Result<Hooked> {
    let place = tempfile::tempdir()?;
    let rally = Simulator::start();
    rally.world(|world| world.add_artifact("US1", "An artifact"));
    if hangs {
        rally.fault(Fault { on: Match::default(), times: usize::MAX, action: Action::Hang });
    }
    let (plain, hooked) = (bare_repository(place.path(), "plain.git")?, bare_repository(place.path(), "hooked.git")?);
    let clone = clone_with(place.path(), &[("plain", &plain), ("hooked", &hooked)])?;
    commits(&clone, 1, "Start")?;
    for (remote, bare) in [("plain", &plain), ("hooked", &hooked)] {
        git(&clone, &["push", "--quiet", remote, "main"])?;
        make_refs(bare, refs, &head(&clone)?)?;
    }
    // With an outage the process in the background gives up soon, so that none outlives the benchmark.
    configure(&hooked, &rally.url(), "timeout = \"1s\"\n[queue]\nretry_for = \"1s\"\n")?;
    install(plan, &hooked)?;
    let mut times = Hooked::default();
    for _ in 0..rounds {
        commits(&clone, count, "US1: work")?;
        times.measure(|is_hooked| {
            let remote = if is_hooked { "hooked" } else { "plain" };
            run(git_command(&clone, &["push", "--quiet", remote, "main"]).stderr(Stdio::null()))
        })?;
    }
    Ok(times)
}

/// Runs the hook's process alone.
fn hook(plan: &Plan, bare: &Path, input: &str) -> Result<Duration> {
    let mut command = Command::new(&plan.program);
    command.arg("post-receive").current_dir(bare).env("GIT_DIR", ".");
    let start = Instant::now();
    let mut child = command.stdin(Stdio::piped()).stderr(Stdio::null()).spawn()?;
    child.stdin.take().ok_or("no pipe")?.write_all(input.as_bytes())?;
    child.wait()?;
    Ok(start.elapsed())
}

fn bare_repository(place: &Path, name: &str) -> Result<std::path::PathBuf> {
    git(place, &["init", "--quiet", "--bare", "--initial-branch=main", name])?;
    Ok(place.join(name))
}

fn install(plan: &Plan, bare: &Path) -> Result<()> {
    run(Command::new(&plan.program).args(["install", "--repo"]).arg(bare).stderr(Stdio::null()))
}

fn clone_with(place: &Path, remotes: &[(&str, &Path)]) -> Result<std::path::PathBuf> {
    git(place, &["init", "--quiet", "--initial-branch=main", "clone"])?;
    let clone = place.join("clone");
    for (name, bare) in remotes {
        git(&clone, &["remote", "add", name, &bare.to_string_lossy()])?;
    }
    Ok(clone)
}

/// Makes commits of one file each.
fn commits(clone: &Path, count: usize, message: &str) -> Result<()> {
    for number in 0..count {
        let mut file = fs::OpenOptions::new().create(true).append(true).open(clone.join(format!("file{number}")))?;
        writeln!(file, "{message}")?;
        git(clone, &["add", "--all"])?;
        git(clone, &["commit", "--quiet", "--message", message])?;
    }
    Ok(())
}

fn head(clone: &Path) -> Result<String> {
    let output = git_command(clone, &["rev-parse", "HEAD"]).output()?;
    Ok(String::from_utf8(output.stdout)?.trim().to_owned())
}

fn make_refs(bare: &Path, count: usize, target: &str) -> Result<()> {
    let mut update = git_command(bare, &["update-ref", "--stdin"]).stdin(Stdio::piped()).spawn()?;
    let mut stdin = update.stdin.take().ok_or("no pipe")?;
    for number in 0..count {
        writeln!(stdin, "create refs/heads/b/{number} {target}")?;
    }
    drop(stdin);
    update.wait()?;
    git(bare, &["pack-refs", "--all"])
}
