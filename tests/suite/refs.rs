//! Refs of every kind: a commit counts once, when it first reaches a configured ref.

use crate::support::{Clone, History, Server, expected};

#[test]
fn commits_that_only_a_tag_reaches_are_posted_without_a_branch() {
    let server = Server::delivering_later("");
    let clone = server.new_clone();
    clone.commit("US1 base", &[("a", Some("1"))]);
    clone.git(&["checkout", "--quiet", "--detach"]);
    for (number, tag) in ["light", "annotated", "inner"].iter().enumerate() {
        clone.commit(&format!("US{} only {tag}", number + 2), &[(tag, Some("1"))]);
        let kind: &[&str] = if *tag == "light" { &[] } else { &["-a", "-m", "US9 is in the tag's own text"] };
        clone.git(&[&["tag", tag], kind].concat());
    }
    clone.git(&["tag", "-a", "-m", "a tag of a tag", "nested", "inner"]);
    clone.git(&["tag", "-d", "inner"]);
    let seen = clone.push(&["origin", "main", "--tags"]);
    assert!(seen.contains("4 commits queued for US1, US2, US3, US4"), "{seen}");
    server.deliver_all();
    server.assert_rally_holds(&expected(&server.git_dir, &["main", "light", "annotated", "nested"]));
    assert_eq!(server.changesets()[0].branch.as_deref(), Some("main"));
    let by_tag = server.changeset(&clone.git(&["rev-parse", "light"]));
    assert_eq!(by_tag.branch, None);
    server.assert_refs_behind(&[]);
}

#[test]
fn tags_of_trees_and_blobs_and_refs_outside_the_configuration_are_ignored() {
    let server = Server::delivering_later("");
    let clone = server.new_clone();
    clone.commit("US1 base", &[("a", Some("1"))]);
    clone.git(&["tag", "tree", "HEAD^{tree}"]);
    clone.git(&["tag", "blob", "HEAD:a"]);
    clone.git(&["tag", "-a", "-m", "of a blob", "blob2", "HEAD:a"]);
    let tree = clone.git(&["rev-parse", "HEAD^{tree}"]);
    let note = clone.git(&["commit-tree", "-m", "DE1 is a note", &tree]);
    clone.git(&["update-ref", "refs/notes/commits", &note]);
    clone.git(&["update-ref", "refs/pull/1/head", &note]);
    let seen = clone.push(&["origin", "main", "--tags", "refs/notes/*:refs/notes/*", "refs/pull/*:refs/pull/*"]);
    assert!(seen.contains("1 commit queued for US1"), "{seen}");
    server.deliver_all();
    server.assert_rally_holds(&expected(&server.git_dir, &["main"]));
    server.assert_refs_behind(&[]);
}

#[test]
fn a_commit_is_recorded_once_whatever_becomes_of_its_ref() {
    let server = Server::delivering_later("");
    let clone = server.new_clone();
    server.git(&["config", "receive.denyDeleteCurrent", "ignore"]);
    let first = clone.commit("US1", &[("a", Some("1"))]);
    let second = clone.commit("US2", &[("a", Some("2"))]);
    clone.push(&["origin", "main", "main:copy", "main:refs/tags/tagged"]);
    assert_eq!(server.count("recorded"), 2, "several refs in one push count a commit once");
    let nothing_new: [&[&str]; 7] = [
        &["--force", "origin", &format!("{first}:main")],
        &["origin", &format!("{second}:main")],
        &["origin", &format!("{first}:refs/heads/new-on-old")],
        &["origin", ":copy", ":refs/tags/tagged", ":new-on-old"],
        &["origin", "main:copy"],
        &["--force", "origin", &format!("{first}:main"), ":copy"],
        &["origin", &format!("{second}:refs/heads/back-again")],
    ];
    for push in nothing_new {
        assert_eq!(clone.push(push), "", "{push:?}");
        assert_eq!((server.count("recorded"), server.count("unread_pushes")), (2, 0), "{push:?}");
    }
    clone.git(&["reset", "--quiet", "--hard", &first]);
    let rewritten = clone.commit("US3 instead of US2", &[("a", Some("3"))]);
    clone.push(&["--force", "origin", "main"]);
    assert_eq!(server.count("recorded"), 3);
    clone.push(&["origin", ":main", ":back-again"]);
    clone.push(&["origin", "main:again"]);
    server.deliver_all();
    server.assert_rally_holds(&expected(&clone.path, &[&rewritten, &second]));
}

