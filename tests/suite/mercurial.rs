//! Mercurial repositories: what a changeset becomes in Rally, and that nothing is lost and nothing posted twice.

use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::process::CommandExt;
use std::time::Duration;

use rally_simulator::Action;

use crate::support::mercurial::{Mercurial, WorkDir, path_of};
use crate::support::network::listen;
use crate::support::process::{Service, kill_after, spawn, wait_for};
use crate::support::{copy, hermetic, program, ran};

fn paths(server: &Mercurial, revision: &str) -> Vec<String> {
    let changes = server.changeset(revision).changes;
    changes.iter().map(|change| format!("{} {}", change.action, change.path)).collect()
}

#[test]
fn a_push_becomes_a_changeset_with_its_changes() {
    let Some(server) = Mercurial::delivering_later("") else { return };
    let clone = server.new_clone();
    clone.commit("first", &[("old", Some("1")), ("gone", Some("1")), ("tool", Some("1"))]);
    clone.hg(&["mv", "old", "dir/new"]);
    ran({
        let mut chmod = hermetic("chmod");
        chmod.arg("+x").arg(clone.path.join("tool"));
        chmod
    })
    .succeeds();
    let revision = clone.commit("US1, DE2: Ä <b>\n\nBody", &[("added", Some("2")), ("gone", None)]);
    clone.push(&[]).succeeds();
    server.deliver_all();
    let changeset = server.changeset(&revision);
    assert_eq!(changeset.message, "US1, DE2: Ä <b>\n\nBody");
    assert_eq!(changeset.author.as_deref(), Some("jane.roe@acme.example"));
    assert_eq!(changeset.branch.as_deref(), Some("default"));
    assert_eq!(changeset.repository, "payments");
    assert_eq!(paths(&server, &revision), ["A added", "A dir/new", "D gone", "D old", "M tool"]);
    let kind = server.rally.world(|world| world.repositories()[0].scm_type.clone());
    assert_eq!((revision.len(), kind.as_str()), (40, "Mercurial"));
}

#[test]
fn a_push_is_delivered_in_the_background_and_the_pusher_sees_nothing() {
    let Some(server) = Mercurial::new() else { return };
    let clone = server.new_clone();
    let revision = clone.commit("US1", &[("a", Some("1"))]);
    let pushed = clone.push(&[]).succeeds();
    assert!(!pushed.stdout.contains("rally") && pushed.stderr.is_empty(), "{pushed:?}");
    server.rally.wait_until("the changeset and its file", |world| {
        world.changesets().iter().any(|held| held.revision == revision && held.changes.len() == 1)
    });
}

#[test]
fn a_push_over_ssh_is_posted_and_the_pusher_sees_nothing() {
    let Some(server) = Mercurial::delivering_later("") else { return };
    let clone = server.new_clone();
    clone.commit("US1", &[("a", Some("1"))]);
    let ssh = server.stand_in_for_ssh();
    let url = format!("ssh://user@host/{}", server.root().path.display());
    let command = path_of("hg");
    let options = ["--ssh", ssh.to_str().expect("UTF-8"), "--remotecmd", command.to_str().expect("UTF-8"), &url];
    let pushed = clone.push(&options).succeeds();
    assert!(!format!("{pushed:?}").contains("rally"), "{pushed:?}");
    server.assert_delivers("all()");
    assert_eq!(server.changesets().len(), 1);
}

#[test]
fn a_push_over_http_is_posted_and_the_pusher_sees_nothing() {
    let Some(server) = Mercurial::delivering_later("") else { return };
    let clone = server.new_clone();
    clone.commit("US1", &[("a", Some("1"))]);
    let port = listen().0.local_addr().expect("it is bound").port().to_string();
    let web = ["--config", "web.push_ssl=false", "--config", "web.allow-push=*"];
    let _service = Service::start(server.root().command(&[&["serve", "--port", &port], &web[..]].concat()));
    let url = format!("http://127.0.0.1:{port}/");
    wait_for("hg serve", || ran(clone.command(&["identify", &url])).success);
    let pushed = clone.push(&[&url]).succeeds();
    assert!(!format!("{pushed:?}").contains("rally"), "{pushed:?}");
    server.assert_delivers("all()");
    assert_eq!(server.changesets().len(), 1);
}

