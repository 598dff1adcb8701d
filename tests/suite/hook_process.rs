//! The processes of a push: it waits neither for Rally nor for the background delivery, and may be killed.
//!
//! The order of events shows it, not how long they take.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::process::{Child, Stdio};

use rally_simulator::Action;

use crate::support::fault::status;
use crate::support::process::{deliverers, interruptible, kill, kill_by_id, kill_group, signal_group, wait_for};
use crate::support::{Clone, Server, expected, hermetic};

#[test]
fn a_push_returns_while_a_request_to_rally_hangs() {
    let server = Server::new();
    server.write_configuration(server.configuration().rally("timeout = \"60s\""));
    server.fail_all(Action::Hang);
    let clone = server.new_clone();
    for round in 0..3 {
        // Git waits until the hook's output is closed; the background delivery, which hangs, does not hold it.
        clone.push_commits(&[&format!("US1: round {round}")]);
    }
    server.rally.wait_for_requests("the deliverer", |requests| !requests.is_empty());
    assert_eq!(server.rally.requests().len(), 1, "it still waits for its first answer");
    assert_eq!(server.count("pending"), 3);
    server.assert_counts_add_up();
    for pid in deliverers(&server.git_dir) {
        kill_by_id(pid);
    }
    server.rally.clear_faults();
    server.deliver_all();
    server.assert_rally_holds(&expected(&server.git_dir, &["main"]));
}

/// Sets up a server whose background delivery hangs, and returns that process.
fn with_hanging_delivery() -> (Server, i32) {
    let server = Server::new();
    server.write_configuration(server.configuration().rally("timeout = \"60s\""));
    server.fail_all(Action::Hang);
    server.new_clone().push_commits(&["US1"]);
    server.rally.wait_for_requests("the deliverer", |requests| !requests.is_empty());
    let found = deliverers(&server.git_dir);
    assert_eq!(found.len(), 1);
    (server, found[0])
}

#[test]
fn the_background_delivery_keeps_no_file_of_the_push_open() {
    let (server, pid) = with_hanging_delivery();
    for number in 0..=2 {
        let target = fs::read_link(format!("/proc/{pid}/fd/{number}")).expect("it is open");
        assert_eq!(target.to_str(), Some("/dev/null"));
    }
    for entry in fs::read_dir(format!("/proc/{pid}/fd")).expect("it lives").flatten() {
        let target = fs::read_link(entry.path()).unwrap_or_default();
        let ours = server.git_dir.canonicalize().expect("it is there");
        let target = target.to_string_lossy().into_owned();
        let expected = ["/dev/null", "socket:", "anon_inode:", "pipe:"].iter().any(|kind| target.starts_with(kind));
        assert!(expected || target.starts_with(&*ours.to_string_lossy()), "{target}");
    }
    kill_by_id(pid);
}

#[test]
fn the_background_delivery_has_a_session_of_its_own() {
    let (_server, pid) = with_hanging_delivery();
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).expect("it lives");
    let session = stat.rsplit(')').next().and_then(|rest| rest.split_whitespace().nth(3)).expect("the sixth field");
    assert_eq!(session, pid.to_string());
    kill_by_id(pid);
}

#[test]
fn the_hook_itself_sends_no_request() {
    let server = Server::delivering_later("");
    let clone = server.new_clone();
    let seen = clone.push_commits(&["US1", "DE2"]);
    assert!(seen.contains("2 commits queued"), "{seen}");
    assert!(server.rally.requests().is_empty());
    assert!(deliverers(&server.git_dir).is_empty());
}

#[test]
fn a_push_succeeds_whatever_rally_answers() {
    for action in [Action::CutBefore, Action::Garbage, status(500), status(401)] {
        let server = Server::new();
        server.fail_all(action);
        let clone = server.new_clone();
        clone.push_commits(&["US1"]);
        clone.push_commits(&["DE2"]);
        server.assert_counts_add_up();
        assert_eq!(server.count("pending"), 2);
        server.rally.clear_faults();
        server.deliver_all();
        server.assert_rally_holds(&expected(&server.git_dir, &["main"]));
    }
}

/// Starts a push whose hook first runs another one, which waits until the file `go` is there.
fn push_that_waits(server: &Server, clone: &Clone) -> Child {
    let first = server.git_dir.join("hooks/post-receive.before-rally-hook");
    fs::write(&first, "#!/bin/sh\ntouch started\nwhile ! test -e go; do sleep 0.01; done\n").expect("it is new");
    fs::set_permissions(&first, fs::Permissions::from_mode(0o755)).expect("modes can be set");
    server.run(&["install"]).succeeds();
    let mut command = interruptible(hermetic("git"));
    command.current_dir(&clone.path).args(["push", "--quiet", "origin", "main"]).process_group(0);
    let child = command.stderr(Stdio::null()).spawn().expect("git can be run");
    wait_for("the hook", || server.git_dir.join("started").exists());
    child
}

#[test]
fn a_push_killed_during_the_hook_is_recorded() {
    let server = Server::delivering_later("");
    let clone = server.new_clone();
    clone.commit("US1", &[("a", Some("1"))]);
    let push = push_that_waits(&server, &clone);
    // The push is on disk before the other hook runs.
    assert_eq!(server.status()["unread_pushes"], 1);
    kill(push);
    fs::write(server.git_dir.join("go"), "").expect("it is new");
    wait_for("the hook's record", || server.count("recorded") == 1);
    server.deliver_all();
    server.assert_rally_holds(&expected(&server.git_dir, &["main"]));
}

#[test]
fn a_push_is_recorded_although_its_process_group_is_killed() {
    let server = Server::delivering_later("");
    let clone = server.new_clone();
    clone.commit("US1", &[("a", Some("1"))]);
    let push = push_that_waits(&server, &clone);
    // Some Git hosts end the whole process group.
    kill_group(push);
    fs::write(server.git_dir.join("go"), "").expect("it is new");
    server.deliver_all();
    server.assert_rally_holds(&expected(&server.git_dir, &["main"]));
}

#[test]
fn the_hook_survives_a_hangup_of_the_terminal() {
    let server = Server::delivering_later("");
    let clone = server.new_clone();
    clone.commit("US1", &[("a", Some("1"))]);
    let mut push = push_that_waits(&server, &clone);
    signal_group(&push, libc::SIGHUP);
    assert!(!push.wait().expect("it was ours").success(), "the push itself is ended by it");
    fs::write(server.git_dir.join("go"), "").expect("it is new");
    wait_for("the hook's record", || server.count("recorded") == 1);
}
