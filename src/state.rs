//! State changes that a commit message asks for: `Fixed DE17`, `US3 Completed`, `Completed TA1, TA2 and TA3`.
//!
//! A message is read line by line. A state word followed by IDs applies to them, with a `:` between or not;
//! IDs directly followed by a state word get it. Inside a list stand white space, `,` `&` `+` `/` and `and`;
//! anything else ends the list. Which words are states depends on the type of the artifact and on the
//! workspace, so the words come from outside.

use std::collections::HashMap;

use crate::artifact::{FormattedId, Mentions};

/// The states that an artifact may have, by the prefix of its FormattedID, in the workspace's order.
pub(crate) type States = HashMap<String, Vec<String>>;

/// One asked-for change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct StateChange {
    pub artifact: FormattedId,
    /// Spelt as the workspace spells it.
    pub state: String,
}

/// Returns the changes that the message asks for, in the order in which the artifacts are first named so;
/// where one is named twice the last word counts.
pub(crate) fn changes(message: &str, mentions: &Mentions, states: &States) -> Vec<StateChange> {
    let mut found: Vec<StateChange> = Vec::new();
    let named = mentions.find(message.as_bytes());
    // What a revert names is not done any more, and what is quoted was said elsewhere.
    if message.starts_with("Revert \"") || message.contains("This reverts commit ") {
        return found;
    }
    for line in message.lines().filter(|line| !line.trim_start().starts_with('>')) {
        // Only so many artifacts count.
        for (artifact, word) in
            asked_for(&tokens(line, mentions, states)).into_iter().filter(|(id, _)| named.contains(id))
        {
            let Some(state) =
                states.get(artifact.prefix()).and_then(|known| known.iter().find(|state| same_word(state, word)))
            else {
                continue;
            };
            match found.iter_mut().find(|change| change.artifact == *artifact) {
                Some(change) => change.state.clone_from(state),
                None => found.push(StateChange { artifact: artifact.clone(), state: state.clone() }),
            }
        }
    }
    found
}

/// Tells whether both are the same state: case does not matter, nor whether `-` or a space joins the parts.
fn same_word(a: &str, b: &str) -> bool {
    a.len() == b.len() && prefix_length(a, b).is_some()
}

#[derive(Debug, PartialEq)]
enum Token<'a> {
    Id(FormattedId),
    /// A state of some type, as the workspace spells it.
    State(&'a str),
    Space,
    /// What may stand in a list besides white space.
    Separator,
    Colon,
    Other,
}

/// Pairs the IDs of a line with the state words that apply to them.
fn asked_for<'t>(tokens: &'t [Token<'t>]) -> Vec<(&'t FormattedId, &'t str)> {
    let mut pairs = Vec::new();
    let mut index = 0;
    while index < tokens.len() {
        let (ids, word, next) = match &tokens[index] {
            Token::State(word) => {
                let (ids, next) = id_list(tokens, skip_after_word(tokens, index + 1));
                if ids.is_empty() { (ids, None, index + 1) } else { (ids, Some(*word), next) }
            }
            Token::Id(_) => {
                let (ids, next) = id_list(tokens, index);
                match tokens[next..] {
                    [Token::Space, Token::State(word), ..] => (ids, Some(word), next + 2),
                    _ => (ids, None, next),
                }
            }
            _ => (Vec::new(), None, index + 1),
        };
        pairs.extend(word.into_iter().flat_map(|word| ids.iter().map(move |id| (*id, word))));
        index = next;
    }
    pairs
}

/// Returns the place after a state word's optional colon and white space.
fn skip_after_word(tokens: &[Token], index: usize) -> usize {
    match tokens[index..] {
        [Token::Colon, Token::Space, ..] => index + 2,
        [Token::Colon | Token::Space, ..] => index + 1,
        _ => index,
    }
}

/// Returns the list of IDs that begins at this token, and the place after its last ID.
fn id_list<'t>(tokens: &'t [Token], mut index: usize) -> (Vec<&'t FormattedId>, usize) {
    let mut ids = Vec::new();
    let mut end = index;
    while let Some(token) = tokens.get(index) {
        index += 1;
        match token {
            Token::Id(id) => {
                ids.push(id);
                end = index;
            }
            Token::Space | Token::Separator if !ids.is_empty() => {}
            _ => break,
        }
    }
    (ids, end)
}

