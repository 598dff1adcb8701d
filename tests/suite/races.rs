//! Pushes and deliveries that run at the same time.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Barrier;
use std::thread;

use rally_simulator::Action;

use crate::support::process::{kill, spawn, wait_for};
use crate::support::{DELIVER_LATER, Random, Server, copy, expected, git, hermetic, ran, rounds, seed};

const CLONES: usize = 10;
const PUSHES: usize = 4;

/// Pushes from a clone by force; returns whether the push succeeded.
fn push(clone: &Path, refspecs: &[String]) -> bool {
    let mut command = hermetic("git");
    command.current_dir(clone).args(["push", "--quiet", "--force", "--atomic", "origin"]).args(refspecs);
    ran(command).success
}

/// Makes a history with branches and merges in a clone; returns the clone and its commits, parents first.
fn history(server: &Server) -> (PathBuf, Vec<String>) {
    let clone = server.new_clone();
    let mut revisions = Vec::new();
    for number in 0..12 {
        let message = format!("US{}: commit {number}", number % 9 + 1);
        revisions.push(clone.commit(&message, &[(&format!("file{}", number % 4), Some(&message))]));
        if number % 4 == 3 {
            clone.git(&["checkout", "--quiet", "-b", &format!("side{number}"), &revisions[number - 2]]);
            let side = clone.commit(
                &format!("DE{number}: aside").replace("11", "1"),
                &[(&format!("side{number}"), Some(&message))],
            );
            clone.git(&["checkout", "--quiet", "main"]);
            clone.git(&["merge", "--quiet", "--no-ff", "-m", "TA1: merge", &side]);
            revisions.extend([side, clone.head()]);
        }
    }
    (clone.path, revisions)
}

/// Copies a clone and returns the copy's path.
fn copy_clone(from: &Path, name: &str) -> PathBuf {
    let to = from.with_file_name(name);
    copy(from, &to);
    to
}

#[test]
fn ten_clones_that_push_the_same_commits_at_once_post_each_once() {
    let server = Server::new();
    let seed = seed();
    let (source, revisions) = history(&server);
    let barrier = Barrier::new(CLONES);
    let pushed: Vec<String> = thread::scope(|scope| {
        let clones: Vec<_> = (0..CLONES)
            .map(|number| {
                let clone = copy_clone(&source, &format!("racer{number}"));
                let (barrier, revisions) = (&barrier, &revisions);
                scope.spawn(move || {
                    barrier.wait();
                    race(&clone, number, revisions, Random::part(seed, number as u64))
                })
            })
            .collect();
        clones.into_iter().flat_map(|clone| clone.join().expect("no clone panics")).collect()
    });
    server.assert_counts_add_up();
    server.deliver_all();
    let tips: Vec<&str> = pushed.iter().map(String::as_str).collect();
    server.assert_rally_holds(&expected(&server.git_dir, &tips));
}

/// Pushes to refs of its own and to shared ones, and deletes some; returns the tips of the pushes that succeeded.
fn race(clone: &Path, number: usize, revisions: &[String], mut random: Random) -> Vec<String> {
    let mut pushed = Vec::new();
    for _ in 0..PUSHES {
        let mut refs = vec!["main".to_owned(), format!("of-{number}"), "shared".to_owned()];
        refs.truncate(1 + random.below(3));
        let tips: Vec<String> = refs.iter().map(|_| random.pick(revisions).clone()).collect();
        let refspecs: Vec<String> =
            refs.iter().zip(&tips).map(|(name, tip)| format!("{tip}:refs/heads/{name}")).collect();
        if push(clone, &refspecs) {
            pushed.extend(tips);
        }
        if random.happens(30) {
            push(clone, &[format!(":refs/heads/of-{number}")]);
        }
    }
    pushed.push(random.pick(revisions).clone());
    // Git's own lock on all refs of a reftable is waited for a moment only.
    assert!((0..50).any(|_| push(clone, &[format!("{}:refs/heads/last-{number}", pushed[pushed.len() - 1])])));
    pushed
}

#[test]
fn a_commit_pushed_to_two_branches_at_once_is_posted_once() {
    for _ in 0..5 {
        let server = Server::new();
        let clone = server.new_clone();
        clone.commit("US1", &[("a", Some("1"))]);
        let (x, y) = (copy_clone(&clone.path, "x"), copy_clone(&clone.path, "y"));
        let barrier = Barrier::new(2);
        thread::scope(|scope| {
            for (clone, name) in [(&x, "x"), (&y, "y")] {
                let barrier = &barrier;
                scope.spawn(move || {
                    barrier.wait();
                    assert!(push(clone, &[format!("HEAD:refs/heads/{name}")]));
                });
            }
        });
        server.deliver_all();
        assert_eq!(server.changesets().len(), 1);
        server.assert_rally_holds(&expected(&server.git_dir, &["x", "y"]));
    }
}

#[test]
fn hooks_may_run_in_another_order_than_their_pushes() {
    let server = Server::delivering_later("");
    let first = server.import("refs/heads/main", &["US1: first"]);
    let second = server.import("refs/heads/main", &["DE2: second"]);
    // The hook of the later push runs first; the hook of the earlier one runs when its ref has moved on.
    server.run_hook(second.as_bytes()).succeeds();
    assert_eq!(server.count("recorded"), 2);
    server.run_hook(first.as_bytes()).succeeds();
    server.deliver_all();
    server.assert_rally_holds(&expected(&server.git_dir, &["main"]));
}

