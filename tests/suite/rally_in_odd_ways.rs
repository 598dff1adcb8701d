//! Faults that are no single answer: connections, credentials, objects that go away, batches, reads that lag.

use std::net::TcpListener;
use std::time::Duration;

use rally_simulator::{Action, Batch, Fault, Match};

use crate::support::fault::{errors, status};
use crate::support::process::wait_for;
use crate::support::{DELIVER_LATER, Server, expected};

const MESSAGES: [&str; 4] = ["US1: first", "DE2: second", "TA3: third", "US4, DE2: fourth"];

#[test]
fn a_server_that_cannot_be_reached_is_tried_again() {
    let refusing = TcpListener::bind("127.0.0.1:0").expect("a free port").local_addr().expect("it has one").port();
    let addresses = [format!("http://127.0.0.1:{refusing}"), "https://rally.invalid".to_owned()];
    for address in addresses {
        let server = Server::delivering_later("");
        server.write_configuration(
            server.configuration().rally(&format!("server = {address:?}")).sections(DELIVER_LATER),
        );
        assert_unreachable_then_delivered(&server, &address);
    }
}

#[test]
fn a_server_without_tls_is_not_trusted_and_tried_again() {
    let server = Server::delivering_later("");
    let address = server.rally.url().replace("http://", "https://");
    server.write_configuration(server.configuration().rally(&format!("server = {address:?}")).sections(DELIVER_LATER));
    assert_unreachable_then_delivered(&server, &address);
}

#[test]
fn who_tries_before_its_time_makes_nobody_wait_longer() {
    let server = Server::delivering_later("");
    server.configure("[queue]\ndeliver = \"later\"\nretry_delay = \"10m\"\n");
    server.new_clone().push_commits(&MESSAGES);
    server.fail_all(status(503));
    let until = || {
        server.run(&["deliver"]).fails_with(1);
        server.status()["paused"]["until"].clone()
    };
    let first = until();
    assert!(first.is_string() && first == until() && first == until());
    server.rally.clear_faults();
    server.run(&["deliver"]).succeeds();
}

#[test]
fn where_nobody_is_left_to_try_again_status_says_who_can() {
    let server = Server::delivering_later("");
    server.new_clone().push_commits(&MESSAGES);
    server.fail_next(status(503));
    server.run(&["deliver"]).fails_with(1);
    let later = server.run(&["status"]).succeeds().stdout;
    assert!(later.contains("the next push or `rally-hook deliver` tries again"), "{later}");
    server.configure("");
    let waiting = server.run(&["status"]).succeeds().stdout;
    assert!(waiting.contains("next attempt") && waiting.contains("it is tried again by itself"), "{waiting}");
    server.change_queue("UPDATE meta SET value = json_set(value, '$.until', 1700000000000) WHERE key = 'pause'");
    server.let_time_pass();
    let waiting = server.run(&["status"]).succeeds().stdout;
    assert!(waiting.contains(" ago, `rally-hook deliver` posts it"), "{waiting}");
    assert!(waiting.contains("the next push or `rally-hook deliver` tries again"), "{waiting}");
}

#[test]
fn who_waits_for_the_delivery_hears_what_for() {
    let server = Server::delivering_later("");
    server.configure(&DELIVER_LATER.replace("20ms", "4s"));
    server.new_clone().push_commits(&MESSAGES);
    server.fail_next(status(503));
    let ran = server.run(&["deliver", "--wait"]).succeeds();
    assert!(ran.stderr.contains("for the next attempt: ") && ran.stderr.contains("HTTP 503"), "{ran:?}");
}

fn assert_unreachable_then_delivered(server: &Server, address: &str) {
    let clone = server.new_clone();
    clone.push_commits(&MESSAGES);
    server.run(&["deliver"]).fails_with(1);
    let status = server.status();
    assert_eq!((status["pending"].as_i64(), status["failed"].as_i64()), (Some(4), Some(0)), "{status}");
    assert!(status["last_error"].as_str().is_some_and(|text| text.contains(address)), "{status}");
    assert_eq!(status["paused"]["needs_person"], false, "{status}");
    server.assert_counts_add_up();
    let seen = clone.push_commits(&["US7: told"]);
    assert!(seen.contains("nothing can be posted since"), "{seen}");
    assert!(server.rally.requests().is_empty());
    server.configure(DELIVER_LATER);
    server.deliver_all();
    server.assert_rally_holds(&expected(&server.git_dir, &["main"]));
}

