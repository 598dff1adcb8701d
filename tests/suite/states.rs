//! State changes of artifacts by keywords in messages.

use std::time::Duration;

use rally_simulator::{Fault, Match};
use serde_json::json;

use crate::support::Server;
use crate::support::fault::status;

/// Returns the artifacts that were updated, in order.
fn updated(server: &Server) -> Vec<String> {
    server.rally.world(|world| world.updates()).into_iter().map(|update| update.formatted_id).collect()
}

fn field(server: &Server, artifact: &str, field: &str) -> serde_json::Value {
    server.rally.world(|world| world.field(artifact, field))
}

#[test]
fn messages_change_no_state_by_default() {
    let server = Server::delivering_later("");
    server.new_clone().push_commits(&["Fixed DE1"]);
    server.deliver_all();
    assert!(updated(&server).is_empty());
}

#[test]
fn keywords_in_messages_change_states() {
    let server = Server::delivering_later("[state]\nupdate = true\n");
    let messages = ["Fixed DE2, DE3 and DE99. US1 Completed, but Gone US2 and Shiny DE4", "Completed: TA1"];
    server.new_clone().push_commits(&messages);
    server.deliver_all();
    let mut changed = updated(&server);
    changed.sort();
    assert_eq!(changed, ["DE2", "DE3", "TA1", "US1"]);
    assert_eq!([field(&server, "DE2", "State"), field(&server, "DE3", "State")], ["Fixed", "Fixed"]);
    assert_eq!(field(&server, "US1", "ScheduleState"), "Completed");
    assert_eq!((field(&server, "TA1", "State"), field(&server, "TA1", "ToDo")), (json!("Completed"), json!(0)));
}

#[test]
fn commits_on_other_branches_than_that_of_head_change_no_state() {
    let server = Server::delivering_later("[state]\nupdate = true\n");
    let clone = server.new_clone();
    clone.push_commits(&["US1"]);
    clone.push(&["origin", "main:release/0"]);
    clone.git(&["checkout", "--quiet", "-b", "topic"]);
    clone.push_commits(&["Fixed DE5"]);
    server.deliver_all();
    assert!(updated(&server).is_empty());
}

#[test]
fn a_backfill_changes_no_state() {
    let server = Server::delivering_later("[state]\nupdate = true\n");
    let clone = server.new_clone();
    clone.push_commits(&["US1"]);
    clone.git(&["checkout", "--quiet", "-b", "topic"]);
    clone.push_commits(&["Fixed DE5"]);
    server.run(&["backfill", "topic"]);
    server.deliver_all();
    assert!(updated(&server).is_empty());
}

#[test]
fn commits_change_states_when_they_reach_a_configured_ref_however_they_were_posted() {
    let server = Server::delivering_later("[state]\nupdate = true\n");
    let clone = server.new_clone();
    clone.push_commits(&["US1"]);
    clone.push(&["origin", "main:release/0"]);
    clone.git(&["checkout", "--quiet", "-b", "topic"]);
    clone.push_commits(&["Fixed DE5"]);
    server.run(&["backfill", "topic"]);
    server.deliver_all();
    server.configure_later("[state]\nupdate = true\nrefs = [\"release/*\"]\n");
    clone.commit("Fixed DE6", &[("a", Some("5"))]);
    clone.push(&["origin", "topic:main"]);
    clone.commit("Fixed DE7", &[("a", Some("6"))]);
    clone.push(&["origin", "topic:release/1"]);
    server.deliver_all();
    assert_eq!(updated(&server), ["DE5", "DE6", "DE7"]);
}

#[test]
fn the_first_push_to_a_configured_ref_changes_no_state_for_earlier_history() {
    let server = Server::delivering_later("");
    let clone = server.new_clone();
    clone.commit("Fixed DE1", &[("a", Some("1"))]);
    clone.push(&["origin", "main"]);
    server.configure_later("[state]\nupdate = true\nrefs = [\"release/*\"]\n");
    clone.commit("Fixed DE2", &[("a", Some("2"))]);
    clone.push(&["origin", "main"]);
    clone.push(&["origin", "main:release/1"]);
    server.deliver_all();
    assert_eq!(updated(&server), ["DE2"]);
}

#[test]
fn catch_up_changes_states_of_commits_that_a_backfill_posted() {
    let server = Server::delivering_later("[state]\nupdate = true\n");
    let clone = server.new_clone();
    clone.commit("US1", &[("a", Some("1"))]);
    clone.push(&["origin", "main"]);
    server.deliver_all();
    server.configure("[state]\nupdate = true\n");
    server.import("refs/heads/main", &["Fixed DE2"]);
    server.run(&["backfill", "main"]).succeeds();
    assert!(updated(&server).is_empty());
    server.run(&["catch-up"]).succeeds();
    server.rally.wait_until("the update", |world| !world.updates().is_empty());
    assert_eq!(updated(&server), ["DE2"]);
}

