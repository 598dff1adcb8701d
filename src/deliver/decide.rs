//! The decisions about one changeset: what is to be done next, and what becomes of it after a failure. Pure.

use std::collections::BTreeSet;
use std::time::Duration;

use crate::artifact::FormattedId;
use crate::backoff::{Retry, heeded};
use crate::changeset::Post;
use crate::queue::{Attempts, Entry, Pause, Writes};
use crate::rally::Error;
use crate::text::with_causes;
use crate::time::Time;
use crate::wsapi::Verdict;

/// If Rally does not find a Changeset, and its first failed attempt is more than this many lags old, it was deleted.
const GONE_AFTER_LAGS: u32 = 6;

/// A write that is refused while no other is sent is tried so many times before that counts as everything's fault.
const ALONE_TRIES: u32 = 2;

/// Where a changeset stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stage {
    /// Not in Rally as far as is known.
    New,
    /// Its Changeset is there; which of its Changes are is not known.
    ToComplete,
    /// Its Changeset is there, and it is known which Changes are missing.
    ToChange,
    /// All of it is there.
    Complete,
    /// Nothing more for now.
    Left,
}

/// What to do about a Changeset that is not in Rally.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Choice {
    Create,
    /// An earlier attempt may have created it; before this time Rally cannot tell.
    WaitUntil(Time),
    /// Rally has none of the artifacts that it names.
    LeaveUnlinked,
}

/// What becomes of something whose attempt failed.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Fate {
    /// All others would fail as well.
    StopAll,
    TryAgain(Time),
    GiveUp,
}

/// Notes that a look-up found this Changeset in Rally. If no write was ever sent for it, somebody else created it.
pub(super) fn note_found(entry: &mut Entry, rally_ref: &str) {
    entry.existed = entry.writes == Writes::Answered;
    entry.rally_ref = Some(rally_ref.to_owned());
    if entry.writes == Writes::Answered {
        entry.writes = Writes::ChangesUnknown;
    }
}

/// Notes that Rally does not have the Changeset any more, nor what belonged to it.
pub(super) fn note_gone(entry: &mut Entry) {
    entry.rally_ref = None;
    entry.existed = false;
    entry.made.clear();
    entry.writes = Writes::Answered;
}

/// Returns where a changeset stands, once Rally was asked for it.
pub(super) fn stage(entry: &Entry) -> Stage {
    match (&entry.rally_ref, entry.writes) {
        (None, _) => Stage::New,
        (Some(_), Writes::Answered) if missing(entry).next().is_none() => Stage::Complete,
        (Some(_), Writes::Answered) => Stage::ToChange,
        (Some(_), Writes::ChangesUnknown | Writes::Unanswered { .. }) => Stage::ToComplete,
    }
}

/// Returns the places of the changes that are not known to be in Rally.
pub(super) fn missing(entry: &Entry) -> impl Iterator<Item = usize> {
    (0..entry.changeset.changes.len()).filter(|place| !entry.made.contains(place))
}

/// Returns when Rally can tell the outcome of a write, also where a clock that was set back has left a time far ahead.
fn settled_at(until: Time, now: Time, lag: Duration) -> Time {
    heeded(until, now, now + lag)
}

/// Decides about a changeset that Rally does not have. `missing` are the artifacts that Rally does not have either.
pub(super) fn choose(entry: &Entry, missing: &[&FormattedId], post: Post, now: Time, lag: Duration) -> Choice {
    match entry.writes {
        Writes::Unanswered { until } if settled_at(until, now, lag) > now => {
            Choice::WaitUntil(settled_at(until, now, lag))
        }
        _ if missing.len() == entry.changeset.artifacts.len() && post == Post::Linked => Choice::LeaveUnlinked,
        _ => Choice::Create,
    }
}

