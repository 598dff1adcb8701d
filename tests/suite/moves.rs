//! Repositories that are moved, copied, restored or deleted: nothing is posted twice, and nothing is lost.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::support::fault::status;
use crate::support::process::{deliverers, wait_for};
use crate::support::{Clone, Ran, Server, copy, expected, git, hermetic, program, ran};

/// Runs the program in another repository than that of the server.
fn run_in(git_dir: &Path, arguments: &[&str]) -> Ran {
    let mut command = hermetic(program());
    command.args(arguments).current_dir(git_dir);
    ran(command)
}

fn status_of(git_dir: &Path) -> Value {
    serde_json::from_str(&run_in(git_dir, &["status", "--json"]).stdout).expect("JSON")
}

fn log_of(git_dir: &Path) -> String {
    fs::read_to_string(git_dir.join("rally-hook/log")).unwrap_or_default()
}

/// Sets up a repository of which one commit is delivered and one waits. Its files name no other directory.
fn with_queue() -> (Server, Clone) {
    let server = Server::delivering_later("");
    let config = server.read_configuration();
    let key = format!("{:?}", server.git_dir.join("api-key"));
    server.write_configuration(config.replace(&key, "\"api-key\""));
    let clone = server.new_clone();
    clone.push_commits(&["US1: delivered"]);
    server.deliver_all();
    clone.push_commits(&["US2: waits"]);
    (server, clone)
}

/// Copies the repository of a server, as `cp -a` does.
fn copied(server: &Server, name: &str) -> PathBuf {
    let path = server.path().canonicalize().expect("it is there").join(name);
    copy(&server.git_dir, &path);
    path
}

fn push_to(clone: &Clone, git_dir: &Path, message: &str) -> String {
    clone.commit(message, &[("c", Some(message))]);
    clone.push(&[&git_dir.display().to_string(), "main"])
}

#[test]
fn a_moved_repository_goes_on_with_its_queue() {
    let (server, _) = with_queue();
    let moved = server.path().canonicalize().expect("it is there").join("moved.git");
    fs::rename(&server.git_dir, &moved).expect("it can be moved");
    let delivered = run_in(&moved, &["deliver", "--wait"]).succeeds();
    assert!(delivered.stderr.contains("payments.git to ") && delivered.stderr.contains("was moved"), "{delivered:?}");
    assert_eq!(server.changesets().len(), 2);
    assert_eq!(log_of(&moved).matches("was moved").count(), 1, "{}", log_of(&moved));
    run_in(&moved, &["status"]).succeeds();
}

#[test]
fn a_repository_that_was_moved_by_copying_goes_on_with_its_queue() {
    let (server, _) = with_queue();
    let moved = copied(&server, "moved.git");
    fs::remove_dir_all(&server.git_dir).expect("it is there");
    run_in(&moved, &["deliver", "--wait"]).succeeds();
    assert_eq!(server.changesets().len(), 2);
    assert_eq!(status_of(&moved)["copy_of"], Value::Null);
}

#[test]
fn a_repository_that_was_moved_goes_on_although_another_one_has_taken_its_place() {
    let (server, _) = with_queue();
    let moved = copied(&server, "moved.git");
    fs::remove_dir_all(&server.git_dir).expect("it is there");
    git(server.path(), &["init", "--quiet", "--bare", "payments.git"]);
    run_in(&server.git_dir, &["install"]).succeeds();
    run_in(&moved, &["deliver", "--wait"]).succeeds();
    assert_eq!(server.changesets().len(), 2);
}

#[test]
fn what_was_queued_when_a_repository_was_copied_is_delivered_by_the_original_alone() {
    let (server, _) = with_queue();
    let copy = copied(&server, "copy.git");
    let told = run_in(&copy, &["deliver", "--wait"]).succeeds().stderr;
    assert!(told.contains("payments.git: 1 commit and 0 pushes that were queued are left to that"), "{told}");
    assert_eq!(server.changesets().len(), 1);
    server.deliver_all();
    server.assert_rally_holds(&expected(&server.git_dir, &["main"]));
    let status = status_of(&copy);
    assert_eq!((&status["recorded"], &status["pending"], &status["delivered"]), (&1.into(), &0.into(), &1.into()));
}

