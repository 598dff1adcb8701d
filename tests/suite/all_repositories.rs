//! `--all-repos`: a command's work for many repositories.

use std::fs;
use std::os::unix::fs::symlink;

use rally_simulator::{Action, Fault, Match};
use serde_json::Value;

use crate::support::fault::errors;
use crate::support::{DELIVER_LATER, Many, Server, git, hermetic, program, ran};

const COMMANDS: [&[&str]; 9] = [
    &["install"],
    &["uninstall"],
    &["deliver"],
    &["catch-up"],
    &["status"],
    &["retry", "--all"],
    &["doctor"],
    &["config"],
    &["worker"],
];

/// Sets up three repositories of which the first one holds a commit that Rally has refused.
fn with_dead_letter() -> Many {
    let many = Many::new(3, "batch = \"off\"", DELIVER_LATER);
    let revision = many.commit("US1");
    many.push(&revision, &many.git_dirs);
    let on = Match { path: Some("/changeset/create"), ..Match::default() };
    many.server.rally.fault(Fault { on, times: 1, action: errors("Validation error: it is odd") });
    many.run(&["deliver"]).fails_with(1);
    many
}

#[test]
fn every_command_refuses_a_directory_without_repositories() {
    let server = Server::without_hook();
    fs::create_dir(server.path().join("empty")).expect("it is new");
    for command in COMMANDS {
        for (dir, why) in [("empty", "there is no repository below"), ("nowhere", "is not a directory")] {
            let mut run = hermetic(program());
            run.args(command).args(["--all-repos", dir]).current_dir(server.path());
            let ran = ran(run).fails_with(2);
            assert!(ran.stderr.contains(why), "{command:?} {ran:?}");
        }
    }
}

#[test]
fn commands_for_repositories_with_the_hook_say_so_where_there_is_none() {
    let many = Many::without_hook(2, "", DELIVER_LATER);
    for command in [&["deliver"][..], &["status"], &["catch-up"], &["uninstall"], &["doctor"]] {
        let ran = many.run(command).fails_with(2);
        assert!(ran.stderr.contains("no repository with the hook"), "{command:?} {ran:?}");
        assert!(ran.stderr.contains("rally-hook install --all-repos"), "{command:?} {ran:?}");
    }
}

#[test]
fn the_hook_is_installed_into_bare_repositories_and_those_with_work_trees_and_removed_again() {
    let many = Many::without_hook(3, "", DELIVER_LATER);
    git(&many.root, &["init", "--quiet", "team0/work"]);
    fs::create_dir(many.root.join("team0/work/sub")).expect("it is new");
    let hooks: Vec<_> = many.git_dirs.iter().map(|git_dir| git_dir.join("hooks/post-receive")).collect();
    fs::create_dir_all(hooks[0].parent().expect("a directory")).expect("a directory");
    fs::write(&hooks[0], "#!/bin/sh\n").expect("a file");
    let ran = many.install();
    assert_eq!(ran.stderr.matches("installed ").count(), 4, "{ran:?}");
    assert_eq!(ran.stderr.matches("counts as seen").count(), 1, "what is the same for all is said once: {ran:?}");
    assert!(many.root.join("team0/work/.git/hooks/post-receive").exists());
    assert!(hooks.iter().all(|hook| hook.exists()));
    many.run(&["uninstall"]).succeeds();
    assert_eq!(fs::read_to_string(&hooks[0]).expect("it is there"), "#!/bin/sh\n");
    assert!(!hooks[1].exists() && !hooks[2].exists());
}

#[test]
fn one_broken_repository_keeps_no_other_from_being_served() {
    let many = Many::new(3, "", DELIVER_LATER);
    let revision = many.commit("US1");
    many.push(&revision, &many.git_dirs);
    let state = many.git_dirs[1].join("rally-hook");
    fs::rename(&state, many.server.path().join("moved")).expect("it can be moved");
    symlink(many.server.path().join("moved"), &state).expect("a link");
    for command in [&["deliver"][..], &["catch-up"], &["retry", "--all"], &["doctor"], &["status"]] {
        let ran = many.run(command).fails_with(1);
        let said = ran.stdout.clone() + &ran.stderr;
        assert!(said.contains("is a symbolic link"), "{command:?} {ran:?}");
        assert!(said.contains("repo1.git"), "{command:?} {ran:?}");
    }
    let mut served = many.git_dirs.clone();
    served.remove(1);
    many.wait_for_delivery(&[&revision], &served);
}

