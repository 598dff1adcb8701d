//! Many servers with one ledger: how fast queues are forwarded, and how fast one or several workers deliver.

use std::fs;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rally_simulator::Simulator;

use super::Plan;
use super::common::{Result, configure, git, git_command, run};
use super::measure::{Table, median, time, timed};
use super::postgres::{OWNER, Postgres, ROLE};

const LATENCY: Duration = Duration::from_millis(50);
/// How many commits a repository has.
const COMMITS: usize = 20;

pub fn ledger(plan: &Plan, table: &mut Table) -> Result<()> {
    if Postgres::start()?.is_none() {
        eprintln!("PostgreSQL is not installed, so its part is left out");
        return Ok(());
    }
    workers(plan, table)?;
    forwarding(plan, table)?;
    million(plan, table)
}

/// Repositories whose commits wait in a ledger.
struct Fleet {
    place: tempfile::TempDir,
    rally: Simulator,
    postgres: Postgres,
    commits: usize,
}

impl Fleet {
    /// Makes repositories with so many commits each, queued.
    fn new(plan: &Plan, repositories: usize, commits: usize) -> Result<Self> {
        let postgres = Postgres::start()?.ok_or("PostgreSQL is not installed")?;
        let (place, rally) = (tempfile::tempdir()?, Simulator::start());
        rally.world(|world| world.add_artifact("US1", "The story"));
        let fleet = Fleet { place, rally, postgres, commits: repositories * commits };
        fleet.migrate(plan)?;
        fleet.configure("")?;
        let root = fleet.place.path().join("root");
        let quiet = ["init", "--quiet", "--bare", "--template=", "--initial-branch=main"];
        for number in 0..repositories {
            run(git_command(fleet.place.path(), &quiet).arg(root.join(format!("repo{number}.git"))))?;
        }
        run(fleet.for_all(plan, &["install"]).stderr(Stdio::null()))?;
        fleet.push(commits, repositories)?;
        Ok(fleet)
    }

    /// Writes the configuration; these lines follow in `[rally]`.
    fn configure(&self, rally: &str) -> Result<()> {
        let root = self.place.path().join("root");
        let store = self.postgres.url_for(ROLE);
        let more = format!(
            "timeout = \"60s\"\nread_lag = \"100ms\"\n{rally}[repository]\nroot = {root:?}\nname = \"{{dir}}\"\n\
             [queue]\ndeliver = \"later\"\nstore = {store:?}\n[commits]\npost = \"all\"\n"
        );
        configure(self.place.path(), &self.rally.url(), &more).map(drop)
    }

    fn migrate(&self, plan: &Plan) -> Result<()> {
        let file = self.place.path().join("migrate.toml");
        fs::write(&file, format!("[queue]\nstore = {:?}\n", self.postgres.url_for(OWNER)))?;
        let migrate = ["store", "migrate", "--quiet", "--grant", ROLE, "--config"];
        run(Command::new(&plan.program).args(migrate).arg(file).stderr(Stdio::null()))
    }

    fn push(&self, commits: usize, repositories: usize) -> Result<()> {
        let clone = self.place.path().join("clone");
        fs::create_dir(&clone)?;
        git(&clone, &["init", "--quiet", "--initial-branch=main"])?;
        let mut stream = String::new();
        for number in 0..commits {
            let (message, when) = (format!("US1: commit {number}\n"), 1_700_000_000 + number);
            stream += &format!(
                "commit refs/heads/main\ncommitter Jane Roe <jane.roe@acme.example> {when} +0000\ndata {}\n{message}\
                 M 644 inline a\ndata 8\n{number:08}\nM 644 inline b\ndata 8\n{number:08}\n",
                message.len()
            );
        }
        fs::write(clone.join("stream"), stream)?;
        run(git_command(&clone, &["fast-import", "--quiet"]).stdin(fs::File::open(clone.join("stream"))?))?;
        for number in 0..repositories {
            let mut push = git_command(&clone, &["push", "--quiet"]);
            push.arg(self.place.path().join(format!("root/repo{number}.git"))).arg("main");
            run(push.env("HOME", self.place.path()).stderr(Stdio::null()))?;
        }
        Ok(())
    }

    fn command(&self, plan: &Plan, arguments: &[&str]) -> Command {
        let mut command = Command::new(&plan.program);
        command.args(arguments).arg("--config").arg(self.place.path().join("rally-hook.toml"));
        command.env("XDG_RUNTIME_DIR", self.place.path()).env("HOME", self.place.path()).env("NO_PROXY", "127.0.0.1");
        command
    }

    fn for_all(&self, plan: &Plan, arguments: &[&str]) -> Command {
        let mut command = self.command(plan, arguments);
        command.arg("--all-repos").arg(self.place.path().join("root"));
        command
    }

