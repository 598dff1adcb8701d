//! Histories of every shape: the changed paths are those that Git lists.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};

use crate::support::{Clone, History, Random, Server, expected, expected_changes, expected_of_all, name_of};

/// Returns the changes of a commit as Git lists them, one a line.
fn changes(clone: &Clone, revision: &str) -> String {
    let changes = expected_changes(&clone.path, revision);
    changes.iter().map(|(letter, path)| format!("{letter} {path}")).collect::<Vec<_>>().join("\n")
}

fn merge(clone: &Clone, arguments: &[&str]) {
    let mut command = vec!["merge", "--quiet", "--no-ff", "--no-commit"];
    command.extend(arguments);
    clone.git(&command);
}

#[test]
fn a_merge_has_only_the_changes_that_differ_from_all_parents() {
    let server = Server::new();
    let clone = server.new_clone();
    clone.commit("US1 root", &[("a", Some("1")), ("b", Some("1")), ("dir/c", Some("1"))]);
    for (branch, file) in [("one", "a"), ("two", "b"), ("three", "dir/c")] {
        clone.git(&["checkout", "--quiet", "-b", branch, "main"]);
        clone.commit(&format!("US2 {branch}"), &[(file, Some(branch)), (branch, Some("new"))]);
    }
    clone.git(&["checkout", "--quiet", "main"]);
    merge(&clone, &["one"]);
    let clean = clone.commit_staged("DE1 clean merge");
    merge(&clone, &["two", "three"]);
    let octopus = clone.commit_staged("DE2 octopus");
    clone.git(&["checkout", "--quiet", "-b", "other", "one"]);
    clone.commit("US3 conflict", &[("b", Some("theirs"))]);
    clone.git(&["checkout", "--quiet", "main"]);
    // The conflict is resolved to what neither side has, and a file is changed that no side changed.
    clone.git(&["merge", "--quiet", "--no-commit", "-s", "ours", "other"]);
    let evil = clone.commit("DE3 evil merge", &[("b", Some("both")), ("dir/c", Some("evil")), ("evil", Some("x"))]);
    clone.git(&["checkout", "--quiet", "--orphan", "unrelated"]);
    clone.git(&["rm", "-r", "--quiet", "--force", "."]);
    let root = clone.commit("US4 second root", &[("z", Some("1")), ("a", Some("unrelated"))]);
    clone.git(&["checkout", "--quiet", "main"]);
    clone.git(&["merge", "--quiet", "--no-commit", "--allow-unrelated-histories", "-s", "ours", "unrelated"]);
    clone.commit_staged("DE4 merge of another history");
    clone.push(&["origin", "main"]);
    server.deliver_all();

    server.assert_rally_holds(&expected(&server.git_dir, &["main"]));
    assert_eq!([changes(&clone, &clean), changes(&clone, &octopus)], ["", ""]);
    assert_eq!(changes(&clone, &evil), "A evil\nM b\nM dir/c");
    assert_eq!(changes(&clone, &root), "A a\nA z");
}