#[test]
fn what_is_said_of_a_repository_begins_with_its_path_and_the_end_counts_those_with_trouble() {
    let many = Many::new(3, "", DELIVER_LATER);
    let revision = many.commit("US1");
    many.push(&revision, &many.git_dirs[..2]);
    many.server.rally.fault(Fault {
        on: Match::default(),
        times: usize::MAX,
        action: Action::Status { code: 503, body: String::new(), headers: Vec::new() },
    });
    let ran = many.run(&["deliver"]).fails_with(1);
    let path = many.git_dirs[0].display().to_string();
    assert!(ran.stderr.contains(&format!("rally-hook: {path}: 0 commits delivered, 1 queued")), "{ran:?}");
    assert!(!ran.stderr.contains("repo2.git"), "nothing is said of a repository that has nothing to do: {ran:?}");
    assert!(ran.stderr.contains("2 of 3 repositories with problems"), "{ran:?}");
}

#[test]
fn the_table_of_status_has_the_worst_first_and_a_sum() {
    let many = with_dead_letter();
    let revision = many.commit("US2");
    many.push(&revision, &many.git_dirs[2..]);
    let ran = many.run(&["status"]).fails_with(1);
    let first: Vec<Vec<&str>> = ran.stdout.lines().map(|line| line.split_whitespace().take(2).collect()).collect();
    assert_eq!(first[0], ["REPOSITORY", "QUEUED"]);
    assert_eq!(first[1..4], [["team2/repo2.git", "1"], ["team0/repo0.git", "0"], ["team1/repo1.git", "0"]], "{ran:?}");
    assert!(ran.stdout.contains("1 dead letter"), "{ran:?}");
    let sum = ran.stdout.lines().last().expect("a sum");
    assert!(sum.starts_with("3 repositories") && sum.ends_with("2 with problems"), "{ran:?}");
}

#[test]
fn status_in_json_is_one_object_a_repository() {
    let many = Many::new(3, "", DELIVER_LATER);
    let ran = many.run(&["status", "--json"]).succeeds();
    let objects: Vec<Value> = ran.stdout.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    let names: Vec<&str> = objects.iter().filter_map(|object| object["name"].as_str()).collect();
    assert_eq!(names, ["team0/repo0", "team1/repo1", "team2/repo2"]);
    assert!(objects.iter().all(|object| object["hook"] == "installed" && object["schema"] == 1), "{ran:?}");
}

#[test]
fn status_fails_if_anything_has_waited_for_longer_than_the_caller_allows() {
    let many = Many::new(2, "", DELIVER_LATER);
    let revision = many.commit("US1");
    many.push(&revision, &many.git_dirs[..1]);
    let ran = many.run(&["status", "--max-age", "0s"]).fails_with(1);
    assert!(ran.stdout.contains("1 with problems"), "{ran:?}");
}

#[test]
fn dead_letters_of_all_repositories_are_retried() {
    let many = with_dead_letter();
    many.run(&["retry", "--all"]).succeeds();
    let revision = many.server.changesets()[0].revision.clone();
    many.wait_for_delivery(&[&revision], &many.git_dirs);
}

