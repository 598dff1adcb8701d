//! Subversion repositories, read by `svn log --xml -v`: the quickest of Subversion's own programs, and the one whose text
//! is UTF-8 whatever the locale.
//!
//! Revisions are numbered in order, so one number says what was recorded. Two seen tips are kept: the highest, and the
//! lowest, up to which reaches the history from before `install`.

mod branch;
mod xml;

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use super::program::{self, SILENCE};
use super::source::{Entry, Source, Span, Take, each_while};
use super::{Error, Wanted};
use crate::commit::Tip;
use crate::config::Svn;
use crate::files::{self, Links};
use crate::time::CommitTime;

const PROGRAM: &str = "svn";
/// The repository, as the URL for a program that runs in its directory. So no path has to be escaped, and none depends on
/// the locale.
const URL: &str = "file:///proc/self/cwd";
/// A directory for the user's settings that nobody has and nobody can make: `~/.subversion` would be made.
const NO_SETTINGS: &str = "/proc/rally-hook/none";
/// What `svn` says of a revision that is not there.
const NO_SUCH_REVISION: &str = "E160006";
/// What hooks were told begins with the hook's name.
const POST_COMMIT: &[u8] = b"post-commit";
const POST_REVPROP_CHANGE: &[u8] = b"post-revprop-change";
/// The properties of revision 0 in which `svnsync` notes how far a mirror is, and that it is at work on another revision:
/// that one has the mirror's own author and date for a moment.
const COPIED: &str = "svn:sync-last-merged-rev";
const COPYING: &str = "svn:sync-currently-copying";
/// The files that say which revision is the youngest, and what the repository's UUID is, are shorter, in bytes.
const MAX_FILE: u64 = 4096;
/// The properties of one revision are no longer, in bytes.
const MAX_PROPERTIES: u64 = 16 * 1024 * 1024;
/// The properties of a revision that are posted.
const POSTED: [&[u8]; 3] = [b"svn:log", b"svn:author", b"svn:date"];

pub(super) struct Subversion {
    path: PathBuf,
    settings: Svn,
}

impl Subversion {
    pub(super) fn new(path: &Path, settings: &Svn) -> Self {
        Subversion { path: path.to_owned(), settings: settings.clone() }
    }

    /// Returns a command of Subversion about this repository.
    fn svn(&self, arguments: &[&str]) -> Command {
        let mut svn = program::command(PROGRAM);
        svn.args(arguments).args(["--non-interactive", "--config-dir", NO_SETTINGS, URL]);
        svn.current_dir(&self.path).env("LC_ALL", "C");
        svn
    }

    fn ask(&self, arguments: &[&str]) -> Result<Vec<u8>, Error> {
        program::ask(PROGRAM, &mut self.svn(arguments), &self.path).map_err(with_path)
    }

    /// Returns the youngest revision; while `svnsync` copies one into a mirror, the one before it.
    fn youngest(&self) -> Result<u64, Error> {
        let current = self.file("db/current");
        let youngest = match first_number(&current) {
            Some(youngest) => youngest,
            // Another back end than FSFS has other files.
            None => {
                let answer = self.ask(&["info", "--show-item", "revision"])?;
                first_number(&String::from_utf8_lossy(&answer)).unwrap_or_default()
            }
        };
        if !self.may_be_copying() {
            return Ok(youngest);
        }
        let properties = self.ask(&["proplist", "--revprop", "--revision", "0", "--verbose", "--xml"])?;
        let is_copying = xml::property(&properties, COPYING).is_some();
        let copied = xml::property(&properties, COPIED).filter(|_| is_copying).and_then(|text| first_number(&text));
        Ok(copied.map_or(youngest, |copied| copied.min(youngest)))
    }

