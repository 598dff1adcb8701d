//! Many servers with one ledger: each commit is posted once, whichever servers saw it.

use std::net::TcpListener;

use serde_json::Value;

use crate::support::fault::{errors, status};
use crate::support::fleet::{Fleet, SHORT};
use crate::support::postgres::{PgBouncer, ROLE};
use crate::support::process::{Service, deliverers, wait_for};
use crate::support::{git, ran};

const ALL: [usize; 3] = [0, 1, 2];

/// Waits until the servers have forwarded all, and what their hooks have started has ended.
fn wait_until_forwarded(fleet: &Fleet, hosts: &[usize]) {
    for host in hosts {
        wait_for("all to be forwarded", || {
            let ran = fleet.run(*host, &["status", "--json"]);
            !ran.stdout.is_empty()
                && ran.stdout.lines().all(|line| {
                    let status: Value = serde_json::from_str(line).expect("JSON");
                    status["ledger"]["unforwarded"] == 0 && status["unread_pushes"] == 0
                })
        });
        wait_for("no process", || fleet.hosts[*host].git_dirs.iter().all(|git_dir| deliverers(git_dir).is_empty()));
    }
}

#[test]
fn what_two_servers_receive_at_once_is_posted_once() {
    let Some(fleet) = Fleet::new(2, 3, SHORT) else { return };
    let _workers = [fleet.worker(0), fleet.worker(1)];
    let first = fleet.commit("US1: both");
    fleet.push(&first, &[0, 1], &ALL);
    let second = fleet.commit("US2: both");
    fleet.push(&second, &[0, 1], &ALL);
    fleet.wait_for_delivery(&[&first, &second], &ALL);
    let requests = fleet.server.rally.requests();
    let creates = requests.iter().filter(|request| request.path == "/scmrepository/create").count();
    assert_eq!(creates, 3, "one SCMRepository each");
}

#[test]
fn a_hook_only_forwards_and_its_process_ends() {
    let Some(fleet) = Fleet::new(1, 1, SHORT) else { return };
    let revision = fleet.commit("US1");
    fleet.push(&revision, &[0], &[0]);
    wait_until_forwarded(&fleet, &[0]);
    assert_eq!(fleet.postgres.sql("SELECT revision, state FROM changeset"), format!("{revision}|pending"));
    assert!(fleet.server.rally.requests().is_empty(), "a worker is to ask Rally");
    let ran = fleet.run_in(0, 0, &["status"]).fails_with(1);
    assert!(ran.stdout.contains("no process is at work on it"), "{ran:?}");
}

#[test]
fn a_person_delivers_without_a_worker() {
    let Some(fleet) = Fleet::new(2, 1, SHORT) else { return };
    let revision = fleet.commit("US1");
    fleet.push(&revision, &[0, 1], &[0]);
    wait_until_forwarded(&fleet, &[0, 1]);
    let ran = fleet.run_in(1, 0, &["deliver", "--wait"]).succeeds();
    assert!(ran.stderr.contains("1 commit delivered"), "{ran:?}");
    fleet.assert_delivered(&[&revision], &[0]);
    let status: Value =
        serde_json::from_str(&fleet.run_in(0, 0, &["status", "--json"]).succeeds().stdout).expect("JSON");
    assert_eq!(
        (&status["delivered"], &status["pending"]),
        (&Value::from(1), &Value::from(0)),
        "the other server knows"
    );
}

#[test]
fn a_database_that_is_down_holds_up_no_push_and_all_catches_up() {
    let Some(fleet) = Fleet::new(2, 3, SHORT) else { return };
    let _workers = [fleet.worker(0), fleet.worker(1)];
    let first = fleet.commit("US1");
    fleet.push(&first, &[0, 1], &ALL);
    fleet.wait_for_delivery(&[&first], &ALL);
    fleet.postgres.down();
    let second = fleet.commit("US2");
    fleet.push(&second, &[0], &ALL);
    wait_for("status to say so", || {
        let ran = fleet.run_in(0, 0, &["status"]);
        !ran.success
            && ran.stdout.contains("1 commit not forwarded")
            && ran.stdout.contains("cannot use the ledger at 127.0.0.1")
    });
    assert_eq!(fleet.server.changesets().len(), 3);
    fleet.postgres.up();
    fleet.wait_for_delivery(&[&first, &second], &ALL);
}