#[test]
fn a_push_that_was_unread_when_a_repository_was_copied_is_left_to_the_original() {
    let (server, clone) = with_queue();
    let config = server.read_configuration();
    server.write_configuration("broken");
    clone.push_commits(&["US3: unread"]);
    server.write_configuration(config);
    let copy = copied(&server, "copy.git");
    assert_eq!(status_of(&copy)["unread_pushes"], 0);
    assert_eq!(server.count("unread_pushes"), 1);
    server.deliver_all();
    server.assert_rally_holds(&expected(&server.git_dir, &["main"]));
}

#[test]
fn a_push_to_a_copy_posts_the_new_commit_alone() {
    let (server, clone) = with_queue();
    let copy = copied(&server, "copy.git");
    let seen = push_to(&clone, &copy, "US3: to the copy");
    assert!(seen.contains("1 commit queued for US3"), "{seen}");
    run_in(&copy, &["deliver", "--wait"]).succeeds();
    server.deliver_all();
    let of = |message: &str| server.changesets().iter().filter(|held| held.message.contains(message)).count();
    assert_eq!((of("US1"), of("US2"), of("US3")), (1, 1, 1));
    assert!(log_of(&copy).contains("is a copy of"), "{}", log_of(&copy));
}

#[test]
fn status_of_a_copy_names_the_original_while_it_is_there() {
    let (server, _) = with_queue();
    let copy = copied(&server, "copy.git");
    let original = server.git_dir.canonicalize().expect("it is there");
    assert_eq!(status_of(&copy)["copy_of"], original.to_str().expect("UTF-8"));
    assert!(run_in(&copy, &["status"]).stdout.contains(&format!("it is a copy of {}", original.display())));
    assert_eq!(server.status()["copy_of"], Value::Null);
    fs::remove_dir_all(&server.git_dir).expect("it is there");
    assert_eq!(status_of(&copy)["copy_of"], Value::Null);
}

#[test]
fn a_copy_of_a_copy_is_one() {
    let (server, clone) = with_queue();
    let first = copied(&server, "first.git");
    push_to(&clone, &first, "US3: to the copy");
    let second = server.path().join("second.git");
    copy(&first, &second);
    let status = status_of(&second);
    assert_eq!((&status["pending"], &status["copy_of"]), (&0.into(), &first.to_str().expect("UTF-8").into()));
    assert_eq!(status_of(&first)["pending"], 1);
}

#[test]
fn a_repository_under_two_names_is_no_copy() {
    let (server, _) = with_queue();
    let other = server.path().join("other-name.git");
    std::os::unix::fs::symlink(&server.git_dir, &other).expect("a link");
    assert_eq!(status_of(&other)["pending"], 1);
    assert!(!server.log().contains("moved"), "{}", server.log());
}

/// What comes after `rsync` to another machine, too: there the original is not in sight.
#[test]
fn what_the_original_has_delivered_since_is_not_posted_again() {
    let (server, _) = with_queue();
    let backup = copied(&server, "backup.git");
    server.deliver_all();
    fs::remove_dir_all(&server.git_dir).expect("it is there");
    run_in(&backup, &["deliver", "--wait"]).succeeds();
    assert_eq!(server.changesets().len(), 2);
    assert_eq!(status_of(&backup)["existed"], 1);
}

#[test]
fn after_a_backup_was_restored_nothing_is_posted_twice_and_nothing_is_lost() {
    let (server, clone) = with_queue();
    let backup = copied(&server, "backup.git");
    clone.push_commits(&["US3: after the backup"]);
    server.deliver_all();
    clone.push_commits(&["US4: after the backup, and not delivered"]);
    fs::remove_dir_all(&server.git_dir).expect("it is there");
    fs::rename(&backup, &server.git_dir).expect("it can be moved");
    clone.commit("US5: after the restoration", &[("d", Some("d"))]);
    clone.push(&["origin", "main"]);
    server.deliver_all();
    server.assert_rally_holds(&expected(&server.git_dir, &["main"]));
    assert_eq!(server.count("existed"), 2);
}

#[test]
fn a_delivery_ends_when_its_repository_is_deleted() {
    let server = Server::new();
    server.fail_all(status(503));
    server.new_clone().push_commits(&["US1"]);
    wait_for("the delivery to wait", || server.status()["paused"].is_object());
    let deliverer = deliverers(&server.git_dir)[0].to_string();
    fs::remove_dir_all(&server.git_dir).expect("it is there");
    let holds_locks = || {
        let locks = fs::read_to_string("/proc/locks").expect("Linux");
        locks.lines().any(|line| line.split_whitespace().nth(4) == Some(&deliverer))
    };
    wait_for("the end of the delivery", || !holds_locks());
    assert!(!server.git_dir.exists());
}