    /// Returns the text of a small file of the repository.
    fn file(&self, name: &str) -> String {
        let bytes = files::read(&self.path.join(name), MAX_FILE, Links::Refuse).unwrap_or_default();
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// Tells whether revision 0 may have the property of a mirror that is at work. Its name stands in a file as it is, and
    /// to look there saves a process.
    fn may_be_copying(&self) -> bool {
        let file = files::read(&self.path.join("db/revprops/0/0"), MAX_PROPERTIES, Links::Follow);
        file.map_or(true, |bytes| bytes.windows(COPYING.len()).any(|part| part == COPYING.as_bytes()))
    }

    /// Returns the seen tip for a revision, which names the repository too.
    fn tip(&self, revision: u64) -> Tip {
        Tip {
            id: format!("{revision} {}", self.uuid()).into_bytes(),
            time: CommitTime::from_seconds(revision.cast_signed()),
        }
    }

    fn uuid(&self) -> String {
        let text = self.file("db/uuid");
        text.lines().next().unwrap_or_default().to_owned()
    }

    /// Lists revisions, and tells whether to go on. One that cannot be read is named, and does not keep the others from being
    /// read.
    fn log(&self, first: u64, last: u64, since: Option<CommitTime>, take: Take) -> Result<bool, Error> {
        let mut log = Log { next: first.max(1), since, take, is_enough: false };
        while log.next <= last && !log.is_enough {
            let Err(error) = self.list_readable(log.next, last, &mut |revision, entry| log.take(revision, Ok(entry)))
            else {
                break;
            };
            // In a backup that is not whole, the file that names the youngest revision may be newer than the revisions.
            let is_missing = matches!(&error, Error::Says { message, .. } if message.contains(NO_SUCH_REVISION));
            if is_missing || self.check().is_err() {
                // Not one revision is damaged: the repository cannot be read.
                return Err(error);
            }
            let suspect = log.next;
            if let Err(error) =
                self.list_readable(suspect, suspect, &mut |revision, entry| log.take(revision, Ok(entry)))
            {
                log.take(suspect, Err(error));
            }
        }
        Ok(!log.is_enough)
    }

    /// Lists revisions up to the first that cannot be read, which is the error.
    fn list_readable(&self, first: u64, last: u64, hand_over: &mut dyn FnMut(u64, Entry) -> bool) -> Result<(), Error> {
        let range = format!("{first}:{last}");
        let mut svn = self.svn(&["log", "--xml", "--verbose", "--revision", &range]);
        let (running, stdout) = program::start(PROGRAM, &mut svn, &self.path, Stdio::null(), SILENCE)?;
        let mut is_enough = false;
        let read = xml::read_log(stdout, self.settings.directory_properties, &mut |revision, entry| {
            let (branch, ref_name) = branch::of(&entry.changes, &self.settings);
            is_enough = !hand_over(revision, Entry { branch, ref_name, ..entry });
            !is_enough
        });
        if is_enough {
            running.stop();
            return Ok(());
        }
        running.end().map_err(with_path)?;
        read.map_err(|problem| Error::Says { program: PROGRAM, path: self.path.clone(), message: problem.to_string() })
    }
}

/// Returns an error whose text names the repository as people know it.
fn with_path(error: Error) -> Error {
    match error {
        Error::Says { program, path, message } => {
            let message = message.replace(URL.trim_start_matches("file://"), &path.display().to_string());
            Error::Says { program, path, message }
        }
        error => error,
    }
}

/// Returns the revisions that a person means: `5`, `r5`, `HEAD`, `5:10`.
fn range(text: &str, youngest: u64) -> Result<(u64, u64), Error> {
    let misused = |message: String| Error::Range { program: PROGRAM, message };
    let shape = || misused(format!("{text:?} names no revisions of Subversion; write 5, 5:10 or 5:HEAD"));
    let number = |text: &str| match text.strip_prefix('r').unwrap_or(text) {
        "HEAD" => Ok(youngest),
        digits if digits.starts_with('+') => Err(shape()),
        digits => digits.parse().map_err(|_| shape()),
    };
    let (first, last) = text.split_once(':').unwrap_or((text, text));
    let (first, last) = (number(first)?, number(last)?);
    match (first.min(last), first.max(last)) {
        (_, 0) => Err(misused("revision 0 is no commit".into())),
        (_, last) if last > youngest => {
            Err(misused(format!("there is no revision {last}; the youngest is {youngest}")))
        }
        range => Ok(range),
    }
}

/// A list that is being handed over.
struct Log<'t> {
    next: u64,
    /// What is older is passed over.
    since: Option<CommitTime>,
    take: Take<'t>,
    is_enough: bool,
}