#[test]
fn a_listener_that_never_answers_holds_up_no_push() {
    let Some(fleet) = Fleet::new(1, 1, SHORT) else { return };
    let silent = TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = silent.local_addr().expect("it is bound").port();
    fleet.configure(0, Some(&format!("postgres://{ROLE}@127.0.0.1:{port}/ledger")));
    let revision = fleet.commit("US1");
    fleet.push(&revision, &[0], &[0]);
    wait_for("it to be given up", || {
        let ran = fleet.run_in(0, 0, &["deliver"]);
        ran.code == Some(1) && ran.stderr.contains("did not answer within")
    });
    fleet.configure(0, Some(&fleet.postgres.url()));
    fleet.run_in(0, 0, &["deliver", "--wait"]).succeeds();
    fleet.assert_delivered(&[&revision], &[0]);
}

#[test]
fn a_new_replica_takes_nothing_for_history_that_was_not_recorded() {
    let Some(mut fleet) = Fleet::new(1, 1, SHORT) else { return };
    let first = fleet.commit("US1: recorded by the old primary");
    fleet.push(&first, &[0], &[0]);
    wait_until_forwarded(&fleet, &[0]);
    // Its hook does not run any more, and then another server takes over, with a copy of the repository only.
    let hooks = fleet.hosts[0].git_dirs[0].join("hooks");
    std::fs::rename(&hooks, hooks.with_extension("off")).expect("it is there");
    let missed = fleet.commit("US2: missed");
    fleet.push(&missed, &[0], &[0]);
    let new = fleet.add_host(1);
    let (from, to) = (fleet.hosts[0].git_dirs[0].display().to_string(), fleet.hosts[new].git_dirs[0].clone());
    git(&to, &["fetch", "--quiet", &from, "+refs/*:refs/*"]);
    let ran = fleet.run(new, &["install"]).succeeds();
    assert!(ran.stderr.contains("other servers have recorded commits"), "{ran:?}");
    let last = fleet.commit("US3: on the new primary");
    fleet.push(&last, &[new], &[0]);
    wait_until_forwarded(&fleet, &[new]);
    fleet.run(new, &["deliver"]);
    fleet.wait_for_delivery(&[&first, &missed, &last], &[0]);
}

#[test]
fn a_replica_without_install_asks_before_its_first_push_is_recorded() {
    let Some(mut fleet) = Fleet::new(1, 1, SHORT) else { return };
    let old = fleet.clone.commit("US7: history", &[("a", Some("1")), ("b", Some("1"))]);
    fleet.push(&old, &[0], &[0]);
    wait_until_forwarded(&fleet, &[0]);
    let new = fleet.add_host(1);
    let (from, to) = (fleet.hosts[0].git_dirs[0].display().to_string(), fleet.hosts[new].git_dirs[0].clone());
    git(&to, &["fetch", "--quiet", &from, "+refs/*:refs/*"]);
    // Only its hook is there, as a host copies it.
    fleet.run(new, &["install"]).succeeds();
    std::fs::remove_dir_all(to.join("rally-hook")).expect("its state");
    let _ = std::fs::remove_file(to.join("rally-hook.queue"));
    let missed = fleet.commit("US1: arrived by replication");
    git(&to, &["fetch", "--quiet", &fleet.clone.path.display().to_string(), &format!("{missed}:refs/heads/main")]);
    let last = fleet.commit("US2: pushed");
    fleet.push(&last, &[new], &[0]);
    wait_until_forwarded(&fleet, &[new]);
    fleet.run(new, &["deliver"]);
    fleet.wait_for_delivery(&[&old, &missed, &last], &[0]);
}