/// Decides about a changeset of which Rally was asked what it has: `is_there` tells it for each Change. What is missing
/// is believed only when no write can be hidden or under way any more; until then the entry waits.
pub(super) fn complete(
    entry: &mut Entry,
    is_there: impl Fn(&str) -> bool,
    now: Time,
    lag: Duration,
) -> Result<Stage, Time> {
    let changes = &entry.changeset.changes;
    let there = (0..changes.len()).filter(|place| entry.made.contains(place) || is_there(&changes[*place].path));
    let there: BTreeSet<usize> = there.collect();
    let until = match entry.writes {
        // Somebody may be adding them at this moment.
        Writes::ChangesUnknown => now + lag,
        Writes::Unanswered { until } => settled_at(until, now, lag),
        Writes::Answered => now,
    };
    if there.len() < changes.len() && until > now {
        entry.writes = Writes::Unanswered { until };
        return Err(until);
    }
    entry.made = there;
    entry.writes = Writes::Answered;
    Ok(stage(entry))
}

/// Tells whether a Changeset that Rally does not find was deleted, as opposed to being hidden from reads.
pub(super) fn is_gone(entry: &Entry, now: Time, lag: Duration) -> bool {
    let failing_since = entry.attempts.first.unwrap_or(now);
    entry.rally_ref.is_some() && now.since(failing_since) > lag * GONE_AFTER_LAGS
}

/// Decides what becomes of something after one more failed attempt.
pub(super) fn fate(
    attempts: &Attempts,
    verdict: Verdict,
    retry_after: Option<Duration>,
    retry: &Retry,
    now: Time,
    random: f64,
) -> Fate {
    match verdict {
        Verdict::Stop | Verdict::Refused | Verdict::Unavailable => Fate::StopAll,
        Verdict::Reject => Fate::GiveUp,
        _ if retry.is_over(attempts.first.unwrap_or(now), now) => Fate::GiveUp,
        _ => Fate::TryAgain(now + retry.wait(attempts.failed + 1, random, retry_after)),
    }
}

/// Decides about a write that was refused to this user although it was sent alone. If another succeeded at the time,
/// that is this one's own fault, unless `may_have_effect`: then Rally is asked, and it is tried again. If several were
/// refused and none succeeded, it is everything's. One that stands alone is tried again before all others have to wait
/// for it.
pub(super) fn fate_of_refused(
    attempts: &Attempts,
    may_have_effect: bool,
    others_succeeded: bool,
    refused: usize,
) -> Verdict {
    match (others_succeeded, refused) {
        (true, _) if may_have_effect => Verdict::Retry,
        (true, _) => Verdict::Reject,
        (false, 1) if attempts.failed < ALONE_TRIES => Verdict::Retry,
        (false, _) => Verdict::Stop,
    }
}

/// Counts a failed attempt after which the others go on.
pub(super) fn note_failure(attempts: &mut Attempts, next: Option<Time>, error: &str, now: Time) {
    attempts.failed += 1;
    attempts.first.get_or_insert(now);
    attempts.is_over = next.is_none();
    attempts.next = next.unwrap_or(attempts.next);
    attempts.last_error = Some(error.to_owned());
}

