//! `rally-hook status`: what is queued, what failed and why, what was delivered.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use serde_json::{Value, json};

use super::identity::{Naming, identify};
use super::poll::Polls;
use super::status_ledger::Ledger;
use super::{
    Ended, Error, Site, find_config, fleet_status, from_now, hooks, repo_dir, status_table, whole_seconds, write_out,
};
use crate::cli::{self, Place};
use crate::clock::now;
use crate::config::{self, Deliver, Rally};
use crate::queue::{AFTER_LOSS, AtWork, DeadLetter, Pause, StateDir, Status, Trace};
use crate::text::{json_line, plural, printable, with_causes};
use crate::time::Time;
use crate::vcs::Kind;
use crate::worker::Ledgers;

/// The version of the JSON object. It is raised when a field goes away or changes its meaning.
pub(super) const SCHEMA: u32 = 1;
/// By then, a process that a push has started can be seen.
const START: Duration = Duration::from_millis(200);
/// How many of the dead letters with one reason are named.
const NAMED: usize = 3;

/// What is reported of a repository.
pub(super) struct Facts {
    pub(super) status: Status,
    worker: AtWork,
    /// How the server is polled, if it is one.
    polls: Option<Polls>,
    /// The refs that lag behind, or why that is not known. A server is not asked: it might not answer.
    pub(super) behind: Result<Vec<String>, String>,
    deliver: Deliver,
    /// How long something has waited, where that is longer than the caller allows.
    too_old: Option<Duration>,
    pub(super) repo_dir: PathBuf,
    /// The SCMRepository's name.
    name: Option<String>,
    /// How Rally is reached, unless the configuration is wrong.
    pub(super) rally: Option<Rally>,
    /// Why the configuration cannot be used.
    config_error: Option<config::Error>,
    /// Whether it is known what was there before: without that, there is nothing to report.
    is_initialised: bool,
    naming: Option<Naming>,
    /// What there is behind the queue, if the configuration names a ledger.
    ledger: Option<Ledger>,
    /// How many commits a ledger has taken in that is not used any more.
    to_take_back: i64,
}

pub(super) fn run(place: &Place, arguments: &cli::Status) -> Result<Ended, Error> {
    if arguments.fleet {
        return fleet_status::run(place, arguments);
    }
    if let Some(root) = &arguments.many.all_repos {
        return status_table::run(place, root, arguments);
    }
    if arguments.prometheus {
        let repo_dir = repo_dir(place)?;
        return status_table::print_figures(&[(
            repo_dir,
            facts(place, arguments.max_age, &Arc::default()).map_err(|e| with_causes(&e)),
        )]);
    }
    let facts = facts(place, arguments.max_age, &Arc::default())?;
    let text = if arguments.json { json(&facts) } else { human(&facts) };
    write_out(text.as_bytes())?;
    let ended = Ended::done_if(facts.trouble().is_none());
    match facts {
        Facts { config_error: Some(error), .. } => Err(error.into()),
        facts if facts.is_unused() => Err(nothing_recorded(&facts.repo_dir)),
        _ => Ok(ended),
    }
}

fn nothing_recorded(repo_dir: &Path) -> Error {
    let name = repo_dir.display();
    Error::Failed(format!("nothing was ever recorded for {name}; run `rally-hook install`"))
}