#[test]
fn to_the_fleet_and_back_everything_is_delivered_once() {
    let Some(fleet) = Fleet::without_hook(1, 1, SHORT, "") else { return };
    fleet.configure(0, None);
    fleet.install();
    let git_dir = fleet.hosts[0].git_dirs[0].clone();
    let mut revisions = Vec::new();
    let queue_commits = |revisions: &mut Vec<String>, count: usize| {
        let from = revisions.len();
        revisions.extend((0..count).map(|number| fleet.commit(&format!("US{} {}", number % 9 + 1, from + number))));
        fleet.push(revisions.last().expect("some"), &[0], &[0]);
    };
    queue_commits(&mut revisions, 60);
    let all: Vec<&str> = revisions.iter().map(String::as_str).collect();
    fleet.wait_for_delivery(&all, &[0]);
    wait_for("no process", || deliverers(&git_dir).is_empty());
    // Rally is down, so that these wait.
    fleet.server.fail_all(status(503));
    queue_commits(&mut revisions, 60);
    fleet.migrate();
    fleet.configure(0, Some(&fleet.postgres.url()));
    let _ = fleet.run(0, &["deliver"]);
    let state = || fleet.postgres.sql("SELECT state, count(*) FROM changeset GROUP BY state ORDER BY state");
    wait_for("all in the ledger", || {
        let _ = fleet.run(0, &["deliver"]);
        state() == "delivered|60\npending|60"
    });
    fleet.server.rally.clear_faults();
    // Some of it through the fleet, the rest after the way back.
    fleet.server.rally.settings(|settings| settings.latency = std::time::Duration::from_millis(100));
    let worker = fleet.worker(0);
    fleet.server.rally.wait_until("some of them", |world| world.changesets().len() > 70);
    drop(worker);
    assert!(fleet.server.changesets().len() < 120, "some are left for the way back");
    fleet.server.rally.settings(|settings| settings.latency = std::time::Duration::ZERO);
    wait_for("leases to end", || {
        fleet.postgres.sql("SELECT count(*) FROM destination WHERE lease_until > now_ms()") == "0"
    });
    fleet.configure(0, None);
    fleet.run(0, &["deliver"]);
    wait_for("all to be delivered", || fleet.run_in(0, 0, &["deliver", "--wait"]).success);
    let all: Vec<&str> = revisions.iter().map(String::as_str).collect();
    fleet.wait_for_delivery(&all, &[0]);
    let status: Value =
        serde_json::from_str(&fleet.run_in(0, 0, &["status", "--json"]).succeeds().stdout).expect("JSON");
    assert_eq!((&status["pending"], &status["failed"]), (&Value::from(0), &Value::from(0)));
}

#[test]
fn a_restore_from_before_is_noticed_and_what_it_lost_is_forwarded_again() {
    let Some(fleet) = Fleet::new(2, 3, SHORT) else { return };
    let first = fleet.commit("US1");
    fleet.push(&first, &[0, 1], &ALL);
    wait_until_forwarded(&fleet, &[0, 1]);
    let yesterday = fleet.postgres.dump();
    {
        let _worker = fleet.worker(0);
        let second = fleet.commit("US2");
        fleet.push(&second, &[0], &ALL);
        fleet.wait_for_delivery(&[&first, &second], &ALL);
        let third = fleet.commit("US3");
        fleet.push(&third, &[1], &ALL);
        wait_until_forwarded(&fleet, &[1]);
        fleet.postgres.restore(&yesterday);
        let _other = fleet.worker(1);
        fleet.wait_for_delivery(&[&first, &second, &third], &ALL);
        wait_for("the ledger to have all again", || {
            fleet.postgres.sql("SELECT count(*) FROM changeset WHERE state IN ('delivered', 'existed')") == "9"
        });
    }
    fleet.assert_delivered(&[&first, &head(&fleet, 1), &head(&fleet, 0)], &ALL);
}

#[test]
fn a_repository_in_which_nothing_waits_is_not_written_to_at_each_look() {
    let Some(fleet) = Fleet::new(1, 2, SHORT) else { return };
    let first = fleet.commit("US1");
    fleet.push(&first, &[0], &[0, 1]);
    wait_until_forwarded(&fleet, &[0]);
    let [idle, busy] = [0, 1].map(|number| fleet.hosts[0].git_dirs[number].clone());
    let written = || {
        let files = ["queue.db", "queue.db-wal"].map(|name| idle.join("rally-hook").join(name));
        files.map(|file| std::fs::metadata(file).and_then(|meta| meta.modified()).ok())
    };
    // Without a hook, a commit takes the worker two looks at least.
    let looks = |number: usize| {
        let missed = fleet.commit(&format!("US{number}"));
        let clone = fleet.clone.path.display().to_string();
        git(&busy, &["fetch", "--quiet", &clone, &format!("{missed}:refs/heads/main")]);
        fleet.server.rally.wait_until("what no hook saw", |world| world.changesets().len() == number + 1);
    };
    let _worker = fleet.worker(0);
    looks(2);
    let before = written();
    looks(3);
    assert_eq!(written(), before);
}

