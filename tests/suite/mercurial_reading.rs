//! Reading Mercurial repositories: backfills, damage, what the repository's own configuration names, and a missing `hg`.

use std::fs;

use crate::support::fault::errors;
use crate::support::mercurial::{Mercurial, path_of};
use crate::support::{Expected, copy};

#[test]
fn a_backfill_posts_what_a_revset_means() {
    let Some(server) = Mercurial::without_hook("payments") else { return };
    server.configure_later("");
    let clone = server.new_clone();
    clone.push_each(&["US1", "US2"]);
    clone.hg(&["branch", "--quiet", "side-branch"]);
    clone.push_each(&["US3", "US4"]);
    server.run(&["install"]).succeeds();
    server.run(&["backfill", "branch('side-branch') and not tip"]).succeeds();
    server.assert_delivers("2");
    server.run(&["backfill", "0", "side-branch"]).succeeds();
    server.assert_delivers("0 + 2 + 3");
    server.run(&["backfill", "--all"]).succeeds();
    server.assert_delivers("all()");
}

#[test]
fn a_backfill_since_a_date_posts_what_was_committed_then() {
    let Some(server) = Mercurial::delivering_later("") else { return };
    let root = server.root();
    server.without_hooks(|| {
        root.hg(&["commit", "--config", "ui.allowemptycommit=1", "--date", "2026-01-30 12:00 +0000", "-m", "US1"]);
        root.hg(&["commit", "--config", "ui.allowemptycommit=1", "--date", "2026-01-31 12:00 +0000", "-m", "US2"]);
    });
    server.run(&["backfill", "--since", "2026-01-31"]).succeeds();
    server.deliver_all();
    assert_eq!(server.revisions(), [root.node("1")]);
}

#[test]
fn a_backfill_of_nonsense_says_what_mercurial_says() {
    let Some(server) = Mercurial::delivering_later("") else { return };
    for (revset, said) in [("nix", "unknown revision 'nix'"), ("heads(", "parse error"), ("1e9", "unknown revision")] {
        let ran = server.run(&["backfill", revset]).fails_with(2);
        assert!(ran.stderr.contains(said), "{ran:?}");
    }
}

#[test]
fn a_dry_run_prints_what_a_backfill_would_post_and_no_secrets() {
    let Some(server) = Mercurial::delivering_later("") else { return };
    let root = server.root();
    root.commit("US1", &[("a", Some("1"))]);
    root.commit("nothing", &[("a", Some("2"))]);
    let expected = server.expected("all()");
    root.commit_with(&["--secret", "--config", "ui.allowemptycommit=1", "--message", "US2: secret"]);
    let printed = server.run(&["backfill", "--all", "--dry-run", "--json"]).succeeds().stdout;
    let lines: Vec<serde_json::Value> =
        printed.lines().map(|line| serde_json::from_str(line).expect("an object")).collect();
    let revisions: Vec<&str> = lines.iter().filter_map(|line| line["revision"].as_str()).collect();
    assert_eq!(revisions, expected.iter().map(|commit: &Expected| &*commit.revision).collect::<Vec<_>>());
    assert_eq!(lines[0]["changes"], serde_json::json!([{"action": "A", "path": "a"}]));
}

#[test]
fn a_dead_letter_is_retried_by_the_beginning_of_its_revision() {
    let Some(server) = Mercurial::delivering_later("") else { return };
    let revision = server.new_clone().push_each(&["US1"]);
    server.fail_all_with("/changeset/create", &revision, errors("Validation error: no"));
    server.run(&["deliver"]);
    assert_eq!(server.count("failed"), 1);
    server.rally.clear_faults();
    server.run(&["retry", &revision[..8]]).succeeds();
    server.assert_delivers("all()");
}