/// Finds out how a repository stands.
pub(super) fn facts(place: &Place, max_age: Option<Duration>, ledgers: &Arc<Ledgers>) -> Result<Facts, Error> {
    let repo_dir = repo_dir(place)?;
    // The queue can be shown whatever is wrong with the configuration.
    let config = find_config(place, &repo_dir).map(|(config, _)| config);
    let base = config.as_ref().ok().and_then(|config| config.queue.dir.as_deref());
    match (StateDir::trace(&repo_dir, base), &config) {
        (Ok(Trace::Present(_)), _) => {}
        (Ok(Trace::Never), Ok(_)) => return Err(nothing_recorded(&repo_dir)),
        (Ok(Trace::Deleted), _) => {
            return Err(Error::Failed(format!(
                "the queue of {} is gone: its directory was deleted. What was queued may be missing in Rally; {AFTER_LOSS}",
                repo_dir.display()
            )));
        }
        // Only the configuration says where it is.
        (Ok(Trace::Never) | Err(_), Err(_)) => return Err(config.expect_err("it is one").into()),
        (Err(error), Ok(_)) => return Err(error.into()),
    }
    let mut site = Site::with_config(repo_dir.clone(), config.as_ref().cloned().unwrap_or_default())?;
    site.ledgers = Arc::clone(ledgers);
    let home = site.with_queue(|queue| Ok(queue.home().clone()))?;
    identify(&mut site.config, &home);
    let (mut status, mut worker, is_initialised) = look(&site)?;
    let ledger = Ledger::of(&site, &status);
    if let Some(ledger) = &ledger {
        worker = ledger.at_work(worker, &status);
        ledger.add_to(&mut status);
    }
    let polls = site.polls()?;
    let behind = match &config {
        Ok(_) if polls.is_some() => Ok(Vec::new()),
        // A repository that cannot be opened is worth a line, not the loss of the others.
        Ok(_) => site.with_recorder(|recorder| recorder.behind()).map_err(|error| with_causes(&error)),
        Err(_) => Err("the configuration does not say which refs are watched".to_owned()),
    };
    let age = status.oldest_pending.map(|oldest| now().since(oldest));
    Ok(Facts {
        too_old: age.filter(|age| max_age.is_some_and(|limit| *age > limit)),
        status,
        worker,
        polls,
        behind,
        deliver: site.config.queue.deliver,
        repo_dir,
        name: config.is_ok().then(|| site.config.repository.name.clone()),
        naming: config.is_ok().then(|| Naming::of(&site.config, &home)),
        rally: config.as_ref().ok().map(|config| config.rally.clone()),
        config_error: config.err(),
        is_initialised,
        to_take_back: if ledger.is_none() { site.with_queue(|queue| Ok(queue.count_forwarded()?))? } else { 0 },
        ledger,
    })
}

impl Facts {
    /// Tells whether no push was ever recorded, nor what was there before.
    fn is_unused(&self) -> bool {
        let Status { lost, recorded, pushes, .. } = self.status;
        // With a ledger, that is asked first.
        !self.is_initialised && !lost && recorded == 0 && pushes == 0 && self.ledger.is_none()
    }

    /// Returns what a person has to act on, in a few words, the gravest first.
    pub(super) fn trouble(&self) -> Option<String> {
        let status = &self.status;
        let pause = status.pause.as_ref().filter(|pause| pause.needs_person);
        let is_unattended = status.is_work_left() && !self.has_worker();
        let behind = match &self.behind {
            Ok(refs) if refs.is_empty() => None,
            Ok(refs) => Some(format!("behind: {}", refs.join(", "))),
            Err(error) => Some(error.clone()),
        };
        let troubles = [
            self.config_error.as_ref().map(|error| with_causes(error)),
            self.is_unused().then(|| "nothing was ever recorded; run `rally-hook install`".to_owned()),
            self.ledger.as_ref().and_then(|ledger| ledger.part.as_ref().err().cloned()),
            status.lost.then(|| "the queue was lost".to_owned()),
            pause.map(|pause| pause.error.clone()),
            (status.failed > 0).then(|| plural(status.failed, "dead letter")),
            is_unattended.then(|| "no process is at work on it".to_owned()),
            self.polls.as_ref().and_then(|polls| polls.trouble(now())),
            behind,
            self.too_old.map(waited),
        ];
        troubles.into_iter().flatten().next()
    }

    /// Tells whether a process delivers here, or waits to.
    pub(super) fn has_worker(&self) -> bool {
        self.worker != AtWork::Nobody
    }
}

/// Looks at the queue, and at who is there to deliver. A process may end during the look, and one that a push has just
/// started may not be seen yet: work that nobody is at counts only if it is so twice.
fn look(site: &Site) -> Result<(Status, AtWork, bool), Error> {
    let look = || {
        let worker = site.state.at_work()?;
        site.with_queue(|queue| Ok((queue.status(now())?, worker, queue.is_initialised()?)))
    };
    match look()? {
        (status, AtWork::Nobody, _) if status.is_work_left() && site.config.queue.deliver == Deliver::Background => {
            thread::sleep(START);
            look()
        }
        found => Ok(found),
    }
}

