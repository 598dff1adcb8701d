//! What must hold for any input from outside, as one function for each kind of input.
//!
//! The targets under `fuzz/` give these functions what a fuzzer makes up; the tests below, what chance makes of the
//! files under `fuzz/seeds`. A function that returns has found nothing wrong. Not part of the program.

use std::collections::HashSet;

use crate::artifact::{DEFAULT_PREFIXES, MAX_ARTIFACTS, Mentions};
use crate::state;
use crate::test_vectors::default_states;

pub use crate::config::fuzzing::configuration;
pub use crate::vcs::fuzzing::{alternates, commit, hook_input, raw_trees, tree_diff};
pub use crate::wsapi::fuzzing::answer;

/// Mentions are those words of the text that consist of a prefix and a number, and no others.
pub fn mentions(text: &[u8]) {
    let prefixes = DEFAULT_PREFIXES.map(str::to_owned);
    let finder = Mentions::new(&prefixes, false);
    let is_word = |byte: &u8| byte.is_ascii_alphanumeric() || *byte == b'_';
    let words = text.chunk_by(|a, b| is_word(a) == is_word(b)).map(String::from_utf8_lossy);
    let expected: Vec<String> = words.filter(|word| is_id(word)).map(String::from).collect();
    let found: Vec<String> = finder.spans(text).map(|(_, id)| id.to_string()).collect();
    assert_eq!(found, expected);
    for (place, id) in finder.spans(text) {
        assert_eq!(&text[place], id.as_str().as_bytes());
    }

    let (kept, others) = finder.find_and_count(text);
    assert!(kept.len() <= MAX_ARTIFACTS && kept.len() + others <= found.len());
    assert_eq!(kept.iter().collect::<HashSet<_>>().len(), kept.len(), "each is named once");
    assert_eq!(
        Mentions::new(&prefixes, true).find(&text.to_ascii_uppercase()),
        finder.find(&text.to_ascii_uppercase())
    );
}

/// Tells whether a word is a FormattedID.
fn is_id(word: &str) -> bool {
    let number = word.trim_start_matches(|c: char| c.is_ascii_alphabetic());
    let is_number = (1..=10).contains(&number.len()) && !number.starts_with('0') && !number.contains('_');
    is_number
        && number.bytes().all(|b| b.is_ascii_digit())
        && DEFAULT_PREFIXES.contains(&&word[..word.len() - number.len()])
}

/// Only artifacts that are mentioned change their state, each once, to a state that it may have; what is quoted changes
/// none.
pub fn state_changes(text: &[u8]) {
    let text = String::from_utf8_lossy(text);
    let mentions = Mentions::new(&DEFAULT_PREFIXES.map(str::to_owned), false);
    let states = default_states();
    let changes = state::changes(&text, &mentions, &states);
    let named = mentions.find(text.as_bytes());
    let mut changed = HashSet::new();
    for change in &changes {
        assert!(named.contains(&change.artifact) && changed.insert(&change.artifact), "{change:?}");
        assert!(states[change.artifact.prefix()].contains(&change.state), "{change:?}");
    }
    let quoted: String = text.lines().map(|line| format!("> {line}\n")).collect();
    assert_eq!(state::changes(&quoted, &mentions, &states), []);
    assert_eq!(state::changes(&format!("Revert \"{text}\""), &mentions, &states), []);
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;

    use proptest::prelude::*;
    use proptest::sample::{Index, SizeRange};

    /// Returns what the files under `fuzz/seeds` for this target hold.
    fn seeds(target: &str) -> Vec<Vec<u8>> {
        let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/seeds").join(target);
        let files = fs::read_dir(&dir).unwrap_or_else(|error| panic!("{}: {error}", dir.display()));
        files.map(|file| fs::read(file.expect("readable").path()).expect("readable")).collect()
    }

    /// Makes up inputs: pieces of the seeds and random bytes, one after the other.
    fn inputs(seeds: Vec<Vec<u8>>) -> impl Strategy<Value = Vec<u8>> {
        let piece = (any::<Index>(), any::<[Index; 2]>()).prop_map(move |(seed, ends)| {
            let seed = seed.get(&seeds);
            let mut ends = ends.map(|end| end.index(seed.len() + 1));
            ends.sort_unstable();
            seed[ends[0]..ends[1]].to_vec()
        });
        let noise = prop::collection::vec(any::<u8>(), 0..4);
        prop::collection::vec(prop_oneof![4 => piece, 1 => noise], SizeRange::from(0..8))
            .prop_map(|parts| parts.concat())
    }

    /// Checks the seeds of a target as they are, and what chance makes of them.
    fn check(target: &str, property: fn(&[u8])) {
        let seeds = seeds(target);
        seeds.iter().for_each(|seed| property(seed));
        proptest!(|(input in inputs(seeds))| property(&input));
    }

    #[test]
    fn every_line_of_the_hooks_input_is_accounted_for() {
        check("hook_input", super::hook_input);
    }

    #[test]
    fn what_a_commit_says_is_found_where_git_writes_it() {
        check("commit", super::commit);
    }

    #[test]
    fn changed_paths_are_those_that_differ_from_all_parents() {
        check("tree_diff", super::tree_diff);
    }

    #[test]
    fn trees_that_git_would_not_write_are_read_or_refused() {
        check("raw_trees", super::raw_trees);
    }

    #[test]
    fn alternates_are_split_as_they_were_joined() {
        check("alternates", super::alternates);
    }

    #[test]
    fn mentions_are_words_of_prefix_and_number() {
        check("mentions", super::mentions);
    }

    #[test]
    fn only_mentioned_artifacts_change_their_state() {
        check("state_changes", super::state_changes);
    }

    #[test]
    fn no_error_of_the_configuration_shows_a_secret() {
        check("configuration", super::configuration);
    }

    #[test]
    fn an_answer_of_rally_is_bounded_and_harmless() {
        check("answer", super::answer);
    }
}
