//! Random commits, races, crashes and faults of Rally on a Subversion repository: in the end Rally holds what `svnlook`
//! lists. See `properties.rs`, which does the same with Git.

use std::fs;
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};
use std::time::Duration;

use crate::support::process::{kill_after, spawn};
use crate::support::subversion::Subversion;
use crate::support::{Random, rounds, seed};

const STEPS: usize = 20;
const MESSAGES: [&str; 6] = ["US1: a", "DE2, US3: b", "nothing named", "TA4: c", "DE9 and US99: e", "(US5)"];

#[test]
fn rally_holds_what_subversion_lists_after_random_commits_crashes_and_faults() {
    let (seed, rounds) = (seed(), rounds(3));
    for round in 0..rounds {
        let Some(server) = Subversion::new() else { return };
        World { server, random: Random::part(seed, round as u64) }.live();
    }
}

struct World {
    server: Subversion,
    random: Random,
}

impl World {
    fn live(mut self) {
        self.server.make_unreliable(&mut self.random);
        for _ in 0..STEPS {
            match self.random.below(12) {
                0..=2 => assert!(self.commit().status().expect("it runs").success()),
                3 => self.commit_without_hook(),
                4 => self.race(),
                5 => self.kill_commit(),
                6 => self.edit_message(),
                7 => self.server.plant_fault(&mut self.random),
                8 => self.server.kill_delivery(&mut self.random),
                9 => self.server.kill_during_slow_write(&mut self.random),
                10 => drop(self.server.run(&["catch-up"]).succeeds()),
                _ => drop(self.server.run(&["deliver"])),
            }
            self.server.assert_counts_add_up();
        }
        self.server.settle();
        self.server.assert_rally_holds(&self.server.expected(1..=self.server.youngest()));
        self.server.assert_refs_behind(&[]);
    }

    /// Returns the command of a commit that changes one to three files.
    fn commit(&mut self) -> Command {
        let mut words = Vec::new();
        for _ in 0..=self.random.below(3) {
            let path = self.server.new_path();
            words.extend(["put".to_owned(), "/dev/null".to_owned(), path]);
        }
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        let message = *self.random.pick(&MESSAGES);
        let mut command = self.server.mucc("jane", message, &words);
        command.stdout(Stdio::null()).stderr(Stdio::null());
        command
    }

    fn commit_without_hook(&mut self) {
        let hook = self.server.git_dir.join("hooks/post-commit");
        let aside = hook.with_extension("off");
        fs::rename(&hook, &aside).expect("it is there");
        assert!(self.commit().status().expect("it runs").success());
        fs::rename(&aside, &hook).expect("it is there");
    }

    /// Commits from several processes at once, while a delivery goes on.
    fn race(&mut self) {
        let mut deliver = spawn(self.server.command(&["deliver"]));
        let commits: Vec<_> = (0..3).map(|_| spawn(self.commit())).collect();
        for mut commit in commits {
            assert!(commit.wait().expect("it was ours").success());
        }
        deliver.wait().expect("it was ours");
    }

    /// Kills client and hook at some time during a commit.
    fn kill_commit(&mut self) {
        let mut command = self.commit();
        command.process_group(0);
        kill_after(spawn(command), Duration::from_millis(self.random.below(60) as u64));
    }

    /// Edits a message, which goes on to name the same artifacts.
    fn edit_message(&mut self) {
        let revision = 1 + self.random.below(self.server.youngest() as usize) as u64;
        let message = self.server.look(&["log", "-r", &revision.to_string()]);
        self.server.set_revision_property(revision, "svn:log", &format!("{message} (edited)"));
    }
}
