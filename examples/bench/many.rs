//! Many repositories on one server: all pushed at once, and the commands that look at all of them.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use rally_simulator::Simulator;

use super::Plan;
use super::common::{Result, configure, git, git_command, run};
use super::measure::{Table, time, timed};

const LATENCY: Duration = Duration::from_millis(20);
const CONNECTIONS: usize = 8;
/// How often the idle worker looks at all repositories; its default.
const ROUND: Duration = Duration::from_secs(40);

pub fn many(plan: &Plan, table: &mut Table) -> Result<()> {
    let count = if plan.small { 20 } else { 200 };
    let alone = deliver_for_all(plan, count)?;
    let one_deliverer = ("`deliver --all-repos` alone:", alone.time);
    for (what, way) in [("a process for each push", Way::Processes), ("the worker", Way::Worker)] {
        let pushed = push_to_all(plan, count, way)?;
        let name = format!("{count} repositories pushed at once, {what}");
        // The pushes themselves take most of the processor.
        let pushes = alone.pushes;
        table.add_times(&name, pushed.time, ("pushes and then `deliver --all-repos`:", pushes + one_deliverer.1), 1.5);
        let requests = pushed.requests as f64 / count as f64;
        table.add(
            format!("{name}: requests a commit of 2 files"),
            format!("{requests:.2}"),
            format!("{} {:.2}", one_deliverer.0, alone.requests as f64 / count as f64),
            requests * count as f64 / alone.requests as f64,
            1.5,
        );
        let creates = pushed.creates as f64 / count as f64;
        table.add(
            format!("{name}, all naming one story: creates a commit"),
            format!("{creates:.2}"),
            "1".to_owned(),
            creates,
            1.2,
        );
        table.add(
            format!("{name}: requests at once"),
            pushed.concurrent.to_string(),
            format!("configured {CONNECTIONS}"),
            pushed.concurrent as f64 / CONNECTIONS as f64,
            1.0,
        );
        eprintln!("  at most {} processes that deliver", pushed.processes);
    }
    status_of_all(plan, table)?;
    idle_worker(plan, table)
}

#[derive(Clone, Copy, PartialEq)]
enum Way {
    Processes,
    Worker,
}

struct Run {
    time: Duration,
    pushes: Duration,
    requests: usize,
    creates: usize,
    concurrent: usize,
    processes: usize,
}

/// A server with many repositories, whose commits all name one story.
struct Fleet {
    place: tempfile::TempDir,
    rally: Simulator,
    git_dirs: Vec<PathBuf>,
}

impl Fleet {
    fn new(plan: &Plan, count: usize, deliver: &str) -> Result<Self> {
        let place = tempfile::tempdir()?;
        let rally = Simulator::start();
        rally.world(|world| world.add_artifact("US1", "The story"));
        let root = place.path().join("root");
        let number = |number| root.join(format!("team{}/repo{number}.git", number % 3));
        let git_dirs: Vec<PathBuf> = (0..count).map(number).collect();
        let quiet = ["init", "--quiet", "--bare", "--template=", "--initial-branch=main"];
        for git_dir in &git_dirs {
            run(git_command(place.path(), &quiet).arg(git_dir))?;
        }
        let more = format!(
            "timeout = \"60s\"\nread_lag = \"100ms\"\nmax_concurrent_requests = {CONNECTIONS}\n[repository]\nroot = {root:?}\nname = \"{{dir}}\"\n\
             [queue]\ndeliver = \"{deliver}\"\n"
        );
        configure(place.path(), &rally.url(), &more)?;
        let fleet = Fleet { place, rally, git_dirs };
        let config = fleet.place.path().join("rally-hook.toml");
        run(fleet.command(plan, &["install"]).arg("--config").arg(config).stderr(Stdio::null()))?;
        fleet.rally.settings(|settings| settings.latency = LATENCY);
        Ok(fleet)
    }

