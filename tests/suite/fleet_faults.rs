//! What a fleet must withstand: workers that are killed or stopped, a database that restarts, fails over or is cut off.

use std::time::Duration;

use crate::support::fleet::Fleet;
use crate::support::postgres::{PgBouncer, Postgres, ROLE};
use crate::support::process::{Service, deliverers, kill_by_id, wait_for};
use crate::support::{Random, rounds, seed};

/// Rally may be at work on a request for 10 s and some more; a lease is over after 8 s.
const RALLY: &str = "timeout = \"1s\"\nread_lag = \"300ms\"";

/// A round takes seconds, also where the fault suite is to run long.
const MOST_ROUNDS: usize = 60;

fn slow(fleet: &Fleet, latency: u64, read_lag: u64) {
    fleet.server.rally.settings(|settings| {
        settings.latency = Duration::from_millis(latency);
        settings.read_lag = Duration::from_millis(read_lag);
    });
}

fn signal(worker: &Service, signal: i32) {
    // SAFETY: kill only takes numbers.
    assert_eq!(unsafe { libc::kill(worker.id(), signal) }, 0);
}

#[test]
fn three_workers_share_the_load_and_one_limit() {
    let Some(fleet) = Fleet::new(3, 30, &format!("{RALLY}\nmax_concurrent_requests = 4")) else { return };
    slow(&fleet, 20, 0);
    let all: Vec<usize> = (0..30).collect();
    let revision = fleet.commit("US1: one story for all");
    fleet.push(&revision, &[0, 1], &all);
    let workers = [0, 1, 2].map(|host| fleet.worker(host));
    fleet.wait_for_delivery(&[&revision], &all);
    let most = fleet.server.rally.max_concurrent();
    assert!(most <= 4, "{most} requests at once");
    wait_for("all workers to tell", || fleet.status()["workers"].as_array().is_some_and(|workers| workers.len() == 3));
    drop(workers);
}

#[test]
fn workers_and_forwarders_that_are_killed_lose_nothing_and_double_nothing() {
    let Some(fleet) = Fleet::new(2, 8, RALLY) else { return };
    slow(&fleet, 10, 200);
    let all: Vec<usize> = (0..8).collect();
    let mut random = Random::part(seed(), 1);
    let mut revisions = Vec::new();
    for _ in 0..rounds(4).min(MOST_ROUNDS) {
        let revision = fleet.commit(&format!("US{}", revisions.len() % 9 + 1));
        fleet.push(&revision, &[0, 1], &all);
        revisions.push(revision);
        // What the hooks have started is killed too.
        for git_dir in fleet.hosts.iter().flat_map(|host| &host.git_dirs) {
            if random.happens(30) {
                deliverers(git_dir).into_iter().for_each(kill_by_id);
            }
        }
        let workers = [fleet.worker(0), fleet.worker(1)];
        let before = fleet.server.rally.requests().len();
        let more = 5 + random.below(40);
        let end = std::time::Instant::now() + Duration::from_secs(15);
        wait_for("some requests", || {
            fleet.server.rally.requests().len() > before + more || std::time::Instant::now() > end
        });
        drop(workers);
    }
    let _workers = [fleet.worker(0), fleet.worker(1)];
    let revisions: Vec<&str> = revisions.iter().map(String::as_str).collect();
    fleet.wait_for_delivery(&revisions, &all);
    wait_for("the ledger to know", || fleet.status()["pending"] == 0);
    assert_eq!(fleet.status()["doubles"], 0);
}

