//! Subversion repositories: what a commit becomes in Rally, and that nothing is lost and nothing posted twice.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Child, Command};
use std::time::Duration;

use rally_simulator::Action;
use serde_json::Value;

use crate::support::network::{is_installed, listen};
use crate::support::process::{Service, kill, spawn, wait_for};
use crate::support::subversion::{Subversion, url_of};
use crate::support::users::USERS;
use crate::support::{DELIVER_LATER, SmallDisk, copy, git, hermetic, output_bytes, output_text, program, ran, skipped};

#[test]
fn a_commit_becomes_a_changeset_with_its_changes() {
    let Some(server) = Subversion::new() else { return };
    server.configure("[authors]\ndomain = \"acme.example\"\n");
    let words = ["mkdir", "trunk/dir", "put", "/dev/null", "trunk/dir/a b"];
    let revision = server.commit("US1, DE2: Ä <b>\n\nBody", &words).to_string();
    server.deliver_all();
    let changeset = server.changeset(&revision);
    assert_eq!(changeset.message, "US1, DE2: Ä <b>\n\nBody");
    assert_eq!(changeset.author.as_deref(), Some("jane.roe@acme.example"));
    assert_eq!(changeset.branch.as_deref(), Some("trunk"));
    assert_eq!(changeset.repository, "payments");
    let date = server.look(&["date"]);
    assert_eq!(changeset.commit_timestamp.get(..19), date.get(..19).map(|date| date.replace(' ', "T")).as_deref());
    let changes: Vec<String> =
        changeset.changes.iter().map(|change| format!("{} {}", change.action, change.path)).collect();
    assert_eq!(changes, ["A trunk/dir/", "A trunk/dir/a b"]);
    let kind = server.rally.world(|world| world.repositories()[0].scm_type.clone());
    assert_eq!(kind, "Subversion");
}

#[test]
fn a_commit_is_delivered_in_the_background_and_the_client_sees_nothing() {
    let Some(server) = Subversion::new() else { return };
    let committed = server.commit_as("jane", "US1", &["put", "/dev/null", "trunk/a"]);
    assert!(!committed.stderr.contains("rally") && !committed.stdout.contains("arning"), "{committed:?}");
    server.rally.wait_until("the commit and its file", |world| {
        world.changesets().iter().any(|held| held.revision == "2" && held.changes.len() == 1)
    });
}

#[test]
fn each_kind_of_change_is_what_svnlook_says() {
    let Some(server) = Subversion::delivering_later("") else { return };
    server.commit("DE1: files", &["put", "/dev/null", "trunk/a", "put", "/dev/null", "trunk/b", "mkdir", "trunk/dir"]);
    let content = program().to_str().expect("UTF-8");
    server.commit("US1: a new content", &["put", content, "trunk/a"]);
    server.commit("US2: a property of a file", &["propset", "svn:eol-style", "native", "trunk/b"]);
    server.commit("US3: a property of a directory", &["propset", "svn:ignore", "x", "trunk/dir"]);
    server.commit("US4: a copy is one change", &["cp", "HEAD", "trunk", "branches/x"]);
    server
        .commit("US5: a copy that was changed", &["cp", "HEAD", "trunk", "tags/1.0", "put", "/dev/null", "tags/1.0/a"]);
    server.commit("US6: a move", &["mv", "trunk/a", "trunk/c"]);
    server.commit("US8: a directory goes", &["rm", "branches/x"]);
    server.assert_delivers(1..=server.youngest());
}

#[test]
fn what_is_replaced_is_one_change() {
    let Some(server) = Subversion::delivering_later("") else { return };
    server.commit("US1", &["put", "/dev/null", "trunk/a", "put", "/dev/null", "trunk/b"]);
    let revision = server.commit("US2", &["rm", "trunk/b", "cp", "HEAD", "trunk/a", "trunk/b"]).to_string();
    server.deliver_all();
    let changes = server.changeset(&revision).changes;
    assert_eq!(changes.iter().map(|change| (&*change.action, &*change.path)).collect::<Vec<_>>(), [("M", "trunk/b")]);
}

