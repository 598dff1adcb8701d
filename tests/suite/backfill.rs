//! `backfill`: the commits of a range that the user names.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use rally_simulator::{Action, Fault, Match};

use crate::support::{Expected, Server, expected, is_new_format, name_of, ran};

#[test]
fn a_backfill_posts_history_once() {
    let server = Server::without_hook();
    let clone = server.new_clone();
    let first = clone.commit("US1", &[("a", Some("1"))]);
    clone.commit("DE2", &[("a", Some("2"))]);
    clone.push(&["origin", "main"]);
    server.run(&["install"]).succeeds();
    assert!(server.changesets().is_empty());
    server.run(&["backfill", &format!("{first}..main")]).succeeds();
    server.assert_rally_holds(&expected(&server.git_dir, &[&format!("{first}..main")]));
    server.run(&["backfill", "--all"]).succeeds();
    server.assert_rally_holds(&expected(&server.git_dir, &["main"]));
    let before = server.rally.requests().len();
    server.run(&["backfill", "main"]).succeeds();
    assert_eq!(server.rally.requests().len(), before, "nothing is left to post");
}

/// Returns the sorted lines of a dry run with `--json`.
fn dry_run(server: &Server, range: &[&str]) -> Vec<String> {
    let arguments = [&["backfill", "--dry-run", "--json"], range].concat();
    let ran = server.run(&arguments).succeeds();
    assert_eq!(ran.stderr, "");
    let mut lines: Vec<String> = ran.stdout.lines().map(str::to_owned).collect();
    lines.sort();
    lines
}

