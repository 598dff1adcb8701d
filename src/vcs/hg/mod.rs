//! Mercurial repositories. `hg` reads them.
//!
//! What is new is what the changesets that were sent here reach and no seen tip does. Tips are the heads, and some changesets
//! before them: `strip` takes heads away, and what was before them must stay seen. Secret changesets do not count until they
//! are published; obsolete ones do, because they were sent here before they were rewritten.

mod log;
mod machine;
mod server;

use std::cell::RefCell;
use std::collections::HashSet;
use std::path::{Path, PathBuf};

use super::source::{Source, Span, Take};
use super::{Error, Wanted};
use crate::commit::Tip;
use crate::text::readable;
use crate::time::CommitTime;
use log::{TEMPLATE, hex, parse, unhex};
use server::{Ended, Server};

pub(crate) use machine::{distrusted_owner, machine_hooks};

const HG: &str = "hg";
/// What others may see. `all()` holds also secret changesets and, with `--hidden`, the phases that Mercurial uses for itself.
const SHOWN: &str = "(public() or draft())";
/// The changesets that are seen tips besides the heads: of the last ones all, and then some, ever farther apart.
const BEFORE_HEADS: &str = "last(all(), 64) + limit(reverse(all()), 1, 256) + limit(reverse(all()), 1, 1024) + \
                            limit(reverse(all()), 1, 4096) + limit(reverse(all()), 1, 16384) + \
                            limit(reverse(all()), 1, 65536) + limit(reverse(all()), 1, 262144)";
/// If more changesets in a row cannot be read, the repository is damaged, and the rest waits until it is mended.
const MAX_UNREADABLE: usize = 1000;

/// The option by which rewritten changesets are listed too.
const WITH_OBSOLETE: &[&str] = &["--hidden"];

pub(crate) struct Mercurial {
    repo_dir: PathBuf,
    /// One that has answered, and may be asked more.
    server: RefCell<Option<Server>>,
}

impl Mercurial {
    /// Returns the repository whose `.hg` this is. `hg` is started when it is asked something.
    pub(crate) fn new(repo_dir: &Path) -> Self {
        Mercurial { repo_dir: repo_dir.to_owned(), server: RefCell::default() }
    }

    /// Runs `hg log` and hands over its lines. Returns what it said if it failed.
    fn log(
        &self,
        revset: &str,
        template: &str,
        options: &[&str],
        take: &mut dyn FnMut(&[u8]) -> bool,
    ) -> Result<Option<String>, Error> {
        let arguments = [&["log", "--template", template, "--rev", revset], options].concat();
        let waiting = self.server.take();
        let server = waiting.map_or_else(|| Server::start(&self.repo_dir), Ok)?;
        let ended = match server.run(&arguments, take) {
            // A damaged changeset may end the whole server.
            Err(Error::Says { message, .. }) => Ended::Failed(message),
            ended => ended?,
        };
        Ok(match ended {
            Ended::Well(server) => {
                self.server.replace(Some(server));
                None
            }
            Ended::Stopped => None,
            Ended::Failed(said) => Some(said),
        })
    }

    /// Returns the lines that `hg log` prints, which are short.
    fn lines(&self, revset: &str, template: &str, options: &[&str]) -> Result<Vec<String>, Error> {
        let mut lines = Vec::new();
        let mut take = |line: &[u8]| {
            lines.push(readable(line).into_owned());
            true
        };
        let failed = self.log(revset, template, options, &mut take)?;
        failed.map_or(Ok(lines), |said| Err(self.says(said)))
    }

    fn says(&self, message: String) -> Error {
        Error::Says { program: HG, path: self.repo_dir.clone(), message }
    }

    /// Returns the tips of a set that holds the ancestors of all its changesets.
    fn tips_of(&self, set: &str) -> Result<Vec<Tip>, Error> {
        let revset = format!("heads({set}) + ({set} and ({BEFORE_HEADS}))");
        // The number orders them as well as the date, which would have to be read.
        let lines = self.lines(&revset, "{node} {rev}\\n", WITH_OBSOLETE)?;
        let tip = |line: &String| {
            let (node, number) = line.split_once(' ')?;
            Some(Tip { id: unhex(node)?, time: CommitTime::from_seconds(number.parse().ok()?) })
        };
        lines.iter().map(|line| tip(line).ok_or_else(|| self.says(format!("cannot understand {line:?}")))).collect()
    }

    /// Returns the revset of what these tips reach and the seen ones do not, if that may be anything.
    fn unseen(&self, seen: &[Tip], tips: &[Tip]) -> Result<Option<String>, Error> {
        let seen: HashSet<&[u8]> = seen.iter().map(|tip| &*tip.id).collect();
        let (hidden, unseen): (Vec<&Tip>, Vec<&Tip>) = tips.iter().partition(|tip| seen.contains(&*tip.id));
        if unseen.is_empty() {
            return Ok(None);
        }
        let tips = any_of(unseen.iter().map(|tip| hex(&tip.id)));
        let hidden: Vec<String> = hidden.iter().map(|tip| hex(&tip.id)).collect();
        // The other seen tips may be strange to `hg` by now. Those that count are among the changesets that would be new
        // without them.
        let mut known = hidden.clone();
        let without = format!("only({tips}, {})", any_of(hidden.into_iter()));
        for node in self.lines(&without, "{node}\\n", WITH_OBSOLETE)? {
            known.extend(unhex(&node).filter(|id| seen.contains(&**id)).map(|_| node));
        }
        Ok(Some(format!("only({tips}, {})", any_of(known.into_iter()))))
    }

