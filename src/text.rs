//! Text from outside, made safe for the place it goes to.
//!
//! Commit messages, paths and names are bytes that anybody may choose. [`readable`] turns bytes into
//! text without losing any, [`printable`] makes text harmless for a terminal and a log, and [`cut`]
//! shortens it to a field's limit. Nothing here does I/O.

use std::borrow::Cow;
use std::error::Error;

use serde::Serialize;

/// Returns the bytes as text: UTF-8 as it is, every other byte as `\xHH`.
///
/// Wherever something had to be escaped, backslashes are doubled, and so they are in the rare valid
/// text that could be taken for escaped text. So [`bytes_of`] can tell the two apart and give the bytes back.
pub(crate) fn readable(bytes: &[u8]) -> Cow<'_, str> {
    if let Ok(text) = std::str::from_utf8(bytes)
        && !looks_escaped(text)
    {
        return Cow::Borrowed(text);
    }
    let mut out = String::with_capacity(bytes.len() + 16);
    for chunk in bytes.utf8_chunks() {
        out.push_str(&chunk.valid().replace('\\', r"\\"));
        for byte in chunk.invalid() {
            out.push_str(&format!("\\x{byte:02X}"));
        }
    }
    Cow::Owned(out)
}

/// Returns the bytes that [`readable`] was given.
pub(crate) fn bytes_of(text: &str) -> Cow<'_, [u8]> {
    if !looks_escaped(text) {
        return Cow::Borrowed(text.as_bytes());
    }
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&byte, tail)) = rest.split_first() {
        rest = tail;
        if byte != b'\\' {
            out.push(byte);
        } else if let Some(escaped) = escaped_byte(tail) {
            out.push(escaped);
            rest = &tail[3..];
        } else {
            out.push(b'\\');
            rest = tail.strip_prefix(b"\\").unwrap_or(tail);
        }
    }
    Cow::Owned(out)
}

/// Tells whether the text holds `\xHH` with HH from 80 on, which [`readable`] writes for a byte that is not UTF-8.
fn looks_escaped(text: &str) -> bool {
    let bytes = text.as_bytes();
    bytes.iter().enumerate().any(|(at, &byte)| byte == b'\\' && escaped_byte(&bytes[at + 1..]).is_some())
}

/// Returns the byte that `xHH` at the start of the slice stands for.
fn escaped_byte(after_backslash: &[u8]) -> Option<u8> {
    let [b'x', high @ (b'8'..=b'9' | b'A'..=b'F'), low, ..] = after_backslash else { return None };
    let digit = |d: u8| char::from(d).to_digit(16).filter(|_| !d.is_ascii_lowercase());
    Some((digit(*high)? * 16 + digit(*low)?) as u8)
}

/// Returns the beginning of a text of at most so many bytes that ends with a whole character, if it is UTF-8.
pub(crate) fn whole_characters(text: &[u8], limit: usize) -> &[u8] {
    let is_within = |byte: u8| byte & 0b1100_0000 == 0b1000_0000;
    match text.get(limit) {
        None => text,
        Some(next) if !is_within(*next) => &text[..limit],
        Some(_) => {
            let start = (limit.saturating_sub(3)..limit).rev().find(|at| !is_within(text[*at]));
            &text[..start.unwrap_or(limit)]
        }
    }
}

/// Returns the text on one line and without anything that a terminal or a log would act on:
/// control characters and the marks that reverse the direction of text become `?`, line breaks and tabs a space.
pub(crate) fn printable(text: &str) -> Cow<'_, str> {
    if !text.chars().any(is_active) {
        return Cow::Borrowed(text);
    }
    let harmless = |c| match c {
        '\n' | '\r' | '\t' => ' ',
        c if is_active(c) => '?',
        c => c,
    };
    Cow::Owned(text.chars().map(harmless).collect())
}

/// Returns an error's text with those of its causes, each once. All that people read of an error is made here.
pub(crate) fn with_causes(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let cause_text = error.to_string();
        // Errors of libraries often repeat their cause.
        if !text.contains(&cause_text) {
            text = format!("{text}: {cause_text}");
        }
        cause = error.source();
    }
    text
}