impl Log<'_> {
    fn take(&mut self, revision: u64, entry: Result<Entry, Error>) -> bool {
        self.next = revision + 1;
        let is_older = |entry: &Entry| self.since.is_some_and(|since| entry.committed_at < since);
        self.is_enough = !entry.as_ref().is_ok_and(is_older) && !(self.take)(&revision.to_string(), entry);
        !self.is_enough
    }
}

impl Source for Subversion {
    fn tips(&self) -> Result<Vec<Tip>, Error> {
        Ok(vec![self.tip(self.youngest()?)])
    }

    /// Runs `svn`, which the other answers do without where they can.
    fn check(&self) -> Result<(), Error> {
        self.list_readable(0, 0, &mut |_, _| true)
    }

    fn tips_before(&self, events: &[Vec<u8>]) -> Result<Vec<Tip>, Error> {
        let committed = events.iter().filter_map(|event| Some(told(event, POST_COMMIT)?.0));
        match committed.min() {
            Some(first) => Ok(vec![self.tip(first.saturating_sub(1))]),
            None => self.tips(),
        }
    }

    fn list(&self, span: &Span, take: Take) -> Result<(), Error> {
        match span {
            Span::New { seen, tips } => self.log(highest(seen) + 1, highest(tips), None, take).map(drop),
            Span::Revisions(revisions) => each_while(revisions, |revision| match revision.parse() {
                Ok(number) => self.log(number, number, None, take),
                Err(_) => Ok(true),
            }),
            Span::Named { ranges, since } => each_while(ranges, |text| {
                let (first, last) = range(text, u64::MAX)?;
                self.log(first, last, *since, take)
            }),
        }
    }

    fn resolve(&self, wanted: &Wanted) -> Result<Vec<String>, Error> {
        let youngest = self.youngest()?;
        let named = wanted.ranges.iter().map(|text| range(text, youngest)).collect::<Result<Vec<_>, _>>()?;
        let all = (wanted.all || named.is_empty()).then_some((1, youngest)).filter(|_| youngest > 0);
        Ok(named.into_iter().chain(all).map(|(first, last)| format!("{first}:{last}")).collect())
    }

    fn behind(&self, seen: &[Tip]) -> Result<Vec<String>, Error> {
        let (youngest, recorded) = (self.youngest()?, highest(seen));
        if youngest > recorded {
            // Perhaps this is why.
            self.check()?;
        }
        let is_same = seen.iter().any(|tip| number_in(tip) == recorded && tip.id.ends_with(self.uuid().as_bytes()));
        Ok(match youngest {
            _ if youngest < recorded => vec![format!(
                "revision {recorded} was recorded, and the youngest is {youngest} now: the repository was restored, and the \
                 numbers of its next revisions are in Rally already; set another repository.name to post them"
            )],
            _ if !is_same => vec![format!(
                "the repository has the UUID {} now, as if it were another one; if it is, set another repository.name",
                self.uuid()
            )],
            _ if youngest == recorded => Vec::new(),
            _ if youngest == recorded + 1 => vec![youngest.to_string()],
            _ => vec![format!("{}\u{2013}{youngest}", recorded + 1)],
        })
    }

    fn covered(&self, seen: &[Tip], tips: &[Tip]) -> Vec<Vec<u8>> {
        let lowest = seen.iter().map(number_in).min();
        let is_in_between = |tip: &&Tip| Some(number_in(tip)) != lowest && number_in(tip) < highest(tips);
        seen.iter().filter(is_in_between).map(|tip| tip.id.clone()).collect()
    }

