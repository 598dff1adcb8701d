//! `rally-hook status`: what waits, what failed and why, what was delivered.

use std::time::Duration;

use serde_json::json;

use super::{Ended, Error, Site, from_now, git_dir, write_out};
use crate::cli::{self, Place};
use crate::clock::now;
use crate::config::Deliver;
use crate::queue::{Pause, StateDir, Status, Walked};
use crate::text::{json_safe, plural, printable, with_causes};
use crate::time::Time;

/// A process that waits for a time acts soon after it.
const OVERDUE: Duration = Duration::from_secs(60);

pub(super) fn run(place: &Place, arguments: &cli::Status) -> Result<Ended, Error> {
    let git_dir = git_dir(place)?;
    if !StateDir::is_in(&git_dir) {
        return Err(Error::Failed(format!(
            "nothing was ever recorded for {}; run `rally-hook install`",
            git_dir.display()
        )));
    }
    let site = Site::open(place)?;
    let (status, installed) =
        site.with_queue(|queue| Ok((queue.status(now())?, queue.seen_scope(Walked::Commits)?.is_some())))?;
    // A repository that cannot be opened is worth a line, not the loss of the others.
    let behind = site.repository().map_err(Error::from);
    let behind = behind.and_then(|repository| site.with_recorder(&repository, |recorder| recorder.refs_behind()));
    let behind = behind.map_err(|error| with_causes(&error));
    let retries_itself = site.config.queue.deliver == Deliver::Background;
    let begins = if installed { "" } else { "not yet    nothing was ever recorded here; run `rally-hook install`\n" };
    let text = match arguments.json {
        true => json(&status, &behind),
        false => human(&status, &behind, retries_itself) + begins,
    };
    write_out(text.as_bytes())?;
    let fine = status.failed == 0
        && !status.lost
        && behind.as_ref().is_ok_and(Vec::is_empty)
        && !status.pause.is_some_and(|pause| pause.needs_person);
    Ok(Ended::done_if(fine))
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

/// Returns the text for people; `retries_itself` tells whether a process in the background tries again.
fn human(status: &Status, behind: &Result<Vec<String>, String>, retries_itself: bool) -> String {
    let last = status.last_delivery.map(|at| format!(", the last {}", from_now(at))).unwrap_or_default();
    let mut lines = vec![format!("recorded   {}", status.recorded), format!("delivered  {}{last}", status.delivered)];
    let mut add = |present: bool, line: String| lines.extend(present.then_some(line));
    add(status.existed > 0, format!("existed    {} were in Rally already", status.existed));
    add(status.unlinked > 0, format!("unlinked   {} name no artifact that Rally has", status.unlinked));
    add(true, pending(status));
    add(true, format!("failed     {}", status.failed));
    for letter in &status.dead_letters {
        add(true, format!("  {}  {}", letter.revision, printable(&letter.reason)));
    }
    add(
        status.failed > 0,
        "  `rally-hook retry REVISION` or `--all` tries again, `rally-hook forget REVISION` drops one".into(),
    );
    add(
        status.pushes > 0,
        format!(
            "unread     {} whose commits are not recorded yet; `rally-hook deliver` records them",
            plural(status.pushes, "push")
        ),
    );
    let state_requests = plural(status.state_requests, "commit");
    add(status.state_requests > 0, format!("states     the state changes of {state_requests} wait"));
    add(status.omitted_changes > 0, format!("left out   {} changed paths beyond max_changes", status.omitted_changes));
    let waits = status.pending + status.pushes + status.state_requests > 0;
    if let Some(pause) = status.pause.as_ref().filter(|pause| waits || pause.needs_person) {
        add(true, paused(pause, retries_itself));
    } else if let Some(error) = &status.last_error {
        add(true, format!("last error {}", printable(error)));
    }
    if let Some(copy) = &status.damaged_copy {
        add(true, format!("repaired   the queue was damaged; it is kept as {copy}"));
    }
    add(
        status.lost,
        "lost       some of what waited in the queue may be gone with its file; run `rally-hook backfill` over the last \
         pushes"
            .into(),
    );
    match behind {
        Ok(refs) if refs.is_empty() => {}
        Ok(refs) => {
            add(true, format!("behind     {}; `rally-hook catch-up` records them", printable(&refs.join(", "))));
        }
        Err(error) => add(true, format!("repository {}", printable(error))),
    }
    lines.join("\n") + "\n"
}

fn pending(status: &Status) -> String {
    let oldest = status.oldest_pending.map(|at| format!(", the oldest recorded {}", from_now(at))).unwrap_or_default();
    let next = match status.next_attempt {
        Some(at) if is_overdue(at) => format!("; due {}, run `rally-hook deliver`", from_now(at)),
        Some(at) => format!("; next attempt {}", from_now(at)),
        None => String::new(),
    };
    format!("pending    {}{oldest}{next}", status.pending)
}

fn paused(pause: &Pause, retries_itself: bool) -> String {
    let what = if pause.needs_person {
        "mend this, then run `rally-hook deliver`"
    } else if !retries_itself || is_overdue(pause.until) {
        "the next push or `rally-hook deliver` tries again"
    } else {
        "a process in the background tries again"
    };
    format!("paused     since {}, until {} ({what}): {}", pause.since, pause.until, printable(&pause.error))
}

/// Tells whether a time is so long past that no process can be at work on what was to happen then.
fn is_overdue(time: Time) -> bool {
    now().since(time) > OVERDUE
}