#[test]
fn a_commit_changes_states_once_when_a_merge_brings_it_to_the_branch_of_head() {
    let server = Server::delivering_later("[state]\nupdate = true\n");
    let clone = server.new_clone();
    clone.commit("Fixed DE1", &[("a", Some("1"))]);
    clone.git(&["checkout", "--quiet", "-b", "topic"]);
    clone.commit("Fixed DE2", &[("b", Some("1"))]);
    clone.push(&["origin", "main", "topic"]);
    server.deliver_all();
    assert_eq!(updated(&server), ["DE1"]);
    clone.git(&["checkout", "--quiet", "main"]);
    clone.git(&["merge", "--quiet", "--no-ff", "--message", "Merge topic", "topic"]);
    clone.push(&["origin", "main"]);
    server.deliver_all();
    assert_eq!(updated(&server), ["DE1", "DE2"]);
    // Someone reopens it in Rally. Moving the branch back and forth does not set it to Fixed again.
    server.rally.world(|world| world.set_field("DE2", "State", json!("Open")));
    clone.push(&["--force", "origin", "main~1:main"]);
    clone.push(&["origin", "main"]);
    server.deliver_all();
    assert_eq!(updated(&server), ["DE1", "DE2"]);
    server.assert_counts_add_up();
}

#[test]
fn the_log_names_the_state_that_is_set_and_the_one_that_is_refused() {
    let server = Server::delivering_later("[state]\nupdate = true\n");
    let clone = server.new_clone();
    for (message, line) in [
        ("US1 Completed", "sets US1 to Completed"),
        ("US1 Defined", "US1 keeps its state: it is Completed, and Defined comes before that"),
    ] {
        clone.push_commits(&[message]);
        server.deliver_all();
        assert!(
            server.log().contains(&format!("commit {}", clone.head())) && server.log().contains(line),
            "{}",
            server.log()
        );
    }
}

#[test]
fn a_state_goes_back_only_if_backwards_is_on() {
    let server = Server::delivering_later("[state]\nupdate = true\n");
    server.rally.world(|world| world.set_field("US1", "ScheduleState", json!("Accepted")));
    let clone = server.new_clone();
    clone.commit("US1 Completed", &[("a", Some("1"))]);
    clone.push(&["origin", "main"]);
    server.deliver_all();
    assert_eq!(field(&server, "US1", "ScheduleState"), "Accepted");
    server.configure_later("[state]\nupdate = true\nbackwards = true\n");
    clone.commit("US1 completed", &[("a", Some("2"))]);
    clone.push(&["origin", "main"]);
    server.deliver_all();
    assert_eq!(field(&server, "US1", "ScheduleState"), "Completed");
}

#[test]
fn keywords_are_the_states_that_the_workspace_allows() {
    let server = Server::delivering_later("[state]\nupdate = true\n");
    server.rally.world(|world| {
        world.set_allowed_values("Defect", "State", &["Submitted", "In Review", "Done"]);
        world.set_field("DE1", "State", json!("Submitted"));
        world.set_field("DE2", "State", json!("Submitted"));
    });
    let clone = server.new_clone();
    clone.commit("in-review DE1, Fixed DE2", &[("a", Some("1"))]);
    clone.push(&["origin", "main"]);
    server.deliver_all();
    assert_eq!([field(&server, "DE1", "State"), field(&server, "DE2", "State")], ["In Review", "Submitted"]);
}

#[test]
fn a_commit_changes_a_state_once_although_it_is_delivered_in_two_attempts() {
    let server = Server::delivering_later("[state]\nupdate = true\n");
    let clone = server.new_clone();
    let revision = clone.commit("Fixed DE1", &[("a", Some("1"))]);
    clone.push(&["origin", "main"]);
    // The first attempt creates the changeset, but not its change.
    let on = Match { body: Some("PathAndFilename".into()), ..Match::default() };
    server.rally.fault(Fault { on, times: 1, action: status(503) });
    server.deliver_all();
    assert_eq!(updated(&server), ["DE1"]);
    // Someone reopens the defect. Delivering the commit again must not close it.
    server.rally.world(|world| world.set_field("DE1", "State", json!("Open")));
    clone.push(&["origin", "main:copy", "main:refs/tags/v1"]);
    server.run(&["backfill", "--all"]).succeeds();
    server.deliver_all();
    assert_eq!(field(&server, "DE1", "State"), "Open");
    assert_eq!(server.changeset(&revision).changes.len(), 1);
}

