//! Team Foundation Version Control: a path on a server, which is polled over REST. No program can be hooked there.
//!
//! Servers of many ages answer, and some ignore what they are asked (docs/tfvc.md). So the newest changesets are read first,
//! until a known number comes; and what a changeset changes tells whether it lies below the path.

mod client;
mod error;
mod wire;

use super::source::{Entry, MAX_PATHS, Source, Span, Take, each_while};
use super::{Error, Wanted};
use crate::commit::{Changes, Tip};
use crate::config::Config;
use crate::time::CommitTime;
use client::{PAGE, Server};
use wire::{Changed, Listed, changes};

pub(crate) use error::Error as TfvcError;

/// So much text of comments, or of paths, is kept at once, in bytes.
const MAX_TEXT: usize = 64 * 1024 * 1024;
/// More new changesets than these are not plausible.
const MAX_NEW: usize = 1_000_000;
/// So many requests are sent for the changes of one changeset.
const MAX_REQUESTS: usize = 2_000;
/// A page may have nothing new because others check in meanwhile, but not so often in one list.
const MAX_REPEATED: usize = 3;

pub(super) struct Tfvc {
    server: Server,
    /// The path below which changesets count.
    root: String,
    branch: Option<String>,
}

impl Tfvc {
    /// Prepares the connection, without using it.
    pub(super) fn open(config: &Config) -> Result<Self, Error> {
        let access = config.tfvc.access().map_err(Error::Config)?;
        let root = access.path.clone();
        let server = Server::new(access, config.rally.timeout)?;
        let branch = root.splitn(3, '/').nth(2).map(str::to_owned);
        Ok(Tfvc { server, root, branch })
    }

    /// Hands over the changesets with numbers above `above`, the newest first, until `take` wants no more.
    fn each(
        &self,
        above: u32,
        last: Option<u32>,
        take: &mut dyn FnMut(Listed) -> Result<bool, TfvcError>,
    ) -> Result<(), TfvcError> {
        let (mut lowest, mut skip, mut repeated) = (u32::MAX, 0, 0);
        loop {
            let page = self.server.list(&self.root, PAGE, skip, last)?;
            let (length, lowest_before) = (page.len(), lowest);
            for listed in page {
                if listed.number <= above {
                    return Ok(());
                }
                // What was checked in since the last page has pushed these down.
                let is_new = listed.number < lowest;
                lowest = lowest.min(listed.number);
                let is_wanted = is_new && last.is_none_or(|last| listed.number <= last);
                if is_wanted && !take(listed)? {
                    return Ok(());
                }
            }
            if length < PAGE {
                return Ok(());
            }
            repeated += usize::from(lowest == lowest_before);
            if repeated > MAX_REPEATED {
                return Err(TfvcError::Repeats);
            }
            skip += length;
        }
    }

    /// Returns the changesets above the last seen one up to the newest, the oldest first.
    fn new_ones(&self, seen: Option<u32>, newest: Option<u32>) -> Result<Vec<Listed>, TfvcError> {
        let (seen, newest) = match (seen, newest) {
            (None, None) => return Ok(Vec::new()),
            (Some(seen), None) => return Err(TfvcError::Nothing { path: self.root.clone(), seen }),
            (seen, Some(newest)) => (seen.unwrap_or(0), newest),
        };
        if newest < seen {
            // So it is where the path was changed to one with older changesets, and then all is well.
            return match self.server.newest_of_all()? {
                Some(newest) if newest >= seen => Ok(Vec::new()),
                newest => Err(TfvcError::Older { newest: newest.unwrap_or(0), seen }),
            };
        }
        let mut found = Vec::new();
        if newest > seen {
            let mut text = 0;
            self.each(seen, None, &mut |mut listed| {
                text += listed.comment.len();
                if text > MAX_TEXT {
                    // It is asked for again when its turn comes.
                    (listed.comment, listed.is_cut) = (String::new(), true);
                }
                found.extend((listed.number <= newest).then_some(listed));
                match found.len() {
                    0..=MAX_NEW => Ok(true),
                    _ => Err(TfvcError::TooMany { seen, most: MAX_NEW }),
                }
            })?;
            if found.first().map(|listed| listed.number) != Some(newest) {
                return Err(TfvcError::Missing { newest });
            }
        }
        found.reverse();
        Ok(found)
    }

