//! Unusual repositories: alternates, namespaces, shallow, wrong clocks, other formats, several at once.

use std::fs;
use std::os::unix::fs::symlink;

use crate::support::{DELIVER_LATER, History, Server, expected, expected_of_all, git, program, ran, twin};

#[test]
fn commits_with_objects_in_an_alternate_repository_are_posted() {
    let server = Server::delivering_later("");
    let base = server.path().join("base.git");
    git(server.path(), &["init", "--quiet", "--bare", "base.git"]);
    let alternates = server.git_dir.join("objects/info/alternates");
    fs::write(alternates, format!("{}\n", base.join("objects").display())).expect("a file");
    let clone = server.new_clone();
    clone.commit("US1 borrowed", &[("a", Some("1"))]);
    clone.git(&["push", "--quiet", &base.display().to_string(), "main"]);
    clone.commit("US2", &[("a", Some("2")), ("b", Some("2"))]);
    clone.push(&["origin", "main"]);
    server.deliver_all();
    server.assert_rally_holds(&expected(&server.git_dir, &["main"]));
    assert_eq!(server.changesets().len(), 2, "the commit of the alternate is new to this repository, too");
}

#[test]
fn a_branch_in_a_namespace_has_the_name_by_which_it_was_pushed() {
    let server = Server::delivering_later("");
    let clone = server.new_clone();
    clone.commit("US1", &[("a", Some("1"))]);
    let receive = "--receive-pack=env GIT_NAMESPACE=team git-receive-pack";
    clone.push(&[receive, "origin", "main"]);
    let inside = "refs/namespaces/team/refs/heads/main";
    server.git(&["rev-parse", "--verify", inside]);
    clone.commit("US2", &[("a", Some("2"))]);
    clone.push(&[receive, "origin", "main"]);
    assert_eq!(server.count("recorded"), 2);
    clone.push(&["origin", "main"]);
    server.deliver_all();
    server.assert_rally_holds(&expected(&server.git_dir, &[inside]));
    assert!(server.changesets().iter().all(|held| held.branch.as_deref() == Some("main")));
    server.assert_refs_behind(&[]);
}

/// Adds a branch of commits, each dated `step` seconds after the one before; returns the last.
fn chain(history: &mut History, branch: &str, parent: Option<usize>, from: i64, step: i64, count: i64) -> usize {
    let mut parents: Vec<usize> = parent.into_iter().collect();
    for number in 0..count {
        let text = format!("{branch} {number}");
        let files = [(branch.as_bytes(), Some(text.as_str()))];
        parents = vec![history.commit(branch, from + step * number, format!("US1 {text}"), &parents, &files)];
    }
    parents[0]
}

#[test]
fn wrong_clocks_make_no_commit_new_and_hide_none() {
    let now = 1_700_000_000;
    let server = Server::delivering_later("");
    let clone = server.new_clone();
    let mut history = History::new();
    let old = chain(&mut history, "base", None, now, 60, 50);
    // Seen by the first pushes: dates that run back, begin in 1970, or lie in the future.
    let backwards = chain(&mut history, "backwards", Some(old), now + 3000, -100, 25);
    let epoch = chain(&mut history, "epoch", Some(old), 0, 1, 20);
    let future = chain(&mut history, "future", Some(old), 4_000_000_000, -60, 20);
    // New in the last pushes: each builds on one of these or on the base, with other dates again.
    let late = chain(&mut history, "late", Some(epoch), now + 9000, 60, 5);
    chain(&mut history, "early", Some(future), 1, 1, 5);
    chain(&mut history, "on-old", Some(old), now - 90_000, 60, 5);
    chain(&mut history, "on-backwards", Some(backwards), now + 10_000, -200, 40);
    history.commit("late", 5, "US2 merge", &[late, backwards, future], &[]);
    let revisions = history.write_to(&clone);
    let tips = [("epoch", epoch), ("backwards", backwards), ("future", future)];
    for (name, mark) in tips {
        clone.push(&["origin", &format!("{}:refs/heads/{name}", revisions[mark - 1])]);
    }
    assert_eq!(server.count("recorded"), 115);
    clone.push(&["origin", &format!("{}:refs/heads/border", revisions[old - 1])]);
    assert_eq!(server.count("recorded"), 115, "an old commit is no new one");
    clone.push(&["origin", "late", "early"]);
    assert_eq!(server.count("recorded"), 126);
    clone.push(&["origin", "--all"]);
    assert_eq!(server.count("recorded"), revisions.len() as i64);
    server.deliver_all();
    server.assert_rally_holds(&expected(&server.git_dir, &["--all"]));
}

#[test]
fn history_before_install_stays_unposted_despite_wrong_clocks() {
    let now = 1_700_000_000;
    let server = Server::without_hook();
    server.configure_later("");
    let clone = server.new_clone();
    let mut history = History::new();
    let old = chain(&mut history, "base", None, now, 60, 50);
    chain(&mut history, "seen", Some(old), 1, 1, 200);
    chain(&mut history, "new", Some(old), now + 9000, 60, 2);
    history.write_to(&clone);
    clone.push(&["origin", "seen"]);
    server.run(&["install"]).succeeds();
    clone.push(&["origin", "new"]);
    server.deliver_all();
    // Not `new ^seen`: with these dates Git itself lists the base, too.
    server.assert_rally_holds(&expected(&server.git_dir, &["-2", "new"]));
}