/// Returns the pause that follows when nothing can be delivered. An attempt that a person makes during a pause does not
/// extend it, unless the server asks for more time.
pub(super) fn pause(before: Option<&Pause>, error: &Error, retry: Retry, now: Time, random: f64) -> Pause {
    let running = before.filter(|pause| pause.until > now);
    let attempts = before.map_or(0, |pause| pause.attempts) + u32::from(running.is_none());
    let until = match (running, error.retry_after(now)) {
        (Some(pause), None) => pause.until,
        (_, asked_for) => now + retry.wait(attempts, random, asked_for),
    };
    Pause {
        since: before.map_or(now, |pause| pause.since),
        until,
        attempts,
        error: with_causes(error),
        needs_person: error.needs_person(),
        is_outage: error.is_outage(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::changeset::Changeset;
    use crate::commit::{Action, Change};
    use crate::time::CommitTime;
    use crate::wsapi;

    const LAG: Duration = Duration::from_millis(10);
    const RETRY: Retry = Retry { delay: Duration::from_millis(100), patience: Duration::from_millis(1000) };

    fn at(millis: i64) -> Time {
        Time::from_millis(1_000_000 + millis)
    }

    /// A changeset with the changes a, b and c that names US1.
    fn entry(rally_ref: Option<&str>, writes: Writes) -> Entry {
        let change = |path: &str| Change { action: Action::Added, path: path.into() };
        Entry {
            recorded_at: Time::from_millis(0),
            id: 1,
            changeset: Changeset {
                revision: "r1".into(),
                committed_at: CommitTime::from_seconds(0),
                author_name: String::new(),
                author_email: String::new(),
                branch: None,
                message: String::new(),
                artifacts: vec![us1()],
                more_artifacts: 0,
                changes: ["a", "b", "c"].map(change).to_vec(),
                omitted: 0,
            },
            attempts: Attempts { failed: 0, first: None, next: at(0), last_error: None, is_over: false },
            rally_ref: rally_ref.map(str::to_owned),
            existed: false,
            writes,
            made: BTreeSet::new(),
        }
    }

    fn us1() -> FormattedId {
        serde_json::from_value("US1".into()).expect("an ID")
    }

    fn unknown(until: i64) -> Writes {
        Writes::Unanswered { until: at(until) }
    }

    #[test]
    fn the_stage_follows_from_what_is_known() {
        let made = |places: &[usize]| Entry {
            made: places.iter().copied().collect(),
            ..entry(Some("/changeset/1"), Writes::Answered)
        };
        let cases = [
            (entry(None, Writes::Answered), Stage::New),
            (entry(None, unknown(5)), Stage::New),
            (made(&[]), Stage::ToChange),
            (made(&[0, 2]), Stage::ToChange),
            (made(&[0, 1, 2]), Stage::Complete),
            (entry(Some("/changeset/1"), Writes::ChangesUnknown), Stage::ToComplete),
            (entry(Some("/changeset/1"), unknown(5)), Stage::ToComplete),
        ];
        for (entry, expected) in cases {
            assert_eq!(stage(&entry), expected, "{entry:?}");
        }
    }

    #[test]
    fn a_changeset_that_was_never_sent_and_is_there_existed() {
        for (writes, existed) in [(Writes::Answered, true), (unknown(5), false)] {
            let mut entry = entry(None, writes);
            note_found(&mut entry, "/changeset/1");
            assert_eq!((entry.existed, stage(&entry)), (existed, Stage::ToComplete));
        }
    }

    #[test]
    fn a_changeset_is_created_once_no_earlier_attempt_can_be_hidden() {
        let choose = |writes| choose(&entry(None, writes), &[], Post::Linked, at(0), LAG);
        assert_eq!(choose(Writes::Answered), Choice::Create);
        assert_eq!(choose(unknown(5)), Choice::WaitUntil(at(5)));
        assert_eq!(choose(unknown(0)), Choice::Create);
        // A clock that was set back.
        assert_eq!(choose(unknown(86_400_000)), Choice::WaitUntil(at(10)));
    }

    #[test]
    fn a_changeset_without_a_known_artifact_is_left_unless_all_are_posted() {
        let (id, entry) = (us1(), entry(None, Writes::Answered));
        assert_eq!(choose(&entry, &[&id], Post::Linked, at(0), LAG), Choice::LeaveUnlinked);
        assert_eq!(choose(&entry, &[&id], Post::All, at(0), LAG), Choice::Create);
    }

    #[test]
    fn missing_changes_are_believed_only_when_no_write_can_be_hidden() {
        let complete = |writes, there: &[&str]| {
            let mut entry = entry(Some("/changeset/1"), writes);
            let stage = complete(&mut entry, |path| there.contains(&path), at(0), LAG);
            (stage, entry.writes)
        };
        assert_eq!(complete(Writes::ChangesUnknown, &["a"]), (Err(at(10)), unknown(10)));
        assert_eq!(complete(unknown(5), &["a"]), (Err(at(5)), unknown(5)));
        assert_eq!(complete(unknown(0), &["a"]), (Ok(Stage::ToChange), Writes::Answered));
        assert_eq!(complete(Writes::ChangesUnknown, &["a", "b", "c"]), (Ok(Stage::Complete), Writes::Answered));
    }

    #[test]
    fn a_change_that_is_known_to_be_there_need_not_be_found() {
        let mut entry = Entry { made: [1].into(), ..entry(Some("/changeset/1"), unknown(0)) };
        assert_eq!(complete(&mut entry, |path| path == "a", at(0), LAG), Ok(Stage::ToChange));
        assert_eq!((&entry.made, missing(&entry).collect::<Vec<_>>()), (&[0, 1].into(), vec![2]));
    }

    #[test]
    fn a_changeset_that_stays_missing_was_deleted() {
        let mut entry = entry(Some("/changeset/1"), Writes::Answered);
        assert!(!is_gone(&entry, at(61), LAG));
        entry.attempts.first = Some(at(0));
        assert!(!is_gone(&entry, at(60), LAG) && is_gone(&entry, at(61), LAG));
        note_gone(&mut entry);
        assert!(!is_gone(&entry, at(61), LAG));
        assert_eq!(stage(&entry), Stage::New);
    }

    #[test]
    fn each_verdict_has_its_fate() {
        let attempts = |first: Option<Time>| Attempts { first, ..entry(None, Writes::Answered).attempts };
        let fate = |verdict, first| fate(&attempts(first), verdict, None, &RETRY, at(0), 0.0);
        for verdict in [Verdict::Stop, Verdict::Refused, Verdict::Unavailable] {
            assert_eq!(fate(verdict, Some(at(-9999))), Fate::StopAll);
        }
        assert_eq!(fate(Verdict::Reject, None), Fate::GiveUp);
        for verdict in [Verdict::Retry, Verdict::TooLarge, Verdict::Missing] {
            assert_eq!(fate(verdict, None), Fate::TryAgain(at(100)));
            assert_eq!(fate(verdict, Some(at(-1000))), Fate::TryAgain(at(100)));
            assert_eq!(fate(verdict, Some(at(-1001))), Fate::GiveUp);
        }
    }

    #[test]
    fn a_refusal_is_one_rows_fault_until_all_rows_are_refused() {
        let failed = |failed| Attempts { failed, ..entry(None, Writes::Answered).attempts };
        assert_eq!(fate_of_refused(&failed(0), false, true, 1), Verdict::Reject);
        assert_eq!(fate_of_refused(&failed(0), false, true, 7), Verdict::Reject);
        assert_eq!(fate_of_refused(&failed(0), true, true, 1), Verdict::Retry);
        assert_eq!(fate_of_refused(&failed(0), false, false, 2), Verdict::Stop);
        assert_eq!(
            [0, 1, 2].map(|n| fate_of_refused(&failed(n), false, false, 1)),
            [Verdict::Retry, Verdict::Retry, Verdict::Stop]
        );
    }

    #[test]
    fn the_server_may_ask_for_more_time() {
        let attempts = entry(None, Writes::Answered).attempts;
        let asked = Some(Duration::from_secs(1));
        assert_eq!(fate(&attempts, Verdict::Retry, asked, &RETRY, at(0), 0.0), Fate::TryAgain(at(1000)));
    }

    #[test]
    fn a_failed_attempt_is_counted_and_keeps_the_first_ones_time() {
        let mut attempts = entry(None, Writes::Answered).attempts;
        note_failure(&mut attempts, Some(at(9)), "no", at(1));
        note_failure(&mut attempts, None, "never", at(2));
        let expected =
            Attempts { failed: 2, first: Some(at(1)), next: at(9), last_error: Some("never".into()), is_over: true };
        assert_eq!(attempts, expected);
    }

    fn next_pause(before: Option<&Pause>, retry_after: Option<Duration>, now: Time) -> Pause {
        let error = wsapi::Error::Status { request: String::new(), code: 503, retry_after, excerpt: String::new() };
        pause(before, &error.into(), RETRY, now, 0.0)
    }

    #[test]
    fn a_pause_grows_with_each_attempt_that_follows_it() {
        let first = next_pause(None, None, at(0));
        assert_eq!((first.since, first.until, first.attempts), (at(0), at(100), 1));
        let second = next_pause(Some(&first), None, at(100));
        assert_eq!((second.since, second.until, second.attempts), (at(0), at(300), 2));
    }

    #[test]
    fn an_attempt_during_a_pause_extends_it_only_if_the_server_asks_for_that() {
        let first = next_pause(None, None, at(0));
        let early = next_pause(Some(&first), None, at(50));
        assert_eq!((early.until, early.attempts), (at(100), 1));
        let asked = next_pause(Some(&first), Some(Duration::from_secs(1)), at(50));
        assert_eq!((asked.until, asked.attempts), (at(1050), 1));
    }
}
