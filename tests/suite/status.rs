//! `status` says whether a process is at work on what is queued, and fails where somebody must act.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rally_simulator::Action;

use crate::support::Server;
use crate::support::fault::status;
use crate::support::process::{deliverers, kill, kill_by_id, spawn, wait_for};

const LONG_PAUSE: &str = "[queue]\nretry_delay = \"10m\"\n";

/// Sets up a server on which a process waits for the end of a long pause.
fn with_waiting_process() -> Server {
    let server = Server::new();
    server.configure(LONG_PAUSE);
    server.fail_all(status(503));
    server.new_clone().push_commits(&["US1"]);
    wait_for("the pause", || server.status()["paused"].is_object());
    server
}

/// Kills the process that delivers in the background.
fn kill_deliverer(server: &Server) {
    let pids = deliverers(&server.git_dir);
    assert_eq!(pids.len(), 1, "one process delivers");
    kill_by_id(pids[0]);
    wait_for("the end of the process", || deliverers(&server.git_dir).is_empty());
}

#[test]
fn an_outage_with_a_process_that_waits_is_no_failure() {
    let server = with_waiting_process();
    assert_eq!(server.status()["worker"], true);
    let text = server.run(&["status"]).succeeds().stdout;
    assert!(text.contains("worker     a process waits; next attempt in "), "{text}");
    assert!(text.contains("(the next attempt is made then): "), "{text}");
}

#[test]
fn after_the_process_was_killed_status_names_the_command_and_promises_nothing() {
    let server = with_waiting_process();
    kill_deliverer(&server);
    assert_eq!(server.status()["worker"], false);
    let text = server.run(&["status"]).fails_with(1).stdout;
    let expected = "worker     no process is at work on it; run `rally-hook deliver`, the next push delivers it too";
    assert!(text.contains(expected), "{text}");
    assert!(!text.contains("next attempt") && !text.contains("by itself"), "{text}");
    let doctor = server.run(&["doctor"]).stdout;
    assert!(doctor.contains("no process is at work on it; run `rally-hook deliver`"), "{doctor}");
}

#[test]
fn a_delivery_that_waits_for_a_timer_has_no_process() {
    let server = Server::delivering_later("");
    server.new_clone().push_commits(&["US1"]);
    assert_eq!(server.status()["worker"], false);
    let text = server.run(&["status"]).fails_with(1).stdout;
    assert!(text.contains("run `rally-hook deliver`, or let a timer run it"), "{text}");
    server.deliver_all();
    server.run(&["status"]).succeeds();
}

#[test]
fn at_no_moment_after_a_push_does_it_seem_that_nobody_delivers() {
    let server = Server::new();
    server.fail_all(Action::Hang);
    server.new_clone().push_commits(&["US1"]);
    // From the end of the push, before the process has begun, until it has asked.
    loop {
        assert_eq!(server.status()["worker"], true);
        if !server.rally.requests().is_empty() {
            return;
        }
    }
}

#[test]
fn a_push_that_could_not_be_recorded_counts_as_work_that_is_left() {
    let server = Server::new();
    let good = server.read_configuration();
    server.write_configuration("[rally]\nworkspace = 5\n");
    server.new_clone().push_commits(&["US1"]);
    server.write_configuration(good);
    let text = server.run(&["status"]).fails_with(1).stdout;
    assert!(text.contains("unread     1 push") && text.contains("no process is at work on it"), "{text}");
    assert!(server.status()["oldest_pending"].is_string());
}

#[test]
fn a_person_who_waits_in_the_foreground_is_a_process_at_work() {
    let server = Server::delivering_later("");
    server.configure(&format!("{LONG_PAUSE}deliver = \"later\"\n"));
    server.new_clone().push_commits(&["US1"]);
    server.fail_all(status(503));
    let waiting = spawn(server.command(&["deliver", "--wait"]));
    wait_for("the pause", || server.status()["paused"].is_object());
    assert_eq!(server.status()["worker"], true);
    server.run(&["status"]).succeeds();
    kill(waiting);
    server.run(&["status"]).fails_with(1);
}

#[test]
fn two_that_look_do_not_take_each_other_for_the_worker() {
    let server = Server::delivering_later("");
    server.new_clone().push_commits(&["US1"]);
    server.status();
    let lock = fs::File::open(server.git_dir.join("rally-hook/background.lock")).expect("status made it");
    lock.lock_shared().expect("nobody waits");
    assert_eq!(server.status()["worker"], false);
}

#[test]
fn what_has_waited_for_too_long_fails() {
    let server = with_waiting_process();
    server.run(&["status", "--max-age", "1h"]).succeeds();
    let two_hours_ago = SystemTime::now() - Duration::from_secs(7200);
    let recorded = two_hours_ago.duration_since(UNIX_EPOCH).expect("after 1970").as_millis();
    server.change_queue(&format!("UPDATE changeset SET recorded_at = {recorded}"));
    let text = server.run(&["status", "--max-age", "1h"]).fails_with(1).stdout;
    assert!(text.contains("too old    something has waited for 2h"), "{text}");
    server.run(&["status", "--max-age", "1h", "--json"]).fails_with(1);
    server.run(&["status", "--max-age", "3h"]).succeeds();
    server.run(&["status", "--max-age", "soon"]).fails_with(2);
}

#[test]
fn refused_credentials_need_a_person_although_a_process_tries_again() {
    let server = Server::new();
    server.configure(LONG_PAUSE);
    server.write_private("api-key", "_wrong-key\n");
    server.new_clone().push_commits(&["US1"]);
    wait_for("the pause", || server.status()["paused"]["needs_person"] == true);
    let text = server.run(&["status"]).fails_with(1).stdout;
    let advice = "(fix this, then run `rally-hook deliver`, or wait for the next attempt at that time)";
    assert!(text.contains(advice), "{text}");
    kill_deliverer(&server);
    let text = server.run(&["status"]).fails_with(1).stdout;
    assert!(text.contains("(fix this, then run `rally-hook deliver`): ") && !text.contains("by itself"), "{text}");
}

#[test]
fn json_names_the_repository_and_its_hook() {
    let server = Server::new();
    let status = server.status();
    let path = server.git_dir.canonicalize().expect("it is there");
    assert_eq!(status["schema"], 1);
    assert_eq!(status["repository"], path.to_str().expect("UTF-8"));
    assert_eq!((&status["name"], &status["vcs"]), (&"payments".into(), &"git".into()));
    assert_eq!(status["hook"], "installed");
    server.disable_hook();
    assert_eq!(server.status()["hook"], "missing");
    fs::write(server.hook(), "#!/bin/sh\n").expect("a hook");
    assert_eq!(server.status()["hook"], "missing", "Git ignores it");
    fs::set_permissions(server.hook(), fs::Permissions::from_mode(0o755)).expect("a mode");
    assert_eq!(server.status()["hook"], "other");
}

#[test]
fn json_keeps_a_long_reason_whole() {
    let server = Server::delivering_later("");
    let reason = "why ".repeat(5000);
    server.change_queue(&format!(
        "INSERT INTO changeset (revision, recorded_at, next_attempt, dead, last_error) VALUES ('r', 0, 0, 1, '{reason}')"
    ));
    let status = server.status();
    assert_eq!(status["last_error"].as_str(), Some(reason.as_str()));
    assert_eq!(status["dead_letters"][0]["reason"].as_str(), Some(reason.as_str()));
}