/// Returns the commit so many before the clone's last one.
fn head(fleet: &Fleet, before: usize) -> String {
    fleet.clone.git(&["rev-parse", &format!("HEAD~{before}")]).trim().to_owned()
}

#[test]
fn pgbouncer_may_give_each_transaction_another_connection() {
    let Some(fleet) = Fleet::new(2, 3, SHORT) else { return };
    let Some(bouncer) = PgBouncer::start(&fleet.postgres) else { return };
    fleet.configure_all(Some(&bouncer.url()));
    let _workers = [fleet.worker(0), fleet.worker(1)];
    let revisions = [1, 2, 3].map(|number| {
        let revision = fleet.commit(&format!("US{number}"));
        fleet.push(&revision, &[0, 1], &ALL);
        revision
    });
    fleet.wait_for_delivery(&revisions.each_ref().map(String::as_str), &ALL);
}

#[test]
fn dead_letters_of_the_ledger_are_shown_retried_and_forgotten_from_any_server() {
    let Some(fleet) = Fleet::new(2, 1, SHORT) else { return };
    fleet.server.fail_all_with("/changeset/create", "US1", errors("Validation error: Changeset.Message is not for us"));
    fleet.server.fail_all_with("/batch", "US1", errors("Validation error: Changeset.Message is not for us"));
    let first = fleet.commit("US1");
    fleet.push(&first, &[0], &[0]);
    wait_until_forwarded(&fleet, &[0]);
    fleet.run(0, &["deliver"]).fails_with(1);
    let ran = fleet.run_in(1, 0, &["status"]).fails_with(1);
    assert!(ran.stdout.contains("failed     1") && ran.stdout.contains(&first), "{ran:?}");
    fleet.server.rally.clear_faults();
    fleet.run_in(1, 0, &["retry", &first[..8]]).succeeds();
    fleet.assert_delivered(&[&first], &[0]);
}

#[test]
fn no_secret_is_in_the_database() {
    let Some(fleet) = Fleet::new(1, 1, SHORT) else { return };
    let revision = fleet.commit("US1");
    fleet.push(&revision, &[0], &[0]);
    wait_until_forwarded(&fleet, &[0]);
    fleet.run(0, &["deliver"]);
    fleet.wait_for_delivery(&[&revision], &[0]);
    let dump = fleet.postgres.dump();
    let key = std::fs::read_to_string(fleet.server.git_dir.join("api-key")).expect("the key");
    assert!(dump.contains(&revision) && !dump.contains(key.trim()), "the key is in the dump");
}

#[test]
fn the_fleet_is_shown_to_people_to_programs_and_to_prometheus() {
    let Some(fleet) = Fleet::new(2, 2, SHORT) else { return };
    let revision = fleet.commit("US1");
    fleet.push(&revision, &[0, 1], &[0, 1]);
    wait_until_forwarded(&fleet, &[0, 1]);
    let fleet_status = fleet.status();
    assert_eq!((&fleet_status["pending"], &fleet_status["schema"]), (&Value::from(2), &Value::from(1)));
    let worker = fleet.worker(0);
    fleet.wait_for_delivery(&[&revision], &[0, 1]);
    wait_for("the ledger to know", || {
        fleet.status()["delivered"] == 2 && fleet.status()["workers"].as_array().is_some_and(|all| all.len() == 1)
    });
    let text = ran(fleet.plain(0, &["status", "--fleet"])).succeeds().stdout;
    assert!(text.contains("repo1 (Acme)") && text.contains("a worker of version"), "{text}");
    let figures = ran(fleet.plain(0, &["status", "--fleet", "--prometheus"])).succeeds().stdout;
    assert!(
        figures.contains("rally_hook_fleet_delivered_total{repository=\"repo0\",workspace=\"Acme\",server="),
        "{figures}"
    );
    let alerts = include_str!("../../examples/prometheus-fleet-alerts.yml");
    let used =
        alerts.split(|c: char| !c.is_ascii_lowercase() && c != '_').filter(|name| name.starts_with("rally_hook_"));
    let unknown: Vec<&str> = used.filter(|name| !figures.contains(&format!("# TYPE {name} "))).collect();
    assert!(unknown.is_empty(), "{unknown:?}");
    worker.end();
    assert_eq!(fleet.status()["workers"], Value::Array(Vec::new()), "it has signed off");
}