    fn command(&self, plan: &Plan, arguments: &[&str]) -> Command {
        let mut command = Command::new(&plan.program);
        command.args(arguments).arg("--all-repos").arg(self.place.path().join("root"));
        command.env("XDG_RUNTIME_DIR", self.place.path()).env("HOME", self.place.path()).env("NO_PROXY", "127.0.0.1");
        command
    }

    /// Pushes one commit of two files to all repositories at once, and returns how long all of them took.
    fn push(&self) -> Result<Duration> {
        let clone = self.place.path().join("clone");
        std::fs::create_dir(&clone)?;
        git(&clone, &["init", "--quiet", "--initial-branch=main"])?;
        std::fs::write(clone.join("a"), "a")?;
        std::fs::write(clone.join("b"), "b")?;
        git(&clone, &["add", "."])?;
        git(&clone, &["commit", "--quiet", "--message", "US1: the story"])?;
        let start = Instant::now();
        let push = |git_dir: &PathBuf| {
            let mut push = git_command(&clone, &["push", "--quiet"]);
            push.arg(git_dir).arg("main").env("HOME", self.place.path()).env("XDG_RUNTIME_DIR", self.place.path());
            push.env("NO_PROXY", "127.0.0.1").stderr(Stdio::null()).spawn()
        };
        let pushes: Vec<Child> = self.git_dirs.iter().map(push).collect::<std::io::Result<_>>()?;
        for mut push in pushes {
            if !push.wait()?.success() {
                return Err("a push failed".into());
            }
        }
        Ok(start.elapsed())
    }

    fn wait(&self) {
        self.rally.wait_until("all commits", |world| {
            let held = world.changesets();
            held.len() == self.git_dirs.len() && held.iter().all(|changeset| changeset.changes.len() == 2)
        });
    }

    fn outcome(&self, time: Duration, pushes: Duration, processes: usize) -> Run {
        let requests = self.rally.requests();
        let creates = requests.iter().filter(|request| request.path == "/changeset/create").count();
        Run { time, pushes, requests: requests.len(), creates, concurrent: self.rally.max_concurrent(), processes }
    }
}

/// Pushes first, and then delivers for one repository after the other.
fn deliver_for_all(plan: &Plan, count: usize) -> Result<Run> {
    let fleet = Fleet::new(plan, count, "later")?;
    let pushes = fleet.push()?;
    let usage = timed(&mut fleet.command(plan, &["deliver"]))?;
    fleet.wait();
    eprintln!("  {count} pushes take {}", time(pushes));
    Ok(fleet.outcome(usage.time, pushes, 1))
}

fn push_to_all(plan: &Plan, count: usize, way: Way) -> Result<Run> {
    let deliver = if way == Way::Worker { "later" } else { "background" };
    let fleet = Fleet::new(plan, count, deliver)?;
    let worker = (way == Way::Worker).then(|| start_worker(plan, &fleet)).transpose()?;
    let (is_over, most) = (AtomicBool::new(false), AtomicUsize::new(0));
    let start = Instant::now();
    let pushes = thread::scope(|scope| {
        scope.spawn(|| {
            while !is_over.load(Ordering::Relaxed) {
                most.fetch_max(deliverers(), Ordering::Relaxed);
                thread::sleep(Duration::from_millis(100));
            }
        });
        let pushes = fleet.push();
        fleet.wait();
        is_over.store(true, Ordering::Relaxed);
        pushes
    })?;
    let run = fleet.outcome(start.elapsed(), pushes, most.into_inner() + usize::from(worker.is_some()));
    if let Some(mut worker) = worker {
        worker.kill()?;
        worker.wait()?;
    }
    Ok(run)
}

/// Starts a worker and waits until it serves all repositories.
fn start_worker(plan: &Plan, fleet: &Fleet) -> Result<Child> {
    let worker = fleet.command(plan, &["worker"]).stderr(Stdio::null()).spawn()?;
    let is_served = || {
        let status = fleet.command(plan, &["status", "--json"]).stderr(Stdio::null()).output();
        status.is_ok_and(|output| !String::from_utf8_lossy(&output.stdout).contains("\"worker\":false"))
    };
    while !is_served() {
        thread::sleep(Duration::from_millis(100));
    }
    Ok(worker)
}

