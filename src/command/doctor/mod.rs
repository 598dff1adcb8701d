//! `rally-hook doctor`: is everything in place, and what is to be done where it is not.

mod ledger;
mod local;
mod probe;
mod rally;

use std::io::{self, IsTerminal, Write};
use std::path::Path;
use std::sync::mpsc::channel;
use std::thread;
use std::time::Duration;

use serde_json::{Value, json};

use super::identity::{Naming, identify_at};
use super::many::{Which, each};
use super::{Ended, Error, Site, as_owner, find_config, repo_dir, write_out};
use crate::cli::{self, Place};
use crate::config::Rally;
use crate::environment::variable;
use crate::text::{json_line, printable, with_causes};

/// A check of what is on this machine may take so long.
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
    let heading = arguments.many.all_repos.as_ref().map(|_| String::new());
    let named = arguments.many.all_repos.clone().or_else(|| place.repo.clone()).unwrap_or_else(|| ".".into());
    if let Some(ended) = as_owner::run_again(&named)? {
        return Ok(ended);
    }
    let checks = arguments.json.then(Vec::new);
    let mut doctor = Doctor { colour, all_fine: true, heading, checks, asked: Vec::new() };
    each(place, &arguments.many, Which::Served, |place| examine(&mut doctor, place, arguments.probe))
}

fn examine(doctor: &mut Doctor, place: &Place, probes: bool) -> Result<Ended, Error> {
    let repo_dir = repo_dir(place)?;
    doctor.begin(&repo_dir);
    let config = match find_config(place, &repo_dir) {
        Ok((config, config_file)) => {
            let named = config_file.as_ref().map(|file| format!("{}: ", file.display())).unwrap_or_default();
            doctor.say("configuration", Fine(format!("{named}no errors")))?;
            Some((config, config_file))
        }
        Err(error) => {
            doctor.say("configuration", wrong(&error))?;
            None
        }
    };
    let (config, config_file) = config.unzip();
    let known = config.clone().unwrap_or_default();
    doctor.say("repository", in_time(&repo_dir, move |repo_dir| local::repository(repo_dir, &known)))?;
    doctor.say("hook", in_time(&repo_dir, local::hook))?;
    let look = |check: fn(&Site) -> Finding| {
        let config = config.clone().unwrap_or_default();
        in_time(&repo_dir, move |repo_dir| {
            Site::with_config(repo_dir.to_owned(), config).map_or_else(|error| wrong(&error), |site| check(&site))
        })
    };
    doctor.say("queue", look(local::queue))?;
    doctor.say("space", look(local::space))?;
    doctor.say("file system", look(local::file_system))?;
    if let Some(mut config) = config.clone() {
        let naming = identify_at(&repo_dir, &mut config).map(|home| Naming::of(&config, &home));
        doctor.say("name", local::name(naming, &repo_dir, &config, config_file.flatten().as_deref()))?;
        doctor.say("refs", look(local::refs))?;
        doctor.say("log", look(local::log))?;
        if config.queue.store.is_some() {
            // With the name under which the repository is posted.
            let known = config.clone();
            let check = move |repo_dir: &Path| {
                Site::with_config(repo_dir.to_owned(), known)
                    .map_or_else(|error| wrong(&error), |site| ledger::ledger(&site))
            };
            doctor.say("ledger", in_time(&repo_dir, check))?;
        }
        doctor.say("authors", local::authors(&config))?;
        doctor.rally(&config, probes)?;
    }
    doctor.end(&repo_dir)
}

struct Doctor {
    colour: bool,
    all_fine: bool,
    /// The line with the path that comes before the first problem. Where many repositories are checked, only problems are
    /// said; empty once it was said.
    heading: Option<String>,
    /// The checks so far, where they are to be one JSON object.
    checks: Option<Vec<Value>>,
    /// What Rally was asked about, since most repositories have the same settings; and the workspace, if it was found.
    asked: Vec<(Asked, Option<String>)>,
}

/// The settings that decide Rally's answers, but for those about one repository.
type Asked = (Rally, Vec<String>);

impl Doctor {
    fn begin(&mut self, repo_dir: &Path) {
        self.all_fine = true;
        self.heading = self.heading.take().map(|_| format!("{}:\n", repo_dir.display()));
    }

    fn end(&mut self, repo_dir: &Path) -> Result<Ended, Error> {
        if let Some(checks) = &mut self.checks {
            let checks = std::mem::take(checks);
            let object = json!({"repository": repo_dir.to_string_lossy(), "fine": self.all_fine, "checks": checks});
            write_out(json_line(&object).as_bytes())?;
            return Ok(Ended::done_if(self.all_fine));
        }
        if self.heading.as_ref().is_some_and(|heading| !heading.is_empty()) {
            self.heading = None;
            self.say("repository", Fine(repo_dir.display().to_string()))?;
            self.heading = Some(String::new());
        }
        Ok(Ended::done_if(self.all_fine))
    }

    fn say(&mut self, what: &str, finding: Finding) -> Result<(), Error> {
        let (mark, word, colour, text) = match &finding {
            Fine(text) => ("ok   ", "ok", 32, text),
            Note(text) => ("note ", "note", 33, text),
            Wrong(text) => ("WRONG", "wrong", 31, text),
        };
        self.all_fine &= !matches!(finding, Wrong(_));
        if let Some(checks) = &mut self.checks {
            checks.push(json!({"check": what, "result": word, "text": text}));
            return Ok(());
        }
        match &mut self.heading {
            Some(_) if matches!(finding, Fine(_)) => return Ok(()),
            Some(heading) => write!(io::stdout(), "{}", std::mem::take(heading))?,
            None => {}
        }
        let mark = if self.colour { format!("\x1b[{colour}m{mark}\x1b[0m") } else { mark.to_owned() };
        writeln!(io::stdout(), "{mark} {what:14} {}", printable(text))?;
        Ok(())
    }
}

/// Does a check of a repository. A file system that hangs ends it.
fn in_time(repo_dir: &Path, check: impl FnOnce(&Path) -> Finding + Send + 'static) -> Finding {
    let (repo_dir, (done, answer)) = (repo_dir.to_owned(), channel());
    thread::spawn(move || done.send(check(&repo_dir)));
    let too_long = || {
        let limit = LOCAL_LIMIT.as_secs();
        Wrong(format!("no answer within {limit} s; a file system may hang, or another process may hold the queue"))
    };
    answer.recv_timeout(LOCAL_LIMIT).unwrap_or_else(|_| too_long())
}