#[test]
fn a_newer_ledger_and_one_without_tables_are_refused_with_what_to_do() {
    let Some(fleet) = Fleet::without_hook(1, 1, SHORT, "") else { return };
    let ran = ran(fleet.plain(0, &["status", "--fleet"])).fails_with(1);
    assert!(ran.stderr.contains("is no ledger yet; run `rally-hook store migrate`"), "{ran:?}");
    fleet.migrate();
    fleet.migrate();
    fleet.postgres.sql("UPDATE meta SET value = '99' WHERE key = 'version'");
    let ran = crate::support::ran(fleet.plain(0, &["status", "--fleet"])).fails_with(1);
    assert!(ran.stderr.contains("newer rally-hook (version 99"), "{ran:?}");
}

#[test]
fn the_doctor_looks_at_the_ledger() {
    let Some(fleet) = Fleet::new(2, 1, SHORT) else { return };
    let revision = fleet.commit("US1");
    fleet.push(&revision, &[0, 1], &[0]);
    wait_until_forwarded(&fleet, &[0, 1]);
    let ran = fleet.run_in(0, 0, &["doctor"]);
    assert!(ran.stdout.contains("no worker delivers from it"), "{ran:?}");
    let _worker = fleet.worker(1);
    wait_for("the worker", || fleet.status()["workers"].as_array().is_some_and(|workers| !workers.is_empty()));
    let ran = fleet.run_in(0, 0, &["doctor"]);
    assert!(ran.stdout.contains("2 repositories of the fleet so far forward to repo0"), "{ran:?}");
    fleet.postgres.sql("REVOKE UPDATE ON changeset FROM rally_hook");
    let ran = fleet.run_in(0, 0, &["doctor"]);
    assert!(ran.stdout.contains("this role may not use its tables"), "{ran:?}");
    fleet.postgres.sql("GRANT UPDATE ON changeset TO rally_hook; ALTER DATABASE ledger SET synchronous_commit = off");
    let ran = fleet.run_in(0, 0, &["doctor"]);
    assert!(ran.stdout.contains("synchronous_commit is off"), "{ran:?}");
}

#[test]
fn a_repository_may_not_name_a_ledger_of_its_own() {
    let Some(fleet) = Fleet::without_hook(1, 1, SHORT, "") else { return };
    let file = fleet.hosts[0].git_dirs[0].join("rally-hook.toml");
    std::fs::write(&file, "queue.store = \"postgres://elsewhere.example/ledger\"").expect("it can be written");
    let mut status = crate::support::hermetic(crate::support::program());
    status.args(["config", "--repo"]).arg(&fleet.hosts[0].git_dirs[0]);
    let ran = ran(status).fails_with(2);
    assert!(ran.stderr.contains("does not say where state lies"), "{ran:?}");
}

#[test]
fn another_server_of_rally_has_workers_of_its_own() {
    let Some(fleet) = Fleet::new(2, 1, SHORT) else { return };
    let revision = fleet.commit("US1");
    fleet.push(&revision, &[0], &[0]);
    wait_until_forwarded(&fleet, &[0]);
    // A worker for another server leaves it alone, and does not count as one.
    let config = std::fs::read_to_string(&fleet.hosts[1].config).expect("it is there");
    let other = config.replace(&fleet.server.rally.url(), "http://127.0.0.1:9");
    fleet.server.write_private("host1.toml", &other);
    let _worker = fleet.worker(1);
    wait_for("the worker", || fleet.status()["workers"].as_array().is_some_and(|workers| !workers.is_empty()));
    let ran = fleet.run_in(0, 0, &["status"]).fails_with(1);
    assert!(ran.stdout.contains("no process is at work on it"), "{ran:?}");
    fleet.server.rally.wait_for_quiet();
    assert!(fleet.server.changesets().is_empty());
}

#[test]
fn one_outage_is_found_out_by_one_worker_and_not_by_each_repository() {
    let Some(fleet) = Fleet::new(1, 8, SHORT) else { return };
    let all: Vec<usize> = (0..8).collect();
    let revision = fleet.commit("US1");
    fleet.push(&revision, &[0], &all);
    wait_until_forwarded(&fleet, &[0]);
    fleet.server.fail_all(status(503));
    let _worker = fleet.worker(0);
    wait_for("the outage to be known", || fleet.postgres.sql("SELECT count(*) FROM pause") == "1");
    // Eight lanes may begin at once; from then on there is one request for each attempt.
    let attempts = || {
        let sql = "SELECT coalesce(max((json::json->>'attempts')::int), 0) FROM pause";
        fleet.postgres.sql(sql).parse::<usize>().expect("a number")
    };
    wait_for("some probes", || attempts() >= 4);
    let attempts = attempts();
    let requests = fleet.server.rally.requests().len();
    assert!(requests <= 8 * 2 + attempts, "{attempts} attempts, {requests} requests");
    fleet.server.rally.clear_faults();
    fleet.wait_for_delivery(&[&revision], &all);
}