pub(super) fn json(facts: &Facts) -> String {
    let Facts { status, behind, .. } = facts;
    let date = |time: Option<Time>| time.map(|time| time.to_string());
    json_line(&json!({
        "schema": SCHEMA,
        "repository": facts.repo_dir.to_string_lossy(),
        "name": facts.name,
        "vcs": Kind::of(&facts.repo_dir).word(),
        "hook": hooks::look(&facts.repo_dir).ok().map(|(_, hook)| hook.word()),
        "worker": facts.has_worker(),
        "recorded": status.recorded,
        "pending": status.pending,
        "failed": status.failed,
        "delivered": status.delivered,
        "existed": status.existed,
        "unlinked": status.unlinked,
        "unread_pushes": status.pushes,
        "pending_state_changes": status.state_requests,
        "omitted_changes": status.omitted_changes,
        "unknown_authors": status.unknown_authors,
        "requests": status.requests,
        "oldest_pending": date(status.oldest_pending),
        "next_attempt": date(status.next_attempt),
        "unclear": status.unclear,
        "unclear_until": date(status.unclear_until),
        "last_delivery": date(status.last_delivery),
        "last_error": status.last_error,
        "paused": status.pause.as_ref().map(pause_object),
        "dead_letters": status.dead_letters,
        "queue_was_lost": status.lost,
        "damaged_copy": status.damaged_copy,
        "copy_of": status.copy_of,
        "polled": facts.polls.as_ref().map(|polls| json!({
            "last": date(polls.poll.succeeded),
            "tried": date(polls.poll.tried),
            "error": polls.poll.error,
        })),
        "ledger": facts.ledger.as_ref().map(|ledger| json!({
            "unforwarded": ledger.unforwarded,
            "forwarded_at": date(ledger.contact.succeeded),
            "error": ledger.part.as_ref().err(),
            "last_error": ledger.contact.error,
        })),
        "refs_behind": behind.as_ref().ok(),
        "repository_error": behind.as_ref().err(),
    }))
}

pub(super) fn pause_object(pause: &Pause) -> Value {
    json!({
        "since": pause.since.to_string(),
        "until": pause.until.to_string(),
        "reason": pause.error,
        "needs_person": pause.needs_person,
    })
}

/// Returns the text for people.
fn human(facts: &Facts) -> String {
    let Facts { status, behind, ledger, to_take_back, .. } = facts;
    let last = status.last_delivery.map(|at| format!(", the last {}", from_now(at))).unwrap_or_default();
    let oldest = status.oldest_pending.filter(|_| status.pending > 0);
    let oldest = oldest.map(|at| format!(", the oldest recorded {}", from_now(at))).unwrap_or_default();
    let some = |count: i64, line: String| (count > 0).then_some(line);
    let mut lines = vec![format!("recorded   {}", status.recorded), format!("delivered  {}{last}", status.delivered)];
    lines.extend(some(status.existed, format!("existed    {}, in Rally before", status.existed)));
    lines.extend(some(status.unlinked, format!("unlinked   {}, without an artifact that Rally has", status.unlinked)));
    lines.push(format!("queued     {}{oldest}", status.pending));
    lines.extend(worker_line(facts));
    lines.extend(facts.too_old.map(|age| format!("too old    {}", waited(age))));
    lines.extend(some(status.unclear, format!("unclear    {}", unclear(status))));
    lines.push(format!("failed     {}", status.failed));
    lines.extend(dead_letters(&status.dead_letters));
    let retry = "  `rally-hook retry REVISION` or `--all` tries again, `rally-hook forget REVISION` removes one";
    lines.extend(some(status.failed, retry.to_owned()));
    let pushes = plural(status.pushes, "push");
    let unread = format!("unread     {pushes}, whose commits are not recorded yet; `rally-hook deliver` records them");
    lines.extend(some(status.pushes, unread));
    let states = plural(status.state_requests, "commit");
    lines.extend(some(status.state_requests, format!("states     the state changes of {states} are queued")));
    let omitted = plural(status.omitted_changes, "changed path");
    lines.extend(some(status.omitted_changes, format!("left out   {omitted} beyond max_changes")));
    let without = plural(status.unknown_authors, "commit");
    let authors = format!("authors    {without} posted without one: Rally knows no such user");
    lines.extend(some(status.unknown_authors, authors));
    match &status.pause {
        Some(pause) if status.is_work_left() || pause.needs_person => lines.push(paused(pause, facts.worker)),
        _ => lines.extend(status.last_error.as_ref().map(|error| format!("last error {}", printable(error)))),
    }
    if let Some(naming @ (Naming::Notable(_) | Naming::Clash(_))) = &facts.naming {
        lines.push(format!("name       {}", printable(naming.text())));
    }
    let repaired = |copy| format!("repaired   the queue was damaged; it is kept as {copy}");
    lines.extend(status.damaged_copy.as_ref().map(repaired));
    lines.extend(status.lost.then(|| format!("lost       what was queued may be missing in Rally; {AFTER_LOSS}")));
    lines.extend(facts.polls.as_ref().map(polled));
    lines.extend(ledger.as_ref().map(Ledger::line));
    let kept = plural(*to_take_back, "commit");
    let taken_back = format!("ledger     not used any more: {kept} that it had taken in return with the next delivery");
    lines.extend(some(*to_take_back, taken_back));
    lines.extend(match behind {
        Ok(refs) if refs.is_empty() => None,
        Ok(refs) => Some(format!("behind     {}; `rally-hook catch-up` records them", printable(&refs.join(", ")))),
        // The cause is told at the end.
        Err(_) if facts.config_error.is_some() => None,
        Err(error) => Some(format!("repository {}", printable(error))),
    });
    lines.join("\n") + "\n"
}

