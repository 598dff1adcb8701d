//! Random histories, pushes, races, strips, crashes and faults of Rally on a Mercurial repository: in the end Rally holds
//! what `hg` lists. See `properties.rs`, which does the same with Git.

use std::collections::BTreeSet;
use std::os::unix::process::CommandExt;
use std::time::Duration;

use crate::support::mercurial::{Mercurial, WorkDir};
use crate::support::process::{kill_after, spawn};
use crate::support::{Random, ran, rounds, seed};

const STEPS: usize = 16;
const BRANCHES: [&str; 3] = ["default", "stable", "fix"];
const MESSAGES: [&str; 6] = ["US1: a", "DE2, US3: b", "nothing named", "TA4: c", "DE9 and US99: e", "(US5)"];

#[test]
fn rally_holds_what_mercurial_lists_after_random_pushes_crashes_and_faults() {
    let (seed, rounds) = (seed(), rounds(1));
    for round in 0..rounds {
        let Some(server) = Mercurial::new() else { return };
        let clone = server.new_clone();
        World {
            server,
            clone,
            random: Random::part(seed, round as u64),
            commits: Vec::new(),
            reached: BTreeSet::new(),
        }
        .live();
    }
}

/// A repository with a clone, and every changeset that has reached the repository, with all before it.
struct World {
    server: Mercurial,
    clone: WorkDir,
    random: Random,
    commits: Vec<String>,
    reached: BTreeSet<String>,
}

impl World {
    fn live(mut self) {
        self.server.make_unreliable(&mut self.random);
        self.commit();
        self.push();
        for _ in 0..STEPS {
            match self.random.below(12) {
                0..=2 => self.commit(),
                3 => self.merge(),
                4 => self.push(),
                5 => self.push_without_hook(),
                6 => self.race(),
                7 => self.kill_push(),
                8 => self.strip(),
                9 => self.server.plant_fault(&mut self.random),
                10 => self.server.kill_delivery(&mut self.random),
                _ => drop(self.server.run(&["deliver"])),
            }
            self.server.assert_counts_add_up();
        }
        self.push();
        self.server.settle();
        let reached: Vec<&str> = self.reached.iter().map(String::as_str).collect();
        let expected = self.clone.expected(&format!("ancestors({})", reached.join("+")));
        self.server.assert_rally_holds(&expected);
        self.server.assert_refs_behind(&[]);
    }

    fn commit(&mut self) {
        for _ in 0..=self.random.below(2) {
            if !self.commits.is_empty() {
                let parent = self.random.pick(&self.commits).clone();
                self.clone.hg(&["update", "--quiet", "--clean", &parent]);
            }
            let branch = *self.random.pick(&BRANCHES);
            self.clone.hg(&["branch", "--quiet", "--force", branch]);
            let (name, text) = (format!("dir/file{}", self.random.below(4)), self.random.next().to_string());
            let message = *self.random.pick(&MESSAGES);
            self.commits.push(self.clone.commit(message, &[(&name, Some(&text))]));
        }
    }

    fn merge(&mut self) {
        let (one, other) = (self.random.pick(&self.commits).clone(), self.random.pick(&self.commits).clone());
        self.clone.hg(&["update", "--quiet", "--clean", &one]);
        // One may be before the other.
        if ran(self.clone.command(&["merge", "--quiet", "--tool", ":local", &other])).success {
            self.commits.push(self.clone.commit_with(&["--message", "US2: merge"]));
        }
    }

    fn push(&mut self) {
        let commit = self.random.pick(&self.commits).clone();
        let pushed = self.clone.push(&["--rev", &commit]);
        // With 1 it says that there was nothing to push.
        assert!(matches!(pushed.code, Some(0 | 1)), "{pushed:?}");
        self.reached.insert(commit);
    }

    fn push_without_hook(&mut self) {
        let hgrc = self.server.git_dir.join("hgrc");
        std::fs::rename(&hgrc, hgrc.with_extension("off")).expect("it is there");
        self.push();
        std::fs::rename(hgrc.with_extension("off"), &hgrc).expect("it is there");
        // A strip may take away what nothing has recorded.
        self.server.run(&["catch-up"]).succeeds();
    }

    /// Pushes from several processes at once, while a delivery goes on.
    fn race(&mut self) {
        let mut deliver = spawn(self.server.command(&["deliver"]));
        let commits: Vec<String> = (0..3).map(|_| self.random.pick(&self.commits).clone()).collect();
        let pushes: Vec<_> = commits.iter().map(|commit| spawn(self.clone.push_command(&["--rev", commit]))).collect();
        for (commit, mut push) in commits.into_iter().zip(pushes) {
            // Of two that push the same, one may be told that the repository changed.
            if matches!(push.wait().expect("it was ours").code(), Some(0 | 1)) {
                self.reached.insert(commit);
            }
        }
        deliver.wait().expect("it was ours");
    }

    /// Kills client, server and hook at some time during a push.
    fn kill_push(&mut self) {
        let commit = self.random.pick(&self.commits).clone();
        let mut command = self.clone.push_command(&["--rev", &commit]);
        command.process_group(0);
        kill_after(spawn(command), Duration::from_millis(self.random.below(600) as u64));
        for dir in [&self.server.root(), &self.clone] {
            // An administrator does so where a killed process has left a transaction.
            let _ = ran(dir.command(&["recover", "--quiet"]));
        }
        if ran(self.server.root().command(&["log", "--rev", &commit])).success {
            self.reached.insert(commit);
        }
        self.server.run(&["catch-up"]).succeeds();
    }

    /// Strips a changeset that was recorded; a later push may bring it again.
    fn strip(&mut self) {
        self.server.run(&["catch-up"]).succeeds();
        let commit = self.random.pick(&self.commits).clone();
        if ran(self.server.root().command(&["log", "--rev", &commit])).success {
            self.server.root().strip(&commit);
        }
    }
}