    /// Lists the changesets of a set, the oldest first. One that cannot be read is an error of its own.
    fn list_set(&self, set: &str, options: &[&str], take: Take) -> Result<(), Error> {
        let (mut done, mut unreadable, mut goes_on) = (0, 0, true);
        let rest = |done: usize| match done {
            0 => format!("sort({set}, rev)"),
            done => format!("limit(sort({set}, rev), {}, {done})", i32::MAX),
        };
        loop {
            let left = rest(done);
            let mut take_line = |line: &[u8]| {
                done += 1;
                unreadable = 0;
                goes_on = match parse(line) {
                    Some((node, entry)) => take(&node, Ok(entry)),
                    None => {
                        let node = readable(line.split(|&byte| byte == b' ').next().unwrap_or_default());
                        take(&node, Err(self.says("it has data that no changeset has, such as its date".into())))
                    }
                };
                goes_on
            };
            let ended = self.log(&left, TEMPLATE, options, &mut take_line);
            let Some(said) = ended? else { return Ok(()) };
            // Which changeset comes next is told without reading it.
            let next = self.lines(&format!("limit({}, 1)", rest(done)), "{node}\\n", options)?;
            unreadable += 1;
            let (Some(node), true) = (next.first(), unreadable <= MAX_UNREADABLE) else { return Err(self.says(said)) };
            done += 1;
            if !take(node, Err(self.says(said))) {
                return Ok(());
            }
        }
    }
}

impl Drop for Mercurial {
    fn drop(&mut self) {
        self.server.take().into_iter().for_each(Server::end);
    }
}

impl Source for Mercurial {
    fn tips(&self) -> Result<Vec<Tip>, Error> {
        self.tips_of(SHOWN)
    }

    fn tips_before(&self, events: &[Vec<u8>]) -> Result<Vec<Tip>, Error> {
        let brought: Vec<String> = events.iter().filter_map(|event| brought(event)).collect();
        match brought.is_empty() {
            true => self.tips(),
            // What is built on it came later.
            false => self.tips_of(&format!("({SHOWN} - descendants({}))", any_of(brought.into_iter()))),
        }
    }

    fn list(&self, span: &Span, take: Take) -> Result<(), Error> {
        match span {
            Span::New { seen, tips } => match self.unseen(seen, tips)? {
                Some(set) => self.list_set(&set, WITH_OBSOLETE, take),
                None => Ok(()),
            },
            Span::Named { ranges, since } => {
                let named = match ranges.is_empty() {
                    true => "all()".to_owned(),
                    false => any_of(ranges.iter().map(|range| format!("({range})"))),
                };
                let since = since.map(|since| format!(" and date('>{} 0')", since.seconds())).unwrap_or_default();
                self.list_set(&format!("({named}) and {SHOWN}{since}"), &[], take)
            }
            Span::Revisions(revisions) => {
                let mut missing: HashSet<&str> = revisions.iter().map(String::as_str).collect();
                let nodes = revisions.iter().filter(|revision| is_node(revision));
                let set = any_of(nodes.map(|node| format!("present({node})")));
                let mut goes_on = true;
                self.list_set(&set, WITH_OBSOLETE, &mut |revision, read| {
                    missing.remove(revision);
                    goes_on = take(revision, read);
                    goes_on
                })?;
                let gone = |revision| take(revision, Err(self.says("there is no such changeset".into())));
                let _ = goes_on && missing.into_iter().all(gone);
                Ok(())
            }
        }
    }

    fn resolve(&self, wanted: &Wanted) -> Result<Vec<String>, Error> {
        let ranges: &[String] = if wanted.all { &[] } else { &wanted.ranges };
        for range in ranges {
            let failed = self.log(range, "\\n", &["--limit", "1"], &mut |_| true)?;
            failed.map_or(Ok(()), |message| Err(Error::Range { program: HG, message }))?;
        }
        Ok(ranges.to_vec())
    }

    /// Returns the named branches that the changesets are on.
    fn behind(&self, seen: &[Tip]) -> Result<Vec<String>, Error> {
        let Some(unseen) = self.unseen(seen, &self.tips()?)? else { return Ok(Vec::new()) };
        let mut branches = self.lines(&format!("heads({unseen})"), "{branch}\\n", WITH_OBSOLETE)?;
        branches.sort();
        branches.dedup();
        Ok(branches)
    }

    fn covered(&self, seen: &[Tip], tips: &[Tip]) -> Vec<Vec<u8>> {
        // Whatever is no head is reached by one, or was stripped.
        let tips: HashSet<&[u8]> = tips.iter().map(|tip| &*tip.id).collect();
        seen.iter().filter(|tip| !tips.contains(&*tip.id)).map(|tip| tip.id.clone()).collect()
    }

    fn main_branch(&self) -> &str {
        "default"
    }
}

/// Returns the revset of what a transaction brought, as the hook's environment tells it: a push, a pull or a bundle. Of a
/// changeset that is committed here, it tells nothing.
fn brought(event: &[u8]) -> Option<String> {
    let value = |name: &str| {
        let value = event.split(|&byte| byte == 0).find_map(|variable| variable.strip_prefix(name.as_bytes()));
        value.and_then(|node| std::str::from_utf8(node).ok()).filter(|node| is_node(node))
    };
    let first = value("HG_NODE=")?;
    Some(format!("(present({first}):present({}))", value("HG_NODE_LAST=").unwrap_or(first)))
}

fn is_node(text: &str) -> bool {
    text.len() >= 40 && text.bytes().all(|byte| byte.is_ascii_hexdigit())
}

/// Returns the revset that holds what all these hold.
fn any_of(sets: impl Iterator<Item = String>) -> String {
    let joined = sets.collect::<Vec<_>>().join("+");
    if joined.is_empty() { "none()".into() } else { joined }
}