/// Returns the sorted lines that a dry run should print for these commits.
fn as_lines(expected: &[Expected]) -> Vec<String> {
    let quoted = |text: &String| serde_json::to_string(text).expect("text");
    let line = |commit: &Expected| {
        let artifacts: Vec<String> = commit.artifacts.iter().map(quoted).collect();
        let mut changes: Vec<_> = commit.changes.iter().collect();
        changes.sort_by(|a, b| a.1.cmp(&b.1));
        let change = |(action, path): &&(String, String)| format!(r#"{{"action":"{action}","path":{}}}"#, quoted(path));
        let changes: Vec<String> = changes.iter().map(change).collect();
        let (artifacts, changes) = (artifacts.join(","), changes.join(","));
        format!(r#"{{"revision":"{}","artifacts":[{artifacts}],"changes":[{changes}]}}"#, commit.revision)
    };
    let mut lines: Vec<String> = expected.iter().map(line).collect();
    lines.sort();
    lines
}

/// Sets up a server without hook and configuration; returns it with the commits on main. The branch topic forks from
/// the third of them and merges the fifth.
fn with_two_branches() -> (Server, Vec<String>) {
    let server = Server::without_hook();
    fs::remove_file(server.git_dir.join("rally-hook.toml")).expect("the configuration was there");
    let clone = server.new_clone();
    let mut revisions = Vec::new();
    for number in 1..=6 {
        let text = number.to_string();
        let name = format!("dir{}/\"q\" {number}", number % 2);
        revisions.push(clone.commit(&format!("US{number}"), &[("a", Some(&text)), (&name, Some("x"))]));
        if number == 3 {
            clone.git(&["branch", "topic"]);
        }
    }
    clone.commit("nothing named", &[("a", None)]);
    clone.git(&["checkout", "--quiet", "topic"]);
    clone.commit("DE1 topic", &[("b", Some("1"))]);
    clone.git(&["merge", "--quiet", "--no-edit", "-m", "DE2 merge", &revisions[4]]);
    clone.push(&["origin", "main", "topic"]);
    (server, revisions)
}

#[test]
fn a_dry_run_of_any_range_prints_the_commits_that_git_lists() {
    let (server, revisions) = with_two_branches();
    let first = format!("{}..main", revisions[0]);
    let hidden = format!("^{}", revisions[1]);
    let ranges: [(&[&str], &[&str]); 10] = [
        (&[&first], &[&first]),
        (&["main...topic"], &["main...topic"]),
        (&[&hidden, "main", "topic"], &[&hidden, "main", "topic"]),
        (&["main~2"], &["main~2"]),
        (&["--", "topic", "--not", "main"], &["topic", "--not", "main"]),
        (&["--all"], &["--all"]),
        (&["--all", "--since", "2023-11-14"], &["--all", "--since=2023-11-14 00:00"]),
        (&["--all", "--since", "2023-11-14 22:18:00 +0000"], &["--all", "--since=2023-11-14 22:18:00 +0000"]),
        (
            &["main..topic", "--since", "2023-11-14 22:30:00 +0000"],
            &["main..topic", "--since=2023-11-14 22:30:00 +0000"],
        ),
        (&["main..main"], &["main..main"]),
    ];
    for (arguments, rev_list) in ranges {
        assert_eq!(dry_run(&server, arguments), as_lines(&expected(&server.git_dir, rev_list)), "{arguments:?}");
    }
}

#[test]
fn a_dry_run_writes_no_file_and_sends_no_request() {
    let (server, _) = with_two_branches();
    let before = files(&server.git_dir);
    dry_run(&server, &["--all"]);
    server.run(&["backfill", "--dry-run", "main~1..main", "topic"]).succeeds();
    assert_eq!(files(&server.git_dir), before, "not even the directory of the queue");
    assert!(server.rally.requests().is_empty());
}

#[test]
fn a_dry_run_without_json_lists_artifacts_and_paths() {
    let (server, _) = with_two_branches();
    let text = server.run(&["backfill", "--dry-run", "main~1..main", "topic"]).succeeds();
    assert!(
        text.stdout.contains("DE1: DE1 topic\n  A b\n")
            && text.stderr.contains(" to post, if Rally has an artifact that it mentions"),
        "{text:?}"
    );
}

/// Returns all files and directories below this one.
fn files(directory: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(directory).expect("a directory").flatten() {
        found.push(entry.path());
        if entry.file_type().expect("a type").is_dir() {
            found.extend(files(&entry.path()));
        }
    }
    found.sort();
    found
}

#[test]
fn a_changeset_of_another_client_gets_the_changes_that_it_lacks() {
    let server = Server::delivering_later("");
    let clone = server.new_clone();
    let first = clone.commit("US1", &[("a", Some("1")), ("b", Some("1"))]);
    clone.push(&["origin", "main"]);
    server.deliver_all();
    let second = clone.commit("DE1", &[("a", Some("2")), ("b", Some("2"))]);
    server.rally.world(|world| {
        world.add_changeset("payments", &second, "DE1", &["DE1"], &[("M", "a")]);
        world.drop_change(&first, "b");
    });
    clone.push(&["origin", "main"]);
    server.run(&["deliver", "--wait"]).succeeds();
    server.run(&["backfill", "--all"]);
    server.let_time_pass();
    server.deliver_all();
    let held = server.changeset(&second);
    assert_eq!(held.changes.len(), 2, "the missing one was added, the other not made again");
    assert_eq!((server.count("existed"), server.count("delivered")), (1, 1));
}

#[test]
fn a_backfill_with_later_delivery_only_queues() {
    let server = Server::without_hook();
    let clone = server.new_clone();
    clone.commit("US1", &[("a", Some("1"))]);
    clone.push(&["origin", "main"]);
    server.configure_later("");
    let ran = server.run(&["backfill", "main"]).succeeds();
    assert!(ran.stderr.contains("1 commit read, 1 queued"), "{ran:?}");
    assert!(server.rally.requests().is_empty());
    server.deliver_all();
    server.assert_rally_holds(&expected(&server.git_dir, &["main"]));
}

#[test]
fn a_second_backfill_completes_one_that_was_interrupted() {
    let server = Server::without_hook();
    let rally = "timeout = \"20s\"\nbatch = \"off\"";
    let queue = "[queue]\nretry_delay = \"20ms\"\n";
    server.write_configuration(server.configuration().rally(rally).sections(queue));
    let clone = server.new_clone();
    for number in 1..=9 {
        clone.commit(&format!("US{number}"), &[("a", Some(&number.to_string()))]);
    }
    clone.push(&["origin", "main"]);
    let on = Match { path: Some("/change/create"), skip: 3, ..Match::default() };
    server.rally.fault(Fault { on, times: usize::MAX, action: Action::Hang });
    let mut child = server.command(&["backfill", "--all"]).stderr(Stdio::null()).spawn().expect("it runs");
    server.rally.wait_for_requests("changes that hang", |requests| {
        requests.iter().filter(|request| request.path == "/change/create").count() > 3
    });
    // As Ctrl-C does.
    let killed = Command::new("kill").args(["-INT", &child.id().to_string()]).status().expect("kill runs");
    assert!(killed.success() && !child.wait().expect("it ends").success());
    server.rally.clear_faults();
    server.run(&["backfill", "--all"]);
    server.let_time_pass();
    server.deliver_all();
    server.assert_rally_holds(&expected(&server.git_dir, &["main"]));
}

#[test]
fn a_broken_ref_is_reported_and_the_other_refs_are_read() {
    if is_new_format() {
        // With reftable there is no file to break.
        return;
    }
    let server = Server::delivering_later("");
    server.receive(&["US1: there"]);
    fs::write(server.git_dir.join("refs/heads/broken"), format!("{}\n", name_of('1'))).expect("a ref");
    let ran = server.run(&["backfill", "--all", "--dry-run", "--json"]).fails_with(1);
    assert!(ran.stdout.contains("US1") && ran.stderr.contains(&name_of('1')), "{ran:?}");
}

#[test]
fn json_escapes_control_characters() {
    let server = Server::delivering_later("");
    let clone = server.new_clone();
    let path = "csi\u{9b}2J right-to-left\u{202e} delete\u{7f}";
    clone.commit("US1", &[(path, Some("1"))]);
    clone.push(&["origin", "main"]);
    let shown = server.run(&["backfill", "main", "--dry-run", "--json"]).succeeds().stdout;
    assert!(!shown.contains(['\u{9b}', '\u{202e}', '\u{7f}']), "{shown:?}");
    let parsed: serde_json::Value = serde_json::from_str(&shown).expect("one object");
    assert_eq!(parsed["changes"][0]["path"], path);
}

#[test]
fn a_backfill_after_the_repository_is_renamed_posts_all_commits_to_the_new_name() {
    let server = Server::delivering_later("");
    server.receive(&["US1: one", "DE2: two"]);
    server.deliver_all();
    assert!(server.run(&["backfill", "--all"]).succeeds().stderr.contains(", 0 queued"));
    let config = server.read_configuration();
    server.write_configuration(format!("{config}\n[repository]\nname = \"renamed\"\n"));
    assert!(server.run(&["backfill", "--all"]).succeeds().stderr.contains(", 2 queued"));
    server.deliver_all();
    let mut of: Vec<String> = server.changesets().into_iter().map(|held| held.repository).collect();
    of.sort();
    assert_eq!(of, ["payments", "payments", "renamed", "renamed"]);
    server.assert_counts_add_up();
}

#[test]
fn a_value_of_since_that_is_not_a_date_is_refused() {
    let server = Server::delivering_later("");
    server.receive(&["US1: one"]);
    for since in ["whenever", "3 wekks ago", "noon", "2026-01-31 25:00"] {
        let ran = server.run(&["backfill", "--since", since, "--dry-run"]).fails_with(2);
        assert!(ran.stderr.contains("is not a date"), "{ran:?}");
    }
    server.run(&["backfill", "--since", "3 weeks ago", "--dry-run"]).succeeds();
    // There, the clocks went forward at midnight.
    let mut on_a_day_without_midnight = server.command(&["backfill", "--since", "2026-09-06", "--dry-run"]);
    on_a_day_without_midnight.env("TZ", "America/Santiago");
    ran(on_a_day_without_midnight).succeeds();
}

#[test]
fn options_of_git_log_are_refused() {
    let server = Server::delivering_later("");
    server.new_clone().push_commits(&["US1: one", "US2: two"]);
    for arguments in
        [&["--merges", "main"][..], &["--author=x", "main"], &["--since=whenever", "main"], &["main", "--", "x"]]
    {
        let ran = server.run(&[&["backfill", "--dry-run", "--"], arguments].concat()).fails_with(2);
        assert!(ran.stderr.contains("is not a revision"), "{ran:?}");
    }
}

#[test]
fn the_revision_options_of_git_are_accepted() {
    let server = Server::delivering_later("");
    server.new_clone().push_commits(&["US1: one", "US2: two"]);
    let ran = server.run(&["backfill", "--dry-run", "--", "--branches", "--not", "main~1"]).succeeds();
    assert!(ran.stdout.contains("US2") && !ran.stdout.contains("US1"), "{ran:?}");
}

#[test]
fn a_revision_that_is_not_a_commit_is_refused() {
    let server = Server::delivering_later("");
    server.new_clone().push_commits(&["US1: one"]);
    server.git(&["tag", "tree", "main:dir"]);
    for named in ["main:dir", "main:a", "^main:dir", "tree"] {
        let ran = server.run(&["backfill", "--dry-run", "main", named]).fails_with(2);
        assert!(ran.stderr.contains(&format!("{named} is not a commit")), "{ran:?}");
    }
    server.run(&["backfill", "--dry-run", "--all", "main"]).succeeds();
}

#[test]
fn replace_refs_do_not_change_a_range() {
    let server = Server::delivering_later("");
    server.new_clone().push_commits(&["US1: one", "US2: two", "US3: three"]);
    server.git(&["replace", "--graft", "main", "main~2"]);
    let ran = server.run(&["backfill", "--dry-run", "main~1..main"]).succeeds();
    assert!(ran.stdout.contains("US3") && !ran.stdout.contains("US2"), "{ran:?}");
}

/// Sets up a server with US1 on a branch and US2 on a ref that is neither branch nor tag.
fn with_pull_request() -> Server {
    let server = Server::delivering_later("");
    let clone = server.new_clone();
    clone.push_commits(&["US1: one"]);
    clone.git(&["checkout", "--quiet", "-b", "other"]);
    clone.commit("US2: two", &[]);
    clone.push(&["origin", "other:refs/pull/1/head"]);
    server
}

#[test]
fn all_means_the_refs_of_every_kind() {
    let server = with_pull_request();
    let all = server.run(&["backfill", "--all", "--dry-run"]).succeeds();
    assert!(all.stdout.contains("US1") && all.stdout.contains("US2"), "{all:?}");
}

#[test]
fn branches_and_tags_mean_the_refs_of_that_kind() {
    let server = with_pull_request();
    let branches = server.run(&["backfill", "--dry-run", "--", "--branches"]).succeeds();
    assert!(branches.stdout.contains("US1") && !branches.stdout.contains("US2"), "{branches:?}");
    let none = server.run(&["backfill", "--dry-run", "--", "--tags"]).succeeds();
    assert!(none.stdout.is_empty() && none.stderr.contains("0 commits read"), "{none:?}");
}
