//! Text that a pusher chooses does not act on terminals and logs, is no option of a program, and decides nothing.

use std::fs;
use std::os::unix::fs::symlink;

use crate::support::{Server, ran};

/// Clears the screen, sets the window's title, rings, goes back, hides, and turns the direction of text round.
const ACTIVE: &str = "\x1b[2J\x1b]0;title\x07\x08\r\u{9b}8m\u{202e}\u{2066}";

/// Asserts that nothing in what was shown acts on a terminal.
fn assert_harmless(shown: &str) {
    let is_active = |c: char| {
        c.is_control() && c != '\n'
            || matches!(c, '\u{200e}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
    };
    assert!(!shown.contains(is_active), "{shown:?}");
}

#[test]
fn nothing_of_a_push_acts_on_a_terminal_or_a_log() {
    let server = Server::delivering_later("[log]\nlevel = \"debug\"\n");
    let clone = server.new_clone();
    let branch = "US2\u{202e}\u{2066}";
    clone.git(&["checkout", "--quiet", "-b", branch]);
    let mut commit = clone.command();
    commit.env("GIT_AUTHOR_NAME", ACTIVE).env("GIT_AUTHOR_EMAIL", ACTIVE);
    commit.args(["commit", "--quiet", "--allow-empty", "-m", &format!("US1 {ACTIVE}US404{ACTIVE}")]);
    ran(commit).succeeds();
    let mut push = clone.command();
    // What other hooks and Git itself write is theirs.
    push.args(["push", "--quiet", "origin", branch]).env("GL_USERNAME", ACTIVE);
    let seen = ran(push).succeeds().stderr;
    let ours: Vec<&str> = seen.lines().filter_map(|line| line.strip_prefix("remote: ")).collect();
    assert!(ours.iter().any(|line| line.contains("queued")), "{seen:?}");
    // Git ends each line with blanks or an escape sequence of its own.
    ours.iter().for_each(|line| assert_harmless(line.trim_end_matches("\x1b[K")));
    for arguments in [
        &["backfill", "--dry-run", "--all"][..],
        &["backfill", "--dry-run", "--json", "--all"],
        &["deliver"],
        &["status"],
    ] {
        let ran = server.run(arguments);
        assert_harmless(&(ran.stdout + &ran.stderr));
    }
    assert_harmless(&server.log());
}

#[test]
fn one_event_is_one_line_of_the_log_whatever_the_pusher_is_called() {
    let server = Server::delivering_later("");
    let clone = server.new_clone();
    clone.commit("US1", &[("a", Some("1"))]);
    let mut push = clone.command();
    push.args(["push", "--quiet", "origin", "main"]).env("GL_USERNAME", "jane\n2026-01-01T00:00:00Z error forged\r");
    ran(push).succeeds();
    let log = server.log();
    assert!(log.lines().all(|line| !line.starts_with("2026-01-01T00:00:00Z")), "{log}");
    assert!(log.contains("push by jane 2026-01-01T00:00:00Z error forged"), "{log}");
}

#[test]
fn names_that_look_like_options_are_names() {
    let server = Server::delivering_later("");
    let clone = server.new_clone();
    let path = "--output=x";
    let revision = clone.commit("US1", &[(path, Some("1")), ("a;touch x", Some("1")), ("$(touch x)", Some("1"))]);
    clone.git(&["update-ref", "refs/heads/--exec=touch-x", &revision]);
    clone.push(&["origin", "refs/heads/--exec=touch-x:refs/heads/--exec=touch-x"]);
    server.run(&["backfill", "--dry-run", "--all"]).succeeds();
    server.deliver_all();
    let mut paths: Vec<String> = server.changeset(&revision).changes.iter().map(|change| change.path.clone()).collect();
    paths.sort();
    assert_eq!(paths, ["$(touch x)", path, "a;touch x"]);
    assert!(!server.git_dir.join("x").exists() && !server.path().join("x").exists());
    for option in ["--output=x", "-n1"] {
        let ran = server.run(&["backfill", "--dry-run", "--", option]).fails_with(2);
        assert!(ran.stderr.contains("is not a revision"), "{ran:?}");
    }
}

#[test]
fn a_pushed_mailmap_changes_no_author() {
    let server = Server::delivering_later("");
    server.rally.world(|world| world.add_user("boss", "boss@acme.example", "Boss"));
    let clone = server.new_clone();
    let map = "Boss <boss@acme.example> <jane.roe@acme.example>\n";
    let revision = clone.commit("US1", &[(".mailmap", Some(map)), (".gitattributes", Some("* diff=x\n"))]);
    clone.push(&["origin", "main"]);
    server.deliver_all();
    assert_eq!(server.changeset(&revision).author.as_deref(), Some("jane.roe@acme.example"));
}

#[test]
fn a_lock_that_is_a_symbolic_link_is_refused_and_not_followed() {
    let server = Server::delivering_later("");
    let target = server.path().join("target");
    for name in ["record.lock", "deliver.lock"] {
        let lock = server.git_dir.join("rally-hook").join(name);
        let _ = fs::remove_file(&lock);
        symlink(&target, &lock).expect("a link");
        server.new_clone().push_commits(&["US1: one"]);
        server.run(&["deliver"]).fails_with(1);
        assert!(!target.exists(), "{name}");
        fs::remove_file(&lock).expect("it is there");
    }
    server.deliver_all();
    assert!(!server.changesets().is_empty());
}