#[test]
fn a_bundle_that_is_applied_on_the_server_is_posted() {
    let Some(server) = Mercurial::delivering_later("") else { return };
    let clone = server.new_clone();
    clone.commit("US1", &[("a", Some("1"))]);
    clone.hg(&["bundle", "--quiet", "--all", "../bundle"]);
    server.root().hg(&["unbundle", "--quiet", "../bundle"]);
    server.assert_delivers("all()");
    assert_eq!(server.changesets().len(), 1);
}

#[test]
fn what_the_server_pulls_is_posted() {
    let Some(server) = Mercurial::delivering_later("") else { return };
    let clone = server.new_clone();
    clone.commit("US1", &[("a", Some("1"))]);
    server.root().hg(&["pull", "--quiet", clone.path.to_str().expect("UTF-8")]);
    server.assert_delivers("all()");
    assert_eq!(server.changesets().len(), 1);
}

#[test]
fn a_commit_on_the_server_is_posted() {
    let Some(server) = Mercurial::delivering_later("") else { return };
    server.root().commit("US1", &[("a", Some("1"))]);
    server.assert_delivers("all()");
    assert_eq!(server.changesets().len(), 1);
}

#[test]
fn a_commit_in_a_share_is_posted_for_the_repository_that_it_shares() {
    let Some(server) = Mercurial::without_hook("payments") else { return };
    server.configure_later("");
    let share = WorkDir::at(server.path().join("share"), 1_650_000_000);
    let sharing = ["--config", "extensions.share=", "share", "--quiet", ".", "../share"];
    server.root().hg(&sharing);
    let mut install = server.command(&["install", "--repo"]);
    install.arg(&share.path);
    ran(install).succeeds();
    assert!(server.git_dir.join("rally-hook/hgrc").exists());
    share.commit("US1", &[("a", Some("1"))]);
    server.assert_delivers("all()");
    assert_eq!(server.changesets()[0].repository, "payments");
}

#[test]
fn every_byte_of_messages_users_branches_and_paths_survives() {
    let Some(server) = Mercurial::delivering_later("") else { return };
    let root = server.root();
    root.hg(&["branch", "--quiet", "zweig ü. a"]);
    let path = std::ffi::OsStr::from_bytes(b"caf\xe9 {node}\\x");
    fs::write(root.path.join(path), "1").expect("a file");
    fs::write(root.path.join("message"), b"US1: a\0b {desc}\\n \xe2\x82\xac").expect("a file");
    fs::write(root.path.join(".hgignore"), "message").expect("a file");
    let revision = root.commit_with(&["--addremove", "--user", "renée (no address)", "--logfile", "message"]);
    server.deliver_all();
    let changeset = server.changeset(&revision);
    assert_eq!(changeset.branch.as_deref(), Some("zweig ü. a"));
    assert!(changeset.message.ends_with("b {desc}\\n €"), "{:?}", changeset.message);
    assert_eq!(paths(&server, &revision), ["A .hgignore", r"A caf\xE9 {node}\\x"]);
}

#[test]
fn a_merge_changes_what_differs_from_both_parents() {
    let Some(server) = Mercurial::delivering_later("") else { return };
    let clone = server.new_clone();
    let base = clone.commit("US1", &[("a", Some("1\n")), ("b", Some("1\n")), ("c", Some("1\n"))]);
    clone.commit("US2", &[("a", Some("2\n")), ("b", None)]);
    clone.hg(&["update", "--quiet", &base]);
    clone.commit("US3", &[("c", Some("3\n")), ("new", Some("3\n"))]);
    clone.hg(&["merge", "--quiet", "--tool", ":local"]);
    let merge = clone.commit("US4: both", &[("c", Some("4\n")), ("of-merge", Some("4\n"))]);
    clone.push(&[]).succeeds();
    server.assert_delivers("all()");
    assert_eq!(paths(&server, &merge), ["M c", "A of-merge"]);
}

#[test]
fn a_changeset_that_closes_a_branch_is_posted_without_paths() {
    let Some(server) = Mercurial::delivering_later("") else { return };
    let clone = server.new_clone();
    clone.hg(&["branch", "--quiet", "fix"]);
    clone.commit("US1", &[("a", Some("1"))]);
    let closing = clone.commit_with(&["--close-branch", "--message", "US2: done"]);
    clone.push(&[]).succeeds();
    server.assert_delivers("all()");
    assert!(paths(&server, &closing).is_empty());
    assert_eq!(server.changeset(&closing).branch.as_deref(), Some("fix"));
}