#[test]
fn a_worker_that_is_stopped_past_its_lease_and_goes_on_writes_nothing() {
    let Some(fleet) = Fleet::new(2, 6, RALLY) else { return };
    slow(&fleet, 60, 100);
    let all: Vec<usize> = (0..6).collect();
    let revisions = [1, 2, 3].map(|number| fleet.commit(&format!("US{number}")));
    fleet.push(&revisions[2], &[0], &all);
    let stopped = fleet.worker(0);
    fleet.server.rally.wait_until("some commits", |world| world.changesets().len() > 3);
    signal(&stopped, libc::SIGSTOP);
    fleet.server.rally.wait_for_quiet();
    let other = fleet.worker(1);
    let revisions: Vec<&str> = revisions.iter().map(String::as_str).collect();
    fleet.wait_for_delivery(&revisions, &all);
    signal(&stopped, libc::SIGCONT);
    fleet.server.rally.wait_for_quiet();
    fleet.assert_delivered(&revisions, &all);
    // What the stopped one may have sent is looked for again.
    wait_for("the look for doubles", || {
        fleet.postgres.sql("SELECT count(*) FROM changeset WHERE check_at IS NOT NULL") == "0"
    });
    assert_eq!(fleet.status()["doubles"], 0);
    drop((stopped, other));
}

#[test]
fn a_double_in_rally_is_found_after_a_takeover_and_told() {
    let Some(fleet) = Fleet::new(1, 1, RALLY) else { return };
    let revision = fleet.commit("US1");
    fleet.push(&revision, &[0], &[0]);
    wait_for("the ledger to have it", || fleet.status()["pending"] == 1);
    let worker = fleet.worker(0);
    fleet.wait_for_delivery(&[&revision], &[0]);
    wait_for("the ledger to know", || fleet.status()["pending"] == 0);
    drop(worker);
    // Another connector posts it too, and this commit is one that a takeover was about.
    fleet.server.rally.world(|world| world.add_changeset("repo0", &revision, "US1", &["US1"], &[]));
    fleet.postgres.sql("UPDATE changeset SET check_at = 1; UPDATE destination SET due_at = 1");
    let _worker = fleet.worker(0);
    wait_for("it to be found", || fleet.status()["doubles"] == 1);
    let ran = crate::support::ran(fleet.plain(0, &["status", "--fleet"])).fails_with(1);
    assert!(ran.stderr.contains("Rally has 1 commit twice"), "{ran:?}");
}

#[test]
fn a_database_that_restarts_at_any_time_loses_nothing_and_doubles_nothing() {
    let Some(fleet) = Fleet::new(2, 8, RALLY) else { return };
    slow(&fleet, 10, 100);
    let all: Vec<usize> = (0..8).collect();
    let _workers = [fleet.worker(0), fleet.worker(1)];
    let mut revisions = Vec::new();
    for _ in 0..rounds(4).min(MOST_ROUNDS) {
        let revision = fleet.commit(&format!("US{}", revisions.len() % 9 + 1));
        fleet.push(&revision, &[0, 1], &all);
        revisions.push(revision);
        fleet.postgres.restart();
    }
    let revisions: Vec<&str> = revisions.iter().map(String::as_str).collect();
    fleet.wait_for_delivery(&revisions, &all);
}

