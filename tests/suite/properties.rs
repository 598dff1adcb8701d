//! Random histories, pushes, crashes and faults of Rally; after each step the ledger adds up, and in the end Rally holds
//! what Git says.
//!
//! `RALLY_HOOK_SEED` repeats a run and `RALLY_HOOK_ROUNDS` makes it longer.

use std::collections::BTreeSet;
use std::time::Duration;

use rally_simulator::{Action, Batch, Fault, Match};

use crate::support::fault::{errors, retry_after, spawn, status};
use crate::support::process::kill_after;
use crate::support::{Clone, Random, Server, expected, rounds, seed};

/// A request of a killed process may take effect that much later; the simulator runs on a busy machine.
const LAG_MS: u64 = 150;
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
    commits: Vec<String>,
}

#[test]
fn whatever_happens_rally_holds_in_the_end_what_git_says() {
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
        let server = Server::delivering_later("");
        let batches = [Batch::Normal, Batch::Normal, Batch::Missing, Batch::AllOrNothing, Batch::Garbage];
        let batch = *random.pick(&batches);
        server.rally.settings(|settings| {
            settings.batch = batch;
            settings.conflict_percent = 10;
            settings.conflict_seed = random.next();
        });
        let clone = server.new_clone();
        let first = clone.commit("US1: the first", &[("a", Some("1"))]);
        World { server, clone, random, reached: BTreeSet::new(), commits: vec![first] }
    }

    fn live(mut self) {
        for _ in 0..STEPS {
            match self.random.below(10) {
                0..=2 => self.commit(),
                3 => self.merge(),
                4..=6 => self.push(),
                7 => self.plant_fault(),
                8 => self.kill_delivery(),
                _ => drop(self.server.run_with_lag(&["deliver"], LAG_MS)),
            }
            self.server.assert_ledger_adds_up();
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

    /// Pushes to some refs by force, deletes some; now and then the hook is killed or missing.
    fn push(&mut self) {
        let mut refspecs = BTreeSet::new();
        let mut tips = Vec::new();
        for branch in BRANCHES {
            match self.random.below(6) {
                0 | 1 => {
                    tips.push(self.random.pick(&self.commits).clone());
                    refspecs.insert(format!("{}:refs/heads/{branch}", tips[tips.len() - 1]));
                }
                2 if branch != "main" => drop(refspecs.insert(format!(":refs/heads/{branch}"))),
                _ => {}
            }
        }
        if refspecs.is_empty() {
            return;
        }
        let refspecs: Vec<&str> = refspecs.iter().map(String::as_str).collect();
        self.clone.push(&[&["--force", "origin"], &refspecs[..]].concat());
        self.reached.extend(tips);
    }

    fn plant_fault(&mut self) {
        let conflict = "Concurrency conflict: [Object has been modified since being read]";
        let actions = [
            Action::CutBefore,
            Action::CutAfter,
            Action::CutMidBody,
            Action::Garbage,
            Action::GarbageAfter,
            Action::EntryErrors { every: 2, errors: vec![conflict.into()] },
            Action::ErrorsAfter(vec!["Validation error: refused, it says".into()]),
            Action::StatusAfter { code: 502, body: String::new() },
            errors(conflict),
            errors("Validation error: refused"),
            status(401),
            status(413),
            status(500),
            status(503),
            retry_after(429, 1),
        ];
        let on = Match { skip: self.random.below(6), ..Match::default() };
        let action = self.random.pick(&actions).clone();
        self.server.rally.fault(Fault { on, times: 1 + self.random.below(3), action });
    }

    fn kill_delivery(&mut self) {
        let mut command = self.server.command(&["deliver", "--wait"]);
        command.env("RALLY_HOOK_TEST_LAG_MS", LAG_MS.to_string());
        kill_after(spawn(command), Duration::from_millis(self.random.below(120) as u64));
    }

    /// Ends all trouble and compares.
    fn settle(self) {
        let server = &self.server;
        server.rally.clear_faults();
        server.rally.settings(|settings| settings.conflict_percent = 0);
        server.run(&["retry", "--all"]);
        server.run_with_lag(&["deliver", "--wait"], LAG_MS).succeeds();
        let tips: Vec<&str> = self.reached.iter().map(String::as_str).collect();
        if !tips.is_empty() {
            server.assert_rally_holds(&expected(&server.git_dir, &tips));
        }
        assert_eq!(server.status()["refs_behind"].as_array().map(Vec::len), Some(0));
    }
}
