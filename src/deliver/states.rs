//! State changes that commits ask for, once they have reached a branch on which they do.

use std::collections::{HashMap, HashSet};
use std::ops::ControlFlow;

use super::decide::{self, Fate};
use super::dispatch::{Failure, Job, dispatch};
use super::{Delivery, Event};
use crate::artifact::{FormattedId, Mentions};
use crate::backoff::random;
use crate::queue::StateEntry;
use crate::rally::{Allowed, Artifact, Error, Rally, Refused, state_update};
use crate::state::{self, States};
use crate::wsapi::{Verdict, Write};

/// A change that a request asks for.
struct Wanted {
    artifact: FormattedId,
    /// The request's place.
    entry: usize,
    state: String,
}

/// What is wanted, and the update that makes it.
type Update = (Wanted, Write);
/// What is wanted but would set the artifact back, and the state that it keeps.
type Kept = (Wanted, String);

/// Makes the changes that these requests ask for, in their order. What Rally refuses for good is named in the log and
/// left, and so is what is not done within `retry_for`.
///
/// # Errors
/// If Rally cannot be used, now or before somebody acts.
pub(super) fn run(delivery: &mut Delivery, rally: &Rally, mut entries: Vec<StateEntry>) -> Result<(), Error> {
    let (now, config) = ((delivery.now)(), delivery.config);
    let ids = entries.iter().flat_map(|entry| &entry.request.artifacts);
    let artifacts = rally.artifacts(delivery.queue, ids, now)?;
    let kinds = artifacts.found.values().map(|artifact| &artifact.kind);
    let allowed = rally.allowed_states(delivery.queue, kinds, now)?;
    let wanted = wanted(&config.commits.policy().mentions, &entries, &allowed);
    let (current, unanswered) = rally.current_states(&artifacts.found, wanted.iter().map(|wanted| &wanted.artifact))?;
    let mut failed = failed_look_ups(&entries, artifacts.refused.into_iter().chain(unanswered).collect());
    let wanted = wanted.into_iter().filter(|wanted| !failed.contains_key(&wanted.entry)).collect();
    let (to_send, kept) = updates(wanted, &artifacts.found, &allowed, current, config.state.backwards);
    for (Wanted { artifact, entry, state }, current) in kept {
        let request = &mut entries[entry].request;
        let error = format!("it is {current}, and {state} comes before that; state.backwards is off");
        let (revision, id) = (&request.revision, artifact.as_str());
        (delivery.observe)(&Event::StateKept { revision, artifact: id, error: &error });
        request.settled.push(artifact);
    }
    let unsent = send(delivery, rally, &mut entries, to_send, &mut failed);
    settle(delivery, &mut entries, failed, &unsent)
}

/// Returns what the messages ask for.
fn wanted(mentions: &Mentions, entries: &[StateEntry], allowed: &HashMap<String, Vec<Allowed>>) -> Vec<Wanted> {
    let names = |states: &Vec<Allowed>| states.iter().map(|state| state.name.clone()).collect();
    let states: States = allowed.iter().map(|(prefix, states)| (prefix.clone(), names(states))).collect();
    let changes = |(index, entry): (usize, &StateEntry)| {
        let changes = state::changes(&entry.request.message, mentions, &states);
        let wanted =
            |change: state::StateChange| Wanted { artifact: change.artifact, entry: index, state: change.state };
        let is_open = |change: &state::StateChange| !entry.request.settled.contains(&change.artifact);
        changes.into_iter().filter(is_open).map(wanted).collect::<Vec<_>>()
    };
    entries.iter().enumerate().flat_map(changes).collect()
}

