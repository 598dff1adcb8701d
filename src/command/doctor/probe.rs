//! `rally-hook doctor --probe`: finds out on the user's own Rally what its documents do not say, and what follows from that
//! for the configuration.
//!
//! It makes a scratch SCMRepository and what belongs to it, and deletes all of that however the probe ends. Nothing else
//! is touched.

use std::thread;
use std::time::Duration;

use serde_json::{Value, json};

use super::Finding::{self, Fine, Note, Wrong};
use super::wrong;
use crate::clock::{Deadline, now};
use crate::messages::tell;
use crate::process;
use crate::text::{printable, with_causes};
use crate::time::Time;
use crate::wsapi::{self, Client, Created, Query, Verdict, Write, is_conflict, relative};

/// How often it is asked whether a write can be seen.
const POLL: Duration = Duration::from_millis(100);
/// How many times `read_lag` a write may take to be seen, before the probe gives up waiting.
const LAGS: u32 = 3;
/// How often a delete that fails is tried.
const DELETE_TRIES: usize = 3;
/// How many revisions a query names to be too long for an address.
const LONG_QUERY: usize = 60;
const MARKUP: &str = "rally-hook probe <a@b>";
const LONG_MESSAGE: usize = 5000;

/// Says how one check went.
type Say<'s> = &'s mut dyn FnMut(&str, Finding);

/// Why a check has no result.
#[derive(Debug, thiserror::Error)]
enum Stop {
    #[error("interrupted; not all was tried; run it again")]
    Interrupted,
    #[error("ended early")]
    Failed(#[from] wsapi::Error),
}

struct Probe<'p> {
    client: &'p Client,
    workspace: &'p str,
    /// The SCMRepository's name, which nothing else in Rally has.
    name: String,
    read_lag: Duration,
    /// Refs, in the order in which they were made.
    made: Vec<String>,
    /// Whether a write has failed that may have taken effect.
    is_unclear: bool,
}

/// Probes a workspace.
pub(super) fn run(client: &Client, workspace: &str, read_lag: Duration, say: Say) {
    process::note_terminations();
    let name = format!("rally-hook probe {} {}", now(), std::process::id());
    tell(&format!("making the SCMRepository {name:?}; all that the probe makes is deleted at its end"));
    let mut probe = Probe { client, workspace, name, read_lag, made: Vec::new(), is_unclear: false };
    if let Err(stop) = probe.check_all(say) {
        say("probe", wrong(&stop));
    }
    say("clean-up", probe.clean_up());
}

