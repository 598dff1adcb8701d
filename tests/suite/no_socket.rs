//! A push does not wait for Rally, nor for anything that the hook starts; shown by order, not by time.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::process::{Child, Stdio};

use rally_simulator::Action;

use crate::support::fault::status;
use crate::support::process::{deliverers, kill, kill_by_id, kill_group, signal_group, wait_for};
use crate::support::{Clone, Server, expected, hermetic};

#[test]
fn a_push_returns_while_rally_still_holds_the_request() {
    let server = Server::new();
    server.write_configuration(server.configuration().rally("timeout = \"60s\""));
    server.fail_all(Action::Hang);
    let clone = server.new_clone();
    for round in 0..3 {
        // Git waits for everything that holds the hook's output: the deliverer, which now hangs, does not.
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

#[test]
fn the_deliverer_holds_nothing_of_the_push_and_has_a_session_of_its_own() {
    let server = Server::new();
    server.write_configuration(server.configuration().rally("timeout = \"60s\""));
    server.fail_all(Action::Hang);
    server.new_clone().push_commits(&["US1"]);
    server.rally.wait_for_requests("the deliverer", |requests| !requests.is_empty());
    let found = deliverers(&server.git_dir);
    assert_eq!(found.len(), 1);
    let pid = found[0];
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
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).expect("it lives");
    let session = stat.rsplit(')').next().and_then(|rest| rest.split_whitespace().nth(3)).expect("the sixth field");
    assert_eq!(session, pid.to_string());
    kill_by_id(pid);
}

#[test]
fn the_hook_itself_talks_to_nobody() {
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

/// Starts a push whose hook waits in a hook that runs first, until the file `go` is there.
fn push_that_waits(server: &Server, clone: &Clone) -> Child {
    let first = server.git_dir.join("hooks/post-receive.before-rally-hook");
    fs::write(&first, "#!/bin/sh\ntouch started\nwhile ! test -e go; do sleep 0.01; done\n").expect("it is new");
    fs::set_permissions(&first, fs::Permissions::from_mode(0o755)).expect("modes can be set");
    server.run(&["install"]).succeeds();
    let mut command = hermetic("git");
    command.current_dir(&clone.path).args(["push", "--quiet", "origin", "main"]).process_group(0);
    let child = command.stderr(Stdio::null()).spawn().expect("git can be run");
    wait_for("the hook", || server.git_dir.join("started").exists());
    child
}

#[test]
fn a_client_killed_during_the_hook_loses_nothing() {
    let server = Server::delivering_later("");
    let clone = server.new_clone();
    clone.commit("US1", &[("a", Some("1"))]);
    let push = push_that_waits(&server, &clone);
    // What was pushed is on disk before anything else runs.
    assert_eq!(server.status()["unread_pushes"], 1);
    kill(push);
    fs::write(server.git_dir.join("go"), "").expect("it is new");
    wait_for("the hook's record", || server.count("recorded") == 1);
    server.deliver_all();
    server.assert_rally_holds(&expected(&server.git_dir, &["main"]));
}

#[test]
fn a_session_that_ends_with_the_hook_loses_nothing() {
    let server = Server::delivering_later("");
    let clone = server.new_clone();
    clone.commit("US1", &[("a", Some("1"))]);
    let push = push_that_waits(&server, &clone);
    // As a host does that ends the whole process group.
    kill_group(push);
    fs::write(server.git_dir.join("go"), "").expect("it is new");
    server.deliver_all();
    server.assert_rally_holds(&expected(&server.git_dir, &["main"]));
}

#[test]
fn a_terminal_that_hangs_up_ends_no_hook() {
    let server = Server::delivering_later("");
    let clone = server.new_clone();
    clone.commit("US1", &[("a", Some("1"))]);
    let mut push = push_that_waits(&server, &clone);
    signal_group(&push, libc::SIGHUP);
    assert!(!push.wait().expect("it was ours").success(), "the push itself is ended by it");
    fs::write(server.git_dir.join("go"), "").expect("it is new");
    wait_for("the hook's record", || server.count("recorded") == 1);
}

#[test]
fn odd_input_does_no_harm() {
    let server = Server::delivering_later("");
    let update = server.import("refs/heads/main", &["US1"]);
    let line = update.trim_end();
    let long = format!("{} {} refs/heads/{}\n", "0".repeat(40), "1".repeat(40), "x".repeat(10_000));
    let odd: [&[u8]; 6] =
        [b"", b"\n", b"no ref update\n", b"\xff\xfe\0 x y\n", long.as_bytes(), &line.as_bytes()[..60]];
    for input in odd {
        let ran = server.run_hook(input).succeeds();
        assert!(!ran.stderr.contains("fault of its own"), "{ran:?}");
        server.assert_counts_add_up();
    }
    // Without its last line break, with one of another system, and twice.
    for input in [line.to_owned(), format!("{line}\r\n"), update.clone()] {
        server.run_hook(input.as_bytes()).succeeds();
    }
    server.deliver_all();
    server.assert_rally_holds(&expected(&server.git_dir, &["main"]));
}

#[test]
fn a_pusher_who_does_not_listen_stops_no_hook() {
    let server = Server::delivering_later("");
    let update = server.import("refs/heads/main", &["US1"]);
    let mut command = server.hook_command();
    command.stdin(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().expect("the program can be run");
    drop(child.stderr.take());
    let mut stdin = child.stdin.take().expect("a pipe");
    std::io::Write::write_all(&mut stdin, update.as_bytes()).expect("the hook reads");
    drop(stdin);
    assert!(child.wait().expect("it was ours").success());
    assert_eq!(server.count("recorded"), 1);
}
