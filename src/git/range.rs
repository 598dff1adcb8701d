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

fn first_line(stderr: &[u8]) -> String {
    let text = String::from_utf8_lossy(stderr);
    let line = text.lines().next().unwrap_or("git gave no reason");
    line.trim_start_matches("fatal: ").to_owned()
}
