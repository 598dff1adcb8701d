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

/// The options of `git rev-parse` that stand for revisions. It takes others too, which limit or order a list of commits,
/// and passes over them.
const REVISION_OPTIONS: [&str; 7] = ["--all", "--branches", "--exclude", "--glob", "--not", "--remotes", "--tags"];

/// Resolves revision arguments (`A..B`, `A...B`, `^A B`, `--all`), and the date before which commits are left out.
///
/// Git itself is asked, by `git rev-parse`, so that whatever it understands is understood the same way.
///
/// # Errors
/// If Git does not understand them, or an option is no revision.
pub fn resolve(git_dir: &Path, revisions: &[String], since: Option<&str>) -> Result<Range, Error> {
    let is_revision = |option: &str| {
        let name = option.split('=').next().unwrap_or_default();
        !option.starts_with('-') || REVISION_OPTIONS.contains(&name)
    };
    if let Some(option) = revisions.iter().find(|revision| !is_revision(revision)) {
        return Err(Error::Range(format!("{option} is no revision; name commits, as in v1..main")));
    }
    let output = Command::new("git")
        .arg("--git-dir")
        .arg(git_dir)
        .args(["rev-parse", "--revs-only"])
        .args(since.map(|date| format!("--since={date}")))
        .args(revisions)
        // After it stand no revisions: so what comes before and is none is an error, not a file's name to pass over.
        .arg("--")
        .env("LC_ALL", "C")
        // `main~1` is what was pushed, as everywhere here, and not what a graft or a replacement makes of it.
        .env("GIT_NO_REPLACE_OBJECTS", "1")
        .env("GIT_GRAFT_FILE", "/dev/null")
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
const DATE_WORDS: &str = "ago a am at day hour last m midnight minute month nd never noon now of p pm rd second st t tea th \
                          today week year yesterday one two three four five six seven eight nine ten";
/// The names of time zones that Git knows.
const ZONES: &str = "adt ast bst cadt cast cat cct cdt cest cet cst eadt east edt eet eest est fst fwt gmt gst hdt hst idle \
                     idlw jst mdt mesz met mewt mst nt nzdt nzst nzt pdt pst utc wadt wast wat wet ydt yst z zp";
const MONTHS_AND_DAYS: &str = "jan feb mar apr may jun jul aug sep oct nov dec mon tue wed thu fri sat sun";

/// Tells whether every word of the text is one that dates are made of, and its day is in the calendar. Git takes any text
/// for a date: "3 wekks ago" for the beginning of time, and "whenever" for now.
pub fn is_date(text: &str) -> bool {
    let lower = text.to_ascii_lowercase();
    let mut words = lower.split(|c: char| !c.is_ascii_alphabetic()).filter(|word| !word.is_empty());
    let has = |words: &str, word: &str| words.split_ascii_whitespace().any(|known| known == word);
    let is_known = |word: &str| {
        let singular = if word.len() > 3 { word.strip_suffix('s').unwrap_or(word) } else { word };
        has(DATE_WORDS, singular) || has(ZONES, word) || word.get(..3).is_some_and(|start| has(MONTHS_AND_DAYS, start))
    };
    let day = text.get(..10).filter(|day| {
        day.bytes().enumerate().all(|(at, byte)| if at == 4 || at == 7 { byte == b'-' } else { byte.is_ascii_digit() })
    });
    text.contains(|c: char| c.is_ascii_alphanumeric())
        && words.all(is_known)
        && day.is_none_or(|day| humantime::parse_rfc3339_weak(&format!("{day} 00:00:00")).is_ok())
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
            "2026-01-31 10:00:00 UTC",
            "10:00 CET",
            "two weeks ago",
            "5 p.m.",
            "Jan 1st",
        ];
        assert!(dates.iter().all(|text| is_date(text)));
        assert!(["whenever", "banana", "2026-13-45", "3 wekks ago", "", "--all"].iter().all(|text| !is_date(text)));
    }
}
