//! `rally-hook status --all-repos`: one line a repository, the worst first.

use std::cmp::Reverse;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::thread;

use serde_json::json;

use super::many::{Which, found};
use super::status::{Facts, SCHEMA, facts, json};
use super::{Ended, Error, prometheus, write_out};
use crate::cli::{self, Place};
use crate::clock::now;
use crate::process;
use crate::text::{json_line, plural, printable, with_causes};
use crate::time::Time;

/// How many repositories are looked at side by side: each costs some waiting for Git.
const LANES: usize = 8;
pub(super) const HEADINGS: [&str; 7] = ["REPOSITORY", "QUEUED", "OLDEST", "FAILED", "DELIVERED", "LAST", ""];
/// Where the lines are to fit a terminal, paths are cut to this many characters at least.
const SHORTEST_PATH: usize = 20;
/// And this much of what is wrong is shown at least.
const SHORTEST_NOTE: usize = 24;

pub(super) type Row = (PathBuf, Result<Facts, String>);

pub(super) fn run(place: &Place, root: &Path, arguments: &cli::Status) -> Result<Ended, Error> {
    let repo_dirs = found(place, root, Which::Served)?;
    let mut rows = rows(place, repo_dirs, arguments);
    if arguments.prometheus {
        return print_figures(&rows);
    }
    if arguments.json {
        write_out(rows.iter().map(object).collect::<String>().as_bytes())?;
    } else {
        rows.sort_by_key(|(repo_dir, facts)| (Reverse(urgency(facts)), repo_dir.clone()));
        let root = root.canonicalize().unwrap_or_else(|_| root.to_owned());
        write_out(table(&root, &rows, process::terminal_width()).as_bytes())?;
    }
    Ok(ended(&rows))
}

/// Prints the figures of these repositories for Prometheus.
pub(super) fn print_figures(rows: &[Row]) -> Result<Ended, Error> {
    write_out(prometheus::text(rows).as_bytes())?;
    Ok(ended(rows))
}

fn ended(rows: &[Row]) -> Ended {
    Ended::done_if(rows.iter().all(|(_, facts)| trouble(facts).is_none()))
}

/// Looks at all repositories, several at a time.
fn rows(place: &Place, repo_dirs: Vec<PathBuf>, arguments: &cli::Status) -> Vec<Row> {
    let (left, rows) = (Mutex::new(repo_dirs.into_iter()), Mutex::new(Vec::new()));
    let ledgers = Arc::default();
    thread::scope(|scope| {
        for _ in 0..LANES {
            scope.spawn(|| {
                loop {
                    let Some(repo_dir) = left.lock().expect("no holder panics").next() else { return };
                    let place = Place { repo: Some(repo_dir.clone()), ..place.clone() };
                    let facts = facts(&place, arguments.max_age, &ledgers).map_err(|error| with_causes(&error));
                    rows.lock().expect("no holder panics").push((repo_dir, facts));
                }
            });
        }
    });
    let mut rows = rows.into_inner().expect("no holder panicked");
    rows.sort_by(|(one, _), (other, _)| one.cmp(other));
    rows
}

fn object((repo_dir, facts): &Row) -> String {
    match facts {
        Ok(facts) => json(facts),
        Err(error) => json_line(&json!({"schema": SCHEMA, "repository": repo_dir.to_string_lossy(), "error": error})),
    }
}

pub(super) fn trouble(facts: &Result<Facts, String>) -> Option<String> {
    facts.as_ref().map_or_else(|error| Some(error.clone()), Facts::trouble)
}

/// How much a repository needs somebody: what failed or waits for a person, then what waits, the longest first.
fn urgency(facts: &Result<Facts, String>) -> (bool, Option<Reverse<Time>>) {
    let oldest = facts.as_ref().ok().and_then(|facts| facts.status.oldest_pending);
    (trouble(facts).is_some(), oldest.map(Reverse))
}

fn table(root: &Path, rows: &[Row], width: Option<usize>) -> String {
    let mut lines = vec![HEADINGS.map(str::to_owned)];
    lines.extend(rows.iter().map(|row| cells(root, row)));
    lines.push(sum(rows));
    laid_out(&lines, width)
}

