//! What `svn log --xml --verbose` and `svn proplist --xml --verbose` print.

use std::io::{self, BufReader, Read};

use quick_xml::events::{BytesStart, Event};
use quick_xml::{Error, Reader};

use crate::commit::{Action, Change};
use crate::text;
use crate::time::CommitTime;
use crate::vcs::source::{Entry, MAX_PATHS};

/// How much is read at once, in bytes.
const CHUNK: usize = 64 * 1024;
/// No message is longer that anybody reads, in bytes: each is in memory whole for a moment.
const LONGEST_TEXT: usize = 256 * 1024 * 1024;
/// More text of one element is not kept, in bytes as they are read here: two for one of the repository's at most. One
/// megabyte of a message is kept, at least.
const MAX_TEXT: usize = 2 * 1024 * 1024;

/// Reads a log and hands over its revisions, until that returns false. A revision at the end that is not whole is left out.
pub(super) fn read_log(
    printed: impl Read,
    directory_properties: bool,
    hand_over: &mut dyn FnMut(u64, Entry) -> bool,
) -> Result<(), Error> {
    let (mut revision, mut entry, mut path) = (None, Entry::default(), None);
    read_elements(printed, &mut |element| {
        match element {
            Element::Begins(start) if start.name().as_ref() == "logentry" => {
                revision = attribute(&start, "revision").and_then(|number| number.parse().ok());
                entry = Entry::default();
            }
            Element::Begins(start) if start.name().as_ref() == "path" => path = Some(Path::of(&start)),
            Element::Begins(_) => {}
            Element::Ends("author", author) => set_author(&mut entry, &author),
            Element::Ends("date", date) => entry.committed_at = CommitTime::parse(&date).unwrap_or_default(),
            Element::Ends("msg", message) => entry.message = raw(&message),
            Element::Ends("path", name) => {
                let change = path.take().filter(|path| directory_properties || !path.is_directory_property());
                change.into_iter().for_each(|path| add(&mut entry, path.change(&name)));
            }
            Element::Ends("logentry", _) => {
                if let Some(revision) = revision.take() {
                    return hand_over(revision, std::mem::take(&mut entry));
                }
            }
            Element::Ends(..) => {}
        }
        true
    })
}

/// Returns a property of a revision.
pub(super) fn property(printed: &[u8], name: &str) -> Option<String> {
    let (mut is_wanted, mut found) = (false, None);
    let read = read_elements(printed, &mut |element| {
        match element {
            Element::Begins(start) => is_wanted = attribute(&start, "name").as_deref() == Some(name),
            Element::Ends("property", value) if is_wanted => found = Some(value),
            Element::Ends(..) => {}
        }
        found.is_none()
    });
    read.ok().and(found)
}

/// What is printed, each byte as the character of that number. Subversion prints properties as they are, and in old
/// repositories they may be in any encoding. [`raw`] returns the bytes.
struct Latin1<R> {
    printed: R,
    since_markup: usize,
}

impl<R: Read> Read for Latin1<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        // No character takes more than two bytes.
        let mut bytes = vec![0; buffer.len() / 2];
        let read = self.printed.read(&mut bytes)?;
        bytes.truncate(read);
        self.since_markup = match memchr::memrchr(b'<', &bytes) {
            Some(at) => bytes.len() - at,
            None => self.since_markup + bytes.len(),
        };
        if self.since_markup > LONGEST_TEXT {
            return Err(io::Error::other("a text in the answer is too long"));
        }
        let text = latin1(&bytes);
        buffer[..text.len()].copy_from_slice(text.as_bytes());
        Ok(text.len())
    }
}

fn latin1(bytes: &[u8]) -> String {
    bytes.iter().copied().map(char::from).collect()
}

/// Returns a text as it stands in the repository.
fn raw(text: &str) -> Vec<u8> {
    text.chars().map(|character| u8::try_from(character).expect("it was a byte")).collect()
}