/// Sends the updates, notes the requests that failed with the reason, and returns those of which something was not sent.
fn send(
    delivery: &mut Delivery,
    rally: &Rally,
    entries: &mut [StateEntry],
    updates: Vec<Update>,
    failed: &mut HashMap<usize, Failure>,
) -> HashSet<usize> {
    // A job's entry is the place of what is wanted.
    let job = |(place, (wanted, write)): (usize, Update)| {
        let touches = vec![wanted.artifact.to_string()];
        (wanted, Job { entry: place, change: 0, write, touches, failed: 0 })
    };
    let (wanted, jobs): (Vec<Wanted>, Vec<Job>) = updates.into_iter().enumerate().map(job).unzip();
    let (observe, is_stopped) = (&mut delivery.observe, delivery.is_stopped);
    let stops = |failure: &Failure| matches!(failure.verdict(), Verdict::Stop | Verdict::Unavailable);
    let unsent = dispatch(&rally.client, &mut delivery.pace.limits, jobs, |group| {
        for done in group {
            let Wanted { artifact: id, entry, state } = &wanted[done.job.entry];
            let request = &mut entries[*entry].request;
            let (revision, artifact) = (&request.revision, id.as_str());
            match done.result {
                Ok(_) => observe(&Event::StateSet { revision, artifact, state }),
                Err(failure) if failure.verdict() == Verdict::Reject => {
                    observe(&Event::StateKept { revision, artifact, error: &failure.to_string() });
                }
                Err(failure) => {
                    // What stops all of them counts most.
                    if stops(&failure) || !failed.contains_key(entry) {
                        failed.insert(*entry, failure);
                    }
                    continue;
                }
            }
            request.settled.push(id.clone());
        }
        let ends = is_stopped() || failed.values().any(stops);
        if ends { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    });
    unsent.iter().map(|job| wanted[job.entry].entry).collect()
}

fn settle(
    delivery: &mut Delivery,
    entries: &mut [StateEntry],
    mut failed: HashMap<usize, Failure>,
    unsent: &HashSet<usize>,
) -> Result<(), Error> {
    let now = (delivery.now)();
    let mut halt = None;
    for (index, StateEntry { request, attempts, .. }) in entries.iter_mut().enumerate() {
        let Some(failure) = failed.remove(&index) else {
            attempts.is_over = !unsent.contains(&index);
            continue;
        };
        let (text, retry_after) = (failure.to_string(), failure.error.retry_after());
        let verdict = match failure.verdict() {
            // Of one artifact, or a question about it; a key that may not write at all has stopped the changesets.
            Verdict::Refused | Verdict::Reject => Verdict::Retry,
            verdict => verdict,
        };
        match decide::fate(attempts, verdict, retry_after, &delivery.config.queue.retry(), now, random()) {
            Fate::StopAll => halt = Some(failure.error),
            Fate::TryAgain(next) => decide::note_failure(attempts, Some(next), &text, now),
            Fate::GiveUp => {
                (delivery.observe)(&Event::StatesGivenUp { revision: &request.revision, error: &text });
                decide::note_failure(attempts, None, &text, now);
            }
        }
    }
    delivery.queue.save_state_requests(entries)?;
    halt.map_or(Ok(()), |error| Err(error.into()))
}

/// Returns the requests that name an artifact which Rally gave no answer for. They are tried again.
fn failed_look_ups(entries: &[StateEntry], refused: Refused<FormattedId>) -> HashMap<usize, Failure> {
    let mut failed = HashMap::new();
    for (id, error) in refused {
        let names = |entry: &StateEntry| entry.request.artifacts.contains(&id);
        let about = entries.iter().enumerate().filter(|(_, entry)| names(entry)).map(|(index, _)| index);
        failed.extend(about.map(|index| (index, Failure { error: error.clone(), together: 1 })));
    }
    failed
}

/// Returns one update for each artifact whose state changes, and what would set one back. Of several changes the last that
/// counts is made.
fn updates(
    wanted: Vec<Wanted>,
    artifacts: &HashMap<FormattedId, Artifact>,
    allowed: &HashMap<String, Vec<Allowed>>,
    mut current: HashMap<FormattedId, String>,
    backwards: bool,
) -> (Vec<Update>, Vec<Kept>) {
    let (mut updates, mut refused): (Vec<Update>, _) = (Vec::new(), Vec::new());
    for wanted in wanted {
        let id = &wanted.artifact;
        let (Some(artifact), Some(states)) = (artifacts.get(id), allowed.get(id.prefix())) else { continue };
        let place = |name: &str| states.iter().position(|state| state.name == name);
        let before = current.get(id).and_then(|name| place(name));
        let Some(after) = place(&wanted.state).filter(|after| before != Some(*after)) else { continue };
        if let Some(before) = before.filter(|before| after < *before && !backwards) {
            refused.push((wanted, states[before].name.clone()));
            continue;
        }
        let Some(write) = state_update(artifact, &states[after]) else { continue };
        updates.retain(|(wanted, _)| wanted.artifact != *id);
        current.insert(id.clone(), wanted.state.clone());
        updates.push((wanted, write));
    }
    (updates, refused)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rally::ArtifactType;
    use serde_json::{Value, json};

    fn task() -> ArtifactType {
        ArtifactType { prefix: "TA".into(), path: "task".into(), rally_ref: "/typedefinition/1".into() }
    }

    /// Returns what is sent, and how many changes are refused.
    fn sent(states: &[&str], now: &str, backwards: bool) -> (Vec<Value>, usize) {
        let id: FormattedId = serde_json::from_value(json!("TA1")).expect("an ID");
        let allowed =
            ["Defined", "In-Progress", "Completed"].map(|name| Allowed { name: name.into(), value: name.into() });
        let artifacts = HashMap::from([(id.clone(), Artifact { rally_ref: "/task/7".into(), kind: task() })]);
        let allowed = HashMap::from([("TA".to_owned(), allowed.to_vec())]);
        let current = HashMap::from([(id.clone(), now.to_owned())]);
        let wanted =
            |(entry, state): (usize, &&str)| Wanted { artifact: id.clone(), entry, state: (*state).to_owned() };
        let wanted = states.iter().enumerate().map(wanted).collect();
        let (updates, refused) = updates(wanted, &artifacts, &allowed, current, backwards);
        (updates.into_iter().map(|(_, write)| write.body).collect(), refused.len())
    }

    #[test]
    fn a_completed_task_has_nothing_left_to_do() {
        assert_eq!(
            sent(&["Completed"], "Defined", false),
            (vec![json!({"task": {"State": "Completed", "ToDo": 0}})], 0)
        );
    }

    #[test]
    fn states_go_forward_only_unless_allowed() {
        assert_eq!(sent(&["Defined"], "Completed", false), (vec![], 1));
        assert_eq!(sent(&["Completed"], "Completed", true), (vec![], 0));
        assert_eq!(sent(&["Defined"], "Completed", true), (vec![json!({"task": {"State": "Defined"}})], 0));
    }

    #[test]
    fn of_several_changes_the_last_that_counts_is_made() {
        assert_eq!(
            sent(&["In-Progress", "Completed", "Defined"], "Defined", false),
            (vec![json!({"task": {"State": "Completed", "ToDo": 0}})], 1)
        );
    }
}