#[test]
fn properties_of_directories_can_be_left_out() {
    let Some(server) = Subversion::delivering_later("[svn]\ndirectory_properties = false\n") else { return };
    let words = ["propset", "svn:mergeinfo", "/branches/x:2", "trunk", "put", "/dev/null", "trunk/a"];
    let revision = server.commit("US1: a merge", &words).to_string();
    server.deliver_all();
    let paths: Vec<String> = server.changeset(&revision).changes.into_iter().map(|change| change.path).collect();
    assert_eq!(paths, ["trunk/a"]);
}

#[test]
fn branches_are_told_by_paths_and_by_the_configured_layout() {
    let Some(server) = Subversion::delivering_later("[svn]\nbranches = \"lines\"\n") else { return };
    let branch = |revision: u64| server.changeset(&revision.to_string()).branch;
    let trunk = server.commit("US1", &["put", "/dev/null", "trunk/a"]);
    let line = server.commit("US1", &["mkdir", "lines", "cp", "HEAD", "trunk", "lines/x"]);
    let tag = server.commit("US1", &["cp", "HEAD", "trunk", "tags/1.0"]);
    let both = server.commit("US1", &["put", "/dev/null", "trunk/b", "put", "/dev/null", "tags/1.0/b"]);
    let project = server.commit("US1", &["mkdir", "app", "mkdir", "app/trunk"]);
    let inside = server.commit("US1", &["put", "/dev/null", "app/trunk/a"]);
    server.deliver_all();
    assert_eq!(branch(trunk).as_deref(), Some("trunk"));
    // The directory "lines" itself lies in no branch.
    assert_eq!(branch(line), None);
    assert_eq!(branch(tag).as_deref(), Some("tags/1.0"));
    assert_eq!((branch(both), branch(project)), (None, None));
    assert_eq!(branch(inside).as_deref(), Some("app/trunk"));
}