/// Returns "1 commit", "3 commits", "2 pushes" or "2 repositories".
pub(crate) fn plural(count: impl TryInto<u64>, thing: &str) -> String {
    let count = count.try_into().unwrap_or_default();
    match (count, thing.strip_suffix('y')) {
        (1, _) => format!("1 {thing}"),
        (_, Some(stem)) => format!("{count} {stem}ies"),
        _ if thing.ends_with("sh") => format!("{count} {thing}es"),
        _ => format!("{count} {thing}s"),
    }
}

/// Returns a line of JSON in which everything that a terminal would act on is escaped, as its strings allow.
pub(crate) fn json_line(value: &impl Serialize) -> String {
    let json = serde_json::to_string(value).expect("its keys are text");
    let mut line = String::with_capacity(json.len() + 16);
    for c in json.chars() {
        match is_active(c) {
            true => line.push_str(&format!("\\u{:04x}", u32::from(c))),
            false => line.push(c),
        }
    }
    line + "\n"
}

fn is_active(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{061c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// Returns the longest start of the text that has at most `limit` bytes and ends between two characters.
///
/// Rally states its limits in characters or bytes, nobody knows which (docs/wsapi.md, 6.2); bytes keep both.
pub(crate) fn cut(text: &str, limit: usize) -> &str {
    &text[..text.floor_char_boundary(limit)]
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn text_stays_as_it_is_and_other_bytes_are_escaped() {
        let cases: [(&[u8], &str); 6] = [
            (b"src/main.rs", "src/main.rs"),
            ("日本語/é\ttab".as_bytes(), "日本語/é\ttab"),
            (br"dir\file", r"dir\file"),
            (b"caf\xe9.txt", r"caf\xE9.txt"),
            (b"a\\b\xff", r"a\\b\xFF"),
            (br"literal \xE9", r"literal \\xE9"),
        ];
        for (bytes, text) in cases {
            assert_eq!(readable(bytes), text);
            assert_eq!(bytes_of(text), bytes);
        }
    }

    #[test]
    fn what_a_terminal_would_act_on_is_gone() {
        assert_eq!(printable("plain é 日本"), "plain é 日本");
        assert_eq!(printable("\x1b[2Ja\r\nb\x07\u{9b}\u{202e}"), "?[2Ja  b???");
    }

    #[test]
    fn a_cut_never_splits_a_character() {
        assert_eq!(cut("aé", 2), "a");
        assert_eq!(cut("aé", 3), "aé");
        assert_eq!(cut("aé", 4000), "aé");
    }

    #[test]
    fn one_thing_is_singular() {
        let counts = [plural(0, "commit"), plural(1, "push"), plural(2_i64, "push"), plural(3, "dead letter")];
        assert_eq!(counts, ["0 commits", "1 push", "2 pushes", "3 dead letters"]);
    }

    #[test]
    fn an_error_is_told_with_each_cause_once() {
        #[derive(Debug, thiserror::Error)]
        #[error("{0}")]
        struct Told(&'static str, #[source] Option<Box<Told>>);
        let chain = Told("a: b", Some(Box::new(Told("b", Some(Box::new(Told("c", None)))))));
        assert_eq!(with_causes(&chain), "a: b: c");
    }

    #[test]
    fn a_text_is_cut_between_characters() {
        let text = "aé€😀".as_bytes();
        let cut = |limit| std::str::from_utf8(whole_characters(text, limit)).expect("whole characters");
        assert_eq!([0, 1, 2, 3, 5, 6, 9, 10, 99].map(cut), ["", "a", "a", "aé", "aé", "aé€", "aé€", "aé€😀", "aé€😀"]);
        assert_eq!((whole_characters(&[0x80; 9], 7).len(), whole_characters(&[0x80; 2], 1).len()), (7, 1));
    }

    proptest! {
        #[test]
        fn every_byte_string_comes_back(bytes in prop::collection::vec(prop_oneof![any::<u8>(), Just(b'\\'), Just(b'x'), Just(b'9')], 0..40)) {
            let text = readable(&bytes).into_owned();
            let back = bytes_of(&text);
            prop_assert_eq!(back.as_ref(), bytes.as_slice());
        }

        #[test]
        fn nothing_printable_is_active(text in any::<String>()) {
            prop_assert!(!printable(&text).chars().any(is_active));
        }
    }
}
