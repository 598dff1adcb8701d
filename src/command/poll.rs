//! What is new on all refs, without word from a hook; and how the last look at a server went, where one is polled.

use std::time::Duration;

use super::{Error, Site};
use crate::clock::now;
use crate::config::Level;
use crate::queue::{Poll, SERVER};
use crate::record::Recorded;
use crate::text::with_causes;
use crate::time::Time;
use crate::vcs::{Kind, Refs};

/// After so many intervals without an answer, somebody has to look.
const LATE: u32 = 10;

/// How a server was polled.
pub(super) struct Polls {
    pub poll: Poll,
    pub every: Duration,
}

impl Polls {
    /// Returns when the next poll is due.
    pub(super) fn due(&self, now: Time) -> Time {
        // A clock that was set back must not keep it from being asked.
        self.poll.tried.filter(|tried| *tried <= now).map_or(now, |tried| tried + self.every)
    }

    /// Says what a person has to act on, if the server has given no answer for long.
    pub(super) fn trouble(&self, now: Time) -> Option<String> {
        let age = self.poll.succeeded.map(|succeeded| now.since(succeeded));
        if age.is_some_and(|age| age <= self.every.saturating_mul(LATE)) {
            return None;
        }
        let since = age.map_or("ever".to_owned(), |age| format!("for {}", super::whole_seconds(age)));
        Some(match &self.poll.error {
            Some(error) => format!("no poll of the server has succeeded {since}: {error}"),
            None => format!(
                "the server was not polled {since}; run `rally-hook worker`, or let a timer run `rally-hook catch-up`, and \
                 set tfvc.every to its interval"
            ),
        })
    }
}

impl Site {
    /// Returns how the server was polled, where one is.
    pub(super) fn polls(&self) -> Result<Option<Polls>, Error> {
        if Kind::of(&self.repo_dir) != Kind::Tfvc {
            return Ok(None);
        }
        let poll = self.with_queue(|queue| Ok(queue.last_attempt(SERVER)?))?;
        Ok(Some(Polls { poll, every: self.config.tfvc.every }))
    }

    /// Records what is new on all watched refs.
    pub(super) fn record_all(&self) -> Result<Recorded, Error> {
        self.learn_history()?;
        self.noted_poll(|| self.with_recorder(|recorder| recorder.record(Refs::All, None)))
    }

    /// Marks what the repository holds as seen.
    pub(super) fn mark_all_seen(&self) -> Result<(), Error> {
        self.noted_poll(|| self.with_recorder(|recorder| recorder.mark_all_seen()))
    }

    /// Does some work that asks the server, where one is polled, and notes how that went.
    fn noted_poll<T>(&self, work: impl FnOnce() -> Result<T, Error>) -> Result<T, Error> {
        let Some(before) = self.polls()? else { return work() };
        let done = work();
        let error = done.as_ref().err().map(|error| with_causes(error));
        self.with_queue(|queue| Ok(queue.note_attempt(SERVER, now(), error.as_deref())?))?;
        match &error {
            Some(error) if before.poll.error.as_ref() != Some(error) => {
                self.log_error("poll", &format!("the poll of the server failed: {error}"));
            }
            None if before.poll.error.is_some() => {
                self.log.write(Level::Info, "poll", &[], "the server is polled again");
            }
            _ => {}
        }
        done
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: i64) -> Time {
        Time::from_millis(seconds * 1000)
    }

    fn polls(tried: i64, succeeded: Option<i64>, error: Option<&str>) -> Polls {
        let poll = Poll { tried: Some(at(tried)), succeeded: succeeded.map(at), error: error.map(str::to_owned) };
        Polls { poll, every: Duration::from_secs(60) }
    }

    #[test]
    fn a_poll_is_due_after_its_interval_and_at_once_where_none_is_known() {
        assert_eq!(polls(100, None, None).due(at(120)), at(160));
        assert_eq!(polls(100, None, None).due(at(90)), at(90), "the clock was set back");
        assert_eq!(Polls { poll: Poll::default(), every: Duration::from_secs(60) }.due(at(5)), at(5));
    }

    #[test]
    fn trouble_is_told_after_ten_intervals_without_an_answer() {
        assert_eq!(polls(700, Some(100), Some("down")).trouble(at(700)), None);
        let told = polls(700, Some(100), Some("down")).trouble(at(701)).expect("late");
        assert_eq!(told, "no poll of the server has succeeded for 10m 1s: down");
        assert!(polls(100, Some(100), None).trouble(at(701)).expect("late").contains("not polled for 10m 1s"));
        assert!(polls(100, None, Some("down")).trouble(at(101)).is_some());
    }
}
