//! The hook: what a push becomes in Rally, what the pusher sees, and input of any kind.

use std::fs::File;
use std::io::Write;
use std::process::Stdio;

use crate::support::{Server, expected, name_of, ran};

#[test]
fn a_push_becomes_changesets_with_their_changes() {
    let server = Server::new();
    server.configure("[repository]\nweb = \"https://git.example/payments\"\n");
    let clone = server.new_clone();
    clone.commit("Start without an ID", &[("a", Some("1")), ("dir/b", Some("1"))]);
    let both = clone.commit("US1, DE2: change both\n\nBody", &[("a", Some("2")), ("dir/b", Some("2"))]);
    clone.commit("DE2: rename", &[("a", None), ("c", Some("2"))]);
    let seen = clone.push(&["origin", "main"]);
    assert!(seen.contains("rally: 2 commits queued for US1, DE2 (repository payments)"), "{seen}");
    server.deliver_all();
    server.assert_rally_holds(&expected(&server.git_dir, &["main"]));

    let changeset = server.changeset(&both);
    assert_eq!(changeset.message, "US1, DE2: change both\n\nBody");
    assert_eq!(changeset.author.as_deref(), Some("jane.roe@acme.example"));
    assert_eq!(changeset.branch.as_deref(), Some("main"));
    assert_eq!((changeset.repository.as_str(), changeset.workspace.as_str()), ("payments", "Acme"));
    assert_eq!(changeset.uri, Some(format!("https://git.example/payments/commit/{both}")));
    let change = changeset.changes.iter().find(|change| change.path == "dir/b").expect("both files are there");
    assert_eq!(change.uri, Some(format!("https://git.example/payments/blob/{both}/dir/b")));
    let committed = clone.git(&["log", "-1", "--format=%cd", "--date=format-local:%Y-%m-%dT%H:%M:%S", &both]);
    assert!(changeset.commit_timestamp.starts_with(&committed), "{} {committed}", changeset.commit_timestamp);
}

#[test]
fn a_push_is_delivered_in_the_background() {
    let server = Server::new();
    let clone = server.new_clone();
    let revision = clone.commit("US1", &[("a", Some("1"))]);
    clone.push(&["origin", "main"]);
    server.rally.wait_until("the commit and its file", |world| {
        world.changesets().iter().any(|held| held.revision == revision && held.changes.len() == 1)
    });
}

#[test]
fn input_that_is_not_a_ref_update_is_logged_and_the_hook_succeeds() {
    let server = Server::delivering_later("");
    let long = format!("{} refs/heads/{}\n", "0 ".repeat(2), "x".repeat(100_000));
    for input in [&b""[..], b"nonsense", b"\0\xff\n\n\r\n", long.as_bytes()] {
        let ran = server.run_hook(input).succeeds();
        assert!(ran.stdout.is_empty() && ran.stderr.len() < 400, "{ran:?}");
    }
    assert!(server.log().contains("not a ref update: nonsense"));
    // The next push is not affected.
    server.new_clone().push_commits(&["US1"]);
    server.deliver_all();
    server.assert_rally_holds(&expected(&server.git_dir, &["main"]));
}

#[test]
fn an_update_to_a_missing_commit_is_logged_and_the_hook_succeeds() {
    let server = Server::delivering_later("");
    let gone = format!("{} {} refs/heads/gone\n", name_of('0'), name_of('1'));
    server.run_hook(gone.as_bytes()).succeeds();
    assert!(server.log().contains("cannot record what refs/heads/gone was pushed to"));
    let clone = server.new_clone();
    clone.commit("US1", &[("a", Some("1"))]);
    clone.push(&["origin", "main"]);
    server.deliver_all();
    server.assert_rally_holds(&expected(&server.git_dir, &["main"]));
}

#[test]
fn the_pusher_sees_one_short_line_however_many_artifacts_are_named() {
    let server = Server::delivering_later("");
    let clone = server.new_clone();
    let many: Vec<String> = (1..400).map(|number| format!("US{number}")).collect();
    clone.commit(&many.join(" "), &[("a", Some("1"))]);
    let seen = clone.push(&["origin", "main"]);
    assert_eq!(seen.matches("rally: ").count(), 1, "{seen}");
    assert!(seen.contains("US1, US2, US3, US4, US5, 95 more") && seen.len() < 300, "{seen}");
    server.deliver_all();
    assert_eq!(server.changesets()[0].artifacts.len(), 9, "those that Rally has");
}