#[test]
fn a_message_that_is_edited_or_withdrawn_before_it_is_posted_counts_as_it_is_now() {
    let Some(fleet) = Fleet::new(1, 1, SHORT) else { return };
    let Some(svn) = crate::support::subversion::Subversion::without_hooks("payments") else { return };
    svn.configure(&format!("{}store = {:?}\n", crate::support::DELIVER_LATER, fleet.postgres.url()));
    let named = svn.git_dir.join("rally-hook.toml");
    let config = std::fs::read_to_string(&named).expect("it is there");
    std::fs::remove_file(&named).expect("it is there");
    let config = svn.write_private("fleet.toml", &config);
    let run = |arguments: &[&str]| {
        let mut command = svn.command(arguments);
        command.arg("--config").arg(&config);
        ran(command)
    };
    run(&["install"]).succeeds();
    let edited = svn.commit("US1: first", &["mkdir", "trunk/a"]);
    let withdrawn = svn.commit("US2: not meant", &["mkdir", "trunk/b"]);
    svn.fail_all(status(503));
    let _ = run(&["deliver"]);
    assert_eq!(fleet.postgres.sql("SELECT count(*) FROM changeset WHERE state = 'pending'"), "2");
    svn.rally.clear_faults();
    svn.set_revision_property(edited, "svn:log", "US3: edited");
    svn.set_revision_property(withdrawn, "svn:log", "nothing");
    run(&["deliver", "--wait"]).succeeds();
    let held = svn.changesets();
    assert_eq!(held.len(), 1, "{held:?}");
    assert_eq!(held[0].artifacts, ["US3"]);
}

#[test]
fn a_worker_without_repositories_delivers_for_other_servers() {
    let Some(fleet) = Fleet::new(1, 2, SHORT) else { return };
    let revision = fleet.commit("US1");
    fleet.push(&revision, &[0], &[0, 1]);
    wait_until_forwarded(&fleet, &[0]);
    let worker = Service::start(fleet.plain(0, &["worker"]));
    fleet.wait_for_delivery(&[&revision], &[0, 1]);
    worker.end();
    let without = fleet.server.write_private("without.toml", "[rally]\nworkspace = \"Acme\"\n");
    let mut command = crate::support::hermetic(crate::support::program());
    command.args(["worker", "--config"]).arg(without);
    let ran = ran(command).fails_with(2);
    assert!(ran.stderr.contains("names no ledger"), "{ran:?}");
}

#[test]
fn what_is_forwarded_again_and_queued_at_the_same_time_blocks_nothing() {
    let Some(fleet) = Fleet::new(1, 1, SHORT) else { return };
    let empty = fleet.postgres.dump();
    let first = fleet.commit("US1");
    fleet.push(&first, &[0], &[0]);
    wait_until_forwarded(&fleet, &[0]);
    fleet.run(0, &["deliver"]);
    fleet.wait_for_delivery(&[&first], &[0]);
    fleet.postgres.restore(&empty);
    // It queues what is kept as forwarded too.
    fleet.run_in(0, 0, &["backfill", "--all"]);
    let second = fleet.commit("US2");
    fleet.push(&second, &[0], &[0]);
    wait_for("all to be delivered", || fleet.run_in(0, 0, &["deliver", "--wait"]).success);
    fleet.wait_for_delivery(&[&first, &second], &[0]);
}