/// Returns a table, of which the first column gives way and the last one is cut where it is wider than the terminal.
pub(super) fn laid_out(lines: &[[String; 7]], width: Option<usize>) -> String {
    let widths: Vec<usize> = (0..HEADINGS.len())
        .map(|column| lines.iter().map(|line| line[column].chars().count()).max().unwrap_or_default())
        .collect();
    // Paths give way to numbers.
    let numbers: usize = widths[1..HEADINGS.len() - 1].iter().map(|width| width + 2).sum();
    let room = width.map_or(usize::MAX, |width| width.saturating_sub(numbers + 2 + SHORTEST_NOTE).max(SHORTEST_PATH));
    let path_width = widths[0].min(room);
    let mut text = String::new();
    for line in lines {
        let mut shown = end_of(&line[0], path_width);
        shown.extend(std::iter::repeat_n(' ', path_width - shown.chars().count()));
        for (cell, width) in line[1..HEADINGS.len() - 1].iter().zip(&widths[1..]) {
            shown += &format!("  {cell:>width$}");
        }
        shown += "  ";
        shown += &line[HEADINGS.len() - 1];
        let shown: String = shown.chars().take(width.unwrap_or(usize::MAX)).collect();
        text += shown.trim_end();
        text += "\n";
    }
    text
}

fn cells(root: &Path, (repo_dir, facts): &Row) -> [String; 7] {
    let path = repo_dir.strip_prefix(root).ok().filter(|path| *path != Path::new("")).unwrap_or(repo_dir);
    let path = printable(&path.to_string_lossy()).into_owned();
    let note = printable(&trouble(facts).unwrap_or_default()).into_owned();
    let Ok(Facts { status, .. }) = facts else {
        return [path, "?".into(), String::new(), "?".into(), "?".into(), String::new(), note];
    };
    let since = status.oldest_pending.map(since_now).unwrap_or_default();
    let last = status.last_delivery.map(since_now).unwrap_or_default();
    let numbers = [status.pending + status.pushes, status.failed, status.delivered].map(|number| number.to_string());
    let [queued, failed, delivered] = numbers;
    [path, queued, since, failed, delivered, last, note]
}

fn sum(rows: &[Row]) -> [String; 7] {
    let known: Vec<&Facts> = rows.iter().filter_map(|(_, facts)| facts.as_ref().ok()).collect();
    let total = |number: fn(&Facts) -> i64| known.iter().map(|facts| number(facts)).sum::<i64>().to_string();
    let oldest = known.iter().filter_map(|facts| facts.status.oldest_pending).min();
    let last = known.iter().filter_map(|facts| facts.status.last_delivery).max();
    let troubled = rows.iter().filter(|(_, facts)| trouble(facts).is_some()).count();
    [
        plural(rows.len(), "repository"),
        total(|facts| facts.status.pending + facts.status.pushes),
        oldest.map(since_now).unwrap_or_default(),
        total(|facts| facts.status.failed),
        total(|facts| facts.status.delivered),
        last.map(since_now).unwrap_or_default(),
        match troubled {
            0 if known.iter().any(|facts| facts.status.pause.is_some()) => "waiting for Rally".into(),
            0 => "all is well".into(),
            _ => format!("{troubled} with problems"),
        },
    ]
}

fn since_now(time: Time) -> String {
    age(time, now())
}

/// Says how long ago a time was, in its largest unit.
pub(super) fn age(time: Time, now: Time) -> String {
    let seconds = now.since(time).as_secs();
    match seconds {
        0..120 => format!("{seconds}s"),
        120..7_200 => format!("{}m", seconds / 60),
        7_200..172_800 => format!("{}h", seconds / 3_600),
        _ => format!("{}d", seconds / 86_400),
    }
}

/// Returns the end of a path, which tells repositories apart better than its beginning.
fn end_of(path: &str, width: usize) -> String {
    let length = path.chars().count();
    if length <= width {
        return path.to_owned();
    }
    let end: String = path.chars().skip(length - width + 1).collect();
    format!("…{end}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_path_is_cut_in_front() {
        assert_eq!(end_of("team/api.git", 12), "team/api.git");
        assert_eq!(end_of("team/api.git", 8), "…api.git");
    }

    #[test]
    fn no_line_is_wider_than_the_terminal() {
        let failed = |path: String| (PathBuf::from(path), Err("a reason that goes on and on ".repeat(9)));
        let rows: Vec<Row> = (0..3).map(|number| failed(format!("/srv/git/{}{number}", "long/".repeat(30)))).collect();
        for width in [60, 80, 200] {
            let table = table(Path::new("/srv/git"), &rows, Some(width));
            assert!(table.lines().all(|line| line.chars().count() <= width), "{table}");
            assert_eq!(table.lines().count(), 5);
            assert!(table.contains("3 with problems") || width < 80, "{table}");
        }
    }
}