/// Pushes a commit that changes several states, each by a request of its own, of which some are answered so.
fn with_updates(message: &str, skip: usize, times: usize, code: u16) -> Server {
    let server = Server::delivering_later("[state]\nupdate = true\n");
    let one_by_one = "batch = \"off\"\nmax_concurrent_requests = 1";
    server.write_configuration(
        server.configuration().rally(one_by_one).sections("[state]\nupdate = true\n[queue]\ndeliver = \"later\"\n"),
    );
    server.new_clone().push_commits(&[message]);
    let on = Match { method: Some("POST"), path: Some("/defect/"), skip, ..Match::default() };
    server.rally.fault(Fault { on, times, action: status(code) });
    server
}

#[test]
fn a_state_that_was_set_is_not_set_again_where_another_of_the_commit_failed() {
    let server = with_updates("Fixed DE1 and DE2", 1, 1, 500);
    server.run(&["deliver"]).fails_with(1);
    let first = updated(&server);
    assert_eq!(first.len(), 1);
    // Someone reopens the defect meanwhile.
    server.rally.world(|world| world.set_field(&first[0], "State", json!("Open")));
    server.deliver_all();
    assert_eq!(field(&server, &first[0], "State"), "Open");
    assert_eq!(updated(&server).len(), 2);
}

#[test]
fn no_more_states_are_sent_once_one_answer_says_that_all_would_fail() {
    let server = with_updates("Fixed DE1, DE2, DE3, DE4, DE5, DE6, DE7 and DE8", 0, 99, 401);
    server.rally.settings(|settings| settings.latency = Duration::from_millis(100));
    server.run(&["deliver"]).fails_with(1);
    let updates = server.rally.requests().iter().filter(|request| request.path.starts_with("/defect/")).count();
    // The next ones may be under way when the first answer is read.
    assert!(updates < 8, "{updates}");
    server.rally.clear_faults();
    server.deliver_all();
    assert_eq!(updated(&server).len(), 8);
}

#[test]
fn commits_on_a_branch_before_head_leads_to_it_change_no_state() {
    let server = Server::without_hook();
    server.configure_later("[state]\nupdate = true\n");
    let clone = server.new_clone();
    server.git(&["symbolic-ref", "HEAD", "refs/heads/not-there"]);
    clone.push_commits(&["Fixed DE1, long ago", "Completed US1, long ago"]);
    server.run(&["install"]).succeeds();
    clone.push_commits(&["US2 Completed, on no branch that counts"]);
    server.git(&["symbolic-ref", "HEAD", "refs/heads/main"]);
    clone.push_commits(&["Fixed DE2"]);
    server.deliver_all();
    assert_eq!(updated(&server), ["DE2"]);
}

#[test]
fn commits_on_a_branch_before_the_configuration_adds_it_change_no_state() {
    let server = Server::without_hook();
    server.configure_later("[state]\nupdate = true\n");
    let clone = server.new_clone();
    clone.push_commits(&["Fixed DE1, long ago", "Completed US1, long ago"]);
    clone.push(&["origin", "main:release"]);
    server.run(&["install"]).succeeds();
    clone.push_commits(&["Fixed DE2"]);
    server.configure_later("[state]\nupdate = true\nrefs = [\"main\", \"release\"]\n");
    clone.push_commits(&["Fixed DE3"]);
    clone.git(&["fetch", "--quiet"]);
    clone.git(&["checkout", "--quiet", "-b", "release", "origin/release"]);
    clone.commit("Fixed DE4", &[("r", Some("1"))]);
    clone.push(&["origin", "release"]);
    server.deliver_all();
    assert_eq!(updated(&server), ["DE2", "DE3", "DE4"]);
}

#[test]
fn a_commit_that_is_pruned_and_pushed_again_changes_no_state_again() {
    let server = Server::delivering_later("[state]\nupdate = true\n");
    let clone = server.new_clone();
    clone.push_commits(&["Start", "Fixed DE1", "US1: one more"]);
    server.deliver_all();
    clone.push(&["--force", "origin", "main~2:main"]);
    server.collect_garbage();
    server.rally.world(|world| world.set_field("DE1", "State", json!("Open")));
    clone.push(&["origin", "main~1:main"]);
    server.deliver_all();
    assert_eq!(field(&server, "DE1", "State"), "Open", "somebody opened it again");
    clone.push_commits(&["Closed DE1"]);
    server.deliver_all();
    assert_eq!(field(&server, "DE1", "State"), "Closed");
}

#[test]
fn deliver_reports_state_changes_that_wait() {
    let server = Server::delivering_later("[state]\nupdate = true\n");
    server.new_clone().push_commits(&["Fixed DE1"]);
    server.fail_next_at("POST", "/defect/", status(503));
    let ran = server.run(&["deliver"]).fails_with(1);
    assert!(ran.stderr.contains("1 with queued state changes"), "{ran:?}");
    server.deliver_all();
    assert_eq!(updated(&server), ["DE1"]);
}