#[test]
fn a_batch_that_fails_in_part_leaves_no_gap_and_no_double() {
    for every in [1, 2, 3] {
        let server = Server::delivering_later("");
        let conflict = vec!["Concurrency conflict: [Object has been modified since being read]".to_owned()];
        let action = Action::EntryErrors { every, errors: conflict };
        server.rally.fault(Fault { on: Match { path: Some("/batch"), ..Match::default() }, times: 3, action });
        server.new_clone().push_commits(&MESSAGES);
        server.run(&["deliver"]);
        server.assert_counts_add_up();
        server.deliver_all();
        server.assert_rally_holds(&expected(&server.git_dir, &["main"]));
    }
}

#[test]
fn a_server_with_no_batch_or_an_odd_one_is_served_all_the_same() {
    for batch in [Batch::Missing, Batch::Unknown, Batch::Garbage, Batch::AllOrNothing] {
        let server = Server::delivering_later("");
        server.rally.settings(|settings| settings.batch = batch);
        let clone = server.new_clone();
        clone.push_commits(&MESSAGES);
        let poison = clone.commit("US6: refused alone and in company", &[("a", Some("poison"))]);
        server.fail_all_with("/changeset/create", &poison, errors("Validation error: no"));
        clone.push_commits(&["US1: after it"]);
        server.run(&["deliver", "--wait"]);
        server.assert_counts_add_up();
        assert!(server.was_asked("POST", "/batch"));
        server.rally.clear_faults();
        server.run(&["retry", "--all"]).succeeds();
        server.deliver_all();
        server.assert_rally_holds(&expected(&server.git_dir, &["main"]));
    }
}

#[test]
fn a_poison_entry_holds_up_nobody() {
    for batch in ["auto", "off"] {
        let server = Server::delivering_later("");
        server.write_configuration(server.configuration().rally(&format!("batch = {batch:?}")).sections(DELIVER_LATER));
        let clone = server.new_clone();
        clone.push_commits(&MESSAGES);
        let poison = clone.commit("US6: poison", &[("a", Some("poison"))]);
        clone.push_commits(&MESSAGES);
        for (path, action) in [("/batch", status(400)), ("/changeset/create", errors("Validation error: poison"))] {
            server.fail_all_with(path, &poison, action);
        }
        server.run(&["deliver", "--wait"]).fails_with(1);
        let mut others = expected(&server.git_dir, &["main"]);
        others.retain(|commit| commit.revision != poison);
        server.assert_rally_holds(&others);
        let status = server.status();
        assert_eq!(status["failed"], 1, "{status}");
        assert_eq!(status["dead_letters"][0]["revision"], poison.as_str());
        assert_eq!(status["dead_letters"][0]["reason"], "Rally refused: Validation error: poison");
        server.rally.clear_faults();
        server.run(&["retry", &poison[..8]]).succeeds();
        server.deliver_all();
        server.assert_rally_holds(&expected(&server.git_dir, &["main"]));
    }
}

#[test]
fn a_workspace_with_changesets_switched_off_is_named_in_the_log() {
    let server = Server::delivering_later("");
    server.rally.world(|world| world.set_changesets_enabled("Acme", false));
    server.new_clone().push_commits(&MESSAGES);
    server.deliver_all();
    server.assert_rally_holds(&expected(&server.git_dir, &["main"]));
    assert!(server.log().contains("Build and Changeset"), "{}", server.log());
}

#[test]
fn an_artifact_that_was_deleted_is_left_out() {
    for batch in ["auto", "off"] {
        let server = Server::delivering_later("");
        server.write_configuration(server.configuration().rally(&format!("batch = {batch:?}")).sections(DELIVER_LATER));
        let clone = server.new_clone();
        clone.push_commits(&["US1, DE2: both are known now"]);
        server.deliver_all();
        server.rally.world(|world| world.delete_artifact("US1"));
        let both = clone.commit("US1, DE2: one is gone", &[("a", Some("1"))]);
        let gone = clone.commit("US1: the only one is gone", &[("a", Some("2"))]);
        let other = clone.commit("TA3: nothing to do with it", &[("a", Some("3"))]);
        clone.push(&["origin", "main"]);
        server.deliver_all();
        assert_eq!(server.changeset(&both).artifacts, ["DE2"]);
        assert_eq!(server.changeset(&other).artifacts, ["TA3"]);
        assert!(server.changesets().iter().all(|held| held.revision != gone));
        assert_eq!((server.count("unlinked"), server.count("delivered")), (1, 3));
        server.assert_counts_add_up();
    }
}

#[test]
fn a_repository_that_was_deleted_in_rally_is_made_again() {
    let server = Server::delivering_later("");
    let clone = server.new_clone();
    clone.push_commits(&["US1: before"]);
    server.deliver_all();
    server.rally.world(|world| world.delete_repository("payments"));
    let before = clone.head();
    clone.push_commits(&MESSAGES);
    server.deliver_all();
    assert_eq!(server.rally.world(|world| world.repositories().len()), 1);
    for held in server.changesets().iter().filter(|held| held.revision != before) {
        assert_eq!(held.repository, "payments");
    }
    server.assert_rally_holds(&expected(&server.git_dir, &["main"]));
}