fn waited(age: Duration) -> String {
    format!("something has waited for {}", whole_seconds(age))
}

/// Returns the line about the last look at a server.
fn polled(polls: &Polls) -> String {
    let last = polls.poll.succeeded.map_or("never".to_owned(), from_now);
    match (polls.trouble(now()), &polls.poll.error) {
        (_, Some(error)) => format!("polled     {last}; since then: {}", printable(error)),
        (Some(trouble), None) => format!("polled     {last}: {trouble}"),
        (None, None) => format!("polled     {last}"),
    }
}

/// Returns the lines about dead letters: one for each reason, however many have it.
fn dead_letters(letters: &[DeadLetter]) -> Vec<String> {
    let mut groups: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for DeadLetter { revision, reason } in letters {
        groups.entry(reason).or_default().push(revision);
    }
    let line = |(reason, revisions): (&str, Vec<&str>)| match revisions.as_slice() {
        [revision] => format!("  {revision}  {}", printable(reason)),
        _ => {
            let mut named: Vec<String> = revisions.iter().take(NAMED).map(|text| format!("{text:.12}")).collect();
            named.extend((revisions.len() > NAMED).then(|| format!("{} more", revisions.len() - NAMED)));
            format!("  {} commits ({}): {}", revisions.len(), named.join(", "), printable(reason))
        }
    };
    groups.into_iter().map(line).collect()
}

/// Returns the line about who delivers, if there is anything to deliver or somebody at it.
fn worker_line(facts: &Facts) -> Option<String> {
    let Facts { status, worker, deliver, .. } = facts;
    let text = match worker {
        AtWork::Nobody if !status.is_work_left() => return None,
        AtWork::Delivering => "a process is delivering".to_owned(),
        AtWork::Waiting => {
            let next = status.next_attempt.map(|at| format!("; next attempt {}", from_now(at.max(now()))));
            format!("a process waits{}", next.unwrap_or_default())
        }
        AtWork::Nobody => {
            let other = match deliver {
                Deliver::Background | Deliver::Inline => "the next push delivers it too",
                Deliver::Later => "or let a timer run it",
            };
            format!("no process is at work on it; run `rally-hook deliver`, {other}")
        }
    };
    Some(format!("worker     {text}"))
}

/// Says what is waited for where Rally may still be at work on what was sent.
pub(super) fn unclear(status: &Status) -> String {
    let commits = plural(status.unclear, "commit");
    let until = status.unclear_until.map(|until| format!(" until {until} at the latest")).unwrap_or_default();
    format!(
        "{commits} had no answer from Rally, which may still be at work on what was sent: unless Rally shows it before, \
         nothing is sent again{until}"
    )
}

fn paused(pause: &Pause, worker: AtWork) -> String {
    let until = format!(", until {}", pause.until);
    let (until, what) = match (worker, pause.needs_person) {
        (AtWork::Nobody, true) => (String::new(), "fix this, then run `rally-hook deliver`"),
        (AtWork::Nobody, false) => (String::new(), "`rally-hook deliver` tries again"),
        (_, true) => (until, "fix this, then run `rally-hook deliver`, or wait for the next attempt at that time"),
        (_, false) => (until, "the next attempt is made then"),
    };
    format!("paused     since {}{until} ({what}): {}", pause.since, printable(&pause.error))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dead_letters_with_one_reason_are_one_line() {
        let letter = |revision: &str, reason: &str| DeadLetter { revision: revision.into(), reason: reason.into() };
        let letters = [
            letter("0123456789abcdef", "no"),
            letter("7", "never"),
            letter("2", "no"),
            letter("3", "no"),
            letter("4", "no"),
        ];
        assert_eq!(dead_letters(&letters), ["  7  never", "  4 commits (0123456789ab, 2, 3, 1 more): no"]);
    }
}
