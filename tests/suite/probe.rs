//! `doctor --probe` finds out what a Rally does, and leaves nothing behind.

use std::process::Stdio;
use std::time::Duration;

use rally_simulator::{Action, Batch};

use crate::support::fault::{errors, status};
use crate::support::{Ran, Server};

fn probe(server: &Server) -> Ran {
    server.run(&["doctor", "--probe"])
}

/// Returns what the probe says about a subject.
fn finding(ran: &Ran, subject: &str) -> String {
    let found = ran.stdout.lines().rfind(|line| line[6..].starts_with(subject));
    found.unwrap_or_else(|| panic!("nothing about {subject}: {ran:?}")).to_owned()
}

fn assert_nothing_is_left(server: &Server) {
    server.rally.world(|world| {
        assert_eq!(world.repositories(), []);
        assert_eq!(world.changesets(), []);
    });
}

#[test]
fn a_probe_tells_each_fact_and_leaves_nothing_behind() {
    let server = Server::new();
    let ran = probe(&server).succeeds();
    let subjects =
        ["SCMRepository", "Branch", "read_lag", "markup", "long message", "side by side", "batch", "long query"];
    for subject in subjects {
        finding(&ran, subject);
    }
    assert!(finding(&ran, "long message").contains("Rally holds 4000"), "{ran:?}");
    assert!(finding(&ran, "clean-up").contains("deleted all 7 objects"), "{ran:?}");
    assert_nothing_is_left(&server);
}

#[test]
fn a_probe_touches_nothing_that_it_did_not_make() {
    let server = Server::delivering_later("");
    server.new_clone().push_commits(&["US1: stays"]);
    server.deliver_all();
    let held = |server: &Server| server.rally.world(|world| (world.repositories(), world.changesets()));
    let before = held(&server);
    probe(&server).succeeds();
    assert_eq!(held(&server), before);
}

#[test]
fn without_probe_doctor_makes_nothing() {
    let server = Server::new();
    server.run(&["doctor"]).succeeds();
    assert!(!server.was_asked("POST", "/scmrepository/create") && !server.was_asked("DELETE", "/"));
}

#[test]
fn a_probe_names_the_settings_that_follow() {
    let server = Server::new();
    server.rally.settings(|settings| {
        settings.knows_branch = false;
        settings.batch = Batch::Missing;
    });
    let ran = probe(&server).succeeds();
    assert!(finding(&ran, "Branch").starts_with("note  Branch         not taken"), "{ran:?}");
    assert!(finding(&ran, "batch").contains("set rally.batch to \"off\""), "{ran:?}");
    assert_nothing_is_left(&server);
}

#[test]
fn a_read_lag_that_is_set_too_short_is_wrong() {
    let server = Server::new();
    server.rally.settings(|settings| settings.read_lag = Duration::from_millis(300));
    let ran = probe(&server).fails_with(1);
    let lag = finding(&ran, "read_lag");
    assert!(lag.starts_with("WRONG") && lag.contains("set rally.read_lag to more"), "{ran:?}");
    assert_nothing_is_left(&server);
}

#[test]
fn a_probe_that_fails_anywhere_leaves_nothing_behind() {
    let faults = [
        ("POST", "/changeset/create", status(500)),
        ("POST", "/changeset/create", Action::CutAfter),
        ("POST", "/change/create", errors("Validation error: no")),
        ("POST", "/change/create", Action::GarbageAfter),
        ("POST", "/batch", Action::CutMidBody),
        ("POST", "/scmrepository/create", Action::CutAfter),
        ("GET", "/changeset", status(401)),
        ("DELETE", "/changeset", status(503)),
    ];
    for (method, path, action) in faults {
        let server = Server::new();
        server.fail_next_at(method, path, action.clone());
        let ran = probe(&server);
        assert!(finding(&ran, "clean-up").starts_with("ok    "), "{path} {action:?}: {ran:?}");
        assert_nothing_is_left(&server);
    }
}

#[test]
fn a_terminated_probe_leaves_nothing_behind() {
    for action in [Action::Hang, Action::HangAfter] {
        let server = Server::new();
        server.fail_next_at("POST", "/changeset/create", action);
        let mut command = server.command(&["doctor", "--probe"]);
        let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("the program can be run");
        server.rally.wait_for_requests("the Changeset", |requests| {
            requests.iter().any(|request| request.path == "/changeset/create")
        });
        // SAFETY: kill only takes numbers, and the child has not been waited for.
        assert_eq!(unsafe { libc::kill(child.id() as libc::pid_t, libc::SIGTERM) }, 0);
        let ran = Ran::from(child.wait_with_output().expect("it ends")).fails_with(1);
        assert!(finding(&ran, "clean-up").starts_with("ok    "), "{ran:?}");
        assert_nothing_is_left(&server);
    }
}

#[test]
fn what_cannot_be_deleted_is_named() {
    let server = Server::new();
    server.fail_all_at("DELETE", "/scmrepository", status(500));
    let ran = probe(&server).fails_with(1);
    let left = server.rally.world(|world| world.repositories());
    let told = finding(&ran, "clean-up");
    assert!(told.contains(&format!("/scmrepository/{}", left[0].object_id)) && told.contains(&left[0].name), "{told}");
    assert!(server.changesets().is_empty());
}
