//! Each fault at each kind of request: nothing is lost, nothing is created twice, and the right thing follows.

use std::thread;
use std::time::Duration;

use rally_simulator::Action;

use crate::support::fault::{errors, retry_after, status};
use crate::support::{DELIVER_LATER, Server, expected};

const VALIDATION: &str = "Validation error: Changeset.Message is too long";
const CONFLICT: &str = "Concurrency conflict: [Object has been modified since being read for update in this context]";
const MESSAGES: [&str; 3] = ["US1: first", "DE2: second", "US1, TA3: third"];

/// A kind of request that delivery makes.
#[derive(Debug, Clone, Copy)]
struct Kind {
    method: &'static str,
    path: &'static str,
    of: Of,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Of {
    LookUp,
    /// Creates the SCMRepository.
    Repository,
    Write,
    Batch,
}

const KINDS: [Kind; 11] = [
    Kind { method: "GET", path: "/workspace", of: Of::LookUp },
    Kind { method: "GET", path: "/typedefinition", of: Of::LookUp },
    Kind { method: "GET", path: "/scmrepository", of: Of::LookUp },
    Kind { method: "GET", path: "/hierarchicalrequirement", of: Of::LookUp },
    Kind { method: "GET", path: "/user", of: Of::LookUp },
    Kind { method: "GET", path: "/changeset", of: Of::LookUp },
    Kind { method: "GET", path: "/change", of: Of::LookUp },
    Kind { method: "POST", path: "/scmrepository/create", of: Of::Repository },
    Kind { method: "POST", path: "/changeset/create", of: Of::Write },
    Kind { method: "POST", path: "/change/create", of: Of::Write },
    Kind { method: "POST", path: "/batch", of: Of::Batch },
];

/// What follows from a fault that lasts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Means {
    /// Delivery is retried by itself.
    Later,
    /// Delivery stops until a person acts; the status holds this text.
    Stop(&'static str),
    /// The commits become dead letters, whose reason holds this text.
    Dead(&'static str),
    /// The commits are delivered in another way.
    Nothing,
}

/// Tests a fault at each kind of request, each with a repository of its own.
fn at_each_request(action: &Action, timeout: &str, means: impl Fn(Kind) -> Means) {
    at_requests(&KINDS, action, timeout, means);
}

/// Tests a fault at one request of each sort, for faults that differ in a number only.
fn at_each_sort_of_request(action: &Action, timeout: &str, means: impl Fn(Kind) -> Means) {
    at_requests(&[KINDS[3], KINDS[7], KINDS[8], KINDS[10]], action, timeout, means);
}

fn at_requests(kinds: &[Kind], action: &Action, timeout: &str, means: impl Fn(Kind) -> Means) {
    thread::scope(|scope| {
        for &kind in kinds {
            let means = means(kind);
            scope.spawn(move || at_request(kind, action.clone(), timeout, means));
        }
    });
}

fn at_request(kind: Kind, action: Action, timeout: &str, means: Means) {
    let server = scene(kind, timeout);
    server.fail_all_at(kind.method, kind.path, action.clone());
    server.receive(&MESSAGES);
    let delivery = server.run(&["deliver"]);
    let case = format!("{action:?} at {kind:?}: {delivery:?}");
    assert!(server.was_asked(kind.method, kind.path), "{case}");
    server.assert_counts_add_up();
    assert_meaning(&server, means, &case);
    if means != Means::Nothing {
        let status = server.status();
        let said = status["last_error"].as_str().unwrap_or_default();
        assert!(said.contains(&format!("{} {}", kind.method, kind.path)), "{status} after {case}");
    }
    server.receive(&["DE4: during the fault"]);
    server.rally.clear_faults();
    if matches!(means, Means::Dead(_)) {
        server.run(&["retry", "--all"]).succeeds();
    }
    server.let_time_pass();
    server.deliver_all();
    server.assert_rally_holds(&expected(&server.git_dir, &["main"]));
    assert_eq!(server.rally.world(|world| world.repositories().len()), 1, "{case}");
    assert!(server.status()["paused"].is_null(), "{case}");
}

/// Sets up a repository whose next delivery makes this kind of request. What fails is not due again during the test.
fn scene(kind: Kind, timeout: &str) -> Server {
    let server = Server::new();
    let batch = if kind.of == Of::Batch { "auto" } else { "off" };
    let rally = format!("timeout = \"{timeout}\"\nbatch = \"{batch}\"");
    // `deliver` ends a pause, but not the wait before a look-up that would come too early.
    let delay = if kind.of == Of::Repository { "20ms" } else { "1h" };
    server.write_configuration(server.configuration().rally(&rally).sections(&DELIVER_LATER.replace("20ms", delay)));
    match kind.path {
        // Changesets are looked up only if the repository exists already.
        "/changeset" => {
            server.receive(&["US9: before"]);
            server.deliver_all();
        }
        // Changes are looked up only after a create has failed.
        "/change" => {
            server.fail_all_at("POST", "/changeset/create", Action::CutAfter);
            server.receive(&["US9: before"]);
            server.run(&["deliver"]).fails_with(1);
            server.rally.clear_faults();
            server.let_time_pass();
        }
        _ => {}
    }
    server
}

fn assert_meaning(server: &Server, means: Means, case: &str) {
    let status = server.status();
    let case = format!("{status} after {case}");
    match means {
        Means::Later => {
            assert!(status["pending"].as_i64() > Some(0) && status["failed"] == 0, "{case}");
            assert!(status["last_error"].is_string() && status["next_attempt"].is_string(), "{case}");
            assert_ne!(status["paused"]["needs_person"], true, "{case}");
        }
        Means::Stop(reason) => {
            assert!(status["pending"].as_i64() > Some(0) && status["failed"] == 0, "{case}");
            server.assert_stopped(reason);
            let seen = server.receive(&["US5: told"]).stderr;
            assert!(seen.contains("nothing has been posted since") && seen.contains(reason), "{seen} {case}");
        }
        Means::Dead(words) => {
            let letters = status["dead_letters"].as_array().expect("a list");
            assert!(!letters.is_empty(), "{case}");
            assert!(letters.iter().all(|letter| letter["reason"].as_str().unwrap_or("").contains(words)), "{case}");
            server.run(&["status"]).fails_with(1);
        }
        Means::Nothing => {
            assert!(status["pending"] == 0 && status["failed"] == 0, "{case}");
        }
    }
}

#[test]
fn a_broken_connection_is_retried() {
    for action in [Action::CutBefore, Action::CutAfter, Action::CutMidBody] {
        at_each_request(&action, "5s", |_| Means::Later);
    }
}

#[test]
fn a_request_that_times_out_is_retried() {
    for action in [Action::Hang, Action::HangAfter, Action::SlowBody(Duration::from_secs(60))] {
        at_each_request(&action, "1s", |_| Means::Later);
    }
}

#[test]
fn a_server_that_is_overloaded_or_down_is_retried() {
    at_each_request(&status(500), "5s", |_| Means::Later);
    for code in [408, 429, 502, 503, 504, 524] {
        at_each_sort_of_request(&status(code), "5s", |_| Means::Later);
    }
}

#[test]
fn a_failure_after_the_effect_creates_nothing_twice() {
    let after = |code| Action::StatusAfter { code, body: String::new() };
    for action in [after(500), after(502), after(503), Action::GarbageAfter, Action::ErrorsAfter(vec![CONFLICT.into()])]
    {
        at_each_sort_of_request(&action, "5s", |_| Means::Later);
    }
}

#[test]
fn an_answer_that_is_not_json_is_retried() {
    at_each_request(&Action::Garbage, "5s", |_| Means::Later);
}

#[test]
fn a_concurrency_conflict_is_retried() {
    at_each_request(&errors(CONFLICT), "5s", |_| Means::Later);
}

#[test]
fn a_batch_that_is_too_large_is_split_and_other_requests_are_retried() {
    at_each_request(&status(413), "5s", |kind| match kind {
        // An author whose name is too long for a question costs the author only.
        Kind { path: "/user", .. } | Kind { of: Of::Batch, .. } => Means::Nothing,
        _ => Means::Later,
    });
}

#[test]
fn a_refused_key_stops_delivery_until_a_person_acts() {
    at_each_sort_of_request(&status(401), "5s", |_| Means::Stop("HTTP 401"));
    // Where only the batch is refused, each write is sent alone.
    let refused = |kind: Kind| if kind.of == Of::Batch { Means::Nothing } else { Means::Stop("HTTP 403") };
    at_each_sort_of_request(&status(403), "5s", refused);
}

#[test]
fn an_unknown_address_stops_delivery_until_a_person_acts() {
    let no_such_place = |kind: Kind| if kind.of == Of::Batch { Means::Nothing } else { Means::Stop("HTTP 404") };
    at_each_request(&status(404), "5s", no_such_place);
}

#[test]
fn a_missing_permission_stops_delivery_until_a_person_acts() {
    let may_not = "Not authorized to create: Changeset";
    let means = |kind: Kind| if kind.of == Of::Batch { Means::Later } else { Means::Stop(may_not) };
    at_each_sort_of_request(&errors(may_not), "5s", means);
}

#[test]
fn a_commit_that_fails_validation_becomes_a_dead_letter_with_the_reason() {
    for action in [errors(VALIDATION), Action::ErrorsAfter(vec![VALIDATION.into()])] {
        let means = |kind: Kind| if kind.of == Of::Write { Means::Dead(VALIDATION) } else { Means::Later };
        at_each_sort_of_request(&action, "5s", means);
    }
}

#[test]
fn a_commit_that_is_a_bad_request_becomes_a_dead_letter_with_the_reason() {
    let bad = status(400);
    at_each_sort_of_request(
        &bad,
        "5s",
        |kind| if kind.of == Of::Write { Means::Dead("HTTP 400") } else { Means::Later },
    );
}

#[test]
fn an_answer_with_retry_after_is_retried() {
    at_each_sort_of_request(&retry_after(429, 3600), "5s", |_| Means::Later);
    at_each_sort_of_request(&retry_after(503, 3600), "5s", |_| Means::Later);
}

#[test]
fn the_pause_lasts_as_long_as_retry_after_says() {
    let server = scene(KINDS[8], "5s");
    server.fail_all_at("POST", "/changeset/create", retry_after(429, 3600));
    server.receive(&MESSAGES);
    server.run(&["deliver"]).fails_with(1);
    let status = server.status();
    let time = |key: &str| humantime::parse_rfc3339(status["paused"][key].as_str().expect("a time")).expect("RFC 3339");
    let wait = time("until").duration_since(time("since")).expect("until is later");
    assert!(wait >= Duration::from_secs(3599), "{status}");
    server.rally.clear_faults();
    server.let_time_pass();
    server.run(&["deliver"]).succeeds();
}
