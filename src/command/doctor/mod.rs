//! `rally-hook doctor`: is everything in place, and what is to be done where it is not.

mod ledger;
mod local;
mod probe;
mod rally;

use std::io::{self, IsTerminal, Write};
use std::path::Path;
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::thread;
use std::time::Duration;

use serde_json::{Value, json};

use super::identity::{Naming, identify_at};
use super::many::{Which, each};
use super::{Ended, Error, Site, as_owner, find_config, repo_dir};
use crate::cli::{self, Place};
use crate::config::{Config, Rally};
use crate::environment::variable;
use crate::text::{json_line, printable, with_causes};

/// How long a check of this machine may take.
const LOCAL_LIMIT: Duration = Duration::from_secs(30);

/// How one check went.
enum Finding {
    Fine(String),
    /// Worth knowing, and no hindrance.
    Note(String),
    Wrong(String),
}
use Finding::{Fine, Note, Wrong};

fn wrong(error: &dyn std::error::Error) -> Finding {
    Wrong(with_causes(error))
}

pub(super) fn run(place: &Place, arguments: &cli::Doctor) -> Result<Ended, Error> {
    let colour = io::stdout().is_terminal() && variable("NO_COLOR").is_none();
    let named = arguments.many.all_repos.clone().or_else(|| place.repo.clone()).unwrap_or_else(|| ".".into());
    if let Some(ended) = as_owner::run_again(&named)? {
        return Ok(ended);
    }
    let show = match (arguments.json, &arguments.many.all_repos) {
        (true, _) => Show::Json,
        (false, Some(_)) => Show::Problems,
        (false, None) => Show::EachAtOnce,
    };
    let mut doctor = Doctor { colour, show, findings: Vec::new(), output: Ok(()), asked: Vec::new() };
    each(place, &arguments.many, Which::Served, |place| examine(&mut doctor, place, arguments.probe))
}

fn examine(doctor: &mut Doctor, place: &Place, probes: bool) -> Result<Ended, Error> {
    // A repository before may have ended by a bug.
    doctor.findings.clear();
    let repo_dir = repo_dir(place)?;
    let config = match find_config(place, &repo_dir) {
        Ok((config, config_file)) => {
            let named = config_file.as_ref().map(|file| format!("{}: ", file.display())).unwrap_or_default();
            doctor.say("configuration", Fine(format!("{named}no errors")));
            Some((config, config_file))
        }
        Err(error) => {
            doctor.say("configuration", wrong(&error));
            None
        }
    };
    let (config, config_file) = config.unzip();
    let known = config.clone().unwrap_or_default();
    let checked = known.clone();
    doctor.say("repository", in_time(&repo_dir, move |repo_dir| local::repository(repo_dir, &checked)));
    let named = place.config.as_ref().map(|file| format!(" --config {}", file.display())).unwrap_or_default();
    let install = format!("rally-hook install{named}");
    doctor.say("hook", in_time(&repo_dir, move |repo_dir| local::hook(repo_dir, &install)));
    doctor.say("queue", look(&repo_dir, &known, local::queue));
    doctor.say("space", look(&repo_dir, &known, local::space));
    doctor.say("file system", look(&repo_dir, &known, local::file_system));
    if let Some(mut config) = config {
        let naming = identify_at(&repo_dir, &mut config).map(|home| Naming::of(&config, &home));
        doctor.say("name", local::name(naming, &repo_dir, &config, config_file.flatten().as_deref()));
        doctor.say("refs", look(&repo_dir, &known, local::refs));
        doctor.say("log", look(&repo_dir, &known, local::log));
        if config.queue.store.is_some() {
            // With the name under which the repository is posted.
            doctor.say("ledger", look(&repo_dir, &config, ledger::ledger));
        }
        doctor.say("authors", local::authors(&config));
        doctor.rally(&config, probes);
    }
    doctor.end(&repo_dir)
}

/// What is shown of the findings, and when.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Show {
    EachAtOnce,
    /// Of many repositories: the problems of each, or one line if it has none.
    Problems,
    Json,
}