#[test]
fn every_kind_of_change_is_posted_as_git_lists_it() {
    let server = Server::new();
    let clone = server.new_clone();
    let at = |name: &str| clone.path.join(name);
    let first = &name_of('1');
    let second = &name_of('2');
    clone.commit("US1 root", &[("file", Some("1")), ("tool", Some("1")), ("dir/x", Some("1")), ("dir/y", Some("1"))]);
    symlink("file", at("link")).expect("a link");
    clone.commit("US1 add a link", &[]);
    fs::remove_file(at("link")).expect("it was there");
    clone.commit("US1 a link becomes a file", &[("link", Some("text"))]);
    fs::remove_file(at("link")).expect("it was there");
    symlink("elsewhere", at("link")).expect("a link");
    clone.commit("US1 and a link again", &[]);
    fs::set_permissions(at("tool"), fs::Permissions::from_mode(0o755)).expect("a mode");
    clone.commit("DE1 a mode changes", &[]);
    clone.commit("DE1 a file becomes a directory", &[("file", None), ("file/deep/er", Some("1"))]);
    fs::remove_dir_all(at("dir")).expect("it was there");
    let flat = clone.commit("DE1 a directory becomes a file", &[("dir", Some("flat"))]);
    clone.git(&["mv", "tool", "tool2"]);
    clone.commit_staged("DE2 rename");
    clone.commit("DE2 delete", &[("tool2", None)]);
    clone.commit_staged("DE2 empty");
    for (gitlink, message) in [(first, "US2 add a submodule"), (second, "US2 move the submodule")] {
        clone.git(&["update-index", "--add", "--cacheinfo", &format!("160000,{gitlink},sub")]);
        clone.commit_staged(message);
    }
    clone.git(&["rm", "--quiet", "--cached", "sub"]);
    clone.commit_staged("US2 drop the submodule");
    clone.git(&["revert", "--no-edit", &flat]);
    clone.git(&["checkout", "--quiet", "-b", "side", "main~3"]);
    clone.git(&["cherry-pick", "-x", "main"]);
    clone.git(&["push", "--quiet", "origin", "main", "side"]);
    server.deliver_all();

    server.assert_rally_holds(&expected(&server.git_dir, &["main", "side"]));
    assert_eq!(changes(&clone, &flat), "A dir\nD dir/x\nD dir/y");
}

#[test]
fn a_revert_links_the_artifact_of_the_reverted_commit() {
    let server = Server::new();
    let clone = server.new_clone();
    let first = clone.commit("DE1 a commit", &[("a", Some("1"))]);
    clone.git(&["revert", "--no-edit", &first]);
    clone.push(&["origin", "main"]);
    server.deliver_all();
    assert_eq!(server.changeset(&clone.head()).artifacts, ["DE1"], "the message quotes the subject");
}

/// Paths of unusual bytes.
const PATHS: [&[u8]; 14] = [
    b"plain",
    b"with space ",
    b"\"quoted\" 'twice'",
    b"tab\there",
    b"line\nbreak\r",
    br"back\slash\",
    b"--option",
    b"-",
    b"caf\xe9.txt",
    b"\xff\xfe/\\in\x80",
    "日本語/é".as_bytes(),
    b"\x1b[31mred\x07",
    b"{revision}?#&%41<script>",
    b"etc/passwd",
];

/// Pushes and delivers a commit that adds [`PATHS`] and one that deletes the last six; returns the first.
fn deliver_paths() -> (Server, String) {
    let server = Server::new();
    server.configure("[repository]\nweb = \"https://git.example/p\"\n");
    let clone = server.new_clone();
    let files: Vec<(&[u8], Option<&str>)> = PATHS.iter().map(|path| (*path, Some("x"))).collect();
    let mut history = History::new();
    let added = history.commit("main", 1_700_000_000, "US1 add", &[], &files);
    let gone: Vec<(&[u8], Option<&str>)> = PATHS[8..].iter().map(|path| (*path, None)).collect();
    history.commit("main", 1_700_000_060, "US1 delete", &[added], &gone);
    let first = history.write_to(&clone).remove(0);
    clone.push(&["origin", "main"]);
    server.deliver_all();
    (server, first)
}

#[test]
fn a_path_may_hold_any_bytes() {
    let (server, first) = deliver_paths();
    server.assert_rally_holds(&expected(&server.git_dir, &["main"]));
    assert_eq!(server.changeset(&first).changes.len(), PATHS.len());
}

#[test]
fn paths_in_links_are_percent_encoded() {
    let (server, first) = deliver_paths();
    let held = server.changeset(&first).changes;
    let uri = |path: &str| held.iter().find(|change| change.path == path).and_then(|change| change.uri.clone());
    let base = format!("https://git.example/p/blob/{first}");
    assert_eq!(uri(r"caf\xE9.txt"), Some(format!("{base}/caf%E9.txt")));
    assert_eq!(uri("line\nbreak\r"), Some(format!("{base}/line%0Abreak%0D")));
}