/// The checks, each of which depends on those before it.
impl Probe<'_> {
    fn check_all(&mut self, say: Say) -> Result<(), Stop> {
        let body = json!({"Workspace": self.workspace, "Name": self.name, "SCMType": "Git", "Description": MARKUP});
        let repository = self.make("/scmrepository/create", "SCMRepository", body)?.rally_ref;
        say("SCMRepository", Fine(format!("{repository}, {}", self.name)));
        let sent_at = now();
        let changeset = self.make_changeset(&repository, "probe-1", MARKUP)?;
        say("Branch", branch(&changeset.warnings));
        say("read_lag", self.lag(&repository, sent_at)?);
        say("markup", markup(&self.message(&changeset.rally_ref)?));
        say("long message", self.long_message(&repository)?);
        say("side by side", self.side_by_side(&changeset.rally_ref)?);
        say("batch", self.batch(&changeset.rally_ref)?);
        say("long query", self.long_query(&repository)?);
        Ok(())
    }

    fn make_changeset(&mut self, repository: &str, revision: &str, message: &str) -> Result<Created, Stop> {
        let body = json!({
            "Workspace": self.workspace, "SCMRepository": repository, "Revision": revision, "Branch": "probe",
            "CommitTimestamp": now().to_string(), "Message": message,
        });
        self.make("/changeset/create", "Changeset", body)
    }

    /// Makes an object, and notes that it is there.
    fn make(&mut self, path: &str, kind: &str, body: Value) -> Result<Created, Stop> {
        let write = Write { path: path.into(), body: json!({kind: body}) };
        let deadline = Deadline::after(self.read_lag * LAGS);
        loop {
            check_interrupted()?;
            match self.note(self.client.write(&write)) {
                // What was made just before may not be visible yet.
                Err(error) if error.verdict() == Verdict::Missing && !deadline.has_passed() => thread::sleep(POLL),
                result => return Ok(result?),
            }
        }
    }

    fn note(&mut self, result: Result<Created, wsapi::Error>) -> Result<Created, wsapi::Error> {
        match &result {
            Ok(created) => self.made.push(created.rally_ref.clone()),
            Err(error) => self.is_unclear |= !error.is_without_effect(),
        }
        result
    }

    /// Returns a Changeset's message as Rally holds it.
    fn message(&self, changeset: &str) -> Result<String, Stop> {
        check_interrupted()?;
        let row = self.client.read(changeset, "Message")?;
        Ok(row["Message"].as_str().unwrap_or_default().to_owned())
    }

    /// Measures how long a query misses what was made.
    fn lag(&self, repository: &str, sent_at: Time) -> Result<Finding, Stop> {
        let deadline = Deadline::after(self.read_lag * LAGS);
        let query = Query::equal("SCMRepository", repository).and(Query::equal("Revision", "probe-1"));
        while self.client.query("/changeset", Some(&query), "ObjectID")?.is_empty() {
            check_interrupted()?;
            if deadline.has_passed() {
                let waited = humantime::format_duration(self.read_lag * LAGS);
                return Ok(Wrong(format!(
                    "a query did not find a new Changeset within {waited}; set rally.read_lag to more"
                )));
            }
            thread::sleep(POLL);
        }
        let (took, set) = (now().since(sent_at), humantime::format_duration(self.read_lag));
        let millis = took.as_millis();
        Ok(match took <= self.read_lag {
            true => Fine(format!(
                "a query finds a new Changeset {millis} ms after it was sent; read_lag = \"{set}\" is enough"
            )),
            false => Wrong(format!(
                "a query finds a new Changeset only {millis} ms after it was sent; set rally.read_lag to more, it is {set}"
            )),
        })
    }

    fn long_message(&mut self, repository: &str) -> Result<Finding, Stop> {
        let changeset = self.make_changeset(repository, "probe-2", &"x".repeat(LONG_MESSAGE))?;
        let length = self.message(&changeset.rally_ref)?.chars().count();
        let held = format!("of a message of {LONG_MESSAGE} characters Rally holds {length}");
        Ok(match length {
            wsapi::MAX_TEXT.. => Fine(format!("{held}; rally-hook posts up to {}", wsapi::MAX_TEXT)),
            _ => Note(format!("{held}; longer ones are posted up to there, nothing is to be set")),
        })
    }

    /// Makes two Changes of one Changeset at the same moment.
    fn side_by_side(&mut self, changeset: &str) -> Result<Finding, Stop> {
        check_interrupted()?;
        let client = self.client;
        let writes = [change(changeset, "side/1"), change(changeset, "side/2")];
        let results = thread::scope(|scope| {
            let sent = writes.each_ref().map(|write| scope.spawn(|| client.write(write)));
            sent.map(|thread| thread.join().expect("a request does not panic"))
        });
        let failed: Vec<wsapi::Error> = results.into_iter().filter_map(|result| self.note(result).err()).collect();
        Ok(match failed.first() {
            None => Fine("two Changes of one Changeset may be made at once; rally-hook does not rely on that".into()),
            Some(error) if is_conflict(&error.to_string()) => Note(
                "two Changes of one Changeset conflict; rally-hook sends them in one request, nothing is to be set"
                    .into(),
            ),
            Some(error) => Wrong(with_causes(error)),
        })
    }

    fn batch(&mut self, changeset: &str) -> Result<Finding, Stop> {
        check_interrupted()?;
        let writes = [change(changeset, "batch/1"), change(changeset, "batch/2")];
        let answer = self.client.batch(&writes.each_ref());
        let (results, failure) = match answer {
            Ok(results) => (results, None),
            Err(error) => (Vec::new(), Some(error)),
        };
        self.is_unclear |= failure.as_ref().is_some_and(|error| !error.is_without_effect());
        let failed = results.into_iter().filter_map(|result| self.note(result).err()).next();
        Ok(match failure.or(failed) {
            None => Fine("two objects are made with one request; batch = \"auto\" makes use of it".into()),
            Some(error) => Note(format!("does not work here; set rally.batch to \"off\": {}", with_causes(&error))),
        })
    }

    /// Asks what is too long for an address, so that it goes as a form.
    fn long_query(&self, repository: &str) -> Result<Finding, Stop> {
        check_interrupted()?;
        let revisions = (1..=LONG_QUERY).map(|number| Query::equal("Revision", &format!("probe-{number}")));
        let any = Query::any(revisions).expect("there are some");
        let query = Query::equal("SCMRepository", repository).and(any);
        Ok(match self.client.query("/changeset", Some(&query), "ObjectID") {
            Ok(rows) if rows.is_empty() => Wrong(
                "a query that is sent as a form finds nothing; please report it, with the version of Rally".into(),
            ),
            Ok(_) => Fine("a query that is too long for an address is answered as a form".into()),
            Err(error) => Wrong(format!("a query that is sent as a form is refused: {}", with_causes(&error))),
        })
    }
}