    fn changed_revisions(&self, events: &[Vec<u8>], seen: &[Tip]) -> Vec<String> {
        let changed = events.iter().filter_map(|event| told(event, POST_REVPROP_CHANGE));
        let is_posted = |arguments: &[&[u8]]| arguments.get(1).is_some_and(|property| POSTED.contains(property));
        let lowest = seen.iter().map(number_in).min().unwrap_or(u64::MAX);
        let is_recorded = |revision: &u64| *revision > lowest && *revision <= highest(seen);
        let mut revisions: Vec<u64> =
            changed.filter(|(_, rest)| is_posted(rest)).map(|(revision, _)| revision).filter(is_recorded).collect();
        revisions.sort_unstable();
        revisions.dedup();
        revisions.iter().map(u64::to_string).collect()
    }

    fn main_branch(&self) -> &str {
        &self.settings.trunk
    }
}

/// Returns the revision that a hook of this name was told of, and the arguments after it.
fn told<'e>(event: &'e [u8], hook: &[u8]) -> Option<(u64, Vec<&'e [u8]>)> {
    let mut parts = event.split(|&byte| byte == 0);
    let (name, _repository, revision) = (parts.next()?, parts.next()?, parts.next()?);
    (name == hook).then_some((std::str::from_utf8(revision).ok()?.parse().ok()?, parts.collect()))
}

fn highest(tips: &[Tip]) -> u64 {
    tips.iter().map(number_in).max().unwrap_or_default()
}

fn number_in(tip: &Tip) -> u64 {
    first_number(&String::from_utf8_lossy(&tip.id)).unwrap_or_default()
}

fn first_number(text: &str) -> Option<u64> {
    text.split_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn repository() -> Subversion {
        Subversion::new(Path::new("/nowhere"), &Svn::default())
    }

    #[test]
    fn the_lowest_and_the_highest_seen_revision_are_kept() {
        let repository = repository();
        let seen = [3, 7, 9].map(|revision| repository.tip(revision));
        let covered = |tip: u64| repository.covered(&seen, &[repository.tip(tip)]);
        assert_eq!(covered(9), [seen[1].id.clone()]);
        assert_eq!(covered(12), [seen[1].id.clone(), seen[2].id.clone()]);
    }

    #[test]
    fn a_changed_log_message_counts_unless_it_is_of_history_or_not_recorded_yet() {
        let repository = repository();
        let seen = [3, 9].map(|revision| repository.tip(revision));
        let event = |revision: &str, property: &str| {
            ["post-revprop-change", "/srv/repo", revision, "alice", property, "M"].join("\0").into_bytes()
        };
        let events = [
            event("9", "svn:log"),
            event("4", "svn:author"),
            event("4", "svn:log"),
            event("5", "custom"),
            event("3", "svn:log"),
            event("10", "svn:log"),
            b"post-commit\0/srv/repo\x007\0t".to_vec(),
        ];
        assert_eq!(repository.changed_revisions(&events, &seen), ["4", "9"]);
    }

    #[test]
    fn without_install_the_first_commit_counts_from_itself() {
        let repository = repository();
        let events = [b"post-commit\0/srv/repo\x0012\0t".to_vec(), b"post-commit\0/srv/repo\x0011\0t".to_vec()];
        assert_eq!(repository.tips_before(&events).ok(), Some(vec![repository.tip(10)]));
    }

    #[test]
    fn a_range_is_one_revision_or_two() {
        for (text, expected) in [("5", (5, 5)), ("r5", (5, 5)), ("5:HEAD", (5, 9)), ("7:3", (3, 7)), ("0:3", (0, 3))] {
            assert_eq!(range(text, 9).ok(), Some(expected), "{text}");
        }
        for text in
            ["", "5:", ":5", "5:10", "0", "abc", "5..7", "+5", "r+5", "5:6:7", "{2026-01-31}", "99999999999999999999"]
        {
            assert!(range(text, 9).is_err(), "{text}");
        }
    }
}
