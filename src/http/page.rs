//! What a page says that comes instead of JSON: of the service itself, of a proxy, or during maintenance. Pure.

use crate::text::{cut, printable};

/// How much of an answer that is not as expected is shown, in bytes.
pub(crate) const EXCERPT: usize = 200;
/// How much of a page is read, in bytes. What matters stands before that.
const MAX_PAGE: usize = 64 * 1024;

/// Sentences of Rally that tell more than the beginning of their page, each as words that follow each other in it
/// (docs/wsapi.md, 8.3).
const TELLING: [&[&str]; 3] =
    [&["ip address", "not within the allowed range"], &["username or password", "incorrect"], &["account", "locked"]];

/// Elements that do not interrupt a sentence.
const INLINE: [&str; 12] = ["a", "abbr", "b", "code", "em", "font", "i", "small", "span", "strong", "tt", "u"];
/// Elements whose content is not for people.
const HIDDEN: [&str; 3] = ["script", "style", "noscript"];

const ENTITIES: [(&str, &str); 6] =
    [("&nbsp;", " "), ("&lt;", "<"), ("&gt;", ">"), ("&quot;", "\""), ("&#39;", "'"), ("&amp;", "&")];

/// Returns the sentence of a page that tells what is wrong, or else the beginning of its text, on one line.
pub(crate) fn said(page: &str) -> String {
    let lines = lines(cut(page, MAX_PAGE));
    let telling = lines.iter().flat_map(|line| sentences(line)).find(|sentence| is_telling(sentence));
    excerpt(telling.unwrap_or(&lines.join(" ")))
}

/// Returns the beginning of a text, on one line and without anything that a terminal would act on.
pub(crate) fn excerpt(text: &str) -> String {
    printable(cut(text.trim(), EXCERPT)).into_owned()
}

fn is_telling(sentence: &str) -> bool {
    let lower = sentence.to_lowercase();
    let follow = |words: &&[&str]| {
        let rest = words.iter().try_fold(lower.as_str(), |rest, word| Some(rest.split_once(word)?.1));
        rest.is_some()
    };
    TELLING.iter().any(follow)
}

/// Splits a line after each full stop that a space follows; the address 10.0.0.1 stays whole.
fn sentences(line: &str) -> impl Iterator<Item = &str> {
    line.split_inclusive(". ").map(str::trim)
}

/// Returns the text of a page without its tags: one line for each block, and none twice in a row.
fn lines(page: &str) -> Vec<String> {
    let mut text = String::new();
    let mut rest = page;
    while let Some((before, tag_on)) = rest.split_once('<') {
        // Line breaks mean nothing in a page.
        text.push_str(&before.replace(['\n', '\r'], " "));
        if !tag_on.starts_with(|c: char| c.is_ascii_alphabetic() || "/!?".contains(c)) {
            text.push('<');
            rest = tag_on;
            continue;
        }
        let name = element(tag_on);
        let end = match HIDDEN.iter().find(|hidden| **hidden == name) {
            _ if tag_on.starts_with("!--") => tag_on.find("-->").map(|at| at + 2),
            Some(hidden) => closing(tag_on, hidden),
            None => tag_on.find('>'),
        };
        if !INLINE.contains(&name.trim_start_matches('/')) {
            text.push('\n');
        }
        rest = end.map_or("", |at| &tag_on[at + 1..]);
    }
    text.push_str(&rest.replace(['\n', '\r'], " "));
    for (entity, character) in ENTITIES {
        text = text.replace(entity, character);
    }
    let words = |line: &str| line.split_whitespace().collect::<Vec<_>>().join(" ");
    let mut lines: Vec<String> = text.lines().map(words).filter(|line| !line.is_empty()).collect();
    lines.dedup();
    lines
}

/// Returns the name of the element whose tag begins here, in lower case.
fn element(tag: &str) -> String {
    let is_part = |(at, c): (usize, char)| c.is_ascii_alphanumeric() || at == 0 && c == '/';
    let end = tag.char_indices().find(|&part| !is_part(part)).map_or(tag.len(), |(at, _)| at);
    tag[..end].to_ascii_lowercase()
}

/// Returns where the closing tag of this element ends.
fn closing(page: &str, name: &str) -> Option<usize> {
    let start = page.to_ascii_lowercase().find(&format!("</{name}"))?;
    page[start..].find('>').map(|at| start + at)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_telling_sentence_is_found_anywhere_in_a_page() {
        let filler = "<p>Lorem ipsum dolor sit amet.</p>".repeat(100);
        let sentences = [
            "Your IP address, 10.1.2.3, is not within the allowed range that your subscription administrator has configured.",
            "The username or password you entered is incorrect.",
            "Your account is locked.",
        ];
        for sentence in sentences {
            let page = format!("<html><title>Rally</title>{filler}<div>Sorry. {sentence} Ask for help.</div></html>");
            assert_eq!(said(&page), sentence);
            assert_eq!(said(sentence), sentence);
        }
        let marked = "<h2>Error: Your <b>IP address</b>, <code>10.1.2.3</code>,\nis not within the allowed range.</h2>";
        assert_eq!(said(marked), "Error: Your IP address, 10.1.2.3, is not within the allowed range.");
    }

    #[test]
    fn of_other_pages_the_text_begins_with_the_title() {
        let cases = [
            (
                "<html><head><title>Rally</title><style>p { x }</style></head><body><h1>Down for\n maintenance</h1></body>",
                "Rally Down for maintenance",
            ),
            (
                "<title>502 Bad Gateway</title><center><h1>502 Bad Gateway</h1></center><hr>nginx",
                "502 Bad Gateway nginx",
            ),
            ("<SCRIPT>if (a < b) { x() }</SCRIPT><!-- <p>no</p> --><p>1 &lt; 2 &amp; 3 < 4</p>", "1 < 2 & 3 < 4"),
            ("plain text", "plain text"),
            ("\u{1b}[2Jcleaned\u{7}", "?[2Jcleaned?"),
            ("<p>never closed <b", "never closed"),
            ("<script>never closed", ""),
            ("", ""),
        ];
        for (page, text) in cases {
            assert_eq!(said(page), text, "{page}");
        }
        assert_eq!(said(&"é".repeat(MAX_PAGE)).len(), EXCERPT);
    }

    proptest! {
        #[test]
        fn no_page_is_too_odd(page in "(<|>|/|!--|-->|script|é|\\PC|&lt;| |\n){0,60}") {
            prop_assert!(said(&page).len() <= EXCERPT);
        }
    }
}