/// Leaving nothing behind.
impl Probe<'_> {
    fn clean_up(&self) -> Finding {
        let mut doomed = self.made.clone();
        if self.is_unclear {
            tell(&format!(
                "a write had no clear answer; waiting {} to see what it made",
                humantime::format_duration(self.read_lag)
            ));
            thread::sleep(self.read_lag);
        }
        let looked = self.find(&mut doomed);
        let count = doomed.len();
        let mut left = Vec::new();
        // What belongs to another object was made after it.
        for rally_ref in doomed.iter().rev() {
            if let Err(error) = self.delete(rally_ref) {
                left.push(format!("{rally_ref} ({})", with_causes(&error)));
            }
        }
        let name = &self.name;
        match (left.is_empty(), looked) {
            (false, _) => {
                Wrong(format!("not deleted, please delete in Rally: {}; of SCMRepository {name}", left.join(", ")))
            }
            (true, Err(error)) if self.is_unclear => Wrong(format!(
                "what was known is deleted, but a write had no clear answer, and Rally cannot be asked; look for the SCMRepository \
                 {name} there: {}",
                with_causes(&error)
            )),
            (true, Ok(())) if self.is_unclear && doomed.is_empty() => Wrong(format!(
                "Rally may still be at work on the SCMRepository {name}; look for it in five minutes, and delete it"
            )),
            (true, _) => Fine(format!("deleted all {count} objects that the probe made")),
        }
    }

    /// Adds what the probe made without a clear answer: it is found by the SCMRepository's name.
    fn find(&self, doomed: &mut Vec<String>) -> Result<(), wsapi::Error> {
        let mut find = |path: &str, field: &str, value: &str| {
            let rows = self.client.query(path, Some(&Query::equal(field, value)), &format!("ObjectID,{field}"))?;
            let found: Vec<String> = rows.iter().filter_map(|row| relative(row["_ref"].as_str()?)).collect();
            let is_new = |found: &&String| !doomed.contains(found);
            let new: Vec<String> = found.iter().filter(is_new).cloned().collect();
            doomed.extend(new);
            Ok::<_, wsapi::Error>(found)
        };
        for repository in find("/scmrepository", "Name", &self.name)? {
            for changeset in find("/changeset", "SCMRepository", &repository)? {
                find("/change", "Changeset", &changeset)?;
            }
        }
        Ok(())
    }

    fn delete(&self, rally_ref: &str) -> Result<(), wsapi::Error> {
        let mut result = self.client.delete(rally_ref);
        for _ in 1..DELETE_TRIES {
            if result.is_ok() {
                break;
            }
            thread::sleep(POLL);
            result = self.client.delete(rally_ref);
        }
        result
    }
}

fn change(changeset: &str, path: &str) -> Write {
    let body = json!({"Change": {"Changeset": changeset, "Action": "A", "PathAndFilename": path}});
    Write { path: "/change/create".into(), body }
}

fn branch(warnings: &[String]) -> Finding {
    match warnings.iter().find(|text| text.contains("Branch")) {
        None => Fine("Changesets have a Branch".into()),
        Some(warning) => Note(format!("not taken, so Changesets are posted without it: {warning}")),
    }
}

fn markup(held: &str) -> Finding {
    match held == MARKUP {
        true => Fine("text such as <a@b> is kept as it is".into()),
        false => Note(format!("{MARKUP:?} becomes {:?}; nothing is to be set", printable(held))),
    }
}

fn check_interrupted() -> Result<(), Stop> {
    if process::is_terminated() { Err(Stop::Interrupted) } else { Ok(()) }
}
