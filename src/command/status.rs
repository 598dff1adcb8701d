//! `rally-hook status`: what is queued, what failed and why, what was delivered.

use std::collections::HashMap;
use std::time::Duration;

use serde_json::json;

use super::{Ended, Error, Site, config_file, from_now, git_dir, is_state_deleted, load_config, write_out};
use crate::PROGRAM;
use crate::cli::{self, Place};
use crate::clock::now;
use crate::config::Deliver;
use crate::queue::{AFTER_LOSS, Claim, DeadLetter, Pause, StateDir, Status};
use crate::text::{json_safe, plural, printable, with_causes};
use crate::time::Time;

/// A process that waits for a time acts soon after it.
const OVERDUE: Duration = Duration::from_secs(60);
/// How many of the dead letters with one reason are named.
const NAMED: usize = 3;

pub(super) fn run(place: &Place, arguments: &cli::Status) -> Result<Ended, Error> {
    let git_dir = git_dir(place)?;
    let name = git_dir.display();
    let nothing_recorded = || Error::Failed(format!("nothing was ever recorded for {name}; run `rally-hook install`"));
    if is_state_deleted(&git_dir) {
        return Err(Error::Failed(format!(
            "the queue of {name} is gone: the hook is installed, but its directory {PROGRAM} was deleted. What was queued \
             may be missing in Rally; {AFTER_LOSS}"
        )));
    }
    if !StateDir::is_in(&git_dir) {
        return Err(nothing_recorded());
    }
    // The queue can be shown whatever is wrong with the configuration.
    let config = config_file(place, &git_dir).and_then(|file| load_config(file.as_deref(), &git_dir));
    let site = Site::with_config(git_dir.clone(), config.as_ref().cloned().unwrap_or_default())?;
    let (status, is_initialised, is_delivering) = site.with_queue(|queue| {
        let status = queue.status(now())?;
        let is_due = status.next_attempt.is_some_and(|next| next <= now());
        let is_delivering = is_due && queue.try_claim(Claim::Delivery)?.is_none();
        Ok((status, queue.is_initialised()?, is_delivering))
    })?;
    let behind = match &config {
        Ok(_) => behind(&site),
        Err(_) => Err("the configuration does not say which refs are watched".to_owned()),
    };
    let text = match arguments.json {
        true => json(&status, &behind),
        false => human(&status, &behind, site.config.queue.deliver, is_delivering),
    };
    write_out(text.as_bytes())?;
    config?;
    if !is_initialised && !status.lost && status.recorded == 0 && status.pushes == 0 {
        return Err(nothing_recorded());
    }
    let fine = status.failed == 0
        && !status.lost
        && behind.as_ref().is_ok_and(Vec::is_empty)
        && !status.pause.is_some_and(|pause| pause.needs_person);
    Ok(Ended::done_if(fine))
}

/// Returns the refs that lag behind. A repository that cannot be opened is worth a line, not the loss of the others.
fn behind(site: &Site) -> Result<Vec<String>, String> {
    let repository = site.repository().map_err(Error::from);
    let behind = repository.and_then(|repository| site.with_recorder(&repository, |recorder| recorder.refs_behind()));
    behind.map_err(|error| with_causes(&error))
}

fn json(status: &Status, behind: &Result<Vec<String>, String>) -> String {
    let date = |time: Option<Time>| time.map(|time| time.to_string());
    let object = json!({
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
        "oldest_pending": date(status.oldest_pending),
        "next_attempt": date(status.next_attempt),
        "last_delivery": date(status.last_delivery),
        "last_error": status.last_error,
        "paused": status.pause.as_ref().map(|pause| json!({
            "since": pause.since.to_string(),
            "until": pause.until.to_string(),
            "reason": pause.error,
            "needs_person": pause.needs_person,
        })),
        "dead_letters": status.dead_letters,
        "queue_was_lost": status.lost,
        "damaged_copy": status.damaged_copy,
        "refs_behind": behind.as_ref().ok(),
        "repository_error": behind.as_ref().err(),
    });
    json_safe(&format!("{object}\n")).into_owned()
}