#[test]
fn a_copy_of_a_repository_leaves_to_it_what_it_has_forwarded() {
    let Some(fleet) = Fleet::new(1, 1, SHORT) else { return };
    let revision = fleet.commit("US1");
    fleet.push(&revision, &[0], &[0]);
    wait_until_forwarded(&fleet, &[0]);
    fleet.run(0, &["deliver"]);
    fleet.wait_for_delivery(&[&revision], &[0]);
    let copy = fleet.hosts[0].root.join("copy.git");
    let mut cp = crate::support::hermetic("cp");
    cp.arg("-a").arg(&fleet.hosts[0].git_dirs[0]).arg(&copy);
    ran(cp).succeeds();
    fleet.run(0, &["deliver"]);
    fleet.assert_delivered(&[&revision], &[0]);
    assert_eq!(fleet.postgres.sql("SELECT count(*) FROM meta WHERE key = 'blocked'"), "0", "nothing was lost");
}

#[test]
fn a_state_that_a_person_has_set_back_is_not_set_again_on_the_way_back() {
    let Some(fleet) = Fleet::without_hook(1, 1, SHORT, "[state]\nupdate = true\n") else { return };
    fleet.migrate();
    fleet.install();
    let first = fleet.commit("US3 Completed");
    fleet.push(&first, &[0], &[0]);
    wait_until_forwarded(&fleet, &[0]);
    fleet.run(0, &["deliver"]);
    fleet.wait_for_delivery(&[&first], &[0]);
    let is_set = || fleet.postgres.sql("SELECT count(*) FROM state_request WHERE done") == "1";
    wait_for("the state to be set", || {
        fleet.run(0, &["deliver"]);
        is_set()
    });
    // That was some time ago.
    let database = fleet.hosts[0].git_dirs[0].join("rally-hook/queue.db");
    let queue = rusqlite::Connection::open(database).expect("a database");
    queue.execute_batch("UPDATE forwarded SET at = at - 7200000").expect("it can be changed");
    fleet.server.rally.clear_requests();
    fleet.configure(0, None);
    fleet.run_in(0, 0, &["deliver", "--wait"]).succeeds();
    let updates = fleet.server.rally.requests();
    assert!(updates.iter().all(|request| !request.path.contains("hierarchicalrequirement/")), "{updates:?}");
    fleet.assert_delivered(&[&first], &[0]);
}

#[test]
fn a_row_that_cannot_be_understood_becomes_a_dead_letter_and_holds_up_no_others() {
    let Some(fleet) = Fleet::new(1, 1, SHORT) else { return };
    let odd = fleet.commit("US1: odd");
    let fine = fleet.commit("US2: fine");
    fleet.push(&fine, &[0], &[0]);
    wait_until_forwarded(&fleet, &[0]);
    fleet.postgres.sql(&format!(
        "UPDATE facts SET json = '{{}}' FROM changeset WHERE changeset.id = changeset AND revision = '{odd}'"
    ));
    let ran = fleet.run_in(0, 0, &["deliver"]);
    assert!(ran.stderr.contains("1 dead letter"), "{ran:?}");
    fleet.assert_delivered(&[&fine], &[0]);
    let status = fleet.run_in(0, 0, &["status"]).fails_with(1);
    assert!(status.stdout.contains("does not understand"), "{status:?}");
}

#[test]
fn a_worker_notices_that_an_idle_repository_has_no_ledger_any_more() {
    let Some(fleet) = Fleet::new(1, 1, SHORT) else { return };
    fleet.server.fail_all(status(503));
    let revision = fleet.commit("US1");
    fleet.push(&revision, &[0], &[0]);
    wait_until_forwarded(&fleet, &[0]);
    wait_for("the hook's process to end", || deliverers(&fleet.hosts[0].git_dirs[0]).is_empty());
    let _worker = fleet.worker(0);
    fleet.server.rally.wait_for_requests("the worker to deliver", |requests| !requests.is_empty());
    fleet.postgres.down();
    fleet.server.rally.clear_faults();
    fleet.configure(0, None);
    fleet.wait_for_delivery(&[&revision], &[0]);
}

#[test]
fn settings_that_cannot_be_understood_hold_up_no_other_repository() {
    let Some(fleet) = Fleet::new(1, 1, SHORT) else { return };
    let revision = fleet.commit("US1");
    fleet.push(&revision, &[0], &[0]);
    wait_until_forwarded(&fleet, &[0]);
    // The one that has been due longest.
    fleet.postgres.sql(
        "INSERT INTO destination (server, workspace, repository, settings, due_at) \
         SELECT server, workspace, 'odd', '5', 0 FROM destination",
    );
    let _worker = fleet.worker(0);
    fleet.wait_for_delivery(&[&revision], &[0]);
    wait_for("the other one to be named", || {
        let ran = ran(fleet.plain(0, &["status", "--fleet"]));
        !ran.success && ran.stderr.contains("a release of rally-hook that this one does not understand")
    });
}

