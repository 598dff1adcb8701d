//! The commits that a person names for a backfill.

use std::path::Path;
use std::process::Command;

use super::Error;
use crate::push::CommitId;

/// Commits to take with all that they reach, less what others reach, less what is older than a time.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Range {
    pub tips: Vec<CommitId>,
    pub hidden: Vec<CommitId>,
    /// Seconds since 1970.
    pub not_before: Option<i64>,
}

/// Resolves revision arguments (`A..B`, `A...B`, `^A B`, `--all`, `--since=DATE`).
///
/// Git itself is asked, by `git rev-parse`, so that whatever it understands is understood the same way.
pub fn resolve(git_dir: &Path, arguments: &[String]) -> Result<Range, Error> {
    let output = Command::new("git")
        .arg("--git-dir")
        .arg(git_dir)
        .args(["rev-parse", "--revs-only", "--default", "HEAD"])
        .args(arguments)
        // After it stand no revisions: so what comes before and is none is an error, not a file's name to pass over.
        .arg("--")
        .env("LC_ALL", "C")
        .output()
        .map_err(Error::RunGit)?;
    if !output.status.success() {
        return Err(Error::Range(first_line(&output.stderr)));
    }
    let text = String::from_utf8_lossy(&output.stdout);
    let mut range = Range::default();
    for line in text.lines() {
        let id = |hex: &str| hex.parse().map_err(|()| Error::Range(format!("{line} is no commit")));
        if let Some(hex) = line.strip_prefix('^') {
            range.hidden.push(id(hex)?);
        } else if let Some(time) = line.strip_prefix("--max-age=") {
            range.not_before = time.parse().ok();
        } else {
            range.tips.push(id(line)?);
        }
    }
    Ok(range)
}

/// Words that Git's dates are made of, besides numbers and the names of months and days, of which three letters do.
const DATE_WORDS: [&str; 20] = [
    "ago",
    "am",
    "day",
    "hour",
    "last",
    "midnight",
    "minute",
    "month",
    "never",
    "noon",
    "now",
    "pm",
    "second",
    "t",
    "tea",
    "today",
    "week",
    "year",
    "yesterday",
    "z",
];
const MONTHS_AND_DAYS: [&str; 19] = [
    "jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec", "mon", "tue", "wed", "thu",
    "fri", "sat", "sun",
];

/// Tells whether every word of the text is one that dates are made of. Git takes any text for a date: "3 wekks ago" for
/// the beginning of time, and "whenever" for now.
pub fn is_date(text: &str) -> bool {
    let lower = text.to_ascii_lowercase();
    let mut words = lower.split(|c: char| !c.is_ascii_alphabetic()).filter(|word| !word.is_empty());
    let is_known = |word: &str| {
        let singular = if word.len() > 3 { word.strip_suffix('s').unwrap_or(word) } else { word };
        DATE_WORDS.contains(&singular) || word.get(..3).is_some_and(|start| MONTHS_AND_DAYS.contains(&start))
    };
    text.contains(|c: char| c.is_ascii_alphanumeric()) && words.all(is_known)
}

fn first_line(stderr: &[u8]) -> String {
    let text = String::from_utf8_lossy(stderr);
    let line = text.lines().next().unwrap_or("git gave no reason");
    line.trim_start_matches("fatal: ").to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_git_would_take_for_a_date_and_is_none_is_told_apart() {
        let dates = [
            "2026-01-31",
            "2026-01-31T10:00:00Z",
            "3 weeks ago",
            "yesterday",
            "last monday",
            "Jan 5 2026",
            "2.days.ago",
            "noon",
        ];
        assert!(dates.iter().all(|text| is_date(text)));
        assert!(["whenever", "banana", "3 wekks ago", "", "--all"].iter().all(|text| !is_date(text)));
    }
}