#[test]
fn reads_that_lag_behind_writes_make_nothing_twice() {
    let lost = [Action::CutAfter, Action::StatusAfter { code: 500, body: String::new() }];
    std::thread::scope(|scope| {
        for path in ["/scmrepository/create", "/changeset/create", "/change/create", "/batch"] {
            for action in lost.clone() {
                scope.spawn(move || lose_one_answer_while_reads_lag(path, action));
            }
        }
    });
}

fn lose_one_answer_while_reads_lag(path: &'static str, action: Action) {
    let server = Server::delivering_later("");
    if path != "/batch" {
        server.write_configuration(server.configuration().rally("batch = \"off\"").sections(DELIVER_LATER));
    }
    server.rally.settings(|settings| settings.read_lag = Duration::from_millis(700));
    // What the world began with is new as well, and hidden for a while.
    wait_for("the workspace", || !server.run(&["doctor"]).stdout.contains("no open workspace"));
    server.fail_next_at("POST", path, action);
    server.new_clone().push_commits(&MESSAGES);
    server.run_with_lag(&["deliver", "--wait"], 1500).succeeds();
    assert!(server.was_asked("POST", path));
    server.assert_rally_holds(&expected(&server.git_dir, &["main"]));
    assert_eq!(server.rally.world(|world| world.repositories().len()), 1, "repositories after {path}");
}

#[test]
fn a_look_up_that_rally_will_not_answer_costs_only_the_commit_that_it_is_about() {
    let server = Server::delivering_later("");
    let clone = server.new_clone();
    clone.push_commits(&["US1: one", "DE2: two", "US9: three", "TA3: four"]);
    server.fail_all_with("/hierarchicalrequirement", "\"US9\"", errors("Could not parse: it is too long"));
    server.run(&["deliver"]).fails_with(1);
    let status = server.status();
    assert_eq!((status["pending"].as_i64(), server.changesets().len()), (Some(1), 3), "{status}");
    assert!(status["last_error"].as_str().is_some_and(|text| text.contains("too long")), "{status}");
    server.rally.clear_faults();
    server.deliver_all();
    server.assert_rally_holds(&expected(&server.git_dir, &["main"]));
}

#[test]
fn writes_of_one_commit_that_fail_in_different_ways_are_all_asked_for() {
    // Which of the two answers comes first is left to chance.
    for round in 0..12 {
        let server = Server::delivering_later("");
        let rally = "batch = \"off\"\nmax_concurrent_requests = 2";
        server.write_configuration(server.configuration().rally(rally).sections(DELIVER_LATER));
        let (without, with) = (status(429), Action::CutAfter);
        let faults = if round % 2 == 0 { [without, with] } else { [with, without] };
        for action in faults {
            server.fail_next_at("POST", "/change/create", action);
        }
        server.receive(&["US1: two files"]);
        server.run_with_lag(&["deliver"], 200);
        server.run_with_lag(&["deliver", "--wait"], 200).succeeds();
        server.assert_rally_holds(&expected(&server.git_dir, &["main"]));
    }
}

#[test]
fn a_changeset_that_is_deleted_before_its_changes_are_there_is_made_anew() {
    let server = Server::delivering_later("");
    server.fail_all_at("POST", "/change/create", status(503));
    server.fail_all_at("POST", "/batch", status(503));
    server.receive(&["US1: deleted"]);
    server.run_with_lag(&["deliver"], 50);
    let made = server.changesets();
    assert_eq!((made.len(), made[0].changes.len()), (1, 0));
    server.rally.world(|world| world.delete_changeset(&made[0].revision));
    server.rally.clear_faults();
    server.run_with_lag(&["deliver", "--wait"], 50).succeeds();
    server.assert_rally_holds(&expected(&server.git_dir, &["main"]));
}

#[test]
fn a_waiting_delivery_takes_up_a_configuration_that_was_mended() {
    let server = Server::new();
    let good = server.read_configuration();
    let wrong = good.replace(&server.rally.url(), "http://127.0.0.1:9");
    server.write_configuration(wrong.replace("retry_delay = \"20ms\"", "retry_delay = \"10m\""));
    let clone = server.new_clone();
    clone.push_commits(&["US1: to the wrong address"]);
    wait_for("the first failure", || server.status()["paused"].is_object());
    server.write_configuration(&good);
    // The process of the first push is still the one that delivers in the background.
    clone.push_commits(&["US2: to the right one"]);
    wait_for("both", || server.count("delivered") == 2);
    server.assert_rally_holds(&expected(&server.git_dir, &["main"]));
}
