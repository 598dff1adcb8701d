//! Hooks that did not run or could not do their work: the next push or `catch-up` records what they missed.

use std::fs;
use std::os::unix::fs::symlink;
use std::process::Stdio;

use crate::support::fault::errors;
use crate::support::process::kill;
use crate::support::{Clone, Server, expected, name_of, program};

/// Asserts that `status` names exactly these refs as not recorded up to their tips.
fn assert_behind(server: &Server, refs: &[&str]) {
    server.assert_refs_behind(refs);
    if !refs.is_empty() {
        let ran = server.run(&["status"]).fails_with(1);
        assert!(refs.iter().all(|name| ran.stdout.contains(name)), "{ran:?}");
    }
}

/// Pushes while the hook is disabled.
fn push_without_hook(server: &Server, clone: &Clone, refspecs: &[&str]) {
    server.disable_hook();
    clone.push(&[&["origin"], refspecs].concat());
    server.enable_hook();
}

#[test]
fn the_next_push_records_what_a_missing_hook_missed() {
    let server = Server::delivering_later("");
    let clone = server.new_clone();
    clone.push_commits(&["US1: seen"]);
    clone.commit("US2: missed", &[("a", Some("missed"))]);
    push_without_hook(&server, &clone, &["main"]);
    assert_behind(&server, &["refs/heads/main"]);
    clone.push_commits(&["DE3: seen again"]);
    assert_behind(&server, &[]);
    server.deliver_all();
    server.assert_rally_holds(&expected(&server.git_dir, &["main"]));
}

#[test]
fn catch_up_records_what_a_missing_hook_missed_on_all_refs() {
    let server = Server::delivering_later("");
    let clone = server.new_clone();
    clone.push_commits(&["US1: seen"]);
    clone.commit("US2: missed", &[("a", Some("missed"))]);
    clone.git(&["tag", "-a", "-m", "a tag", "v1"]);
    push_without_hook(&server, &clone, &["main", "main:side", "v1"]);
    assert_behind(&server, &["refs/heads/main", "refs/heads/side", "refs/tags/v1"]);
    let ran = server.run(&["catch-up"]).succeeds();
    assert!(ran.stderr.contains("1 commit queued"), "{ran:?}");
    assert_behind(&server, &[]);
    server.deliver_all();
    server.assert_rally_holds(&expected(&server.git_dir, &["main"]));
    assert!(server.run(&["catch-up"]).succeeds().stderr.contains("0 commits queued"));
}

#[test]
fn commits_are_posted_although_a_forced_push_replaced_them_before_they_were_read() {
    let server = Server::delivering_later("");
    // With a broken configuration the push is kept, but no commit is read.
    let config = server.read_configuration();
    server.write_configuration("[rally]\nservr = 1\n");
    let clone = server.new_clone();
    let seen = clone.push_commits(&["US1: forced away"]);
    assert!(seen.contains("this push is kept until the configuration is fixed"), "{seen}");
    let lost = clone.head();
    clone.git(&["checkout", "--quiet", "--orphan", "other"]);
    clone.commit("DE2: in its place", &[("a", Some("other"))]);
    clone.push(&["--force", "origin", "other:main"]);
    clone.push(&["origin", "other:refs/heads/gone"]);
    clone.push(&["origin", ":gone"]);
    server.write_configuration(&config);
    server.deliver_all();
    server.assert_rally_holds(&expected(&server.git_dir, &["main", &lost]));
    assert_behind(&server, &[]);
}

#[test]
fn commits_pruned_after_the_hook_ran_are_posted() {
    let server = Server::delivering_later("");
    let clone = server.new_clone();
    clone.push_commits(&["US1: kept"]);
    clone.git(&["checkout", "--quiet", "-b", "gone"]);
    clone.push_commits(&["DE2: pruned"]);
    let wanted = expected(&server.git_dir, &["main", "gone"]);
    clone.push(&["origin", ":gone"]);
    server.collect_garbage();
    server.deliver_all();
    server.assert_rally_holds(&wanted);
}

#[test]
fn a_missing_commit_does_not_hold_up_the_other_refs_of_a_push() {
    let server = Server::delivering_later("");
    let nowhere = format!("{} {} refs/heads/gone\n", name_of('0'), name_of('1'));
    let update = server.import("refs/heads/main", &["US1: there"]);
    server.run_hook((nowhere + &update).as_bytes()).succeeds();
    server.deliver_all();
    server.assert_rally_holds(&expected(&server.git_dir, &["main"]));
    assert!(server.log().contains("cannot record what refs/heads/gone was pushed to"), "{}", server.log());
}

#[test]
fn the_next_push_records_what_a_killed_hook_missed() {
    let server = Server::delivering_later("");
    let update = server.import("refs/heads/main", &["US1: its hook is killed"]);
    let mut child = server.hook_command().stdin(Stdio::piped()).spawn().expect("the program can be run");
    let stdin = child.stdin.take().expect("a pipe");
    kill(child);
    drop((stdin, update));
    assert_behind(&server, &["refs/heads/main"]);
    server.receive(&["DE2: the next one"]);
    assert_behind(&server, &[]);
    server.deliver_all();
    server.assert_rally_holds(&expected(&server.git_dir, &["main"]));
}

