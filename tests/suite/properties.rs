//! Random histories, pushes, races, crashes and faults of Rally: after each step the queue's counts add up, and in the
//! end Rally holds what Git lists.
//!
//! `RALLY_HOOK_SEED` repeats a run and `RALLY_HOOK_ROUNDS` makes it longer.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use crate::support::process::{kill_after, spawn};
use crate::support::{Clone, Expected, Random, Server, expected, ran, rounds, seed};

const LANES: usize = 3;
const STEPS: usize = 25;
const BRANCHES: [&str; 4] = ["main", "dev", "release/1", "fix"];
const MESSAGES: [&str; 7] = ["US1: a", "DE2, US3: b", "nothing named", "TA4: c", "US1: d", "DE9 and US99: e", "(US5)"];

/// A repository with a clone, and every commit that has reached a ref of it.
struct World {
    server: Server,
    clone: Clone,
    random: Random,
    reached: BTreeSet<String>,
    /// Commits of killed pushes, which may have reached a ref.
    maybe: BTreeSet<String>,
    commits: Vec<String>,
}

/// Returns the commit that a refspec moves a ref to.
fn tip(refspec: &str) -> Option<String> {
    refspec.split_once(':').map(|(tip, _)| tip.to_owned()).filter(|tip| !tip.is_empty())
}

/// Removes the locks that a killed Git leaves behind.
fn remove_locks(dir: &Path) {
    for entry in fs::read_dir(dir).expect("it can be read").flatten() {
        let path = entry.path();
        match path.is_dir() {
            true if !path.ends_with("objects") && !path.ends_with("rally-hook") => remove_locks(&path),
            false if path.extension().is_some_and(|extension| extension == "lock") => {
                fs::remove_file(&path).expect("it is there");
            }
            _ => {}
        }
    }
}

#[test]
fn rally_holds_what_git_lists_after_random_pushes_crashes_and_faults() {
    let (seed, rounds) = (seed(), rounds(6));
    std::thread::scope(|scope| {
        for lane in 0..LANES {
            scope.spawn(move || {
                for round in (lane..rounds).step_by(LANES) {
                    World::new(Random::part(seed, round as u64)).live();
                }
            });
        }
    });
}

impl World {
    fn new(mut random: Random) -> Self {
        let server = Server::new();
        server.make_unreliable(&mut random);
        let clone = server.new_clone();
        let first = clone.commit("US1: the first", &[("a", Some("1"))]);
        World { server, clone, random, reached: BTreeSet::new(), maybe: BTreeSet::new(), commits: vec![first] }
    }

    fn live(mut self) {
        for _ in 0..STEPS {
            match self.random.below(15) {
                0..=2 => self.commit(),
                3 => self.merge(),
                4 | 5 => self.push(),
                6 => self.push_without_hook(),
                7 => self.kill_push(),
                8 | 9 => self.race(),
                10 => self.server.plant_fault(&mut self.random),
                11 => self.server.kill_delivery(&mut self.random),
                12 => self.catch_up(),
                13 => self.server.kill_during_slow_write(&mut self.random),
                _ => drop(self.server.run(&["deliver"])),
            }
            self.server.assert_counts_add_up();
        }
        self.push();
        self.settle();
    }

    fn commit(&mut self) {
        for _ in 0..=self.random.below(3) {
            let from = self.random.pick(&self.commits).clone();
            self.clone.git(&["checkout", "--quiet", "--detach", &from]);
            let name = format!("dir{}/file{}", self.random.below(3), self.random.below(4));
            let text = self.random.next().to_string();
            let message = *self.random.pick(&MESSAGES);
            self.commits.push(self.clone.commit(message, &[(&name, Some(&text))]));
        }
    }

    fn merge(&mut self) {
        let (one, other) = (self.random.pick(&self.commits).clone(), self.random.pick(&self.commits).clone());
        self.clone.git(&["checkout", "--quiet", "--detach", &one]);
        self.clone.git(&["merge", "--quiet", "--no-ff", "-s", "ours", "-m", "US2: merge", &other]);
        self.commits.push(self.clone.head());
    }

