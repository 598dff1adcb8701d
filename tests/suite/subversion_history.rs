//! The history of Subversion repositories: what is read again, restored, damaged, or named for a backfill.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::Child;
use std::time::Duration;

use rally_simulator::Action;
use serde_json::Value;

use crate::support::process::spawn;
use crate::support::subversion::Subversion;
use crate::support::{DELIVER_LATER, copy, hermetic, output_bytes, output_text, program, ran, skipped};

#[test]
fn a_dry_run_of_a_backfill_lists_what_a_backfill_posts() {
    let Some(server) = Subversion::without_hooks("payments") else { return };
    server.configure(&format!("{DELIVER_LATER}[commits]\nrefs = [\"trunk\"]\n"));
    server.commit("US1", &["put", "/dev/null", "trunk/a"]);
    server.commit("US2", &["cp", "HEAD", "trunk", "branches/x"]);
    server.run(&["install"]).succeeds();
    let listed = server.run(&["backfill", "--all", "--dry-run", "--json"]).succeeds().stdout;
    server.run(&["backfill", "--all"]).succeeds();
    server.deliver_all();
    assert_eq!(server.changesets().len(), 1);
    assert_eq!(listed.lines().count(), 1, "{listed}");
}

#[test]
fn history_is_posted_by_backfill_only() {
    let Some(server) = Subversion::without_hooks("payments") else { return };
    server.commit("US1: before", &["put", "/dev/null", "trunk/a"]);
    server.configure(DELIVER_LATER);
    server.run(&["install"]).succeeds();
    let first = server.commit("US2: after", &["put", "/dev/null", "trunk/b"]);
    server.assert_delivers(first..=first);
    server.run(&["backfill", "--all"]).succeeds();
    server.assert_delivers(1..=first);
}

#[test]
fn a_log_message_that_is_edited_before_it_is_posted_is_posted_as_edited() {
    let Some(server) = Subversion::delivering_later("") else { return };
    server.commit_each(&["US1: old", "without", "DE1: has none later"]);
    server.run(&["catch-up"]).succeeds();
    server.set_revision_property(2, "svn:log", "US2: new");
    server.set_revision_property(3, "svn:log", "US3: got one");
    server.set_revision_property(4, "svn:log", "nothing");
    server.assert_delivers(1..=4);
    assert_eq!(server.changeset("2").message, "US2: new");
}

#[test]
fn a_log_message_that_is_edited_after_it_was_posted_stays_and_is_logged() {
    let Some(server) = Subversion::delivering_later("[log]\nlevel = \"info\"\n") else { return };
    server.commit_each(&["US1: old"]);
    server.deliver_all();
    server.set_revision_property(2, "svn:log", "US2: new");
    server.deliver_all();
    assert_eq!(server.changesets().len(), 1);
    assert_eq!(server.changeset("2").message, "US1: old");
    assert!(server.log().contains("commit 2 was changed after it was posted"), "{}", server.log());
}

#[test]
fn a_log_message_of_history_that_is_edited_posts_nothing() {
    let Some(server) = Subversion::without_hooks("payments") else { return };
    server.commit_each(&["old"]);
    server.configure(DELIVER_LATER);
    server.run(&["install"]).succeeds();
    server.set_revision_property(2, "svn:log", "US1: edited");
    server.deliver_all();
    assert!(server.changesets().is_empty());
}

#[test]
fn a_message_that_is_edited_during_a_delivery_loses_no_other_commit() {
    let Some(server) = Subversion::delivering_later("") else { return };
    server.commit_each(&["US1: first"]);
    // The delivery has read the queue, and waits for Rally.
    server.fail_next(Action::Delay(Duration::from_millis(700)));
    let delivery = spawn(server.command(&["deliver"]));
    server.rally.wait_for_requests("the delivery", |requests| !requests.is_empty());
    server.set_revision_property(2, "svn:log", "names nothing");
    server.commit_each(&["US2: second"]);
    server.run(&["catch-up"]).succeeds();
    ended(delivery);
    server.deliver_all();
    assert_eq!(server.changeset("3").message, "US2: second");
    server.assert_counts_add_up();
}