#[test]
fn only_watched_branches_are_posted() {
    let Some(server) = Subversion::delivering_later("[commits]\nrefs = [\"trunk\", \"refs/tags/*\"]\n") else { return };
    let trunk = server.commit("US1", &["put", "/dev/null", "trunk/a"]);
    server.commit("US2", &["cp", "HEAD", "trunk", "branches/x"]);
    let tag = server.commit("US3", &["cp", "HEAD", "trunk", "tags/1.0"]);
    server.deliver_all();
    let revisions: Vec<String> = server.changesets().into_iter().map(|changeset| changeset.revision).collect();
    assert_eq!(revisions, [trunk.to_string(), tag.to_string()]);
}

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
fn a_state_changes_by_a_commit_to_trunk_and_by_no_other() {
    let Some(server) = Subversion::delivering_later("[state]\nupdate = true\n") else { return };
    server.commit("nothing", &["cp", "HEAD", "trunk", "branches/x"]);
    server.deliver_all();
    server.commit("Fixed DE1", &["put", "/dev/null", "branches/x/a"]);
    server.commit("Fixed DE2", &["put", "/dev/null", "trunk/a"]);
    server.deliver_all();
    let state = |id: &str| server.rally.world(|world| world.field(id, "State"));
    assert_eq!((state("DE2") == "Fixed", state("DE1") == "Fixed"), (true, false));
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
fn without_install_the_first_commit_is_posted_and_its_history_is_not() {
    let Some(server) = Subversion::delivering_later("") else { return };
    fs::remove_dir_all(server.git_dir.join("rally-hook")).expect("it is there");
    let _ = fs::remove_file(server.git_dir.join("rally-hook.queue"));
    let first = server.commit("US2", &["put", "/dev/null", "trunk/b"]);
    server.assert_delivers(first..=first);
}

#[test]
fn commits_of_a_missed_hook_are_named_by_status_and_made_up_for() {
    let Some(server) = Subversion::delivering_later("") else { return };
    let hook = server.git_dir.join("hooks/post-commit");
    fs::rename(&hook, hook.with_extension("off")).expect("it is there");
    server.commit_each(&["US1", "DE2"]);
    assert_eq!(server.status()["refs_behind"], serde_json::json!(["2–3"]));
    assert_eq!(server.status()["hook"], "missing");
    server.run(&["status"]).fails_with(1);
    server.run(&["catch-up"]).succeeds();
    server.assert_delivers(1..=3);
    server.commit_each(&["US3"]);
    fs::rename(hook.with_extension("off"), &hook).expect("it is there");
    assert_eq!(server.status()["refs_behind"], serde_json::json!(["4"]));
    server.commit_each(&["US4"]);
    server.assert_delivers(1..=5);
    server.assert_refs_behind(&[]);
}

#[test]
fn twenty_commits_at_once_are_posted_once_each() {
    let Some(server) = Subversion::new() else { return };
    let paths: Vec<String> = (0..20).map(|_| server.new_path()).collect();
    std::thread::scope(|scope| {
        for path in &paths {
            let mut command = server.mucc("jane", "US1: at once", &["put", "/dev/null", path]);
            scope.spawn(move || assert!(command.output().expect("it runs").status.success()));
        }
    });
    server.assert_delivers(1..=21);
}

#[test]
fn a_commit_does_not_wait_for_a_rally_that_hangs() {
    let Some(server) = Subversion::new() else { return };
    server.fail_all(Action::Hang);
    server.commit_each(&["US1"]);
    server.rally.wait_for_requests("the delivery", |requests| !requests.is_empty());
    assert!(server.changesets().is_empty());
    server.rally.clear_faults();
    server.deliver_all();
    server.assert_rally_holds(&server.expected(1..=2));
}

#[test]
fn a_hook_that_is_killed_loses_nothing() {
    let Some(server) = Subversion::delivering_later("") else { return };
    for _ in 0..5 {
        // The hook is run for a revision that is there, as Subversion does, and killed somewhere.
        let hook = server.git_dir.join("hooks/post-commit");
        fs::rename(&hook, hook.with_extension("off")).expect("it is there");
        let revision = server.commit_each(&["US1"]).to_string();
        fs::rename(hook.with_extension("off"), &hook).expect("it is there");
        let mut command = hermetic(&hook);
        command.arg(&server.git_dir).args([&revision, "txn"]);
        kill(spawn(command));
    }
    let last = server.commit_each(&["DE1: the next one makes up"]);
    server.assert_delivers(1..=last);
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
fn a_log_message_that_is_not_utf8_is_posted() {
    let Some(server) = Subversion::delivering_later("") else { return };
    let properties = b"K 7\nsvn:log\nV 9\nUS1 caf\xe9\n\nPROPS-END\n";
    let length = properties.len();
    let header = format!(
        "SVN-fs-dump-format-version: 2\n\nRevision-number: 1\nProp-content-length: {length}\nContent-length: {length}\n\n"
    );
    let mut load = hermetic("svnadmin");
    load.args(["load", "--quiet", "--bypass-prop-validation"]).arg(&server.git_dir);
    output_bytes(load, &[header.as_bytes(), properties, b"\n"].concat());
    server.run(&["catch-up"]).succeeds();
    server.deliver_all();
    assert_eq!(server.changeset("2").message.trim_end(), r"US1 caf\xE9");
}

#[test]
fn an_scm_repository_of_another_kind_is_left_alone() {
    let Some(server) = Subversion::delivering_later("") else { return };
    git(server.path(), &["init", "--quiet", "--bare", "other.git"]);
    let config = server.configuration().sections(&format!("{DELIVER_LATER}[repository]\nname = \"payments\"\n"));
    let file = server.write_private("named.toml", &config.to_string());
    let named = ["--config", file.to_str().expect("UTF-8")];
    let other = server.path().join("other.git");
    let of_other = ["--repo", other.to_str().expect("UTF-8")];
    server.commit_each(&["US1"]);
    server.deliver_all();
    let doctor = server.run(&[&["doctor"][..], &named, &of_other].concat());
    assert!(doctor.stdout.contains("is one of Subversion, and this repository is one of Git"), "{doctor:?}");
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
fn the_hooks_that_were_there_run_first_with_their_arguments_and_come_back() {
    let Some(server) = Subversion::without_hooks("payments") else { return };
    server.configure(DELIVER_LATER);
    let hook = server.git_dir.join("hooks/post-commit");
    let script = "#!/bin/sh\necho \"$# $1 $2\" > \"$1/told\"\n";
    fs::write(&hook, script).expect("a file");
    fs::set_permissions(&hook, fs::Permissions::from_mode(0o755)).expect("it is ours");
    server.run(&["install"]).succeeds();
    server.run(&["install"]).succeeds();
    server.commit_each(&["US1"]);
    let told = fs::read_to_string(server.git_dir.join("told")).expect("it ran");
    assert_eq!(told, format!("3 {} 2\n", server.git_dir.display()));
    server.run(&["uninstall"]).succeeds();
    assert_eq!(fs::read_to_string(&hook).expect("it is back"), script);
    assert!(!server.git_dir.join("hooks/post-revprop-change").exists());
    server.deliver_all();
    server.assert_rally_holds(&server.expected(1..=2));
}

#[test]
fn a_hook_that_fails_is_told_to_the_client() {
    let Some(server) = Subversion::delivering_later("") else { return };
    server.write_private("rally-hook.toml", "[rally]\nserver = 1\n");
    let mut svn = server.svn("svn");
    svn.args(["mkdir", "--message", "US1"]).arg(format!("{}/trunk/dir", server.url()));
    let committed = ran(svn).succeeds();
    let told = format!("{}{}", committed.stdout, committed.stderr);
    assert!(told.contains("this commit is kept until the configuration is fixed"), "{told}");
    server.configure(DELIVER_LATER);
    server.assert_delivers(1..=2);
}

#[test]
fn a_repository_with_an_odd_name_is_served() {
    let Some(server) = Subversion::without_hooks("odd @ 100% répo") else { return };
    server.configure(DELIVER_LATER);
    server.run(&["install"]).succeeds();
    let revision = server.commit("US1: é", &["put", "/dev/null", "trunk/é @2 %20"]);
    server.assert_delivers(revision..=revision);
    assert_eq!(server.changesets()[0].repository, "odd @ 100% répo");
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

#[test]
fn status_and_doctor_know_the_kind() {
    let Some(server) = Subversion::new() else { return };
    let status = server.status();
    assert_eq!((&status["vcs"], &status["hook"]), (&"svn".into(), &"installed".into()));
    let doctor = server.run(&["doctor"]).succeeds();
    assert!(doctor.stdout.contains("a repository of Subversion"), "{doctor:?}");
}

#[test]
fn all_repositories_are_found_whatever_their_kind() {
    let Some(server) = Subversion::new() else { return };
    git(server.path(), &["init", "--quiet", "--bare", "other.git"]);
    let all = ["--all-repos", server.path().to_str().expect("UTF-8")];
    let config = ["--config", "payments/rally-hook.toml"];
    let mut install = server.command(&[&["install"][..], &all, &config].concat());
    install.current_dir(server.path());
    ran(install).succeeds();
    let listed = server.run(&[&["status", "--json"][..], &all].concat());
    let kinds: Vec<String> = listed
        .stdout
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).expect("JSON")["vcs"].as_str().unwrap_or_default().to_owned())
        .collect();
    assert_eq!(kinds, ["git", "svn"], "{listed:?}");
}

#[test]
fn the_worker_notices_a_commit() {
    let Some(server) = Subversion::delivering_later("") else { return };
    let worker = Service::start(server.command(&["worker", "--all-repos", server.path().to_str().expect("UTF-8")]));
    server.commit_each(&["US1"]);
    server.rally.wait_until("the commit", |world| world.changesets().len() == 1);
    // Without a hook it is found by a look.
    fs::remove_file(server.git_dir.join("hooks/post-commit")).expect("it is there");
    worker.end();
    let worker = Service::start(server.command(&[
        "worker",
        "--every",
        "100ms",
        "--all-repos",
        server.path().to_str().expect("UTF-8"),
    ]));
    server.commit_each(&["US2"]);
    server.rally.wait_until("the other commit", |world| world.changesets().len() == 2);
    worker.end();
}

#[test]
fn a_commit_through_svnserve_is_posted() {
    let Some(server) = Subversion::delivering_later("") else { return };
    fs::write(server.git_dir.join("conf/svnserve.conf"), "[general]\nanon-access = write\n").expect("a file");
    // Nobody else takes a port that was free a moment ago.
    let port = listen().0.local_addr().expect("it is bound").port();
    let mut serve = hermetic("svnserve");
    serve.args(["--daemon", "--foreground", "--listen-host", "127.0.0.1", "--listen-port", &port.to_string()]);
    let _serve = Service::start({
        serve.arg("--root").arg(server.path());
        serve
    });
    let url = format!("svn://127.0.0.1:{port}/payments");
    let commit = || {
        let mut svn = server.svn("svn");
        svn.args(["mkdir", "--quiet", "--message", "US1: served"]).arg(format!("{url}/trunk/dir"));
        ran(svn).success
    };
    wait_for("svnserve", commit);
    server.assert_delivers(1..=2);
}

#[test]
fn a_bundle_of_ten_thousand_paths_is_posted_up_to_the_limit() {
    let Some(server) = Subversion::delivering_later("[commits]\nmax_changes = 10\n") else { return };
    let tree = server.path().join("tree");
    for number in 0..2_000 {
        let dir = tree.join((number / 100).to_string());
        fs::create_dir_all(&dir).expect("a directory");
        fs::write(dir.join(number.to_string()), "").expect("a file");
    }
    let mut import = server.svn("svn");
    import.args(["import", "--quiet", "--message", "US1: many"]).arg(&tree).arg(format!("{}/trunk/tree", server.url()));
    ran(import).succeeds();
    server.deliver_all();
    assert_eq!(server.changeset("2").changes.len(), 10);
    assert_eq!(server.count("omitted_changes"), 2_021 - 10);
}

#[test]
fn a_disk_that_is_full_loses_nothing() {
    let Some(server) = Subversion::without_hooks("payments") else { return };
    server.configure(DELIVER_LATER);
    let state = server.git_dir.join("rally-hook");
    fs::create_dir(&state).expect("it is new");
    let Some(_disk) = SmallDisk::mount(&state) else { return };
    server.run(&["install"]).succeeds();
    let filler = state.join("filler");
    // This writes until the disk is full.
    fs::write(&filler, vec![0; 1 << 20]).expect_err("the disk is small");
    let mut svn = server.svn("svn");
    svn.args(["mkdir", "--message", "US1"]).arg(format!("{}/trunk/dir", server.url()));
    let committed = ran(svn).succeeds();
    let told = format!("{}{}", committed.stdout, committed.stderr);
    assert!(told.contains("rally-hook catch-up"), "{told}");
    fs::remove_file(&filler).expect("it was there");
    server.assert_refs_behind(&["2"]);
    server.run(&["catch-up"]).succeeds();
    server.assert_delivers(2..=2);
}

#[test]
fn users_of_one_group_commit_to_one_repository() {
    let Some(server) = Subversion::without_hooks("payments") else { return };
    server.configure(DELIVER_LATER);
    if !server.give_to(USERS[0]) {
        return;
    }
    // What Subversion's book says for access through ssh: everything is the group's.
    ran(hermetic_shell(&server, "chmod -R g+ws db && chmod 640 rally-hook.toml api-key")).succeeds();
    server.run_as(USERS[0], "umask 002; \"$0\" install").succeeds();
    for (user, path) in USERS.into_iter().zip(["a", "b"]) {
        let words = format!("mkdir {}/trunk/{path} -m US1 --config-dir /nonexistent/x", server.url());
        let committed = server.run_as(user, &format!("umask 002; svn {words}")).succeeds();
        assert!(!format!("{committed:?}").contains("arning"), "{committed:?}");
    }
    server.run_as(USERS[1], "\"$0\" deliver --wait").succeeds();
    let revisions: Vec<String> = server.changesets().into_iter().map(|changeset| changeset.revision).collect();
    assert_eq!(revisions, ["2", "3"]);
}

fn ended(mut process: Child) {
    process.wait().expect("it was ours");
}

fn hermetic_shell(server: &Subversion, script: &str) -> Command {
    let mut command = hermetic("sh");
    command.args(["-c", script]).current_dir(&server.git_dir);
    command
}

#[test]
fn a_mirror_address_is_escaped() {
    assert_eq!(url_of(Path::new("/a b/é@%")), "file:///a%20b/%C3%A9%40%25");
}

#[test]
fn a_commit_over_http_is_posted_with_the_user_who_logged_in() {
    let Some(server) = Subversion::delivering_later("[authors]\ndomain = \"acme.example\"\n") else { return };
    if !is_installed("apache2") || !server.give_to(USERS[0]) {
        return;
    }
    let port = listen().0.local_addr().expect("it is bound").port();
    write_apache_configuration(server.path(), port);
    let run = format!("exec apache2 -X -d {0} -f {0}/apache.conf", server.path().display());
    let _apache = Service::start(server.command_as(USERS[0], &run));
    let url = format!("http://127.0.0.1:{port}/svn/payments/trunk/dir");
    let commit = || {
        let mut svn = server.svn("svn");
        svn.args(["mkdir", "--message", "US1: over HTTP", "--username", "jane.roe", "--password", "secret", &url]);
        ran(svn)
    };
    let mut said = String::new();
    wait_for("Apache", || {
        let committed = commit();
        said = committed.stderr;
        committed.success
    });
    assert!(said.is_empty(), "{said}");
    let delivered = server.run_as(USERS[0], "\"$0\" deliver --wait");
    assert!(delivered.success, "{delivered:?}");
    assert_eq!(server.changeset("2").author.as_deref(), Some("jane.roe@acme.example"));
}

/// Configures a web server for the repositories below a directory.
fn write_apache_configuration(path: &Path, port: u16) {
    let modules = ["mpm_event", "authn_core", "authz_core", "authn_file", "authz_user", "auth_basic", "dav", "dav_svn"];
    let load = |name: &&str| format!("LoadModule {name}_module /usr/lib/apache2/modules/mod_{name}.so\n");
    let dir = path.display();
    let text = format!(
        "{modules}ServerName localhost\nListen 127.0.0.1:{port}\nDefaultRuntimeDir {dir}\nPidFile {dir}/apache.pid\n\
         ErrorLog {dir}/apache.log\n<Location /svn>\nDAV svn\nSVNParentPath {dir}\nAuthType Basic\nAuthName x\n\
         AuthUserFile {dir}/passwords\nRequire valid-user\n</Location>\n",
        modules = modules.iter().map(load).collect::<String>(),
    );
    // The password is "secret", as `openssl passwd -apr1 -salt rally secret` prints it.
    let passwords = "jane.roe:$apr1$rally$W5DGbPJhdDqzf0XoAeews.\n";
    for (name, text) in [("apache.conf", text.as_str()), ("passwords", passwords)] {
        fs::write(path.join(name), text).expect("a file");
        fs::set_permissions(path.join(name), fs::Permissions::from_mode(0o644)).expect("it is ours");
    }
}
