//! Artifact IDs (FormattedIDs such as US123 and DE45) in the text of a commit.

use std::collections::HashSet;
use std::fmt;
use std::ops::Range;
use std::sync::OnceLock;

use regex::bytes::{Regex, RegexBuilder};
use serde::{Deserialize, Serialize};

/// The prefixes that Rally gives a new workspace and that everyday text does not use.
pub(crate) const DEFAULT_PREFIXES: [&str; 6] = ["US", "DE", "DS", "TA", "TC", "TS"];

/// How many artifacts one commit is linked to. A message may name a million, and each costs requests.
pub(crate) const MAX_ARTIFACTS: usize = 100;

/// The FormattedID of an artifact: letters and a number, `US123`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub(crate) struct FormattedId(String);

impl FormattedId {
    /// Returns the part before the number.
    pub(crate) fn prefix(&self) -> &str {
        self.0.trim_end_matches(|c: char| c.is_ascii_digit())
    }

    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for FormattedId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Finds the artifacts that a text mentions.
///
/// A mention is a prefix and a number of one to ten digits without leading zero, with no ASCII letter,
/// digit or `_` on either side. That is what `\b` means in an expression without Unicode.
pub(crate) struct Mentions {
    /// Made when it is first needed: most pushes of deleted or known refs need none.
    pattern: OnceLock<Regex>,
    prefixes: Vec<String>,
    ignore_case: bool,
    /// IDs that are not Rally's, such as the names of chips.
    ignored: HashSet<String>,
}

impl Mentions {
    /// Makes a finder for these prefixes, which must be ASCII letters (the configuration sees to it).
    pub(crate) fn new(prefixes: &[String], ignore_case: bool) -> Self {
        Mentions { pattern: OnceLock::new(), prefixes: prefixes.to_vec(), ignore_case, ignored: HashSet::new() }
    }

    /// Leaves out these IDs.
    pub(crate) fn ignoring(self, ids: &[String]) -> Self {
        Mentions { ignored: ids.iter().cloned().collect(), ..self }
    }

    fn pattern(&self) -> &Regex {
        self.pattern.get_or_init(|| {
            let alternatives = self.prefixes.join("|");
            RegexBuilder::new(&format!(r"(?-u)\b(?:{alternatives})[1-9][0-9]{{0,9}}\b"))
                .case_insensitive(self.ignore_case)
                .unicode(false)
                .build()
                .expect("a pattern of ASCII letters is valid")
        })
    }

    /// Returns the artifacts in the order in which they are first mentioned, [`MAX_ARTIFACTS`] at most.
    pub(crate) fn find(&self, text: &[u8]) -> Vec<FormattedId> {
        self.find_and_count(text).0
    }

    /// Returns the artifacts likewise, and the number of mentions of others.
    pub(crate) fn find_and_count(&self, text: &[u8]) -> (Vec<FormattedId>, usize) {
        let (mut found, mut others) = (Vec::new(), 0);
        for (_, id) in self.spans(text) {
            match found.contains(&id) {
                true => {}
                false if found.len() < MAX_ARTIFACTS => found.push(id),
                false => others += 1,
            }
        }
        (found, others)
    }

    /// Returns the artifacts in a branch's name, in which `_` separates words too: `feature/US12_login`.
    pub(crate) fn find_in_branch(&self, name: &str) -> Vec<FormattedId> {
        self.find(name.replace('_', " ").as_bytes())
    }

    /// Returns every mention with its place in the text.
    pub(crate) fn spans<'a>(&'a self, text: &'a [u8]) -> impl Iterator<Item = (Range<usize>, FormattedId)> + 'a {
        let mentions = self.pattern().find_iter(text).map(|found| (found.range(), self.canonical(found.as_bytes())));
        mentions.filter(|(_, id)| !self.ignored.contains(id.as_str()))
    }

    /// Returns the ID with its prefix spelt as in the configuration.
    fn canonical(&self, mention: &[u8]) -> FormattedId {
        let written = String::from_utf8_lossy(mention);
        let digits = written.trim_start_matches(|c: char| c.is_ascii_alphabetic());
        let letters = &written[..written.len() - digits.len()];
        let prefix = self.prefixes.iter().find(|prefix| prefix.eq_ignore_ascii_case(letters));
        FormattedId(format!("{}{digits}", prefix.map_or(letters, String::as_str)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn mentions(text: &str, ignore_case: bool) -> Vec<String> {
        let prefixes = ["US", "DE", "TA", "T"].map(str::to_owned);
        Mentions::new(&prefixes, ignore_case).find(text.as_bytes()).iter().map(FormattedId::to_string).collect()
    }

    #[test]
    fn case_matters_unless_it_is_ignored() {
        assert_eq!(mentions("us1 US2 De3", false), ["US2"]);
        assert_eq!(mentions("us1 US2 De3 US1", true), ["US1", "US2", "DE3"]);
    }

    #[test]
    fn bytes_that_are_no_text_may_stand_next_to_an_id() {
        let mentions = Mentions::new(&["US".to_owned()], false);
        assert_eq!(mentions.find(b"\xffUS1\xe9 _US2 US3_ \0US4\0").len(), 2);
    }

    #[test]
    fn ignored_ids_are_left_out() {
        let mentions = Mentions::new(&["DS".to_owned()], false).ignoring(&["DS1307".to_owned()]);
        assert_eq!(mentions.find(b"DS1307 DS13").iter().map(FormattedId::as_str).collect::<Vec<_>>(), ["DS13"]);
    }

    #[test]
    fn an_underscore_separates_in_branch_names_only() {
        let mentions = Mentions::new(&["US".to_owned()], false);
        for name in ["feature/US12_login", "feature_US12", "US12"] {
            assert_eq!(mentions.find_in_branch(name).len(), 1, "{name}");
        }
        assert!(mentions.find(b"feature_US12").is_empty());
    }

    #[test]
    fn a_prefix_is_the_part_before_the_number() {
        assert_eq!(FormattedId("TA12".into()).prefix(), "TA");
    }

    proptest! {
        #[test]
        fn a_mention_is_found_between_any_two_words(before in "[^A-Za-z0-9_]?", after in "[^A-Za-z0-9_]?", number in 1u64..=9_999_999_999) {
            prop_assert_eq!(mentions(&format!("{before}US{number}{after}"), false), vec![format!("US{number}")]);
        }

        #[test]
        fn a_mention_inside_a_word_is_none(before in "[A-Za-z0-9_]", number in 1u64..=9_999_999_999) {
            let hidden = mentions(&format!("{}US{}", before, number), false);
            prop_assert!(hidden.is_empty(), "{:?}", hidden);
        }
    }
}