    /// Asks for what the list does not say of a changeset, and hands it over if it lies below the path.
    fn hand_over(&self, listed: Listed, take: Take) -> Result<bool, TfvcError> {
        let number = listed.number;
        let read = match self.entry(&listed) {
            // A failure that the rest of the server does not share is the changeset's own, and holds up no other.
            Err(_) => {
                let newest = self.server.newest(&self.root)?;
                newest.ok_or_else(|| TfvcError::Nothing { path: self.root.clone(), seen: number })?;
                self.entry(&listed)
            }
            read => read,
        };
        match read {
            Ok(Some(entry)) => Ok(take(&number.to_string(), Ok(entry))),
            Ok(None) => Ok(true),
            Err(error) if error.is_of_connection() => Err(error),
            Err(error) => Ok(take(&number.to_string(), Err(error.into()))),
        }
    }

    /// Returns the whole changeset, or `None` if it changes nothing below the path.
    fn entry(&self, listed: &Listed) -> Result<Option<Entry>, TfvcError> {
        let (raw, is_cut) = self.raw_changes(listed.number)?;
        if raw.is_empty() {
            return Err(TfvcError::NoChanges { number: listed.number });
        }
        let Some(Changes { list, omitted }) = changes(&raw, &self.root, MAX_PATHS) else { return Ok(None) };
        let comment = match listed.is_cut {
            true => self.server.changeset(listed.number)?.comment,
            false => listed.comment.clone(),
        };
        Ok(Some(Entry {
            committed_at: listed.created_at,
            author_name: listed.author_name.clone().into_bytes(),
            author_email: listed.author_login.clone().into_bytes(),
            branch: self.branch.clone(),
            message: comment.into_bytes(),
            changes: list,
            omitted: omitted + usize::from(is_cut),
            ..Entry::default()
        }))
    }

    /// Returns what a changeset changes, and whether there is more than anybody keeps.
    fn raw_changes(&self, number: u32) -> Result<(Vec<Changed>, bool), TfvcError> {
        let (mut found, mut token, mut text) = (Vec::new(), None, 0);
        for _ in 0..MAX_REQUESTS {
            let (page, next) = self.server.changes(number, found.len(), token.as_deref())?;
            text += page.iter().map(Changed::size).sum::<usize>();
            let is_last = next.is_none() && page.len() < PAGE || page.is_empty() || next.is_some() && next == token;
            found.extend(page);
            token = next;
            if is_last || found.len() >= MAX_PATHS || text > MAX_TEXT {
                return Ok((found, !is_last));
            }
        }
        Ok((found, true))
    }

    /// Reads one changeset that was named by its number.
    fn single(&self, revision: &str, take: Take) -> Result<bool, TfvcError> {
        let number = revision.parse().unwrap_or(0);
        match self.server.changeset(number) {
            Ok(listed) => self.hand_over(listed, take),
            Err(error) if error.is_of_connection() => Err(error),
            Err(error) => Ok(take(revision, Err(error.into()))),
        }
    }

    /// Hands over what a person named, the newest first: a history of any length takes no memory then.
    fn named(&self, (first, last): (u32, u32), since: Option<CommitTime>, take: Take) -> Result<bool, TfvcError> {
        let mut goes_on = true;
        self.each(first - 1, Some(last), &mut |listed| {
            // The server sets the dates, and they never go back.
            if since.is_some_and(|since| listed.created_at < since) {
                return Ok(false);
            }
            goes_on = self.hand_over(listed, take)?;
            Ok(goes_on)
        })?;
        Ok(goes_on)
    }
}

impl Source for Tfvc {
    fn tips(&self) -> Result<Vec<Tip>, Error> {
        let newest = self.server.newest(&self.root)?;
        let tip = |listed: Listed| Tip { id: listed.number.to_string().into_bytes(), time: listed.created_at };
        Ok(newest.map(tip).into_iter().collect())
    }