/// Returns the text for people.
fn human(status: &Status, behind: &Result<Vec<String>, String>, deliver: Deliver, is_delivering: bool) -> String {
    let last = status.last_delivery.map(|at| format!(", the last {}", from_now(at))).unwrap_or_default();
    let mut lines = vec![format!("recorded   {}", status.recorded), format!("delivered  {}{last}", status.delivered)];
    let mut add = |present: bool, line: String| lines.extend(present.then_some(line));
    add(status.existed > 0, format!("existed    {} were in Rally already", status.existed));
    add(status.unlinked > 0, format!("unlinked   {} name no artifact that Rally has", status.unlinked));
    add(true, queued(status, deliver, is_delivering));
    add(true, format!("failed     {}", status.failed));
    dead_letters(&status.dead_letters).into_iter().for_each(|line| add(true, line));
    add(
        status.failed > 0,
        "  `rally-hook retry REVISION` or `--all` tries again, `rally-hook forget REVISION` removes one".into(),
    );
    let pushes = plural(status.pushes, "push");
    add(
        status.pushes > 0,
        format!("unread     {pushes}, whose commits are not recorded yet; `rally-hook deliver` records them"),
    );
    let state_requests = plural(status.state_requests, "commit");
    add(status.state_requests > 0, format!("states     the state changes of {state_requests} are queued"));
    let omitted = plural(status.omitted_changes, "changed path");
    add(status.omitted_changes > 0, format!("left out   {omitted} beyond max_changes"));
    let unknown_authors = plural(status.unknown_authors, "commit");
    add(
        status.unknown_authors > 0,
        format!("authors    {unknown_authors} posted without one: Rally knows no such user"),
    );
    let is_queued = status.pending + status.pushes + status.state_requests > 0;
    if let Some(pause) = status.pause.as_ref().filter(|pause| is_queued || pause.needs_person) {
        add(true, paused(pause, deliver));
    } else if let Some(error) = &status.last_error {
        add(true, format!("last error {}", printable(error)));
    }
    if let Some(copy) = &status.damaged_copy {
        add(true, format!("repaired   the queue was damaged; it is kept as {copy}"));
    }
    add(status.lost, format!("lost       what was queued may be missing in Rally; {AFTER_LOSS}"));
    match behind {
        Ok(refs) if refs.is_empty() => {}
        Ok(refs) => {
            add(true, format!("behind     {}; `rally-hook catch-up` records them", printable(&refs.join(", "))));
        }
        Err(error) => add(true, format!("repository {}", printable(error))),
    }
    lines.join("\n") + "\n"
}

/// Returns the lines about dead letters: one for each reason, however many have it.
fn dead_letters(letters: &[DeadLetter]) -> Vec<String> {
    let mut groups: Vec<(&str, Vec<&str>)> = Vec::new();
    let mut places: HashMap<&str, usize> = HashMap::new();
    for DeadLetter { revision, reason } in letters {
        let place = *places.entry(reason).or_insert_with(|| {
            groups.push((reason, Vec::new()));
            groups.len() - 1
        });
        groups[place].1.push(revision);
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

fn queued(status: &Status, deliver: Deliver, is_delivering: bool) -> String {
    let oldest = status.oldest_pending.map(|at| format!(", the oldest recorded {}", from_now(at))).unwrap_or_default();
    let next = match status.next_attempt {
        None => String::new(),
        Some(_) if is_delivering => "; a process is delivering".into(),
        Some(at) if deliver == Deliver::Later => format!("; due {}, by `rally-hook deliver`", from_now(at)),
        Some(at) if is_overdue(at) => format!("; due {}, run `rally-hook deliver`", from_now(at)),
        Some(at) => format!("; next attempt {}", from_now(at.max(now()))),
    };
    format!("queued     {}{oldest}{next}", status.pending)
}

fn paused(pause: &Pause, deliver: Deliver) -> String {
    let what = match deliver {
        _ if pause.needs_person => "fix this, then run `rally-hook deliver`",
        Deliver::Later => "`rally-hook deliver` tries again, by a timer or by hand",
        Deliver::Background if !is_overdue(pause.until) => "a process in the background tries again",
        Deliver::Background | Deliver::Inline => "the next push or `rally-hook deliver` tries again",
    };
    format!("paused     since {}, until {} ({what}): {}", pause.since, pause.until, printable(&pause.error))
}

/// Tells whether a time is so long past that no process can be at work on what was to happen then.
fn is_overdue(time: Time) -> bool {
    now().since(time) > OVERDUE
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
        assert_eq!(dead_letters(&letters), ["  4 commits (0123456789ab, 2, 3, 1 more): no", "  7  never"]);
    }
}