#[test]
fn the_log_names_the_pusher_without_control_characters() {
    let server = Server::delivering_later("");
    let clone = server.new_clone();
    clone.commit("US1", &[("a", Some("1"))]);
    let mut push = clone.command();
    push.args(["push", "--quiet", "origin", "main"]).env("GL_USERNAME", "jane\x1b[2J");
    ran(push).succeeds();
    assert!(server.log().contains("push by jane?[2J: 1 new commit, 1 queued"), "{}", server.log());
}

#[test]
fn a_push_that_cannot_be_read_in_time_is_read_in_the_background() {
    let server = Server::new();
    let lock =
        File::options().write(true).open(server.git_dir.join("rally-hook/record.lock")).expect("install made it");
    lock.lock().expect("nobody holds it");
    let clone = server.new_clone();
    clone.commit("US1", &[("a", Some("1"))]);
    let seen = clone.push(&["origin", "main"]);
    assert!(seen.contains("rally: this push is kept; its commits are recorded later, because another process is recording commits (repository payments)"), "{seen}");
    assert_eq!(server.count("recorded"), 0);
    drop(lock);
    server.rally.wait_until("the commit", |world| world.changesets().iter().any(|held| held.changes.len() == 1));
    server.deliver_all();
    server.assert_rally_holds(&expected(&server.git_dir, &["main"]));
    assert!(server.log().contains("0 queued so far; the rest is recorded later, because another process"));
    assert!(server.log().contains("recorded what hooks left: 1 new commit, 1 queued"), "{}", server.log());
}

#[test]
fn a_message_may_name_a_hundred_thousand_artifacts_of_which_a_hundred_count() {
    let server = Server::delivering_later("[log]\nlevel = \"error\"\n");
    let clone = server.new_clone();
    let many: String = (1..100_000).map(|number| format!("US{number} ")).collect();
    clone.commit(&many, &[("a", Some("1"))]);
    clone.push(&["origin", "main"]);
    // The hook may have had too little time; this command takes as long as it needs.
    server.run(&["catch-up"]).succeeds();
    assert_eq!((server.count("pending"), server.count("unread_pushes")), (1, 0));
    let shown = server.run(&["backfill", "main", "--dry-run", "--json"]).succeeds().stdout;
    assert_eq!(shown.matches("\"US").count(), 100);
}

#[test]
fn odd_input_reports_no_internal_error() {
    let server = Server::delivering_later("");
    let update = server.import("refs/heads/main", &["US1"]);
    let line = update.trim_end();
    let long = format!("{} {} refs/heads/{}\n", name_of('0'), name_of('1'), "x".repeat(10_000));
    let odd: [&[u8]; 6] =
        [b"", b"\n", b"no ref update\n", b"\xff\xfe\0 x y\n", long.as_bytes(), &line.as_bytes()[..60]];
    for input in odd {
        let ran = server.run_hook(input).succeeds();
        assert!(!ran.stderr.contains("fault of its own"), "{ran:?}");
        server.assert_counts_add_up();
    }
}

#[test]
fn line_breaks_and_repetitions_in_the_input_do_not_matter() {
    let server = Server::delivering_later("");
    let update = server.import("refs/heads/main", &["US1"]);
    let line = update.trim_end();
    // Without its last line break, with that of another system, and twice.
    for input in [line.to_owned(), format!("{line}\r\n"), update.clone()] {
        server.run_hook(input.as_bytes()).succeeds();
    }
    server.deliver_all();
    server.assert_rally_holds(&expected(&server.git_dir, &["main"]));
}

#[test]
fn a_closed_stderr_does_not_stop_the_hook() {
    let server = Server::delivering_later("");
    let update = server.import("refs/heads/main", &["US1"]);
    let mut command = server.hook_command();
    command.stdin(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().expect("the program can be run");
    drop(child.stderr.take());
    let mut stdin = child.stdin.take().expect("a pipe");
    stdin.write_all(update.as_bytes()).expect("the hook reads");
    drop(stdin);
    assert!(child.wait().expect("it was ours").success());
    assert_eq!(server.count("recorded"), 1);
}
