//! `rally-hook status`: what waits, what failed and why, what was delivered.

use std::io::{self, Write};
use std::time::{Duration, UNIX_EPOCH};

use serde_json::json;

use super::{Ended, Error, from_now, load, with_queue};
use crate::cli::{self, Place};
use crate::config;
use crate::context::now;
use crate::queue::{Pause, Status, Walked};
use crate::record;
use crate::text::{json_safe, printable};

/// Who waits for a time acts soon after it; in milliseconds.
const OVERDUE: i64 = 60_000;

pub fn run(place: &Place, arguments: &cli::Status) -> Result<Ended, Error> {
    let context = load(place)?;
    let mut status = with_queue(&context, |queue| Ok(queue.status()?))?;
    // Those that the queue could not take stand beside it.
    status.pushes += context.state.kept_pushes()?.len() as i64;
    // A repository that cannot be opened is worth a line, not the loss of the others.
    let behind = with_queue(&context, |queue| record::refs_behind(&context, queue)).map_err(|error| error.to_string());
    let installed = with_queue(&context, |queue| Ok(queue.seen_scope(Walked::Commits)?.is_some()))?;
    let waits_for_itself = context.config.queue.deliver == config::Deliver::Background;
    let begins =
        if installed { "" } else { "not yet    no push has been recorded here; `rally-hook install` begins it\n" };
    let text = match arguments.json {
        true => json(&status, &behind),
        false => human(&status, &behind, waits_for_itself) + begins,
    };
    io::stdout().write_all(text.as_bytes())?;
    let fine = status.failed == 0
        && !status.lost
        && behind.as_ref().is_ok_and(Vec::is_empty)
        && !status.pause.is_some_and(|pause| pause.needs_person);
    Ok(if fine { Ended::Done } else { Ended::NotAll })
}

fn json(status: &Status, behind: &Result<Vec<String>, String>) -> String {
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
        "oldest_pending": status.oldest_pending.map(date),
        "next_attempt": status.next_attempt.map(date),
        "last_delivery": status.last_delivery.map(date),
        "last_error": status.last_error,
        "paused": status.pause.as_ref().map(|pause| json!({
            "since": date(pause.since),
            "until": date(pause.until),
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

/// Returns the text for people; `waits_for_itself` tells whether a process in the background tries again.
fn human(status: &Status, behind: &Result<Vec<String>, String>, waits_for_itself: bool) -> String {
    let mut lines = vec![
        format!("recorded   {}", status.recorded),
        format!(
            "delivered  {}{}",
            status.delivered,
            status.last_delivery.map(|at| format!(", the last {}", from_now(at))).unwrap_or_default()
        ),
    ];
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
        "  `rally-hook retry REVISION` tries one again, `rally-hook retry --all` all of them".into(),
    );
    add(
        status.pushes > 0,
        format!(
            "unread     {} push{} whose commits are not recorded yet; `rally-hook deliver` reads them",
            status.pushes,
            if status.pushes == 1 { "" } else { "es" }
        ),
    );
    add(
        status.state_requests > 0,
        format!(
            "states     of {} wait to be changed",
            super::plural(status.state_requests.unsigned_abs() as usize, "commit")
        ),
    );
    add(status.omitted_changes > 0, format!("left out   {} changed paths beyond max_changes", status.omitted_changes));
    let waits = status.pending + status.pushes + status.state_requests > 0;
    if let Some(pause) = status.pause.as_ref().filter(|pause| waits || pause.needs_person) {
        add(true, paused(pause, waits_for_itself));
    } else if let Some(error) = &status.last_error {
        add(true, format!("last error {}", printable(error)));
    }
    let backfill = "`rally-hook backfill` over the last pushes makes sure that nothing is missing";
    if let Some(copy) = &status.damaged_copy {
        add(true, format!("repaired   the queue was damaged; it is kept as {copy}"));
    }
    add(status.lost, format!("lost       some of what waited in the queue may be gone with its file; {backfill}"));
    match behind {
        Ok(refs) if refs.is_empty() => {}
        Ok(refs) => {
            add(true, format!("behind     {}; `rally-hook catch-up` records them", printable(&refs.join(", "))))
        }
        Err(error) => add(true, format!("repository {}", printable(error))),
    }
    lines.join("\n") + "\n"
}

fn pending(status: &Status) -> String {
    let oldest = status.oldest_pending.map(|at| format!(", the oldest recorded {}", from_now(at))).unwrap_or_default();
    let next = match status.next_attempt {
        Some(at) if is_overdue(at) => format!("; due {}, `rally-hook deliver` posts it", from_now(at)),
        Some(at) => format!("; next attempt {}", from_now(at)),
        None => String::new(),
    };
    format!("pending    {}{oldest}{next}", status.pending)
}

fn paused(pause: &Pause, waits_for_itself: bool) -> String {
    let what = if pause.needs_person {
        "somebody has to act, and then run `rally-hook deliver`"
    } else if !waits_for_itself || is_overdue(pause.until) {
        "the next push or `rally-hook deliver` tries again"
    } else {
        "it is tried again by itself"
    };
    let (since, until) = (date(pause.since), date(pause.until));
    format!("paused     since {since}, until {until} ({what}): {}", printable(&pause.error))
}

/// Tells whether a time is so long past that nobody can be at work on what was to happen then.
fn is_overdue(millis: i64) -> bool {
    now() - millis > OVERDUE
}

fn date(millis: i64) -> String {
    let time = UNIX_EPOCH + Duration::from_millis(millis.max(0).unsigned_abs());
    humantime::format_rfc3339_seconds(time).to_string()
}