#[test]
fn a_second_deliver_leaves_it_to_the_one_that_runs() {
    let server = Server::delivering_later("");
    server.receive(&["US1: one", "DE2: two", "TA3: three"]);
    server.fail_next_at("GET", "/workspace", Action::Hang);
    let first = spawn(server.command(&["deliver", "--wait"]));
    server.rally.wait_for_requests("the first deliverer", |requests| !requests.is_empty());
    let second = server.run(&["deliver"]).succeeds();
    assert!(second.stderr.contains("another process is delivering"), "{second:?}");
    assert!(server.run(&["status"]).succeeds().stdout.contains("worker     a process is delivering"));
    assert_eq!(server.rally.requests().len(), 1);
    kill(first);
}

#[test]
fn the_lock_of_a_killed_delivery_is_free_again() {
    let server = Server::delivering_later("");
    server.receive(&["US1: one", "DE2: two", "TA3: three"]);
    server.fail_next_at("GET", "/workspace", Action::Hang);
    let first = spawn(server.command(&["deliver", "--wait"]));
    server.rally.wait_for_requests("the first deliverer", |requests| !requests.is_empty());
    kill(first);
    server.deliver_all();
    server.assert_rally_holds(&expected(&server.git_dir, &["main"]));
}

#[test]
fn two_deliveries_at_once_post_nothing_twice() {
    let server = Server::delivering_later("");
    server.receive(&["US1: one", "DE2: two", "TA3: three"]);
    let both = [spawn(server.command(&["deliver", "--wait"])), spawn(server.command(&["deliver", "--wait"]))];
    for mut child in both {
        assert!(child.wait().expect("it was ours").success());
    }
    server.assert_rally_holds(&expected(&server.git_dir, &["main"]));
}

#[test]
fn a_push_is_delivered_although_the_background_delivery_is_about_to_end() {
    let server = Server::new();
    // Each push meets the background delivery of the one before in its last steps.
    for round in 0..25 {
        server.receive(&[&format!("US1: round {round}")]);
        let tip = git(&server.git_dir, &["rev-parse", "main"]);
        server.rally.wait_until("the commit with its files", |world| {
            world.changesets().iter().any(|held| held.revision == tip && held.changes.len() == 2)
        });
    }
    wait_for("the last receipt", || server.count("pending") == 0);
    server.assert_rally_holds(&expected(&server.git_dir, &["main"]));
}

#[test]
fn a_backfill_during_a_push_posts_nothing_twice() {
    let server = Server::without_hook();
    server.import("refs/heads/main", &["US1: old", "DE2: old"]);
    server.configure(DELIVER_LATER);
    server.run(&["install"]).succeeds();
    server.fail_next_at("POST", "/batch", Action::CutAfter);
    let mut backfill = server.command(&["backfill", "--all"]);
    let mut backfill = backfill.stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("the program can be run");
    server.receive(&["TA3: new"]);
    server.run(&["backfill", "--all"]);
    backfill.wait().expect("it was ours");
    server.deliver_all();
    server.assert_rally_holds(&expected(&server.git_dir, &["main"]));
}

#[test]
fn four_pushes_at_once_to_twelve_branches_lose_nothing_and_post_nothing_twice() {
    let server = Server::delivering_later("");
    let seed = seed();
    let (source, revisions) = history(&server);
    let clones: Vec<PathBuf> = (0..4).map(|number| copy_clone(&source, &format!("one-of-four-{number}"))).collect();
    let barrier = Barrier::new(clones.len());
    let rounds = rounds(25);
    let pushed: Vec<String> = thread::scope(|scope| {
        let pushers: Vec<_> = clones
            .iter()
            .enumerate()
            .map(|(number, clone)| {
                let (barrier, revisions) = (&barrier, &revisions);
                scope.spawn(move || {
                    let mut random = Random::part(seed, number as u64);
                    let mut pushed = Vec::new();
                    for _ in 0..rounds {
                        let count = 1 + random.below(4);
                        let tips: Vec<String> = (0..count).map(|_| random.pick(revisions).clone()).collect();
                        let first = random.below(12);
                        let branch = |place: usize| format!("branch-{}", (first + place) % 12);
                        let refspecs: Vec<String> = tips
                            .iter()
                            .enumerate()
                            .map(|(place, tip)| format!("{tip}:refs/heads/{}", branch(place)))
                            .collect();
                        barrier.wait();
                        if push(clone, &refspecs) {
                            pushed.extend(tips);
                        }
                    }
                    pushed
                })
            })
            .collect();
        pushers.into_iter().flat_map(|pusher| pusher.join().expect("no pusher panics")).collect()
    });
    assert!(pushed.len() >= rounds, "of four pushes at once at least one succeeds");
    assert_eq!((server.count("unread_pushes"), server.status()["refs_behind"].to_string().as_str()), (0, "[]"));
    server.deliver_all();
    let tips: Vec<&str> = pushed.iter().map(String::as_str).collect();
    server.assert_rally_holds(&expected(&server.git_dir, &tips));
}