#[test]
fn packing_refs_and_collecting_garbage_make_no_commit_new() {
    let server = Server::delivering_later("");
    let clone = server.new_clone();
    clone.commit("US1", &[("a", Some("1"))]);
    clone.push(&["origin", "main"]);
    server.git(&["pack-refs", "--all"]);
    clone.commit("US2", &[("a", Some("2"))]);
    clone.push(&["origin", "main", "main:doomed"]);
    clone.git(&["checkout", "--quiet", "-b", "doomed"]);
    clone.commit("DE1 on a branch that goes away", &[("a", Some("3"))]);
    clone.push(&["origin", "doomed"]);
    server.deliver_all();
    let all = expected(&server.git_dir, &["--all"]);
    server.git(&["update-ref", "-d", "refs/heads/doomed"]);
    server.collect_garbage();
    clone.push(&["origin", "doomed:phoenix", "main:other"]);
    server.deliver_all();
    server.assert_rally_holds(&all);
    assert_eq!((all.len(), server.count("recorded")), (3, 3));
}

#[test]
fn the_name_of_a_branch_names_no_artifact_by_default() {
    let server = Server::delivering_later("");
    let clone = server.new_clone();
    clone.git(&["checkout", "--quiet", "-b", "US5"]);
    clone.commit("US1 said", &[("a", Some("1"))]);
    clone.commit("nothing said", &[("a", Some("2"))]);
    clone.push(&["origin", "US5"]);
    server.deliver_all();
    server.assert_rally_holds(&expected(&server.git_dir, &["--all"]));
}

#[test]
fn the_name_of_a_branch_names_artifacts_if_so_configured() {
    let server = Server::delivering_later("[commits]\nfrom_branch_name = true\n");
    let clone = server.new_clone();
    clone.git(&["checkout", "--quiet", "-b", "feature/US6-DE7_x"]);
    let silent = clone.commit("nothing said", &[("a", Some("3"))]);
    let both = clone.commit("US2, US6 said", &[("a", Some("4"))]);
    clone.push(&["origin", "feature/US6-DE7_x"]);
    server.deliver_all();
    assert_eq!(server.changesets().len(), 2);
    assert_eq!(server.changeset(&silent).artifacts, ["US6", "DE7"]);
    assert_eq!(server.changeset(&both).artifacts, ["US2", "US6", "DE7"]);
    assert_eq!(server.changeset(&both).branch.as_deref(), Some("feature/US6-DE7_x"));
}

#[test]
fn commits_of_an_excluded_ref_count_when_they_reach_a_configured_one() {
    let server = Server::delivering_later(
        "[commits]\nexclude_refs = [\"wip/*\"]\nrefs = [\"main\", \"wip/*\", \"refs/changes/*\"]\n",
    );
    let clone = server.new_clone();
    clone.commit("US1", &[("a", Some("1"))]);
    clone.push(&["origin", "main:wip/x", "main:other", "main:refs/tags/t"]);
    assert_eq!(server.count("recorded"), 0);
    server.assert_refs_behind(&[]);
    clone.commit("US2", &[("a", Some("2"))]);
    clone.push(&["origin", "main:refs/changes/1"]);
    server.deliver_all();
    server.assert_rally_holds(&expected(&server.git_dir, &["refs/changes/1"]));
    assert_eq!(server.changesets().len(), 2);
}

#[test]
fn every_commit_is_posted_if_so_configured() {
    let server = Server::delivering_later("[commits]\npost = \"all\"\n");
    let clone = server.new_clone();
    clone.commit("no artifact", &[("a", Some("1"))]);
    clone.commit("US77 does not exist, TS1 is of a type without such a one", &[("a", Some("2"))]);
    clone.push(&["origin", "main"]);
    server.deliver_all();
    assert_eq!(server.changesets().len(), 2);
    assert!(server.changesets().iter().all(|held| held.artifacts.is_empty() && held.changes.len() == 1));
    assert!(server.log().contains("US77"), "{}", server.log());
}