    fn tips_before(&self, _events: &[Vec<u8>]) -> Result<Vec<Tip>, Error> {
        self.tips()
    }

    fn list(&self, span: &Span, take: Take) -> Result<(), Error> {
        let listed = match span {
            Span::New { seen, tips } => {
                each_while(self.new_ones(highest(seen), highest(tips))?, |listed| self.hand_over(listed, take))
            }
            Span::Revisions(revisions) => each_while(revisions, |revision| self.single(revision, take)),
            Span::Named { ranges, since } => each_while(ranges, |text| match range(text) {
                // One that is named alone must be there.
                Some(_) if since.is_none() && !text.contains("..") => self.single(text, take),
                Some(range) => self.named(range, *since, take),
                None => Ok(true),
            }),
        };
        Ok(listed?)
    }

    fn resolve(&self, wanted: &Wanted) -> Result<Vec<String>, Error> {
        let newest = self.server.newest(&self.root)?.map_or(0, |listed| listed.number);
        let misused = |message: String| Error::Range { program: "TFVC", message };
        for text in &wanted.ranges {
            let (_, last) = range(text).ok_or_else(|| {
                misused(format!("{text:?} is not a changeset; write a number, or two as in 100..200"))
            })?;
            if last > newest {
                return Err(misused(format!("{text} goes beyond the newest changeset of {}, {newest}", self.root)));
            }
        }
        match (wanted.all || wanted.ranges.is_empty()) && newest > 0 {
            true => Ok(vec![format!("1..{newest}")]),
            false => Ok(wanted.ranges.clone()),
        }
    }

    fn behind(&self, seen: &[Tip]) -> Result<Vec<String>, Error> {
        let first = highest(seen).unwrap_or(0) + 1;
        let newest = self.server.newest(&self.root)?.map_or(0, |listed| listed.number);
        Ok(match newest {
            newest if newest < first => Vec::new(),
            newest if newest == first => vec![newest.to_string()],
            newest => vec![format!("{first}–{newest}")],
        })
    }

    fn covered(&self, seen: &[Tip], tips: &[Tip]) -> Vec<Vec<u8>> {
        let newest = highest(tips).unwrap_or(0);
        let is_older = |tip: &&Tip| number(tip).is_some_and(|number| number < newest);
        seen.iter().filter(is_older).map(|tip| tip.id.clone()).collect()
    }

    fn main_branch(&self) -> &str {
        self.branch.as_deref().unwrap_or("main")
    }
}

/// Returns the numbers that a person names, both of them included.
fn range(text: &str) -> Option<(u32, u32)> {
    let (first, last) = text.split_once("..").unwrap_or((text, text));
    let number = |text: &str| text.parse().ok().filter(|number| *number > 0 && !text.starts_with('+'));
    Some((number(first)?, number(last)?)).filter(|(first, last)| first <= last)
}

fn number(tip: &Tip) -> Option<u32> {
    std::str::from_utf8(&tip.id).ok()?.parse().ok()
}

fn highest(tips: &[Tip]) -> Option<u32> {
    tips.iter().filter_map(number).max()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_is_one_number_or_two_in_their_order() {
        for (text, expected) in [
            ("5", Some((5, 5))),
            ("100..200", Some((100, 200))),
            ("7..7", Some((7, 7))),
            ("200..100", None),
            ("0", None),
            ("+5", None),
            ("-5", None),
            ("C5", None),
            ("5..", None),
            ("..5", None),
            ("5...7", None),
            ("4294967296", None),
            ("", None),
        ] {
            assert_eq!(range(text), expected, "{text:?}");
        }
    }

    #[test]
    fn the_highest_number_counts_and_not_the_longest_text() {
        let tip = |text: &str| Tip { id: text.into(), time: CommitTime::from_seconds(0) };
        assert_eq!(highest(&[tip("9"), tip("100"), tip("20")]), Some(100));
        assert_eq!(highest(&[]), None);
    }
}