#[test]
fn a_replaced_key_ends_the_stop_at_once_and_leaves_no_alarm() {
    let Some(fleet) = Fleet::new(1, 1, SHORT) else { return };
    let key = std::fs::read_to_string(fleet.server.git_dir.join("api-key")).expect("the key");
    fleet.server.write_private("api-key", "_nope\n");
    let _worker = fleet.worker(0);
    let revision = fleet.commit("US1");
    fleet.push(&revision, &[0], &[0]);
    wait_for("the stop", || fleet.postgres.sql("SELECT count(*) FROM pause") == "1");
    let ran = ran(fleet.plain(0, &["status", "--fleet"])).fails_with(1);
    assert!(ran.stderr.contains("delivery needs a person"), "{ran:?}");
    fleet.server.write_private("api-key", &key);
    fleet.wait_for_delivery(&[&revision], &[0]);
    wait_for("the alarm to end", || crate::support::ran(fleet.plain(0, &["status", "--fleet"])).success);
}

#[test]
fn a_password_that_could_be_shown_by_mistake_is_refused() {
    let Some(fleet) = Fleet::without_hook(1, 1, SHORT, "") else { return };
    for password in ["a@canary", "canary/b", "canary?b"] {
        fleet.configure(0, Some(&format!("postgres://u:{password}@127.0.0.1:1/ledger")));
        let ran = ran(fleet.plain(0, &["status", "--fleet"])).fails_with(2);
        assert!(ran.stderr.contains("percent-encoded") && !ran.stderr.contains("canary"), "{ran:?}");
    }
    fleet.configure(0, Some("postgres://u:canary@127.0.0.1:1/ledger"));
    let ran = ran(fleet.plain(0, &["status", "--fleet"])).fails_with(1);
    assert!(ran.stderr.contains("127.0.0.1:1/ledger") && !ran.stderr.contains("canary"), "{ran:?}");
}

#[test]
fn a_database_that_takes_nothing_more_is_told_and_caught_up_with() {
    let Some(fleet) = Fleet::new(1, 1, SHORT) else { return };
    // As one that is full: it answers, and refuses to write.
    fleet.postgres.sql("ALTER ROLE rally_hook SET default_transaction_read_only = on");
    let revision = fleet.commit("US1");
    fleet.push(&revision, &[0], &[0]);
    wait_for("status to say so", || {
        let ran = fleet.run_in(0, 0, &["status"]);
        ran.stdout.contains("1 commit not forwarded") && ran.stdout.contains("read-only transaction")
    });
    fleet.postgres.sql("ALTER ROLE rally_hook RESET default_transaction_read_only");
    let _worker = fleet.worker(0);
    fleet.wait_for_delivery(&[&revision], &[0]);
}

/// A commit was forwarded, and its first attempt failed long ago; then the database, or all workers, were away until now.
fn with_an_old_attempt() -> Option<(Fleet, String)> {
    let fleet = Fleet::new(1, 1, SHORT)?;
    let revision = fleet.commit("US1");
    fleet.push(&revision, &[0], &[0]);
    wait_until_forwarded(&fleet, &[0]);
    let server = fleet.server.rally.url();
    fleet.postgres.sql(&format!(
        "UPDATE changeset SET attempts = 1, first_attempt = now_ms() - 864000000, entered_at = now_ms() - 864000000; \
         INSERT INTO meta VALUES ('alive {server}', (now_ms() - 860000000)::text)"
    ));
    fleet.server.fail_next_at("POST", "/batch", status(500));
    fleet.server.fail_next_at("POST", "/changeset/create", status(500));
    Some((fleet, revision))
}

#[test]
fn time_in_which_nobody_could_try_does_not_count() {
    let Some((fleet, revision)) = with_an_old_attempt() else { return };
    let _worker = fleet.worker(0);
    fleet.wait_for_delivery(&[&revision], &[0]);
    assert_eq!(fleet.status()["failed"], 0);
}

#[test]
fn time_in_which_nobody_could_try_does_not_count_where_a_person_delivers() {
    let Some((fleet, revision)) = with_an_old_attempt() else { return };
    fleet.run_in(0, 0, &["deliver", "--wait"]).succeeds();
    fleet.assert_delivered(&[&revision], &[0]);
}
