//! Whose turn it is, of many repositories that a few threads work on. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use crate::time::Time;

/// When each repository has its next turn.
#[derive(Debug, Default)]
pub(crate) struct Schedule(BTreeMap<PathBuf, Turn>);

#[derive(Debug, Default)]
struct Turn {
    due: Option<Time>,
    is_running: bool,
}

impl Schedule {
    /// Takes in new repositories, each with a turn now, and drops those that are gone.
    pub(crate) fn keep(&mut self, repo_dirs: &BTreeSet<PathBuf>, now: Time) {
        self.0.retain(|repo_dir, turn| turn.is_running || repo_dirs.contains(repo_dir));
        for repo_dir in repo_dirs {
            self.0.entry(repo_dir.clone()).or_insert(Turn { due: Some(now), is_running: false });
        }
    }

    /// Gives a repository a turn at this time, unless it has an earlier one.
    pub(crate) fn bring_forward(&mut self, repo_dir: &Path, at: Time) {
        if let Some(turn) = self.0.get_mut(repo_dir) {
            turn.due = Some(turn.due.map_or(at, |due| due.min(at)));
        }
    }

    /// Takes the repository that has waited for its turn longest.
    pub(crate) fn take(&mut self, now: Time) -> Option<PathBuf> {
        let is_due = |turn: &Turn| !turn.is_running && turn.due.is_some_and(|due| due <= now);
        let (repo_dir, turn) = self.0.iter_mut().filter(|(_, turn)| is_due(turn)).min_by_key(|(_, turn)| turn.due)?;
        *turn = Turn { due: None, is_running: true };
        Some(repo_dir.clone())
    }

    /// Ends a turn. What was asked for meanwhile stays asked for.
    pub(crate) fn give_back(&mut self, repo_dir: &Path, next: Option<Time>) {
        if let Some(turn) = self.0.get_mut(repo_dir) {
            turn.is_running = false;
        }
        if let Some(next) = next {
            self.bring_forward(repo_dir, next);
        }
    }

    /// Returns when the next turn is.
    pub(crate) fn next(&self) -> Option<Time> {
        self.0.values().filter(|turn| !turn.is_running).filter_map(|turn| turn.due).min()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(millis: i64) -> Time {
        Time::from_millis(millis)
    }

    fn schedule(names: &[&str]) -> Schedule {
        let mut schedule = Schedule::default();
        schedule.keep(&names.iter().map(PathBuf::from).collect(), at(0));
        schedule
    }

    #[test]
    fn who_has_waited_longest_is_next_and_nobody_has_two_turns_at_once() {
        let mut schedule = schedule(&["a", "b"]);
        let first = schedule.take(at(0)).expect("two are due");
        let second = schedule.take(at(0)).expect("one is due");
        assert_ne!(first, second);
        schedule.bring_forward(&first, at(1));
        assert_eq!((schedule.take(at(9)), schedule.next()), (None, None));
        schedule.give_back(&first, Some(at(5)));
        assert_eq!(schedule.next(), Some(at(1)), "what was asked for during its turn counts");
        schedule.give_back(&second, Some(at(3)));
        assert_eq!((schedule.take(at(9)), schedule.take(at(9))), (Some(first), Some(second)));
    }

    #[test]
    fn a_turn_is_not_taken_before_it_is_due() {
        let mut schedule = schedule(&["a"]);
        let a = schedule.take(at(0)).expect("it is due");
        schedule.give_back(&a, Some(at(10)));
        assert_eq!(schedule.take(at(9)), None);
        assert_eq!(schedule.take(at(10)), Some(a));
    }

    #[test]
    fn repositories_come_and_go() {
        let mut schedule = schedule(&["a", "b"]);
        let a = schedule.take(at(0)).expect("it is due");
        schedule.keep(&["c"].map(PathBuf::from).into(), at(1));
        assert_eq!(schedule.take(at(1)), Some("c".into()), "b is gone");
        schedule.give_back(&a, None);
        schedule.keep(&BTreeSet::new(), at(2));
        assert_eq!(schedule.take(at(9)), None);
    }
}
