//! A TFVC server that is down, slow, lies or talks nonsense: nothing is lost, and it is told.

use tfvc_double::{Fault, TOKEN};

use crate::support::{DELIVER_LATER, Tfvc};

/// Plants this fault for all requests of a poll, then for all but the first, and so on. Asserts that each such poll says what
/// is wrong, and that the poll after it records all that is new.
fn assert_harmless(fault: &Fault, expected: &str) {
    let tfvc = Tfvc::new();
    let timeout = if matches!(fault, Fault::Hang) { "\"300ms\"" } else { "\"20s\"" };
    tfvc.server.write_configuration(tfvc.server.read_configuration().replace("\"2s\"", timeout));
    for working in 0..4 {
        tfvc.check_in_some(2);
        tfvc.world(|world| world.fault_after(working, "", fault.clone()));
        let ran = tfvc.catch_up().fails_with(1);
        assert!(ran.stderr.contains(expected), "{working}: {ran:?}");
        let status = tfvc.server.status();
        assert!(status["polled"]["error"].as_str().is_some_and(|error| error.contains(expected)), "{status}");
        assert_eq!(status["failed"], 0, "{working}: {status}");
        tfvc.world(tfvc_double::World::clear_faults);
        tfvc.catch_up().succeeds();
        let status = tfvc.server.status();
        assert_eq!(status["pending"], 2 * working + 2, "{working}: {status}");
        assert!(status["polled"]["error"].is_null(), "{status}");
    }
}

#[test]
fn a_page_to_sign_in_is_never_taken_for_an_empty_list() {
    for code in [200, 203, 401, 403] {
        assert_harmless(&Fault::SignInPage(code), "the server does not accept the token");
    }
    assert_harmless(&Fault::Redirect, "it redirects to");
}

#[test]
fn a_server_with_an_error_loses_nothing() {
    assert_harmless(&Fault::Status(500), "HTTP 500");
    assert_harmless(&Fault::Status(503), "HTTP 503");
}

#[test]
fn a_connection_that_breaks_loses_nothing() {
    assert_harmless(&Fault::Cut, "connection");
    assert_harmless(&Fault::CutMidBody, "connection broke");
}

#[test]
fn a_server_that_hangs_loses_nothing() {
    assert_harmless(&Fault::Hang, "was not answered within");
}

#[test]
fn garbage_loses_nothing() {
    for body in ["{}", "[]", "null", "{\"count\":1,\"value\":[{}]}", "{\"value\":[", "\u{feff}", "{\"value\":7}"] {
        assert_harmless(&Fault::Body(body.into()), "not a TFVC server's JSON");
    }
    assert_harmless(&Fault::Body("[".repeat(100_000)), "not a TFVC server's JSON");
    assert_harmless(&Fault::Body(" ".repeat(9_000_000)), "an answer of more than");
}

#[test]
fn an_empty_list_where_something_was_seen_is_told() {
    let tfvc = Tfvc::new();
    for working in [0, 2] {
        tfvc.check_in_one("US2");
        tfvc.world(|world| world.fault_after(working, "", Fault::Body("{\"count\":0,\"value\":[]}".into())));
        let ran = tfvc.catch_up().fails_with(1);
        assert!(ran.stderr.contains("lists no changeset below $/Payments/main, where"), "{working}: {ran:?}");
        tfvc.world(tfvc_double::World::clear_faults);
    }
    assert_eq!(tfvc.posted(), ["2", "3"]);
}

#[test]
fn a_server_whose_order_or_pages_do_not_tell_what_is_new_is_not_believed() {
    let tfvc = Tfvc::new();
    tfvc.check_in_some(150);
    let fails = |expected: &str| {
        let ran = tfvc.catch_up().fails_with(1);
        assert!(ran.stderr.contains(expected), "{ran:?}");
    };
    tfvc.world(|world| world.settings.ignores_skip = true);
    fails("repeats the same changesets");
    tfvc.world(|world| world.settings.ignores_skip = false);
    let newest = "{\"value\":[{\"changesetId\":900,\"createdDate\":\"2026-02-03T04:05:06Z\"}]}";
    tfvc.world(|world| world.fault("top=2&", Fault::Body(newest.into())));
    fails("lacks changeset 900");
    tfvc.world(tfvc_double::World::clear_faults);
    tfvc.catch_up().succeeds();
    assert_eq!(tfvc.server.count("pending"), 150);
}