/// Counts the processes that hooks have started to deliver.
fn deliverers() -> usize {
    let Ok(processes) = std::fs::read_dir("/proc") else { return 0 };
    let name = |entry: std::fs::DirEntry| std::fs::read_to_string(entry.path().join("comm")).unwrap_or_default();
    processes
        .flatten()
        .filter(|entry| entry.file_name().as_encoded_bytes()[0].is_ascii_digit())
        .map(name)
        .filter(|name| name.trim() == "rally-deliver")
        .count()
}

/// The table of `status`, against asking Git for the refs of each repository, which is part of it.
fn status_of_all(plan: &Plan, table: &mut Table) -> Result<()> {
    let count = if plan.small { 30 } else { 300 };
    let fleet = Fleet::new(plan, count, "later")?;
    let usage = timed(&mut fleet.command(plan, &["status"]))?;
    let start = Instant::now();
    for git_dir in &fleet.git_dirs {
        run(git_command(git_dir, &["for-each-ref"]).stdout(Stdio::null()))?;
    }
    table.add_times(
        format!("`status --all-repos` over {count}"),
        usage.time,
        ("`git for-each-ref` in each:", start.elapsed()),
        4.0,
    );
    Ok(())
}

/// What the worker costs while nothing happens.
fn idle_worker(plan: &Plan, table: &mut Table) -> Result<()> {
    let count = if plan.small { 30 } else { 300 };
    let fleet = Fleet::new(plan, count, "later")?;
    let mut worker = start_worker(plan, &fleet)?;
    let before = Cost::of(&worker)?;
    let span = if plan.small { ROUND / 20 } else { ROUND * 2 };
    thread::sleep(span);
    let after = Cost::of(&worker)?;
    worker.kill()?;
    worker.wait()?;
    let per_second = (after.seconds - before.seconds) / span.as_secs_f64();
    let wakes = (after.switches - before.switches) as f64 / span.as_secs_f64();
    eprintln!("  idle for {}: {wakes:.2} wake-ups a second", time(span));
    table.add(
        format!("worker for {count} idle repositories: processor"),
        format!("{:.2} %", per_second * 100.0),
        "at most 1 %",
        per_second * 100.0,
        1.0,
    );
    table.add(
        format!("worker for {count} idle repositories: memory"),
        format!("{:.0} MB", after.megabytes),
        "at most 50 MB",
        after.megabytes / 50.0,
        1.0,
    );
    Ok(())
}

/// What a process has used so far.
struct Cost {
    seconds: f64,
    switches: u64,
    megabytes: f64,
}

impl Cost {
    fn of(process: &Child) -> Result<Self> {
        let dir = Path::new("/proc").join(process.id().to_string());
        let stat = std::fs::read_to_string(dir.join("stat"))?;
        // After the name in brackets; user and system time are the fields 14 and 15 (man 5 proc), in hundredths.
        let fields: Vec<&str> = stat.rsplit(") ").next().unwrap_or_default().split(' ').collect();
        let ticks: f64 = fields[11..13].iter().filter_map(|field| field.parse::<f64>().ok()).sum();
        let mut switches = 0;
        for task in std::fs::read_dir(dir.join("task"))? {
            switches += number_in(&std::fs::read_to_string(task?.path().join("status"))?, "\nvoluntary_ctxt_switches:");
        }
        let status = std::fs::read_to_string(dir.join("status"))?;
        Ok(Cost { seconds: ticks / 100.0, switches, megabytes: number_in(&status, "VmRSS:") as f64 / 1e3 })
    }
}

fn number_in(status: &str, name: &str) -> u64 {
    let rest = status.split(name).nth(1).unwrap_or_default();
    rest.split_whitespace().next().and_then(|word| word.parse().ok()).unwrap_or_default()
}