#[test]
fn a_commit_that_names_unknown_artifacts_only_is_not_posted() {
    let server = Server::delivering_later("");
    let clone = server.new_clone();
    let mixed = clone.commit("US77 and US1", &[("a", Some("3"))]);
    clone.commit("US77 alone", &[("a", Some("4"))]);
    clone.push(&["origin", "main"]);
    server.deliver_all();
    let revisions: Vec<String> = server.changesets().into_iter().map(|held| held.revision).collect();
    assert_eq!(revisions, [mixed.as_str()]);
    assert_eq!(server.changeset(&mixed).artifacts, ["US1"]);
    assert_eq!(server.count("unlinked"), 1);
}

#[test]
fn five_thousand_refs_in_one_push_record_each_commit_once() {
    let server = Server::delivering_later("");
    let clone = server.new_clone();
    let mut history = History::new();
    let mut parents = Vec::new();
    for number in 0..50 {
        let file = [(&b"a"[..], Some(if number % 2 == 0 { "even" } else { "odd" }))];
        parents = vec![history.commit("main", 1_700_000_000 + number, format!("US1 {number}"), &parents, &file)];
    }
    let revisions = history.write_to(&clone);
    let refs: String = (0..5000)
        .map(|number| format!("create refs/heads/team{}/branch{number} {}\n", number % 9, revisions[number % 50]))
        .collect();
    clone.git_with(&["update-ref", "--stdin"], refs.as_bytes());
    clone.git(&["push", "--quiet", "origin", "--all"]);
    server.deliver_all();
    server.assert_rally_holds(&expected(&server.git_dir, &["main"]));
    assert_eq!((server.count("recorded"), server.count("unread_pushes")), (50, 0));
}

#[test]
fn a_push_to_a_symbolic_ref_is_recorded() {
    let server = Server::delivering_later("");
    let clone = server.new_clone();
    clone.commit("US1", &[("a", Some("1"))]);
    clone.push(&["origin", "main"]);
    server.git(&["symbolic-ref", "refs/heads/alias", "refs/heads/main"]);
    server.git(&["update-ref", "--no-deref", "HEAD", "main"]);
    clone.commit("US2", &[("a", Some("2"))]);
    clone.push(&["origin", "main:alias"]);
    assert_eq!(server.git(&["rev-parse", "main"]), clone.head(), "the symbolic ref leads there");
    server.deliver_all();
    server.assert_rally_holds(&expected(&server.git_dir, &["main"]));
    assert_eq!(server.count("recorded"), 2);
    server.assert_refs_behind(&[]);
}

#[test]
fn an_orphan_branch_is_recorded_whatever_head_leads_to() {
    let server = Server::delivering_later("");
    let clone = server.new_clone();
    clone.push_commits(&["US1", "US2"]);
    server.git(&["update-ref", "--no-deref", "HEAD", "main"]);
    clone.git(&["checkout", "--quiet", "--orphan", "island"]);
    clone.commit("US3 island", &[("b", Some("1"))]);
    clone.push(&["origin", "island"]);
    server.git(&["symbolic-ref", "HEAD", "refs/heads/nowhere"]);
    clone.commit("US4", &[("b", Some("2"))]);
    clone.push(&["origin", "island"]);
    server.deliver_all();
    server.assert_rally_holds(&expected(&server.git_dir, &["main", "island"]));
    assert_eq!(server.count("recorded"), 4);
    server.assert_refs_behind(&[]);
}

#[test]
fn the_name_of_a_ref_may_hold_any_bytes() {
    let server = Server::delivering_later("");
    let clone = server.new_clone();
    let names: [&[u8]; 4] = [b"caf\xe9", b"$(touch;x)'\"&|`", "日本語".as_bytes(), &[b'x'; 200]];
    let mut refs = Vec::new();
    for (number, name) in names.iter().enumerate() {
        let revision = clone.commit(&format!("US{}", number + 1), &[("a", Some(&number.to_string()))]);
        refs.extend([&b"create refs/heads/"[..], name, format!(" {revision}\n").as_bytes()].concat());
    }
    clone.git(&["checkout", "--quiet", "--detach"]);
    clone.git_with(&["update-ref", "--stdin"], &refs);
    clone.git(&["branch", "--quiet", "-D", "--", "main"]);
    for name in ["refs/heads/caf*", "refs/heads/$*", "refs/heads/日*", "refs/heads/x*"] {
        clone.push(&["origin", &format!("{name}:{name}")]);
    }
    server.deliver_all();
    server.assert_rally_holds(&expected(&server.git_dir, &["--all"]));
    let branches: Vec<Option<String>> = server.changesets().into_iter().map(|held| held.branch).collect();
    let readable = [r"caf\xE9", "$(touch;x)'\"&|`", "日本語", &"x".repeat(200)];
    assert_eq!(branches, readable.map(|name| Some(name.to_owned())));
    server.assert_refs_behind(&[]);
}

