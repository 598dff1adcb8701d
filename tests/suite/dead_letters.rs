//! Dead letters: commits that Rally refuses are listed with the reason, and `retry` queues them again.

use crate::support::fault::{errors, status};
use crate::support::{DELIVER_LATER, Ran, Server, expected};

/// Delivers three commits of which Rally refuses the first and the third; returns these two revisions and what
/// `deliver` printed.
fn with_dead_letters() -> (Server, [String; 2], Ran) {
    let server = Server::new();
    server.write_configuration(server.configuration().rally("batch = \"off\"").sections(DELIVER_LATER));
    let clone = server.new_clone();
    let first = clone.commit("US1", &[("a", Some("1"))]);
    clone.commit("US2", &[("a", Some("2"))]);
    let third = clone.commit("US3", &[("a", Some("3"))]);
    for revision in [&first, &third] {
        let action = errors("Validation error: Changeset.Message \x1b[31mis odd");
        server.fail_all_with("/changeset/create", revision, action);
    }
    clone.push(&["origin", "main"]);
    let ran = server.run(&["deliver"]).fails_with(1);
    server.rally.clear_faults();
    (server, [first, third], ran)
}

#[test]
fn deliver_counts_the_commits_that_it_gave_up() {
    let (_, _, ran) = with_dead_letters();
    assert!(ran.stderr.contains("1 commit delivered, 2 became dead letters"), "{ran:?}");
}

#[test]
fn status_lists_dead_letters_with_the_reason_and_the_command_to_retry() {
    let (server, [first, third], _) = with_dead_letters();
    let status = server.run(&["status"]).fails_with(1).stdout;
    assert!(status.contains(&format!("  2 commits ({}, {}): Rally refused", &first[..12], &third[..12])), "{status}");
    assert!(status.contains("rally-hook retry"), "{status}");
}

#[test]
fn control_characters_in_a_reason_are_replaced() {
    let (server, _, _) = with_dead_letters();
    let status = server.run(&["status"]).fails_with(1).stdout;
    assert!(status.contains("?[31mis odd") && !status.contains('\x1b'), "{status}");
}

#[test]
fn doctor_counts_dead_letters() {
    let (server, _, _) = with_dead_letters();
    let ran = server.run(&["doctor"]).fails_with(1);
    assert!(
        ran.stdout
            .lines()
            .any(|line| line[6..].starts_with("queue")
                && line.contains("2 dead letters; `rally-hook status` says why")),
        "{ran:?}"
    );
}

#[test]
fn retry_refuses_arguments_that_name_no_dead_letter() {
    let (server, _, _) = with_dead_letters();
    server.run(&["retry", "zzzz"]).fails_with(1);
    let short = server.run(&["retry", "abc"]).fails_with(1);
    assert!(short.stderr.contains("4 characters are the shortest beginning"), "{short:?}");
    server.run(&["retry"]).fails_with(2);
    let ran = server.run(&["retry", "00000000"]).fails_with(1);
    assert!(ran.stderr.contains("no dead letter has the revision \"00000000\""), "{ran:?}");
}

#[test]
fn json_lists_every_dead_letter() {
    let server = Server::delivering_later("");
    server.change_queue(
        "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 3000) \
         INSERT INTO changeset (revision, recorded_at, next_attempt, dead, last_error) \
         SELECT printf('%040x', i), 0, 0, 1, iif(i < 3000, 'usual', 'the last one') FROM n",
    );
    let status = server.status();
    let reasons = status["dead_letters"].as_array().expect("a list");
    assert_eq!((reasons.len(), &reasons[2999]["reason"]), (3000, &"the last one".into()));
    let shown = server.run(&["status"]).fails_with(1).stdout;
    assert!(shown.contains("  2999 commits (000000000000") && shown.contains("2996 more): usual"), "{shown}");
}

#[test]
fn retry_takes_an_abbreviated_revision_in_any_case() {
    let (server, [first, _], _) = with_dead_letters();
    server.run(&["retry", &first[..8].to_uppercase()]).succeeds();
    assert_eq!((server.count("failed"), server.count("delivered")), (1, 2));
}

#[test]
fn retry_delivers_at_once_and_says_so() {
    let (server, _, _) = with_dead_letters();
    let ran = server.run(&["retry", "--all"]).succeeds();
    assert!(ran.stderr.contains("2 commits queued again") && ran.stderr.contains("2 commits delivered"), "{ran:?}");
    server.assert_rally_holds(&expected(&server.git_dir, &["main"]));
    let status = server.run(&["status"]).succeeds().stdout;
    assert!(status.contains("delivered  3") && status.contains("queued     0"), "{status}");
}

#[test]
fn retry_fails_if_a_commit_is_refused_again() {
    let (server, [first, _], _) = with_dead_letters();
    server.fail_all_with("/changeset/create", &first, errors("Validation error: still no"));
    let ran = server.run(&["retry", "--all"]).fails_with(1);
    assert!(ran.stderr.contains("1 commit delivered, 1 became a dead letter"), "{ran:?}");
    assert!(ran.stderr.contains("still no"), "{ran:?}");
}

#[test]
fn retry_of_one_succeeds_although_another_waits() {
    let (server, [first, _], _) = with_dead_letters();
    server.change_queue("UPDATE changeset SET dead = 0, next_attempt = (strftime('%s') + 3600) * 1000 WHERE id = 3");
    server.run(&["retry", &first]).succeeds();
    assert_eq!((server.count("pending"), server.count("delivered")), (1, 2));
}

#[test]
fn a_retried_commit_has_all_of_retry_for_again() {
    let (server, _, _) = with_dead_letters();
    // Recorded, and given up, long ago; and Rally has been down for as long.
    server.change_queue("UPDATE changeset SET recorded_at = 0, first_attempt = 0");
    server.fail_all(status(503));
    server.run(&["retry", "--all"]).fails_with(1);
    server.change_queue("UPDATE meta SET value = json_set(value, '$.since', 0) WHERE key = 'pause'");
    server.run(&["deliver"]).fails_with(1);
    assert_eq!((server.count("failed"), server.count("pending")), (0, 2));
}
