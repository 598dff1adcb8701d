//! Delivery with lost answers, failed batches, lagging reads, and objects that go away.

use std::time::Duration;

use rally_simulator::{Action, Batch, Fault, Match, Request};

use crate::support::fault::{errors, status};
use crate::support::process::wait_for;
use crate::support::{DELIVER_LATER, Server, expected, ran};

const MESSAGES: [&str; 4] = ["US1: first", "DE2: second", "TA3: third", "US4, DE2: fourth"];

#[test]
fn a_lost_answer_makes_no_second_changeset() {
    for action in [Action::CutAfter, Action::CutBefore, Action::CutMidBody] {
        let server = Server::delivering_later("");
        server.fail_next_at("POST", "/changeset/create", action);
        server.new_clone().push_commits(&["US1"]);
        server.run(&["deliver"]);
        server.let_time_pass();
        server.deliver_all();
        server.assert_rally_holds(&expected(&server.git_dir, &["main"]));
    }
}

#[test]
fn the_failed_entries_of_a_batch_are_retried_and_the_others_are_not() {
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
fn delivery_works_on_servers_with_broken_or_missing_batches() {
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
fn a_commit_that_rally_refuses_does_not_hold_up_the_others() {
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
        assert_eq!(
            status["dead_letters"][0]["reason"],
            "Rally refused POST /changeset/create: Validation error: poison"
        );
        server.rally.clear_faults();
        server.run(&["retry", &poison[..8]]).succeeds();
        server.deliver_all();
        server.assert_rally_holds(&expected(&server.git_dir, &["main"]));
    }
}

#[test]
fn a_workspace_with_changesets_disabled_is_logged() {
    let server = Server::delivering_later("");
    server.rally.world(|world| world.set_changesets_enabled("Acme", false));
    server.new_clone().push_commits(&MESSAGES);
    server.deliver_all();
    server.assert_rally_holds(&expected(&server.git_dir, &["main"]));
    assert!(server.log().contains("Build and Changeset"), "{}", server.log());
}

#[test]
fn a_deleted_artifact_is_not_linked() {
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
fn a_repository_deleted_in_rally_is_created_again() {
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
fn reads_that_lag_behind_writes_create_nothing_twice() {
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
    let server = Server::new();
    let batch = if path == "/batch" { "batch = \"auto\"" } else { "batch = \"off\"" };
    let rally = format!("{batch}\nread_lag = \"1500ms\"");
    server.write_configuration(server.configuration().rally(&rally).sections(DELIVER_LATER));
    server.rally.settings(|settings| settings.read_lag = Duration::from_millis(700));
    // The objects that the simulator starts with are hidden at first, too.
    wait_for("the workspace", || !server.run(&["doctor"]).stdout.contains("no open workspace"));
    server.fail_next_at("POST", path, action);
    server.new_clone().push_commits(&MESSAGES);
    server.run(&["deliver", "--wait"]).succeeds();
    assert!(server.was_asked("POST", path));
    server.assert_rally_holds(&expected(&server.git_dir, &["main"]));
    assert_eq!(server.rally.world(|world| world.repositories().len()), 1, "repositories after {path}");
}

#[test]
fn a_refused_look_up_holds_up_only_the_commit_that_needs_it() {
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
fn all_changes_are_looked_up_when_two_writes_of_a_commit_fail_differently() {
    // Either of the two answers may come first.
    for round in 0..12 {
        let server = Server::delivering_later("");
        let rally = "batch = \"off\"\nmax_concurrent_requests = 2\nread_lag = \"200ms\"";
        server.write_configuration(server.configuration().rally(rally).sections(DELIVER_LATER));
        let (without, with) = (status(429), Action::CutAfter);
        let faults = if round % 2 == 0 { [without, with] } else { [with, without] };
        for action in faults {
            server.fail_next_at("POST", "/change/create", action);
        }
        server.receive(&["US1: two files"]);
        server.run(&["deliver"]);
        server.let_time_pass();
        server.run(&["deliver", "--wait"]).succeeds();
        server.assert_rally_holds(&expected(&server.git_dir, &["main"]));
    }
}

#[test]
fn a_changeset_deleted_before_it_has_its_changes_is_created_again() {
    let server = Server::delivering_later("");
    server.fail_all_at("POST", "/change/create", status(503));
    server.fail_all_at("POST", "/batch", status(503));
    server.receive(&["US1: deleted"]);
    server.run(&["deliver"]);
    let made = server.changesets();
    assert_eq!((made.len(), made[0].changes.len()), (1, 0));
    server.rally.world(|world| world.delete_changeset(&made[0].revision));
    server.rally.clear_faults();
    server.run(&["deliver", "--wait"]).succeeds();
    server.assert_rally_holds(&expected(&server.git_dir, &["main"]));
}

#[test]
fn query_syntax_in_messages_and_names_is_escaped() {
    let server = Server::delivering_later("[authors]\nmatch = [\"email\", \"username\", \"display-name\"]\n");
    let clone = server.new_clone();
    let name = r#"x") OR (Name contains "a"#;
    let mut commit = clone.command();
    commit.env("GIT_AUTHOR_NAME", name).env("GIT_AUTHOR_EMAIL", r#"\") OR (ObjectID > "0"#);
    let message = "US1\") OR (ObjectID > \"0";
    commit.args(["commit", "--quiet", "--allow-empty", "-m", message]);
    ran(commit).succeeds();
    clone.push(&["origin", "main"]);
    server.deliver_all();
    let held = server.changesets();
    assert_eq!((held.len(), held[0].author.as_deref(), held[0].message.trim_end()), (1, None, message));
    assert_eq!(held[0].artifacts, ["US1"]);
    let asked: Vec<String> =
        server.rally.requests().into_iter().filter(|request| request.path == "/user").map(query).collect();
    assert!(asked.iter().any(|query| query.contains(r#"(DisplayName = "x\") OR (Name contains \"a")"#)), "{asked:?}");
    assert!(asked.iter().all(|query| !query.contains(r#" = "x") OR"#)), "{asked:?}");
}

/// Returns the query parameter of a request.
fn query(request: Request) -> String {
    request.query.get("query").cloned().unwrap_or_default()
}

#[test]
fn an_artifact_with_the_same_number_and_another_prefix_is_not_linked() {
    let server = Server::delivering_later("");
    server.rally.settings(|settings| settings.number_only_match = true);
    server.rally.world(|world| {
        world.add_artifact("DS50", "A defect suite");
        world.set_prefix("DefectSuite", "SUITE");
    });
    let clone = server.new_clone();
    let revision = clone.commit("DE1, US50, DS50, DE50 and US2", &[("a", Some("1"))]);
    clone.push(&["origin", "main"]);
    server.deliver_all();
    assert_eq!(server.changeset(&revision).artifacts, ["DE1", "US2"]);
    assert!(server.log().contains("Rally has no US50, DS50, DE50"), "{}", server.log());
}

#[test]
fn the_branch_is_left_out_if_rally_has_no_such_field() {
    let server = Server::delivering_later("");
    server.rally.settings(|settings| settings.knows_branch = false);
    server.new_clone().push_commits(&["DE1", "US3"]);
    server.deliver_all();
    server.assert_rally_holds(&expected(&server.git_dir, &["main"]));
    assert!(server.changesets().iter().all(|held| held.branch.is_none()));
}
