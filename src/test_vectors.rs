//! The messages under `tests/vectors` with what each must yield, for the unit tests of this crate.

#[cfg(test)]
use crate::artifact::DEFAULT_PREFIXES;
use crate::state::States;

#[cfg(test)]
#[derive(Debug)]
pub(crate) struct Vector {
    pub(crate) prefixes: Vec<String>,
    pub(crate) message: String,
    pub(crate) artifacts: Vec<String>,
    pub(crate) state_changes: Vec<String>,
}

#[cfg(test)]
pub(crate) fn all() -> Vec<Vector> {
    let list = |text: &str| text.split(',').filter(|item| !item.is_empty()).map(str::to_owned).collect();
    let lines = include_str!("../tests/vectors/messages.tsv").lines().skip(1);
    let vectors: Vec<Vector> = lines
        .map(|line| {
            let fields: Vec<&str> = line.split('\t').collect();
            let [prefixes, message, artifacts, states] = fields[..] else { panic!("not four fields: {line}") };
            let prefixes = if prefixes == "-" { DEFAULT_PREFIXES.map(str::to_owned).to_vec() } else { list(prefixes) };
            Vector {
                prefixes,
                message: message.replace(r"\n", "\n"),
                artifacts: list(artifacts),
                state_changes: list(states),
            }
        })
        .collect();
    assert_eq!(vectors.len(), 184);
    vectors
}

/// The states that Rally sets up in a new workspace.
pub(crate) fn default_states() -> States {
    let list = |words: &str| words.split(';').map(str::to_owned).collect::<Vec<_>>();
    let schedule = list("Defined;In-Progress;Completed;Accepted");
    let mut states: States = ["US", "S", "DS", "TS"].map(|prefix| (prefix.to_owned(), schedule.clone())).into();
    states.insert("DE".into(), list("Submitted;Open;Fixed;Closed"));
    states.insert("TA".into(), list("Defined;In-Progress;Completed"));
    states
}