/// Damages the data of a changeset in the changelog, which holds all in one file while it is small: each entry of 64 bytes,
/// among them the length of the data that follows it (`hg help internals.revlogs`).
fn damage(server: &Mercurial, number: usize) {
    let changelog = server.git_dir.join("store/00changelog.i");
    let mut bytes = fs::read(&changelog).expect("the changelog");
    let length = |at: usize| u32::from_be_bytes(bytes[at + 8..at + 12].try_into().expect("four bytes")) as usize;
    let entry = (0..number).fold(0, |at, _| at + 64 + length(at));
    let data = entry + 64..entry + 64 + length(entry);
    bytes[data].fill(b'?');
    fs::write(&changelog, bytes).expect("it can be written");
}

#[test]
fn a_changeset_that_cannot_be_read_keeps_none_but_its_children_from_being_posted() {
    let Some(server) = Mercurial::delivering_later("") else { return };
    let clone = server.new_clone();
    server.without_hooks(|| clone.push_each(&["US1", "US2: is damaged", "US3: its child", "US4"]));
    damage(&server, 1);
    let damaged = clone.node("1");
    let ran = server.run(&["catch-up"]).fails_with(1);
    assert!(ran.stderr.contains(&damaged), "{ran:?}");
    server.run(&["deliver"]);
    let others = [clone.node("0"), clone.node("3")];
    assert_eq!(server.revisions(), others);
    let status = server.status();
    assert_eq!(status["failed"], 2, "{status}");
}

#[test]
fn nothing_that_the_repository_names_is_run() {
    let Some(server) = Mercurial::delivering_later("") else { return };
    server.without_hooks(|| server.new_clone().push_each(&["US1"]));
    let ran_file = server.path().join("was-run");
    let touch = format!("touch {}", ran_file.display());
    fs::write(server.path().join("evil.py"), format!("open({:?}, 'w')", ran_file.display().to_string()))
        .expect("a file");
    server.add_settings(&format!(
        "[extensions]\nevil = {}\n[hooks]\npre-log = {touch}\npre-serve = {touch}\npre-config = {touch}\n\
         [alias]\nlog = !{touch}\nserve = !{touch}\n[pager]\npager = {touch}\n",
        server.path().join("evil.py").display()
    ));
    server.run(&["catch-up"]).succeeds();
    server.run(&["status"]);
    server.run(&["doctor"]);
    server.run(&["backfill", "--all", "--dry-run"]).succeeds();
    server.deliver_all();
    assert_eq!(server.changesets().len(), 1);
    assert!(!ran_file.exists());
}

#[test]
fn without_hg_a_push_is_kept_and_read_once_hg_is_there() {
    let Some(server) = Mercurial::delivering_later("") else { return };
    server.new_clone().push_each(&["US1"]);
    let Some(told) = server.run_without_hg(&["catch-up"], &[]) else { return };
    assert!(told.fails_with(1).stderr.contains("cannot run hg; install it, put it into PATH, or make it executable"));
    assert_eq!(server.count("unread_pushes"), 1);
    server.assert_delivers("all()");
}

#[test]
fn the_hg_that_runs_the_hook_reads_the_repository() {
    let Some(server) = Mercurial::delivering_later("") else { return };
    server.new_clone().push_each(&["US1"]);
    let another = server.path().join("another-hg");
    copy(&path_of("hg"), &another);
    let Some(read) = server.run_without_hg(&["catch-up"], &[("HG", &another)]) else { return };
    read.succeeds();
    server.assert_delivers("all()");
}

#[test]
fn thousands_of_heads_are_no_hindrance() {
    let Some(server) = Mercurial::delivering_later("") else { return };
    let heads = format!(".:base{}", "*base".repeat(5_000));
    server.without_hooks(|| server.root().hg(&["debugbuilddag", &heads]));
    assert_eq!(server.root().hg(&["heads", "--template", "x"]).len(), 5_000);
    let read = server.run(&["catch-up"]).succeeds();
    assert!(read.stderr.contains("0 commits queued"), "{read:?}");
    server.assert_refs_behind(&[]);
    server.root().hg(&["update", "--quiet", "tip"]);
    let revision = server.root().commit("US1", &[("a", Some("1"))]);
    server.deliver_all();
    assert_eq!(server.revisions(), [revision]);
}