#[test]
fn a_shallow_boundary_commit_is_posted_without_changes() {
    let server = Server::delivering_later("");
    let clone = server.new_clone();
    clone.commit("US1 root", &[("a", Some("1")), ("b", Some("1"))]);
    let boundary = clone.commit("US2 boundary", &[("a", Some("2"))]);
    clone.commit("US3", &[("b", Some("3"))]);
    let path = clone.path.display().to_string();
    server.git(&["fetch", "--quiet", "--depth=2", &format!("file://{path}"), "main:main"]);
    assert_eq!(server.git(&["rev-parse", "--is-shallow-repository"]), "true");
    server.run(&["catch-up"]).succeeds();
    clone.commit("US4", &[("a", Some("4"))]);
    clone.push(&["origin", "main"]);
    server.deliver_all();
    let mut right = expected(&clone.path, &["main", "-3"]);
    assert_eq!(right[2].revision, boundary);
    right[2].changes.clear();
    right[2].change_count = 0;
    server.assert_rally_holds(&right);
}

#[test]
fn grafts_and_replace_refs_are_ignored() {
    let server = Server::delivering_later("");
    let clone = server.new_clone();
    let root = clone.commit("US1 root", &[("a", Some("1")), ("b", Some("1"))]);
    let middle = clone.commit("US2 middle", &[("a", Some("2"))]);
    let tip = clone.commit("US3 tip", &[("b", Some("3"))]);
    clone.push(&["origin", "main"]);
    server.deliver_all();
    // With these Git itself shows another history: without the middle, and with another root.
    fs::write(server.git_dir.join("info/grafts"), format!("{tip} {root}\n")).expect("a file");
    let tree = server.git(&["rev-parse", &format!("{middle}^{{tree}}")]);
    let other = server.git(&["commit-tree", "-m", "DE9 replacement", &tree]);
    server.git(&["replace", &root, &other]);
    assert_eq!(server.git(&["log", "-1", "--format=%s", &root]), "DE9 replacement");
    clone.commit("US4", &[("a", Some("4"))]);
    clone.push(&["origin", "main"]);
    server.deliver_all();
    let right = expected(&server.git_dir, &["main"]);
    assert_eq!(right.len(), 4);
    server.assert_rally_holds(&right);
    let again = server.run(&["backfill", "main", "--dry-run", "--json"]).succeeds().stdout;
    assert_eq!(again.lines().count(), 4);
    assert!(
        again.contains(&format!(
            r#"{{"revision":"{tip}","artifacts":["US3"],"changes":[{{"action":"M","path":"b"}}]}}"#
        ))
    );
}

#[test]
fn a_hook_linked_into_place_counts_history_as_seen() {
    let server = Server::without_hook();
    server.configure_later("");
    let clone = server.new_clone();
    let old = clone.commit("US1 long ago", &[("a", Some("1"))]);
    clone.push(&["origin", "main", "main:other"]);
    symlink(program(), server.hook()).expect("a link");
    clone.commit("US2", &[("a", Some("2"))]);
    let seen = clone.push(&["origin", "main"]);
    assert!(seen.contains("1 commit queued for US2"), "{seen}");
    clone.commit("US3", &[("a", Some("3"))]);
    clone.push(&["origin", "main:topic", &format!("{old}:refs/heads/on-old")]);
    server.deliver_all();
    server.assert_rally_holds(&expected(&server.git_dir, &["topic", &format!("^{old}")]));
    assert_eq!(expected_of_all(&server.git_dir, &["topic"]).len(), 3);
}

#[test]
fn a_repository_with_a_work_tree_is_named_after_it() {
    let server = Server::delivering_later("");
    let work = server.path().join("shop");
    git(server.path(), &["init", "--quiet", "--initial-branch=main", "shop"]);
    git(&work, &["config", "receive.denyCurrentBranch", "ignore"]);
    let config = server.git_dir.join("rally-hook.toml").display().to_string();
    let mut install = server.command(&["install", "--config", &config]);
    install.current_dir(&work);
    ran(install).succeeds();
    let clone = server.new_clone();
    clone.commit("US1", &[("a", Some("1"))]);
    let seen = clone.push(&[&work.display().to_string(), "main"]);
    assert!(seen.contains("1 commit queued for US1 (repository shop)"), "{seen}");
    server.run(&["deliver", "--wait", "--config", &config, "--repo", &work.display().to_string()]).succeeds();
    assert_eq!(server.changesets()[0].repository, "shop");
    let here = work.join(".git/hooks/post-receive");
    assert!(here.exists() && work.join(".git/rally-hook/queue.db").exists());
}

#[test]
fn deliver_all_repos_skips_a_broken_repository() {
    let server = Server::delivering_later("");
    server.new_clone().push_commits(&["US1: waits"]);
    let config = server.configuration().credentials("api_key_file = \"api-key\"").sections(DELIVER_LATER);
    let root = server.path().join("root");
    fs::create_dir(&root).expect("it is new");
    for name in ["one", "two", "three"] {
        let repository = root.join(format!("{name}.git"));
        twin(&server.git_dir, &repository);
        fs::write(repository.join("rally-hook.toml"), format!("{config}\n[repository]\nname = \"{name}\"\n"))
            .expect("it can be written");
    }
    fs::write(root.join("one.git/rally-hook.toml"), "nonsense").expect("it can be written");
    // Symbolic links are not followed: they may lead to repositories of somebody else.
    fs::rename(root.join("three.git"), server.path().join("elsewhere.git")).expect("it can be moved");
    for name in ["three.git", "again.git"] {
        symlink(server.path().join("elsewhere.git"), root.join(name)).expect("links can be made");
    }
    let root = root.to_str().expect("UTF-8");
    let seen = server.run(&["deliver", "--all-repos", root]).fails_with(1);
    let mut of: Vec<String> = server.changesets().iter().map(|held| held.repository.clone()).collect();
    of.retain(|name| name != "payments");
    of.sort();
    assert_eq!(of, ["two"], "{seen:?}");
}