#[test]
fn control_characters_in_paths_are_not_printed() {
    let (server, _) = deliver_paths();
    let shown = server.run(&["backfill", "main", "--dry-run"]).succeeds().stdout;
    assert!(!shown.contains(['\x1b', '\x07', '\r', '\t']), "{shown:?}");
    assert_eq!(shown.lines().count(), 2 + PATHS.len() + PATHS[8..].len(), "a path cannot break out of its line");
}

#[test]
fn changes_beyond_the_limit_are_counted_and_not_posted() {
    let server = Server::new();
    let clone = server.new_clone();
    let names: Vec<String> = (0..10_000).map(|number| format!("dir{:02}/file{number:05}", number % 37)).collect();
    let files: Vec<(&[u8], Option<&str>)> = names.iter().map(|name| (name.as_bytes(), Some("x"))).collect();
    let mut history = History::new();
    history.commit("main", 1_700_000_000, "US1 all at once", &[], &files);
    let revision = history.write_to(&clone).remove(0);
    clone.push(&["origin", "main"]);
    server.deliver_all();

    let all = clone.git(&["diff-tree", "-r", "--root", "--no-commit-id", "--name-only", &revision]);
    let first: Vec<&str> = all.lines().take(1000).collect();
    let mut held = server.changeset(&revision);
    held.changes.sort_by(|a, b| a.path.cmp(&b.path));
    assert_eq!(held.changes.iter().map(|change| change.path.as_str()).collect::<Vec<_>>(), first);
    assert_eq!(held.message, "US1 all at once\n\n[rally-hook: 9000 more changed paths are not listed]");
    assert_eq!(server.count("omitted_changes"), 9000);
    assert!(server.log().contains(&format!("commit {revision}: left out 9000 changed paths beyond max_changes")));
}

#[test]
fn the_limit_of_changes_is_configurable() {
    let server = Server::new();
    server.configure("[commits]\nmax_changes = 3\n");
    let clone = server.new_clone();
    clone.commit("US1", &["a", "b", "c", "d"].map(|name| (name, Some("x"))));
    clone.push(&["origin", "main"]);
    let line = server.run(&["backfill", "main", "--dry-run", "--json"]).succeeds().stdout;
    assert_eq!(line.matches("\"path\"").count(), 3, "{line}");
}

#[test]
fn messages_in_other_encodings_are_converted() {
    let server = Server::new();
    let clone = server.new_clone();
    let messages: [(&str, &[u8]); 6] = [
        ("ISO-8859-1", b"US1 caf\xe9 \xa3"),
        // 0x5C and 0x7C are trailing bytes here, not a backslash and a bar.
        ("Shift-JIS", b"\x95\x5c\x8e\xa6 US2 \x83\x7c"),
        ("ISO-2022-JP", b"\x1b$BF|K\\\x1b(B US3"),
        ("x-nonsense", b"US4 caf\xe9"),
        ("", b"\xffUS5\xfe and \xc3\x28US6"),
        ("UTF-8", "US7を直す".as_bytes()),
    ];
    let mut history = History::new();
    let mut parents = Vec::new();
    for (number, (encoding, message)) in messages.iter().enumerate() {
        let name = format!("file{number}");
        let files = [(name.as_bytes(), Some("x"))];
        parents = vec![history.encoded_commit("main", 1_700_000_000, encoding, message, &parents, &files)];
    }
    let revisions = history.write_to(&clone);
    clone.push(&["origin", "main"]);
    server.deliver_all();

    server.assert_rally_holds(&expected(&server.git_dir, &["main"]));
    for revision in [&revisions[0], &revisions[1], &revisions[2], &revisions[5]] {
        let as_git_says = clone.git(&["log", "-1", "--encoding=UTF-8", "--format=%B", revision]);
        assert_eq!(server.changeset(revision).message, as_git_says);
    }
    assert_eq!(server.changeset(&revisions[3]).message, r"US4 caf\xE9");
    assert_eq!(server.changeset(&revisions[4]).message, r"\xFFUS5\xFE and \xC3(US6");
}