#[test]
fn retries_are_not_delayed_by_a_clock_that_is_set_back() {
    let server = Server::delivering_later("");
    server.fail_all_at(
        "POST",
        "/changeset/create",
        errors("Concurrency conflict: [Object has been modified since being read]"),
    );
    server.receive(&["US1"]);
    server.run(&["deliver"]).fails_with(1);
    server.rally.clear_faults();
    // After the clock is set back by a day, all recorded times lie a day ahead.
    server.change_queue(
        "UPDATE changeset SET next_attempt = next_attempt + 86400000, settles_at = settles_at + 86400000, \
         first_attempt = first_attempt + 86400000, recorded_at = recorded_at + 86400000",
    );
    server.receive(&["DE2: after it"]);
    server.deliver_all();
    assert_eq!(server.changesets().len(), 2, "neither waits for a day");
    server.assert_rally_holds(&expected(&server.git_dir, &["main"]));
}

#[test]
fn all_pushes_that_waited_for_a_configuration_are_posted_but_not_the_history_before_them() {
    let server = Server::without_hook();
    let clone = server.new_clone();
    clone.push_commits(&["US1: from before"]);
    symlink(program(), server.hook()).expect("there is no hook");
    let config = server.read_configuration();
    server.write_configuration("[rally\n");
    let before = clone.head();
    clone.push_commits(&["US2: the first that waits"]);
    clone.push_commits(&["US3: the second"]);
    server.write_configuration(&config);
    server.deliver_all();
    server.assert_rally_holds(&expected(&server.git_dir, &["main", &format!("^{before}")]));
}

#[test]
fn a_commit_pruned_before_it_was_read_is_listed_until_it_is_forgotten() {
    let server = Server::delivering_later("");
    let config = server.read_configuration();
    let clone = server.new_clone();
    clone.push_commits(&["US1: stays"]);
    server.write_configuration("[rally\n");
    clone.push_commits(&["DE2: is gone before it is read"]);
    let gone = clone.head();
    clone.push(&["--force", "origin", "main~1:main"]);
    server.collect_garbage();
    server.write_configuration(&config);
    server.run(&["deliver"]);
    let status = server.run(&["status"]).fails_with(1);
    assert!(status.stdout.contains(&gone) && status.stdout.contains("cannot record"), "{status:?}");
    server.assert_counts_add_up();
    let retried = server.run(&["retry", &gone]).fails_with(1);
    assert!(retried.stderr.contains(&format!("`rally-hook forget {gone}` removes it")), "{retried:?}");
    assert_eq!(server.count("failed"), 1);
    server.run(&["forget", &gone[..8]]).succeeds();
    server.run(&["status"]).succeeds();
    server.assert_counts_add_up();
    // Pushed again, it is posted like any other.
    clone.push(&["origin", "main"]);
    server.deliver_all();
    server.assert_rally_holds(&expected(&server.git_dir, &["main"]));
}

#[test]
fn missed_commits_are_posted_although_the_next_push_removes_them() {
    let server = Server::delivering_later("");
    let clone = server.new_clone();
    clone.push_commits(&["US1: seen"]);
    let mut missed = Vec::new();
    for (name, message) in [("forced", "US2: missed, forced away"), ("deleted", "DE3: missed, then deleted")] {
        clone.git(&["checkout", "--quiet", "-b", name, "main"]);
        missed.push(clone.commit(message, &[(name, Some("missed"))]));
    }
    push_without_hook(&server, &clone, &["forced", "deleted"]);
    clone.push(&["--force", "origin", "main:forced", ":deleted"]);
    server.deliver_all();
    server.assert_rally_holds(&expected(&server.git_dir, &["main", &missed[0], &missed[1]]));
}

#[test]
fn a_commit_with_a_missing_tree_is_posted_after_the_tree_is_back() {
    let server = Server::delivering_later("");
    server.import("refs/heads/main", &["US1: one"]);
    let tree = server.git(&["rev-parse", "main^{tree}"]);
    let object = server.git_dir.join("objects").join(&tree[..2]).join(&tree[2..]);
    let away = server.path().join("tree");
    fs::rename(&object, &away).expect("it is a loose object");
    let ran = server.run(&["backfill", "main"]).fails_with(1);
    assert!(ran.stderr.contains(&tree), "{ran:?}");
    server.run(&["catch-up"]).fails_with(1);
    let status = server.run(&["status"]).fails_with(1);
    assert!(status.stdout.contains(&tree), "{status:?}");
    server.run(&["retry", "--all"]);
    assert_eq!(server.count("failed"), 1, "it is not forgotten");
    server.run(&["deliver"]);
    assert!(server.changesets().is_empty());
    fs::rename(&away, &object).expect("it was there");
    server.run(&["retry", "--all"]).succeeds();
    server.deliver_all();
    server.assert_rally_holds(&expected(&server.git_dir, &["main"]));
    server.assert_counts_add_up();
}