#[test]
fn what_a_standby_had_not_received_is_forwarded_again_after_a_failover() {
    let Some(fleet) = Fleet::new(2, 4, RALLY) else { return };
    let all: Vec<usize> = (0..4).collect();
    let standby = Postgres::standby_of(&fleet.postgres);
    let both = format!(
        "postgres://{ROLE}@127.0.0.1:{},127.0.0.1:{}/ledger?target_session_attrs=read-write",
        fleet.postgres.port(),
        standby.port()
    );
    fleet.configure_all(Some(&both));
    let first = fleet.commit("US1");
    fleet.push(&first, &[0, 1], &all);
    let workers = [fleet.worker(0), fleet.worker(1)];
    fleet.wait_for_delivery(&[&first], &all);
    wait_for("the standby to have received it", || {
        standby.sql("SELECT count(*) FROM changeset WHERE state = 'delivered'") == "4"
    });
    standby.down();
    let second = fleet.commit("US2");
    fleet.push(&second, &[0, 1], &all);
    fleet.wait_for_delivery(&[&first, &second], &all);
    let third = fleet.commit("US3");
    fleet.push(&third, &[1], &all);
    wait_for("all to be forwarded", || {
        let there = format!("SELECT count(*) FROM changeset WHERE revision = '{third}'");
        fleet.postgres.sql(&there) == "4"
    });
    fleet.postgres.down();
    standby.up();
    standby.promote();
    fleet.wait_for_delivery(&[&first, &second, &third], &all);
    wait_for("the new primary to know all", || {
        standby.sql("SELECT count(*) FROM changeset WHERE state IN ('delivered', 'existed')") == "12"
    });
    fleet.assert_delivered(&[&first, &second, &third], &all);
    let logs = fleet
        .hosts
        .iter()
        .flat_map(|host| &host.git_dirs)
        .map(|git_dir| std::fs::read_to_string(git_dir.join("rally-hook/log")).expect("a log"));
    assert!(logs.collect::<String>().contains("event=ledger-set-back"), "the queues have noticed it");
    assert_eq!(standby.sql("SELECT count(*) FROM meta WHERE key = 'blocked'"), "1", "claims were blocked for a while");
    drop(workers);
}

#[test]
fn rally_holds_each_commit_once_after_random_kills_stops_restarts_and_faults() {
    let Some(mut fleet) = Fleet::new(2, 10, RALLY) else { return };
    let third = fleet.add_host(10);
    fleet.run(third, &["install"]).succeeds();
    let bouncer = PgBouncer::start(&fleet.postgres);
    if let Some(bouncer) = &bouncer {
        fleet.configure(1, Some(&bouncer.url()));
    }
    slow(&fleet, 8, 200);
    fleet.server.rally.settings(|settings| settings.conflict_percent = 5);
    let all: Vec<usize> = (0..10).collect();
    let mut random = Random::part(seed(), 2);
    let mut workers: Vec<Service> = (0..3).map(|host| fleet.worker(host)).collect();
    let mut stopped: Vec<Service> = Vec::new();
    let mut revisions = Vec::new();
    for _ in 0..rounds(8).min(MOST_ROUNDS) {
        let revision = fleet.commit(&format!("US{}", revisions.len() % 9 + 1));
        let hosts: Vec<usize> = (0..3).filter(|_| random.happens(60)).collect();
        fleet.push(&revision, &hosts, &all);
        // A replica that has not seen it yet does later.
        revisions.push(revision);
        let number = random.below(3);
        match random.below(5) {
            0 => drop(std::mem::replace(&mut workers[number], fleet.worker(number))),
            1 => {
                signal(&workers[number], libc::SIGSTOP);
                stopped.push(std::mem::replace(&mut workers[number], fleet.worker(number)));
            }
            2 => fleet.postgres.restart(),
            3 => fleet.server.plant_fault(&mut random),
            _ => {
                let requests = fleet.server.rally.requests().len();
                let end = std::time::Instant::now() + Duration::from_secs(3);
                wait_for("some requests", || {
                    fleet.server.rally.requests().len() > requests + 20 || std::time::Instant::now() > end
                });
            }
        }
        if random.happens(50) {
            stopped.drain(..).for_each(|worker| signal(&worker, libc::SIGCONT));
        }
    }
    stopped.iter().for_each(|worker| signal(worker, libc::SIGCONT));
    fleet.server.rally.clear_faults();
    let last = revisions.last().expect("some").clone();
    fleet.push(&last, &[0, 1, 2], &all);
    let revisions: Vec<&str> = revisions.iter().map(String::as_str).collect();
    wait_for("no dead letters", || {
        let ran = fleet.run(0, &["retry", "--all"]);
        ran.success || fleet.status()["failed"] == 0
    });
    fleet.wait_for_delivery(&revisions, &all);
    assert_eq!(fleet.status()["doubles"], 0);
}