#[test]
fn a_server_that_lists_the_oldest_first_is_not_believed() {
    let tfvc = Tfvc::new();
    tfvc.check_in_some(1);
    tfvc.world(|world| world.settings.oldest_first = true);
    let ran = tfvc.catch_up().fails_with(1);
    assert!(ran.stderr.contains("does not list the newest changesets first"), "{ran:?}");
}

#[test]
fn the_token_is_in_no_message_though_a_page_repeats_it() {
    let tfvc = Tfvc::new();
    // The token after a colon, in base 64.
    let encoded = "OmEtcGVyc29uYWwtYWNjZXNzLXRva2Vu";
    tfvc.world(|world| world.fault("", Fault::Body(format!("<p>you sent {TOKEN} as Basic {encoded}"))));
    let ran = tfvc.catch_up().fails_with(1);
    let shown = format!("{ran:?} {} {}", tfvc.server.status(), tfvc.server.log());
    assert!(shown.contains("(hidden)") && !shown.contains(TOKEN) && !shown.contains(encoded), "{shown}");
    assert!(tfvc.double.requests().iter().all(|request| !request.path.contains(TOKEN)));
}

#[test]
fn one_changeset_that_cannot_be_read_becomes_a_dead_letter_and_holds_up_no_other() {
    let tfvc = Tfvc::new();
    tfvc.check_in_some(14);
    tfvc.world(|world| world.fault("/changesets/12/changes", Fault::Status(500)));
    let ran = tfvc.catch_up().fails_with(1);
    assert!(ran.stderr.contains("commit 12"), "{ran:?}");
    tfvc.server.run(&["deliver", "--wait"]);
    assert_eq!(tfvc.server.changesets().len(), 13);
    let ran = tfvc.server.run(&["retry", "1"]).fails_with(1);
    assert!(ran.stderr.contains("\"1\"") && tfvc.server.count("failed") == 1, "1 does not stand for 12: {ran:?}");
    tfvc.server.run(&["retry", "12"]).fails_with(1);
    tfvc.world(tfvc_double::World::clear_faults);
    tfvc.server.run(&["retry", "12"]).succeeds();
    assert_eq!((tfvc.delivered().len(), tfvc.server.count("failed")), (14, 0));
}

#[test]
fn a_failure_that_comes_once_is_none() {
    let tfvc = Tfvc::new();
    tfvc.check_in_one("US2");
    tfvc.world(|world| world.fault_once("/changes?", Fault::Cut));
    assert_eq!(tfvc.posted(), ["2"]);
}

#[test]
fn a_restored_collection_is_told() {
    let tfvc = Tfvc::new();
    tfvc.check_in_some(5);
    tfvc.posted();
    tfvc.world(|world| world.changesets.truncate(3));
    let ran = tfvc.catch_up().fails_with(1);
    assert!(ran.stderr.contains("is 3, but 6 was seen before: the collection was restored"), "{ran:?}");
}

#[test]
fn a_path_with_older_changesets_only_is_no_restored_collection() {
    let tfvc = Tfvc::new();
    tfvc.check_in("US2", &[("add", "$/Payments/dev/a")]);
    tfvc.check_in_some(5);
    tfvc.posted();
    tfvc.configure("path = \"$/Payments/dev\"", DELIVER_LATER);
    tfvc.catch_up().succeeds();
    let number = tfvc.check_in("US3", &[("edit", "$/Payments/dev/a")]).to_string();
    assert_eq!(tfvc.posted().last(), Some(&number));
}