#[test]
fn a_mirror_posts_the_author_and_the_date_of_the_original() {
    let Some(original) = Subversion::without_hooks("original") else { return };
    let Some(mirror) = Subversion::bare("payments") else { return };
    let hook = mirror.git_dir.join("hooks/pre-revprop-change");
    fs::write(&hook, "#!/bin/sh\n").expect("a file");
    fs::set_permissions(&hook, fs::Permissions::from_mode(0o755)).expect("it is ours");
    mirror.configure(&format!("{DELIVER_LATER}[authors]\ndomain = \"acme.example\"\n"));
    mirror.run(&["install"]).succeeds();
    let sync = |arguments: &[&str]| {
        let mut command = mirror.svn("svnsync");
        command.args(arguments);
        output_text(command, b"")
    };
    sync(&["init", &mirror.url(), &original.url()]);
    original.commit_each(&["US1: mirrored", "US2: mirrored"]);
    sync(&["sync", &mirror.url()]);
    mirror.deliver_all();
    mirror.assert_rally_holds(&original.expected(1..=3));
    assert_eq!(mirror.changeset("2").author.as_deref(), Some("jane.roe@acme.example"));
    // It takes the place of the original.
    mirror.commit_each(&["US3: its own"]);
    mirror.assert_delivers(1..=4);
}

#[test]
fn ranges_are_those_of_subversion() {
    let Some(server) = Subversion::without_hooks("payments") else { return };
    server.configure(DELIVER_LATER);
    server.commit_each(&["US1", "US2", "US3", "US4", "US5"]);
    server.run(&["install"]).succeeds();
    let listed = |arguments: &[&str]| -> Vec<String> {
        let ran = server.run(&[&["backfill", "--dry-run", "--json"], arguments].concat()).succeeds();
        let object = |line: &str| serde_json::from_str::<Value>(line).expect("JSON");
        ran.stdout.lines().map(|line| object(line)["revision"].as_str().unwrap_or_default().to_owned()).collect()
    };
    assert_eq!(listed(&["3:4"]), ["3", "4"]);
    assert_eq!(listed(&["4:3"]), ["3", "4"]);
    assert_eq!(listed(&["5"]), ["5"]);
    assert_eq!(listed(&["r2", "HEAD"]), ["2", "6"]);
    assert_eq!(listed(&["--all"]), ["2", "3", "4", "5", "6"]);
    assert_eq!(listed(&["--since", "1 day ago"]), ["2", "3", "4", "5", "6"]);
    assert_eq!(listed(&["--all", "--since", "2099-01-01"]), [] as [&str; 0]);
    for nonsense in ["7", "5:7", "main..topic", "0", "-1", "x", "99999999999999999999"] {
        server.run(&["backfill", "--dry-run", "--", nonsense]).fails_with(2);
    }
    server.run(&["backfill", "2:3"]).succeeds();
    server.assert_delivers(2..=3);
}

#[test]
fn a_revision_that_is_damaged_holds_up_no_other_and_can_be_tried_again() {
    let Some(server) = Subversion::delivering_later("") else { return };
    server.commit_each(&["US1", "US2", "US3"]);
    let file = server.git_dir.join("db/revs/0/3");
    let bytes = fs::read(&file).expect("it is there");
    fs::write(&file, &bytes[..bytes.len() / 3]).expect("it is ours");
    server.run(&["catch-up"]).fails_with(1);
    server.run(&["deliver", "--wait"]);
    let revisions: Vec<String> = server.changesets().into_iter().map(|changeset| changeset.revision).collect();
    assert_eq!(revisions, ["2", "4"]);
    let status = server.status();
    assert_eq!(status["dead_letters"][0]["revision"], "3", "{status}");
    server.run(&["retry", "30"]).fails_with(1);
    fs::write(&file, bytes).expect("it is ours");
    server.run(&["retry", "3"]).succeeds();
    server.assert_rally_holds(&server.expected(1..=4));
}

