//! Delivery to a Rally that takes its time, against what Rally's own connector needs.

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use rally_simulator::Simulator;

use super::Plan;
use super::common::{Result, configure, run};
use super::history::make_history;
use super::measure::{Table, Usage, time, timed};

/// What Rally's git2rally was measured to need for 500 commits of 3 files at 50 ms a request: 6,065 requests, one
/// after the other.
const GIT2RALLY: Duration = Duration::from_secs(331);
const LATENCY: Duration = Duration::from_millis(50);
const COMMITS: usize = 500;
const CONNECTIONS: usize = 8;

pub fn deliver(plan: &Plan, table: &mut Table) -> Result<()> {
    let batch = deliver_once(plan, COMMITS, LATENCY, "")?;
    let per_commit = batch.requests as f64 / COMMITS as f64;
    let wanted = |most: f64| format!("at most {most}");
    table.add(
        "requests a commit of 3 files, with batch",
        format!("{per_commit:.2}"),
        wanted(0.2),
        per_commit / 0.2,
        1.0,
    );
    let hundredth = ("a hundredth of git2rally's 331 s:", GIT2RALLY / 100);
    table.add_times("500 commits at 50 ms, with batch", batch.usage.time, hundredth, 1.0);

    let single = deliver_once(plan, COMMITS, LATENCY, "batch = \"off\"\n")?;
    let per_commit = single.requests as f64 / COMMITS as f64;
    table.add(
        "requests a commit of 3 files, without batch",
        format!("{per_commit:.2}"),
        wanted(4.5),
        per_commit / 4.5,
        1.0,
    );
    let limit = LATENCY * single.requests as u32 / CONNECTIONS as u32;
    table.add_times(
        "500 commits at 50 ms, without batch",
        single.usage.time,
        ("round trips over 8 connections:", limit),
        1.5,
    );
    let most = single.concurrent.max(batch.concurrent);
    table.add(
        "requests at once",
        most.to_string(),
        format!("configured {CONNECTIONS}"),
        most as f64 / CONNECTIONS as f64,
        1.0,
    );

    let (few, many) = if plan.small { (500, 5_000) } else { (1_000, 100_000) };
    let one = deliver_once(plan, few, Duration::ZERO, "")?;
    let other = deliver_once(plan, many, Duration::ZERO, "")?;
    let each = |usage: &Usage, count: usize| usage.time.as_secs_f64() / count as f64;
    let ratio = each(&other.usage, many) / each(&one.usage, few);
    let micros = |usage: &Usage, count| format!("{:.0} µs", 1e6 * each(usage, count));
    table.add(
        format!("a changeset's time of {many} queued ones"),
        micros(&other.usage, many),
        format!("of {few}: {}", micros(&one.usage, few)),
        ratio,
        1.2,
    );
    let memory = other.usage.peak_mb / one.usage.peak_mb;
    let megabytes = |usage: &Usage| format!("{:.0} MB", usage.peak_mb);
    table.add(
        format!("memory with {many} queued"),
        megabytes(&other.usage),
        format!("with {few}: {}", megabytes(&one.usage)),
        memory,
        1.2,
    );
    Ok(())
}

struct Delivered {
    usage: Usage,
    requests: usize,
    concurrent: usize,
}

/// Queues commits, delivers them in one go, and makes sure that they arrived.
fn deliver_once(plan: &Plan, commits: usize, latency: Duration, rally_keys: &str) -> Result<Delivered> {
    let place = tempfile::tempdir()?;
    let bare = make_history(place.path(), commits)?;
    let rally = Simulator::start();
    rally.world(|world| {
        for number in 1..=100 {
            world.add_artifact(&format!("US{number}"), "An artifact");
        }
    });
    configure(
        &bare,
        &rally.url(),
        &format!("max_concurrent_requests = {CONNECTIONS}\n{rally_keys}[queue]\ndeliver = \"later\"\n"),
    )?;
    run(command(plan, &["backfill", "--all"], &bare).stderr(Stdio::null()))?;
    rally.settings(|settings| settings.latency = latency);
    let usage = timed(&mut command(plan, &["deliver", "--wait"], &bare))?;
    let held = rally.world(|world| world.changesets().len());
    if held != commits {
        return Err(format!("{held} of {commits} commits arrived").into());
    }
    let requests = rally.requests().len();
    eprintln!("  {commits} commits: {} with {requests} requests", time(usage.time));
    Ok(Delivered { usage, requests, concurrent: rally.max_concurrent() })
}

fn command(plan: &Plan, arguments: &[&str], bare: &Path) -> Command {
    let mut command = Command::new(&plan.program);
    command.args(arguments).arg("--repo").arg(bare);
    command
}