/// Splits a line into tokens. A run of white space is one token.
fn tokens<'s>(line: &str, mentions: &Mentions, states: &'s States) -> Vec<Token<'s>> {
    let mut ids = mentions.spans(line.as_bytes()).peekable();
    let mut tokens = Vec::new();
    let mut index = 0;
    while let Some(c) = line[index..].chars().next() {
        let (token, length) = if let Some((span, id)) = ids.next_if(|(span, _)| span.start == index) {
            (Token::Id(id), span.len())
        } else if is_word_char(c) {
            // The run may hold an ID (`x-US5`), which ends it: the ID is a token of its own.
            let end = ids.peek().map_or(line.len(), |(span, _)| span.start);
            let run = word_length(&line[index..end]);
            word(&line[index..], run, states)
        } else {
            (punctuation(c), c.len_utf8())
        };
        if token != Token::Space || tokens.last() != Some(&Token::Space) {
            tokens.push(token);
        }
        index += length;
    }
    tokens
}

fn punctuation(c: char) -> Token<'static> {
    match c {
        ',' | '&' | '+' | '/' => Token::Separator,
        ':' => Token::Colon,
        c if c.is_whitespace() => Token::Space,
        _ => Token::Other,
    }
}

/// Returns the token that the word at the start of the text is, and its length: a state may be several words.
fn word<'s>(text: &str, run: usize, states: &'s States) -> (Token<'s>, usize) {
    let longest = states
        .values()
        .flatten()
        .filter_map(|state| Some((state, prefix_length(state, text)?)))
        .filter(|(_, length)| *length >= run && !text[*length..].starts_with(is_word_char))
        .max_by_key(|(_, length)| *length);
    match longest {
        Some((state, length)) => (Token::State(state), length),
        None if text[..run].eq_ignore_ascii_case("and") => (Token::Separator, run),
        None => (Token::Other, run),
    }
}

/// Returns how many bytes of the text the state takes if the text begins with it.
fn prefix_length(state: &str, text: &str) -> Option<usize> {
    let mut rest = text.chars();
    for expected in state.chars() {
        let joins = |c| matches!(c, '-' | ' ');
        let c = rest.next()?;
        let same = joins(expected) && joins(c) || expected.to_lowercase().eq(c.to_lowercase());
        if !same {
            return None;
        }
    }
    Some(text.len() - rest.as_str().len())
}

fn word_length(text: &str) -> usize {
    text.find(|c| !is_word_char(c)).unwrap_or(text.len())
}

fn is_word_char(c: char) -> bool {
    c.is_alphanumeric() || matches!(c, '_' | '-')
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::test_vectors;

    #[test]
    fn every_vector_yields_its_artifacts_and_state_changes() {
        let mut failures = Vec::new();
        for vector in test_vectors::all() {
            let mentions = Mentions::new(&vector.prefixes, false);
            let artifacts: Vec<String> =
                mentions.find(vector.message.as_bytes()).iter().map(|id| id.to_string()).collect();
            let states: Vec<String> = changes(&vector.message, &mentions, &test_vectors::default_states())
                .iter()
                .map(|change| format!("{}={}", change.artifact, change.state))
                .collect();
            if artifacts != vector.artifacts || states != vector.state_changes {
                failures.push(format!("{:?}: {artifacts:?} {states:?}, expected {vector:?}", vector.message));
            }
        }
        assert!(failures.is_empty(), "{}", failures.join("\n"));
    }

    #[test]
    fn reverts_and_quoted_lines_change_no_state() {
        let mentions = Mentions::new(&["DE".into()], false);
        let ask = |text: &str| changes(text, &mentions, &test_vectors::default_states()).len();
        assert_eq!(ask("Revert \"Fixed DE17\"\n\nThis reverts commit 0123."), 0);
        assert_eq!(ask("Undo\n\nThis reverts commit 0123. Fixed DE17"), 0);
        assert_eq!(ask("> Fixed DE17\n > Fixed DE18"), 0);
        assert_eq!(ask("Reverted the hack\n> Fixed DE17\nFixed DE18"), 1);
    }

    #[test]
    fn states_of_several_words_and_other_letters_are_found() {
        let states = States::from([("DE".into(), vec!["Ready for Test".into(), "Ready".into(), "Überprüft".into()])]);
        let mentions = Mentions::new(&["DE".into()], false);
        let ask = |text: &str| changes(text, &mentions, &states).into_iter().map(|c| c.state).collect::<Vec<_>>();
        assert_eq!(ask("DE1 ready for test now"), ["Ready for Test"]);
        assert_eq!(ask("Ready DE1"), ["Ready"]);
        assert_eq!(ask("DE1 überprüft"), ["Überprüft"]);
        assert!(ask("DE1 Readying, unReady DE2").is_empty());
    }
}