    /// Chooses what to push: some refs are moved by force, some deleted. Returns the refspecs.
    fn refspecs(&mut self) -> Vec<String> {
        let mut refspecs = Vec::new();
        for branch in BRANCHES {
            match self.random.below(6) {
                0 | 1 => refspecs.push(format!("{}:refs/heads/{branch}", self.random.pick(&self.commits))),
                2 if branch != "main" => refspecs.push(format!(":refs/heads/{branch}")),
                _ => {}
            }
        }
        refspecs
    }

    fn push_command(&self, refspecs: &[String]) -> Command {
        let mut command = self.clone.command();
        command.args(["push", "--quiet", "--force", "--atomic", "origin"]).args(refspecs);
        command
    }

    fn push(&mut self) {
        let refspecs = self.refspecs();
        if !refspecs.is_empty() {
            ran(self.push_command(&refspecs)).succeeds();
            self.note_reached(&refspecs);
        }
    }

    /// Notes that the tips of these refspecs reached their refs.
    fn note_reached(&mut self, refspecs: &[String]) {
        self.reached.extend(refspecs.iter().flat_map(|refspec| tip(refspec)));
    }

    fn push_without_hook(&mut self) {
        self.catch_up();
        self.server.disable_hook();
        self.push();
        self.server.enable_hook();
    }

    /// Records all refs. Without it, commits that one push without hook adds and the next one removes would be lost.
    fn catch_up(&self) {
        self.server.run(&["catch-up"]).succeeds();
    }

    /// Kills client, server and hook at some time during a push.
    fn kill_push(&mut self) {
        self.catch_up();
        let refspecs = self.refspecs();
        let mut command = self.push_command(&refspecs);
        command.process_group(0);
        let ended = kill_after(spawn(command), Duration::from_millis(self.random.below(60) as u64));
        let (done, undone): (Vec<_>, Vec<_>) = refspecs.into_iter().partition(|refspec| {
            let (tip, name) = refspec.split_once(':').expect("a refspec has two parts");
            ended || self.server.tip(name).as_deref().unwrap_or_default() == tip
        });
        self.note_reached(&done);
        // The others may have reached their refs for a moment. An administrator removes the locks that are left.
        self.maybe.extend(undone.iter().flat_map(|refspec| tip(refspec)));
        remove_locks(&self.server.git_dir);
        remove_locks(&self.clone.path.join(".git"));
    }

    /// Pushes to the same refs from several processes at once, while a delivery goes on.
    fn race(&mut self) {
        let mut deliver = spawn(self.server.command(&["deliver"]));
        let pushes: Vec<_> = (0..3).map(|_| self.refspecs()).filter(|refspecs| !refspecs.is_empty()).collect();
        let running: Vec<_> = pushes.iter().map(|refspecs| spawn(self.push_command(refspecs))).collect();
        for (refspecs, mut push) in pushes.iter().zip(running) {
            // Of two pushes to the same ref one may be refused as a whole.
            if push.wait().expect("it was ours").success() {
                self.note_reached(refspecs);
            }
        }
        deliver.wait().expect("it was ours");
    }

    /// Ends all faults, delivers, and compares.
    fn settle(self) {
        let server = &self.server;
        server.settle();
        let mut held: Vec<Expected> = server.changesets().iter().map(Expected::from).collect();
        held.sort();
        let of = |tips: &[&BTreeSet<String>]| -> Vec<Expected> {
            let tips: Vec<&str> = tips.iter().copied().flatten().map(String::as_str).collect();
            let mut all = if tips.is_empty() { Vec::new() } else { expected(&self.clone.path, &tips) };
            all.sort();
            all
        };
        let allowed = of(&[&self.reached, &self.maybe]);
        let may_be = |commit: &Expected| allowed.binary_search(commit).is_ok();
        assert!(held.iter().all(may_be) && held.windows(2).all(|pair| pair[0] != pair[1]), "{held:?}\n{allowed:?}");
        let missing: Vec<_> = of(&[&self.reached]).into_iter().filter(|commit| !held.contains(commit)).collect();
        assert!(missing.is_empty(), "{missing:?}");
        server.assert_refs_behind(&[]);
    }
}