#[test]
fn only_watched_branches_are_posted() {
    let Some(server) = Mercurial::delivering_later("[commits]\nrefs = [\"default\"]\n") else { return };
    let clone = server.new_clone();
    let watched = clone.commit("US1", &[("a", Some("1"))]);
    clone.hg(&["branch", "--quiet", "other"]);
    clone.commit("US2", &[("a", Some("2"))]);
    clone.push(&[]).succeeds();
    server.deliver_all();
    assert_eq!(server.revisions(), [watched]);
}

#[test]
fn a_secret_changeset_is_posted_once_it_is_published() {
    let Some(server) = Mercurial::delivering_later("") else { return };
    let root = server.root();
    let shown = root.commit("US1", &[("a", Some("1"))]);
    root.commit_with(&["--secret", "--config", "ui.allowemptycommit=1", "--message", "US2: secret"]);
    server.deliver_all();
    assert_eq!(server.revisions(), [shown]);
    server.assert_refs_behind(&[]);
    root.hg(&["phase", "--public", "tip"]);
    server.assert_delivers("all()");
    assert_eq!(server.changesets().len(), 2);
}

#[test]
fn a_changeset_that_was_rewritten_before_it_was_read_is_posted() {
    let Some(server) = Mercurial::delivering_later("") else { return };
    server.add_settings("[phases]\npublish = false\n[experimental]\nevolution = all\n");
    let clone = server.new_clone();
    let evolving = "[experimental]\nevolution = all\n[paths]\ndefault = ../payments\n";
    fs::write(clone.path.join(".hg/hgrc"), evolving).expect("a file");
    let first = clone.commit("US1: pushed", &[("a", Some("1"))]);
    clone.push(&[]).succeeds();
    clone.commit_with(&["--amend", "--message", "US2: in its place"]);
    clone.push(&[]).succeeds();
    assert_ne!(server.root().hg(&["log", "--hidden", "--rev", "obsolete()", "--template", "{node}"]), "");
    server.assert_delivers(&format!("all() + {first}"));
    assert_eq!(server.changesets().len(), 2);
}

#[test]
fn what_is_stripped_and_pushed_again_is_posted_once() {
    let Some(server) = Mercurial::delivering_later("") else { return };
    let clone = server.new_clone();
    clone.push_each(&["US1", "US2"]);
    server.deliver_all();
    server.root().strip("1");
    clone.push_each(&["US3: built on it"]);
    server.root().strip("2");
    server.root().commit("DE1: has a number that another one had", &[("x", Some("x"))]);
    clone.push(&[]).succeeds();
    server.assert_delivers("all()");
    assert_eq!(server.changesets().len(), 4);
}

#[test]
fn a_strip_of_old_history_lets_none_of_it_be_posted() {
    let Some(server) = Mercurial::without_hook("payments") else { return };
    server.configure_later("");
    let clone = server.new_clone();
    clone.push_each(&["US1: old", "US2: old", "US3: old and stripped"]);
    server.run(&["install"]).succeeds();
    server.root().strip("tip");
    clone.hg(&["update", "--quiet", "1"]);
    let new = clone.commit("US4: in its place", &[("a", Some("new"))]);
    clone.push(&["--rev", &new]).succeeds();
    server.deliver_all();
    assert_eq!(server.revisions(), [new]);
}

#[test]
fn large_files_are_posted_by_the_paths_of_their_stand_ins() {
    let Some(server) = Mercurial::delivering_later("") else { return };
    let clone = server.new_clone();
    let settings = "[extensions]\nlargefiles =\n[paths]\ndefault = ../payments\n";
    fs::write(clone.path.join(".hg/hgrc"), settings).expect("a file");
    server.add_settings("[extensions]\nlargefiles =\n");
    fs::write(clone.path.join("film"), "long").expect("a file");
    clone.hg(&["add", "--large", "film"]);
    let revision = clone.commit_with(&["--message", "US1"]);
    clone.push(&[]).succeeds();
    let required = fs::read_to_string(server.git_dir.join("store/requires")).expect("it is there");
    assert!(required.contains("largefiles"), "{required}");
    server.deliver_all();
    assert_eq!(paths(&server, &revision), ["A .hglf/film"]);
}