#[test]
fn what_hooks_missed_is_recorded_for_all() {
    let many = Many::new(3, "", DELIVER_LATER);
    let revision = many.commit("US1");
    for git_dir in &many.git_dirs[..2] {
        fs::rename(git_dir.join("hooks"), git_dir.join("no-hooks")).expect("it can be moved");
    }
    many.push(&revision, &many.git_dirs[..2]);
    for git_dir in &many.git_dirs[..2] {
        fs::rename(git_dir.join("no-hooks"), git_dir.join("hooks")).expect("it can be moved");
    }
    let ran = many.run(&["catch-up"]).succeeds();
    assert_eq!(ran.stderr.matches("1 new commit found; 1 commit queued").count(), 2, "{ran:?}");
    many.run(&["deliver"]).succeeds();
    many.wait_for_delivery(&[&revision], &many.git_dirs[..2]);
}

#[test]
fn doctor_says_of_healthy_repositories_one_line_each_and_asks_rally_once() {
    let many = Many::new(3, "", DELIVER_LATER);
    let revision = many.commit("US1");
    many.push(&revision, &many.git_dirs);
    many.run(&["deliver"]).succeeds();
    let before = many.server.rally.requests().len();
    let ran = many.run(&["doctor"]).succeeds();
    let users = many.server.rally.requests()[before..].iter().filter(|request| request.path.contains("/user")).count();
    assert_eq!(users, 1, "{ran:?}");
    let healthy = many.git_dirs[2].display().to_string();
    let lines: Vec<&str> = ran.stdout.lines().filter(|line| line.contains(&healthy)).collect();
    assert!(matches!(lines.as_slice(), [line] if line.starts_with("ok ")), "{ran:?}");
}

#[test]
fn the_settings_of_all_repositories_are_shown() {
    let many = Many::new(2, "", DELIVER_LATER);
    let ran = many.run(&["config"]).succeeds();
    assert!(ran.stdout.contains(&format!("# {}", many.git_dirs[1].display())), "{ran:?}");
    assert!(ran.stdout.contains("repository.name = \"team1/repo1\""), "{ran:?}");
    let ran = many.run(&["config", "--json"]).succeeds();
    let objects: Vec<Value> = ran.stdout.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    assert_eq!(objects[0]["repository"], many.git_dirs[0].display().to_string());
}

#[test]
fn prometheus_reads_figures_of_each_repository() {
    let many = with_dead_letter();
    let waiting = many.commit("US2");
    many.push(&waiting, &many.git_dirs[2..]);
    let ran = many.run(&["status", "--prometheus"]).fails_with(1);
    let value = |name: &str, number: usize| {
        let start = format!("rally_hook_{name}{{repository=\"{}\"}} ", many.git_dirs[number].display());
        let line = ran.stdout.lines().find_map(|line| line.strip_prefix(&start));
        line.unwrap_or_else(|| panic!("{start} in {}", ran.stdout)).parse::<f64>().expect("a number")
    };
    assert_eq!([0, 1, 2].map(|number| value("failed", number)), [1.0, 0.0, 0.0]);
    assert_eq!([0, 1, 2].map(|number| value("pending", number)), [0.0, 0.0, 1.0]);
    assert_eq!([0, 1, 2].map(|number| value("delivered_total", number)), [0.0, 1.0, 1.0]);
    assert_eq!([0, 1, 2].map(|number| value("needs_person", number)), [1.0, 0.0, 1.0]);
    assert!(value("last_delivery_timestamp_seconds", 1) > 1.7e9);
    let requests = [0, 1, 2].map(|number| value("requests_total", number)).iter().sum::<f64>();
    assert_eq!(requests, many.server.rally.requests().len() as f64);
    assert!(ran.stdout.contains("rally_hook_permits_in_use{account=\""), "{ran:?}");
    let mut families: Vec<&str> = ran.stdout.lines().filter_map(|line| line.strip_prefix("# TYPE ")).collect();
    let count = families.len();
    families.dedup_by_key(|line| line.split(' ').next());
    assert_eq!(families.len(), count, "each family stands in one place");
}

#[test]
fn prometheus_reads_figures_of_one_repository() {
    let server = Server::new();
    let ran = server.run(&["status", "--prometheus"]).succeeds();
    let path = server.git_dir.display();
    assert!(ran.stdout.contains(&format!("rally_hook_pending{{repository=\"{path}\"}} 0\n")), "{ran:?}");
}