/// Sets up a repository with three commits from before `install`, and a clone of it.
fn with_history(config: &str) -> (Server, Clone) {
    let server = Server::without_hook();
    server.configure_later(config);
    let clone = server.new_clone();
    for number in 1..=3 {
        clone.commit(&format!("US{number} Completed, years ago"), &[("a", Some(&number.to_string()))]);
    }
    clone.push(&["origin", "main"]);
    server.run(&["install"]).succeeds();
    (server, clone)
}

#[test]
fn history_stays_unposted_after_a_later_branch_is_deleted_and_pruned() {
    let (server, clone) = with_history("");
    clone.git(&["checkout", "--quiet", "-b", "feature"]);
    for number in 1..=2 {
        clone.commit(&format!("DE{number} on a feature"), &[("b", Some(&number.to_string()))]);
        clone.push(&["origin", "feature"]);
    }
    clone.push(&["origin", ":feature"]);
    server.collect_garbage();
    clone.git(&["checkout", "--quiet", "main"]);
    let new = clone.commit("DE3 on main", &[("c", Some("1"))]);
    clone.push(&["origin", "main"]);
    assert_eq!(server.count("recorded"), 3, "two of the feature, and the new one");
    server.assert_refs_behind(&[]);
    server.deliver_all();
    assert_eq!(server.changeset(&new).artifacts, ["DE3"]);
}

#[test]
fn history_stays_unposted_after_a_branch_is_moved_back_and_pruned() {
    let (server, clone) = with_history("[state]\nupdate = true\n");
    clone.commit("DE1 a mistake", &[("b", Some("1"))]);
    clone.push(&["origin", "main"]);
    clone.git(&["reset", "--quiet", "--hard", "HEAD~1"]);
    clone.push(&["--force", "origin", "main"]);
    server.collect_garbage();
    clone.commit("Fixed DE2", &[("c", Some("1"))]);
    clone.push(&["origin", "main"]);
    let status = server.status();
    assert_eq!((status["recorded"].as_i64(), status["pending_state_changes"].as_i64()), (Some(2), Some(2)), "{status}");
    server.deliver_all();
    let updated = server.rally.world(|world| world.updates());
    assert_eq!(updated.iter().map(|update| update.formatted_id.as_str()).collect::<Vec<_>>(), ["DE2"]);
}

#[test]
fn history_stays_unposted_after_the_branch_that_reached_all_of_it_is_deleted() {
    let (server, clone) = with_history("");
    clone.git(&["checkout", "--quiet", "-b", "ahead"]);
    clone.commit("DE1 ahead, before a second install", &[("b", Some("1"))]);
    clone.push(&["origin", "ahead"]);
    // Installs anew, now that one branch is ahead of the other.
    std::fs::remove_dir_all(server.git_dir.join("rally-hook")).expect("it is there");
    server.run(&["install"]).succeeds();
    clone.push(&["origin", ":ahead"]);
    server.collect_garbage();
    clone.git(&["checkout", "--quiet", "main"]);
    clone.commit("DE2 on main", &[("c", Some("1"))]);
    clone.push(&["origin", "main"]);
    assert_eq!(server.count("recorded"), 1);
}

#[test]
fn history_stays_unposted_on_a_branch_that_begins_in_it_after_later_tips_are_pruned() {
    let (server, clone) = with_history("");
    clone.push(&["origin", "main~1:refs/heads/old"]);
    clone.push(&["origin", "main~2:refs/heads/main", "--force"]);
    clone.git(&["checkout", "--quiet", "--detach", "main~1"]);
    clone.push(&["origin", ":old"]);
    server.collect_garbage();
    clone.git(&["checkout", "--quiet", "-B", "main", "main~2"]);
    clone.commit("DE2 on main", &[("c", Some("1"))]);
    clone.push(&["origin", "main"]);
    assert_eq!(server.count("recorded"), 1);
}