struct Doctor {
    colour: bool,
    show: Show,
    /// What was found in this repository so far.
    findings: Vec<(String, Finding)>,
    /// Whether all could be written.
    output: io::Result<()>,
    /// What Rally was asked about, since most repositories have the same settings; and the workspace, if it was found.
    asked: Vec<(Asked, Option<String>)>,
}

/// The settings that decide Rally's answers, but for those about one repository.
type Asked = (Rally, Vec<String>);

impl Doctor {
    fn say(&mut self, what: &str, finding: Finding) {
        if self.show == Show::EachAtOnce {
            self.print(what, &finding);
        }
        self.findings.push((what.to_owned(), finding));
    }

    fn print(&mut self, what: &str, finding: &Finding) {
        let (mark, colour, text) = match finding {
            Fine(text) => ("ok   ", 32, text),
            Note(text) => ("note ", 33, text),
            Wrong(text) => ("WRONG", 31, text),
        };
        let mark = if self.colour { format!("\x1b[{colour}m{mark}\x1b[0m") } else { mark.to_owned() };
        self.write(&format!("{mark} {what:14} {}\n", printable(text)));
    }

    /// Writes to standard output. After the first failure, nothing more.
    fn write(&mut self, text: &str) {
        if self.output.is_ok() {
            self.output = io::stdout().write_all(text.as_bytes());
        }
    }

    /// Shows what has not been shown of this repository.
    fn end(&mut self, repo_dir: &Path) -> Result<Ended, Error> {
        let findings = std::mem::take(&mut self.findings);
        let is_fine = !findings.iter().any(|(_, finding)| matches!(finding, Wrong(_)));
        let problems = findings.iter().filter(|(_, finding)| !matches!(finding, Fine(_)));
        match self.show {
            Show::EachAtOnce => {}
            Show::Problems if problems.clone().next().is_none() => {
                self.print("repository", &Fine(repo_dir.display().to_string()));
            }
            Show::Problems => {
                self.write(&format!("{}:\n", repo_dir.display()));
                problems.for_each(|(what, finding)| self.print(what, finding));
            }
            Show::Json => {
                let check = |(what, finding): &(String, Finding)| {
                    let (Fine(text) | Note(text) | Wrong(text)) = finding;
                    let result = match finding {
                        Fine(_) => "ok",
                        Note(_) => "note",
                        Wrong(_) => "wrong",
                    };
                    json!({"check": what, "result": result, "text": text})
                };
                let checks: Vec<Value> = findings.iter().map(check).collect();
                let object = json!({"repository": repo_dir.to_string_lossy(), "fine": is_fine, "checks": checks});
                self.write(&json_line(&object));
            }
        }
        std::mem::replace(&mut self.output, Ok(()))?;
        Ok(Ended::done_if(is_fine))
    }
}

/// Does a check of a repository with its settings.
fn look(repo_dir: &Path, config: &Config, check: fn(&Site) -> Finding) -> Finding {
    let config = config.clone();
    in_time(repo_dir, move |repo_dir| {
        Site::with_config(repo_dir.to_owned(), config).map_or_else(|error| wrong(&error), |site| check(&site))
    })
}

/// Does a check of a repository. A file system that hangs ends it.
fn in_time(repo_dir: &Path, check: impl FnOnce(&Path) -> Finding + Send + 'static) -> Finding {
    let (repo_dir, (done, answer)) = (repo_dir.to_owned(), channel());
    thread::spawn(move || done.send(check(&repo_dir)));
    let too_long = || {
        let limit = LOCAL_LIMIT.as_secs();
        Wrong(format!("no answer within {limit} s; a file system may hang, or another process may hold the queue"))
    };
    match answer.recv_timeout(LOCAL_LIMIT) {
        Ok(finding) => finding,
        Err(RecvTimeoutError::Timeout) => too_long(),
        Err(RecvTimeoutError::Disconnected) => Wrong("a bug in rally-hook ended this check; please report it".into()),
    }
}