#[test]
fn a_long_message_is_searched_to_its_end_and_cut_between_characters() {
    let server = Server::new();
    let clone = server.new_clone();
    let long = format!("x{}US8", "é".repeat(500_000));
    let revision = clone.commit(&long, &[("a", Some("1"))]);
    clone.push(&["origin", "main"]);
    server.deliver_all();
    let held = server.changeset(&revision);
    assert_eq!(held.artifacts, ["US8"]);
    assert!(held.message.len() > 1000 && long.starts_with(&held.message), "{} bytes", held.message.len());
}

/// Returns a history of 2,200 commits on six branches that merge each other.
fn generate() -> History {
    let (mut history, mut numbers) = (History::new(), Random::part(1, 0));
    let mut tips = [0; 6];
    for number in 0..2200 {
        let branch = numbers.below(tips.len());
        let other = tips[numbers.below(tips.len())];
        let mut parents: Vec<usize> = [tips[branch]].into_iter().filter(|&tip| tip > 0).collect();
        if number % 7 == 0 && other > 0 && !parents.contains(&other) {
            parents.push(other);
        }
        let message = match numbers.below(10) {
            0 => format!("No artifact {number}"),
            digit => format!("US{digit} and DE{}: change {number}", 1 + numbers.below(9)),
        };
        let names: Vec<String> = (0..numbers.below(5))
            .map(|_| format!("dir{}/sub{}/file{}", numbers.below(5), numbers.below(4), numbers.below(30)))
            .collect();
        let text = number.to_string();
        let files: Vec<(&[u8], Option<&str>)> =
            names.iter().map(|name| (name.as_bytes(), (numbers.below(6) > 0).then_some(text.as_str()))).collect();
        let time = 1_700_000_000 + number as i64 * 30 - numbers.below(600) as i64;
        tips[branch] = history.commit(&format!("b{branch}"), time, message, &parents, &files);
    }
    history
}

#[test]
fn a_generated_history_is_posted_commit_by_commit_as_git_lists_it() {
    let server = Server::new();
    server.configure_later("");
    let clone = server.new_clone();
    let revisions = generate().write_to(&clone);
    // The pushes overlap: some commits come with a branch that merged them.
    clone.push(&["origin", &format!("{}:refs/heads/early", revisions[300])]);
    clone.push(&["origin", &format!("{}:refs/heads/early", revisions[1400]), "--force"]);
    clone.push(&["origin", "b0", "b3"]);
    clone.push(&["origin", "--all"]);
    server.deliver_all();

    let all = expected_of_all(&server.git_dir, &["--all"]);
    assert!(all.len() >= 2000, "{}", all.len());
    let matching = expected(&server.git_dir, &["--all"]);
    let merges = clone.git(&["rev-list", "--count", "--merges", "--all"]);
    assert!(merges.parse::<usize>().expect("a number") > 150 && matching.len() < all.len());
    server.assert_rally_holds(&matching);
    server.run(&["backfill", "--all"]).succeeds();
    server.assert_rally_holds(&matching);
    assert_eq!(server.count("recorded"), matching.len() as i64);
    server.assert_refs_behind(&[]);
}

#[test]
fn a_commit_with_a_trillion_paths_holds_up_no_push() {
    let server = Server::delivering_later("");
    let clone = server.new_clone();
    let blob = clone.git_with(&["hash-object", "-w", "--stdin"], b"x");
    let mut tree = clone.git_with(&["mktree"], format!("100644 blob {blob}\tf\n").as_bytes());
    // Each tree holds the one below twice.
    for _ in 0..40 {
        let entries = format!("040000 tree {tree}\ta\n040000 tree {tree}\tb\n");
        tree = clone.git_with(&["mktree"], entries.as_bytes());
    }
    let bomb = clone.git(&["commit-tree", "-m", "US1: two to the fortieth files", &tree]);
    let update = format!("{bomb}:refs/heads/bomb");
    clone.push(&["origin", &update]);
    clone.push_commits(&["US2: the next one"]);
    server.run(&["deliver"]);
    let held = server.changeset(&bomb);
    assert_eq!(held.changes.len(), 1000);
    assert!(held.message.contains("more changed paths are not listed"), "{}", held.message);
    assert_eq!(server.changesets().len(), 2);
}