#[test]
fn the_next_push_posts_what_a_missing_hook_missed() {
    let Some(server) = Mercurial::delivering_later("") else { return };
    let clone = server.new_clone();
    clone.push_each(&["US1"]);
    server.deliver_all();
    clone.hg(&["branch", "--quiet", "side"]);
    server.without_hooks(|| clone.push_each(&["US2: missed"]));
    server.assert_refs_behind(&["side"]);
    clone.push_each(&["DE3"]);
    server.assert_delivers("all()");
    server.assert_refs_behind(&[]);
}

#[test]
fn catch_up_posts_what_a_missing_hook_missed() {
    let Some(server) = Mercurial::delivering_later("") else { return };
    server.without_hooks(|| server.new_clone().push_each(&["US1: missed", "US2: missed"]));
    let ran = server.run(&["catch-up"]).succeeds();
    assert!(ran.stderr.contains("2 commits queued"), "{ran:?}");
    assert!(server.run(&["catch-up"]).succeeds().stderr.contains("0 commits queued"));
    server.assert_delivers("all()");
}

#[test]
fn a_first_push_without_install_posts_what_it_brings() {
    let Some(server) = Mercurial::without_hook("payments") else { return };
    server.configure_later("");
    let clone = server.new_clone();
    clone.push_each(&["US1: old"]);
    let program = program().display();
    server.add_settings(&format!("[hooks]\ntxnclose.rally = {program} txnclose\n"));
    let first = clone.commit("US2: new", &[("a", Some("new"))]);
    clone.push(&[]).succeeds();
    let second = clone.push_each(&["US3: newer"]);
    server.deliver_all();
    assert_eq!(server.revisions(), [first, second]);
}

#[test]
fn twenty_pushes_at_once_are_all_posted_once() {
    let Some(server) = Mercurial::new() else { return };
    let first = server.new_clone();
    first.push_each(&["US1"]);
    let clones: Vec<WorkDir> = (0..20)
        .map(|number| {
            let path = server.path().join(format!("racer{number}"));
            copy(&first.path, &path);
            let clone = WorkDir::at(path, 1_710_000_000 + number);
            clone.commit(&format!("US{}: racer", number % 9 + 1), &[(&format!("f{number}"), Some("1"))]);
            clone
        })
        .collect();
    let pushes: Vec<_> = clones.iter().map(|clone| spawn(clone.push_command(&[]))).collect();
    for mut push in pushes {
        assert!(push.wait().expect("it was ours").success());
    }
    server.assert_delivers("all()");
    assert_eq!(server.changesets().len(), 21);
}

#[test]
fn a_client_that_is_killed_loses_nothing() {
    let Some(server) = Mercurial::delivering_later("") else { return };
    let clone = server.new_clone();
    for millis in [150, 250, 400] {
        clone.commit(&format!("US1: {millis}"), &[("a", Some(&millis.to_string()))]);
        let mut push = clone.push_command(&[]);
        push.process_group(0);
        kill_after(spawn(push), Duration::from_millis(millis));
        // An administrator does so where a killed process has left a transaction.
        let _ = ran(server.root().command(&["recover", "--quiet"]));
    }
    server.run(&["catch-up"]).succeeds();
    server.assert_delivers("all()");
    server.assert_refs_behind(&[]);
}

#[test]
fn a_push_ends_while_rally_hangs() {
    let Some(server) = Mercurial::new() else { return };
    server.fail_all(Action::Hang);
    let clone = server.new_clone();
    clone.push_each(&["US1"]);
    assert!(server.changesets().is_empty());
    server.rally.clear_faults();
    server.assert_delivers("all()");
}

#[test]
fn status_says_that_it_is_a_mercurial_repository_and_has_the_hook() {
    let Some(server) = Mercurial::new() else { return };
    let status = server.status();
    assert_eq!((&status["vcs"], &status["hook"]), (&"hg".into(), &"installed".into()));
}

#[test]
fn all_repositories_below_a_directory_are_found() {
    let Some(server) = Mercurial::delivering_later("") else { return };
    server.without_hooks(|| server.new_clone().push_each(&["US1: missed"]));
    let mut catch_up = hermetic(program());
    catch_up.args(["catch-up", "--all-repos"]).arg(server.path());
    ran(catch_up).succeeds();
    let mut deliver = hermetic(program());
    deliver.args(["deliver", "--all-repos"]).arg(server.path());
    ran(deliver).succeeds();
    server.assert_rally_holds(&server.expected("all()"));
}