#[test]
fn a_repository_that_cannot_be_read_loses_nothing() {
    let Some(server) = Subversion::delivering_later("") else { return };
    server.commit_each(&["US1"]);
    let format = server.git_dir.join("db/format");
    let text = fs::read_to_string(&format).expect("it is there");
    fs::write(&format, "999\n").expect("it is ours");
    server.run(&["deliver"]).fails_with(1);
    server.run(&["status"]).fails_with(1);
    fs::write(&format, text).expect("it is ours");
    server.assert_delivers(1..=2);
}

#[test]
fn without_the_program_svn_nothing_is_lost_and_a_line_says_so() {
    let Some(server) = Subversion::delivering_later("") else { return };
    server.commit_each(&["US1"]);
    let hidden = |arguments: &[&str]| {
        let mut command = hermetic("unshare");
        let script = "mount --bind /dev/null \"$(command -v svn)\" && exec \"$@\"";
        command.args(["--mount", "sh", "-c", script, "sh"]).arg(program()).args(arguments);
        command.current_dir(&server.git_dir);
        ran(command)
    };
    if !hidden(&["--version"]).success {
        return skipped("this user may not mount");
    }
    let delivered = hidden(&["deliver"]).fails_with(1);
    assert!(
        delivered.stderr.contains("cannot run svn; install it, put it into PATH, or make it executable"),
        "{delivered:?}"
    );
    assert!(hidden(&["doctor"]).stdout.contains("cannot run svn"));
    server.assert_delivers(1..=2);
}

#[test]
fn loaded_revisions_are_made_up_for_and_packing_changes_nothing() {
    let Some(source) = Subversion::without_hooks("source") else { return };
    source.commit_each(&["US1: loaded", "US2: loaded"]);
    let Some(server) = Subversion::bare("payments") else { return };
    server.configure(DELIVER_LATER);
    server.run(&["install"]).succeeds();
    let mut dump = hermetic("svnadmin");
    dump.args(["dump", "--quiet"]).arg(&source.git_dir);
    let dump = output_bytes(dump, b"");
    let mut load = hermetic("svnadmin");
    load.args(["load", "--quiet", "--ignore-uuid"]).arg(&server.git_dir);
    output_bytes(load, &dump);
    server.admin(&["pack", "--quiet"], &[], None);
    let last = server.commit_each(&["US3: the next commit"]);
    server.assert_delivers(1..=last);
    server.assert_refs_behind(&[]);
}

#[test]
fn a_hot_copy_is_known_as_one() {
    let Some(server) = Subversion::delivering_later("") else { return };
    server.commit_each(&["US1"]);
    server.deliver_all();
    let copy = server.path().join("copy");
    output_text(
        {
            let mut command = hermetic("svnadmin");
            command.arg("hotcopy").arg(&server.git_dir).arg(&copy);
            command
        },
        b"",
    );
    let doctor = server.run(&["doctor", "--repo", copy.to_str().expect("UTF-8")]);
    assert!(!doctor.success, "{doctor:?}");
    assert_eq!(server.changesets().len(), 1);
}

#[test]
fn a_restored_backup_is_told_by_status() {
    let Some(server) = Subversion::delivering_later("") else { return };
    server.commit_each(&["US1"]);
    let backup = server.path().join("backup");
    copy(&server.git_dir.join("db"), &backup);
    server.commit_each(&["US2", "US3"]);
    server.deliver_all();
    fs::remove_dir_all(server.git_dir.join("db")).expect("it is there");
    copy(&backup, &server.git_dir.join("db"));
    let status = server.status();
    let told = status["refs_behind"][0].as_str().unwrap_or_default();
    assert!(told.starts_with("revision 4 was recorded, and the youngest is 2 now"), "{status}");
    server.run(&["status"]).fails_with(1);
    assert_eq!(server.changesets().len(), 3);
}

#[test]
fn another_uuid_is_told_by_status() {
    let Some(server) = Subversion::delivering_later("") else { return };
    server.commit_each(&["US1"]);
    server.deliver_all();
    server.admin(&["setuuid"], &[], None);
    let status = server.status();
    assert!(status["refs_behind"][0].as_str().is_some_and(|text| text.contains("has the UUID")), "{status}");
}

fn ended(mut process: Child) {
    process.wait().expect("it was ours");
}