    /// Forwards all queues, and delivers nothing: there are no credentials.
    fn forward(&self, plan: &Plan) -> Result<Duration> {
        let file = self.place.path().join("rally-hook.toml");
        let text = fs::read_to_string(&file)?;
        fs::write(&file, text.lines().filter(|line| !line.starts_with("api_key_file")).collect::<Vec<_>>().join("\n"))?;
        // What waits elsewhere counts as not done.
        let start = Instant::now();
        let _ = timed(&mut self.for_all(plan, &["deliver"]));
        let took = start.elapsed();
        fs::write(&file, text)?;
        let pending: usize = self.postgres.sql("SELECT count(*) FROM changeset WHERE state = 'pending'")?.parse()?;
        if pending == self.commits { Ok(took) } else { Err(format!("{pending} were forwarded").into()) }
    }
}

/// Compares one worker with several.
fn workers(plan: &Plan, table: &mut Table) -> Result<()> {
    let repositories = if plan.small { 10 } else { 50 };
    let mut alone = Duration::ZERO;
    for count in [1, 2, 4] {
        let fleet = Fleet::new(plan, repositories, COMMITS)?;
        fleet.forward(plan)?;
        fleet.rally.settings(|settings| settings.latency = LATENCY);
        let start = Instant::now();
        let worker = || fleet.command(plan, &["worker"]).stderr(Stdio::null()).spawn();
        let workers: Vec<Child> = (0..count).map(|_| worker()).collect::<std::io::Result<_>>()?;
        fleet.rally.wait_until("all commits", |world| {
            let held = world.changesets();
            held.len() == fleet.commits && held.iter().all(|changeset| changeset.changes.len() == 2)
        });
        let took = start.elapsed();
        for mut worker in workers {
            worker.kill()?;
            worker.wait()?;
        }
        eprintln!("  {count} workers: {:.0} changesets a second", fleet.commits as f64 / took.as_secs_f64());
        if count == 1 {
            alone = took;
        } else {
            let what = format!("{} commits from the ledger at 50 ms, {count} workers", fleet.commits);
            table.add_times(what, took, ("one worker", alone), 1.2);
        }
    }
    Ok(())
}

/// How fast a queue is forwarded. A server records some hundred commits a second at most.
fn forwarding(plan: &Plan, table: &mut Table) -> Result<()> {
    const LEAST: f64 = 1000.0;
    let commits = if plan.small { 2_000 } else { 20_000 };
    let fleet = Fleet::new(plan, 1, commits)?;
    let rate = commits as f64 / fleet.forward(plan)?.as_secs_f64();
    let what = format!("{commits} commits forwarded to the ledger");
    table.add(what, format!("{rate:.0} a second"), format!("at least {LEAST} a second"), LEAST / rate, 1.0);
    Ok(())
}

/// What the rows of what is done cost.
fn million(plan: &Plan, table: &mut Table) -> Result<()> {
    let rows = if plan.small { 50_000 } else { 1_000_000 };
    let fleet = Fleet::new(plan, 1, 1)?;
    fleet.forward(plan)?;
    let repository = fleet.place.path().join("root/repo0.git");
    let deliver = || -> Result<Duration> {
        let times: Result<Vec<Duration>> =
            (0..7).map(|_| Ok(timed(fleet.command(plan, &["deliver"]).arg("--repo").arg(&repository))?.time)).collect();
        Ok(median(times?))
    };
    run(fleet.command(plan, &["deliver", "--quiet"]).arg("--repo").arg(&repository).stderr(Stdio::null()))?;
    let few = deliver()?;
    fleet.postgres.sql(&format!(
        "INSERT INTO destination (server, workspace, repository, settings) SELECT 's', 'w', 'r' || number, '{{}}' \
         FROM generate_series(1, 200) AS number;
         INSERT INTO changeset (destination, revision, state, recorded_at, entered_at, next_attempt, rally_ref, done_at) \
         SELECT (SELECT id FROM destination WHERE repository = 'r' || (number % 200 + 1)), \
         left(encode(sha256(number::text::bytea), 'hex'), 40), 'delivered', number, number, number, '/changeset/' || 100000000000 + number, \
         number FROM generate_series(1, {rows}) AS number"
    ))?;
    fleet.postgres.sql("ANALYZE")?;
    let many = deliver()?;
    table.add_times(
        format!("claim, look and give back with {rows} revisions in the ledger"),
        many,
        ("with one", few),
        1.2,
    );
    let bytes: f64 = fleet.postgres.sql("SELECT pg_total_relation_size('changeset')")?.parse()?;
    let each = bytes / rows as f64;
    table.add(
        format!("{rows} revisions in the ledger"),
        format!("{:.0} MB", bytes / 1e6),
        "320 bytes each",
        each / 320.0,
        1.0,
    );
    eprintln!("  {} with one", time(few));
    Ok(())
}