enum Element<'e> {
    Begins(BytesStart<'e>),
    /// With the text in it, or after the last element in it.
    Ends(&'e str, String),
}

fn read_elements(printed: impl Read, each: &mut dyn FnMut(Element) -> bool) -> Result<(), Error> {
    let mut reader = Reader::from_reader(BufReader::with_capacity(CHUNK, Latin1 { printed, since_markup: 0 }));
    let (mut buffer, mut text) = (Vec::new(), String::new());
    loop {
        let goes_on = match reader.read_event_into(&mut buffer)? {
            Event::Start(start) => {
                text.clear();
                each(Element::Begins(start))
            }
            Event::Empty(start) => {
                let name = start.name().as_ref().to_owned();
                each(Element::Begins(start)) && each(Element::Ends(&name, String::new()))
            }
            Event::End(end) => each(Element::Ends(end.name().as_ref(), std::mem::take(&mut text))),
            Event::Text(part) => keep(&mut text, &part),
            Event::CData(part) => keep(&mut text, &part),
            Event::GeneralRef(reference) => {
                let character = reference.resolve_char_ref()?.or_else(|| predefined(&reference));
                let character = character.unwrap_or(char::REPLACEMENT_CHARACTER);
                keep(&mut text, &latin1(character.encode_utf8(&mut [0; 4]).as_bytes()))
            }
            Event::Eof => return Ok(()),
            _ => true,
        };
        if !goes_on {
            return Ok(());
        }
        buffer.clear();
    }
}

fn keep(text: &mut String, part: &str) -> bool {
    text.push_str(text::cut(part, MAX_TEXT.saturating_sub(text.len())));
    true
}

fn predefined(name: &str) -> Option<char> {
    Some(match name {
        "lt" => '<',
        "gt" => '>',
        "amp" => '&',
        "quot" => '"',
        "apos" => '\'',
        _ => return None,
    })
}

fn attribute(start: &BytesStart, name: &str) -> Option<String> {
    Some(start.try_get_attribute(name).ok()??.value.into_owned())
}

/// Subversion has one text for an author, which may be an address.
fn set_author(entry: &mut Entry, author: &str) {
    if author.contains('@') {
        entry.author_email = raw(author);
    }
    entry.author_name = raw(author);
}

fn add(entry: &mut Entry, change: Change) {
    match entry.changes.len() {
        MAX_PATHS.. => entry.omitted += 1,
        _ => entry.changes.push(change),
    }
}

/// What is said of a path.
struct Path {
    action: Action,
    is_directory: bool,
    is_text_changed: bool,
}

impl Path {
    fn of(start: &BytesStart) -> Self {
        let is = |name: &str, value: &str| attribute(start, name).as_deref() == Some(value);
        let action = match attribute(start, "action").as_deref() {
            Some("A") => Action::Added,
            Some("D") => Action::Deleted,
            // A replacement is R.
            _ => Action::Modified,
        };
        Path { action, is_directory: is("kind", "dir"), is_text_changed: !is("text-mods", "false") }
    }

    /// Tells whether only properties of a directory have changed, as its svn:mergeinfo does in each merge.
    fn is_directory_property(&self) -> bool {
        self.is_directory && self.action == Action::Modified && !self.is_text_changed
    }

    fn change(&self, path: &str) -> Change {
        let path = raw(path.strip_prefix('/').unwrap_or(path));
        let slash = if self.is_directory { "/" } else { "" };
        Change { action: self.action, path: text::readable(&path).into_owned() + slash }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOG: &str = r#"<?xml version="1.0" encoding="UTF-8"?>
<log>
<logentry
   revision="12">
<author>alice</author>
<date>2026-02-03T04:05:06.789012Z</date>
<paths>
<path action="A" copyfrom-path="/trunk" copyfrom-rev="11" kind="dir" text-mods="false" prop-mods="false">/branches/a&amp;b</path>
<path kind="file" action="R" text-mods="true" prop-mods="false">/trunk/ x&#13;</path>
<path kind="dir" action="M" text-mods="false" prop-mods="true">/trunk</path>
<path kind="file" action="D" text-mods="false" prop-mods="false">/trunk/é\xE9&#233;</path>
</paths>
<msg>US1 &lt;b&gt;
second ?\001</msg>
</logentry>
<logentry revision="13">
<msg></msg>
</logentry>
<logentry revision="14"><msg>cut of"#;

    fn listed(directory_properties: bool) -> Vec<(u64, Entry)> {
        let mut listed = Vec::new();
        let _ = read_log(LOG.as_bytes(), directory_properties, &mut |revision, entry| {
            listed.push((revision, entry));
            true
        });
        listed
    }

    #[test]
    fn a_long_message_is_kept_whole_in_any_language() {
        let message = "é".repeat(400_000) + " US77";
        let log = format!(
            "<log><logentry revision=\"1\"><date>2026-02-03T04:05:06.789012Z</date><msg>{message}</msg></logentry></log>"
        );
        let mut kept = Vec::new();
        let _ = read_log(log.as_bytes(), false, &mut |_, entry| {
            kept.push(entry.message);
            true
        });
        assert!(kept == [message.as_bytes()]);
    }

    #[test]
    fn a_log_is_read_as_it_is_meant() {
        let listed = listed(true);
        let [(12, entry), (13, empty)] = listed.as_slice() else { panic!("{listed:?}") };
        assert_eq!(entry.committed_at, CommitTime::from_seconds(1_770_091_506));
        assert_eq!((entry.author_name.as_slice(), entry.author_email.as_slice()), (&b"alice"[..], &b""[..]));
        assert_eq!(entry.message, b"US1 <b>\nsecond ?\\001");
        let changes: Vec<String> =
            entry.changes.iter().map(|change| format!("{} {}", change.action.letter(), change.path)).collect();
        assert_eq!(changes, ["A branches/a&b/", "M trunk/ x\r", "M trunk/", r"D trunk/é\\xE9é"]);
        assert_eq!(*empty, Entry::default());
    }

    #[test]
    fn properties_of_directories_can_be_left_out() {
        let paths: Vec<String> = listed(false)[0].1.changes.iter().map(|change| change.path.clone()).collect();
        assert_eq!(paths, ["branches/a&b/", "trunk/ x\r", r"trunk/é\\xE9é"]);
    }

    #[test]
    fn a_property_is_found_by_its_name() {
        let printed = br#"<properties><revprops rev="0"><property name="a">1</property><property
            name="svn:sync-last-merged-rev">42</property></revprops></properties>"#;
        assert_eq!(property(printed, "svn:sync-last-merged-rev").as_deref(), Some("42"));
        assert_eq!(property(printed, "b"), None);
    }

    #[test]
    fn text_that_is_not_utf8_is_read_whatever_pieces_it_comes_in() {
        let log = b"<log><logentry revision=\"1\"><msg>US1 caf\xe9 \xc3\xa9\xf0\x9f\x99\x82</msg></logentry></log>";
        let mut pieces = log.chunks(1);
        let mut one_by_one = std::iter::from_fn(|| pieces.next());
        struct Slow<'s>(&'s mut dyn Iterator<Item = &'s [u8]>);
        impl Read for Slow<'_> {
            fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
                Ok(self.0.next().map_or(0, |byte| {
                    buffer[..1].copy_from_slice(byte);
                    1
                }))
            }
        }
        let mut messages = Vec::new();
        let read = read_log(Slow(&mut one_by_one), true, &mut |_, entry| {
            messages.push(entry.message);
            true
        });
        assert!(read.is_ok());
        assert_eq!(messages, [b"US1 caf\xe9 \xc3\xa9\xf0\x9f\x99\x82"]);
    }
}
