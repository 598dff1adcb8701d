//! `rally-hook doctor`: is everything in place, and what is to be done where it is not.

use std::fs;
use std::io::{self, IsTerminal, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use super::{Ended, Error, git_dir};
use crate::cli::Place;
use crate::config::{self, Config, Rally};
use crate::context::{self, Context, now};
use crate::deliver::{Authors, lookup, rally};
use crate::git;
use crate::queue::{self, Queue, StateDir, Status};
use crate::record;
use crate::text::printable;
use crate::wsapi::{self, Client, Verdict};

/// How one check went.
enum Finding {
    Fine(String),
    /// Worth knowing, and no hindrance.
    Note(String),
    Wrong(String),
}
use Finding::{Fine, Note, Wrong};

pub fn run(place: &Place) -> Result<Ended, Error> {
    let git_dir = git_dir(place)?;
    let mut doctor =
        Doctor { colour: io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none(), all_fine: true };
    let config_file = super::config_file(place, &git_dir);
    let config = match Config::load(config_file.as_deref(), &git_dir) {
        Ok(config) => {
            let named = config_file.map(|file| format!("{}: ", file.display())).unwrap_or_default();
            doctor.say("configuration", Fine(format!("{named}every key is known")))?;
            Some(config)
        }
        Err(error) => {
            doctor.say("configuration", Wrong(error.to_string()))?;
            None
        }
    };
    doctor.say("repository", repository(&git_dir))?;
    doctor.say("hook", hook(&git_dir))?;
    doctor.say("queue", queue(&git_dir))?;
    if let Some(config) = config {
        doctor.say("refs", refs(&git_dir, &config))?;
        doctor.say("log", log(&git_dir, &config))?;
        doctor.say("authors", authors(&config))?;
        doctor.rally(&git_dir, &config)?;
    }
    Ok(if doctor.all_fine { Ended::Done } else { Ended::NotAll })
}

struct Doctor {
    colour: bool,
    all_fine: bool,
}

impl Doctor {
    fn say(&mut self, what: &str, finding: Finding) -> Result<(), Error> {
        let (mark, colour, text) = match &finding {
            Fine(text) => ("ok   ", 32, text),
            Note(text) => ("note ", 33, text),
            Wrong(text) => ("WRONG", 31, text),
        };
        self.all_fine &= !matches!(finding, Wrong(_));
        let mark = if self.colour { format!("\x1b[{colour}m{mark}\x1b[0m") } else { mark.to_owned() };
        writeln!(io::stdout(), "{mark} {what:14} {}", printable(text))?;
        Ok(())
    }

    fn rally(&mut self, git_dir: &Path, config: &Config) -> Result<(), Error> {
        self.say("proxy", proxy(&config.rally))?;
        let (mut client, name) = match rally::client(config) {
            Ok(found) => found,
            Err(rally::Halt::Config(error @ config::Error::NotSet { what: "workspace", .. })) => {
                return self.say("workspace", Wrong(error.to_string()));
            }
            Err(error) => return self.say("credentials", Wrong(error.to_string())),
        };
        let user = match client.read("/user", "UserName,DisplayName,Disabled") {
            Ok(user) => user,
            Err(error @ wsapi::Error::Status { code: 401 | 403, .. }) => {
                return self.say("credentials", Wrong(error.to_string()));
            }
            Err(error) => return self.say("server", Wrong(error.to_string())),
        };
        self.say("server", Fine(config.rally.server.clone()))?;
        self.say(
            "credentials",
            Fine(format!("they are of user {}", user["UserName"].as_str().unwrap_or("(unnamed)"))),
        )?;
        self.say("rights", rights(&client))?;
        let workspace = match lookup::workspace(&client, &name) {
            Ok(workspace) => workspace,
            Err(error) => return self.say("workspace", Wrong(error.to_string())),
        };
        client.set_workspace(&workspace.rally_ref);
        let finding = match workspace.changesets_enabled {
            Some(true) => Fine(format!("{name}, which shows Changesets")),
            Some(false) => Wrong(format!(
                "{name} does not show Changesets; a workspace administrator has to enable \"Build and Changeset\""
            )),
            None => Note(format!(
                "{name}; it does not say whether it shows Changesets (Build and Changeset must be enabled)"
            )),
        };
        self.say("workspace", finding)?;
        self.say("prefixes", prefixes(&client, &config.commits.prefixes))?;
        self.say("SCMRepository", scm_repository(&client, git_dir, config))
    }
}

fn repository(git_dir: &Path) -> Finding {
    match git::Repository::open(git_dir).and_then(|repository| repository.tips()) {
        Ok(tips) => Fine(format!("{} with {}", git_dir.display(), super::plural(tips.len(), "ref"))),
        Err(error) => Wrong(error.to_string()),
    }
}

fn hook(git_dir: &Path) -> Finding {
    let hook = match git::hooks_dir(git_dir) {
        Ok(dir) => dir.join("post-receive"),
        Err(error) => return Wrong(error.to_string()),
    };
    let Ok(meta) = fs::metadata(&hook) else {
        return Wrong(format!("{} is not there; run: rally-hook install", hook.display()));
    };
    if meta.permissions().mode() & 0o111 == 0 {
        return Wrong(format!(
            "{} is not executable, so Git passes over it; run: chmod +x {}",
            hook.display(),
            hook.display()
        ));
    }
    match fs::read(&hook) {
        Ok(bytes) if program_of(&bytes).is_some_and(|program| !program.exists()) => {
            Wrong(format!("{} calls a program that is not there any more; run: rally-hook install", hook.display()))
        }
        Ok(bytes) if !String::from_utf8_lossy(&bytes).contains("rally-hook") && !hook.is_symlink() => Wrong(format!(
            "{} is another program's and does not call rally-hook, so pushes are not posted; run: rally-hook install",
            hook.display()
        )),
        _ => Fine(hook.display().to_string()),
    }
}

/// Returns the program that a hook of ours calls: its interpreter, or what its shell executes.
fn program_of(hook: &[u8]) -> Option<PathBuf> {
    let text = std::str::from_utf8(hook).ok()?;
    let quoted = text.lines().find_map(|line| line.strip_prefix("exec '")?.split_once("' post-receive"));
    let interpreter = || text.lines().next()?.strip_prefix("#!")?.strip_suffix(" post-receive");
    quoted
        .map(|(program, _)| program.replace(r"'\''", "'"))
        .or_else(|| interpreter().map(str::to_owned))
        .map(PathBuf::from)
}

fn queue(git_dir: &Path) -> Finding {
    let opened = StateDir::open(git_dir, context::sharing(git_dir)).and_then(|state| {
        let lock = state.lock_file("deliver.lock")?;
        Ok((Queue::open(&state, std::time::Duration::from_secs(1))?, lock))
    });
    let (queue, lock) = match opened {
        Ok(opened) => opened,
        Err(error) => return Wrong(error.to_string()),
    };
    if let Err(std::fs::TryLockError::Error(error)) = lock.try_lock() {
        return Wrong(format!(
            "files cannot be locked there ({error}); is it a network file system? Put the repository on a local disk"
        ));
    }
    match queue.status() {
        Ok(status) if status.failed > 0 => {
            Wrong(format!("{} dead letters; `rally-hook status` lists them", status.failed))
        }
        Ok(Status { pause: Some(pause), .. }) => {
            let text = format!("delivery pauses: {}; `rally-hook deliver` tries again now", pause.error);
            if pause.needs_person { Wrong(text) } else { Note(text) }
        }
        Ok(status) if status.lost => Note(
            "it was lost or damaged, and what waited in it may be gone; run `rally-hook backfill` over the last pushes"
                .into(),
        ),
        Ok(status) if status.pushes > 0 => {
            Note("there are pushes that nobody has read yet; `rally-hook deliver` does".into())
        }
        Ok(status) => match status.oldest_pending {
            Some(oldest) => {
                Note(format!("{} pending, the oldest for {} minutes", status.pending, (now() - oldest) / 60_000))
            }
            None => Fine(format!("{} delivered, nothing pending", status.delivered)),
        },
        Err(error) => Wrong(error.to_string()),
    }
}

/// Tells whether all watched refs have been recorded.
fn refs(git_dir: &Path, config: &Config) -> Finding {
    let behind = Context::new(git_dir.to_owned(), config.clone()).map_err(context::Error::from).and_then(|context| {
        let queue = context.open_queue()?;
        record::refs_behind(&context, &queue)
    });
    match behind {
        Ok(refs) if refs.is_empty() => Fine("all that are watched are recorded".into()),
        Ok(refs) => Note(format!("{} hold commits that are not recorded; run: rally-hook catch-up", refs.join(", "))),
        Err(error) => Wrong(error.to_string()),
    }
}

/// Tells whether the log can be written. Nothing else ever says so.
fn log(git_dir: &Path, config: &Config) -> Finding {
    let path = git_dir.join(&config.log.file);
    let opened = StateDir::open(git_dir, context::sharing(git_dir)).and_then(|state| {
        let open = state.open_file(&path, fs::OpenOptions::new().create(true).append(true));
        open.map_err(|source| queue::Error::Directory { path: path.clone(), source })
    });
    match opened {
        Ok(_) => Fine(path.display().to_string()),
        Err(error) => Wrong(format!("{error}; set log.file, or make it so that it can be written")),
    }
}

/// Tells whether the map of authors can be read.
fn authors(config: &Config) -> Finding {
    match (&config.authors.map_file, Authors::new(&config.authors)) {
        (_, Err(error)) => Wrong(error.to_string()),
        (Some(file), Ok(_)) => Fine(format!("{} is read", file.display())),
        (None, Ok(_)) => Fine("no map_file is set".into()),
    }
}

fn proxy(rally: &Rally) -> Finding {
    let variables = ["HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"];
    let set = variables.iter().find(|name| std::env::var_os(name).is_some_and(|value| !value.is_empty()));
    match (&rally.proxy, set) {
        (Some(_), _) => Note("rally.proxy is used".into()),
        (None, Some(name)) => Note(format!(
            "the environment's {name} is used, unless NO_PROXY names the server; hooks may have another environment"
        )),
        (None, None) => Fine("none".into()),
    }
}

/// Finds out whether the credentials may write, by an update that changes nothing of an object that is not there.
fn rights(client: &Client) -> Finding {
    let nothing = wsapi::Write { path: "/changeset/1".into(), body: serde_json::json!({"Changeset": {}}) };
    match client.write(&nothing) {
        Err(error) if error.verdict() == Verdict::Stop => Wrong(error.to_string()),
        _ => Fine("writes are not refused".into()),
    }
}

/// Compares the configured prefixes with the workspace's own.
fn prefixes(client: &Client, configured: &[String]) -> Finding {
    let types = match lookup::artifact_types(client) {
        Ok(types) => types,
        Err(error) => return Wrong(error.to_string()),
    };
    let list = |names: &mut dyn Iterator<Item = String>| names.collect::<Vec<_>>().join(", ");
    let is_known = |prefix: &&String| types.iter().any(|kind| kind.prefix == **prefix);
    let unknown = list(&mut configured.iter().filter(|prefix| !is_known(prefix)).cloned());
    let unused = list(
        &mut types
            .iter()
            .filter(|kind| !configured.contains(&kind.prefix))
            .map(|kind| format!("{} ({})", kind.prefix, kind.path)),
    );
    match (unknown.is_empty(), unused.is_empty()) {
        (true, true) => Fine(configured.join(", ")),
        (true, false) => Fine(format!("{}; the workspace also has {unused}", configured.join(", "))),
        (false, _) if !configured.iter().any(|prefix| is_known(&prefix)) => {
            Wrong(format!("the workspace has none of: {unknown}; it has: {unused}; set commits.prefixes"))
        }
        (false, _) => {
            Note(format!("the workspace has none of: {unknown}; it has also: {unused}; set commits.prefixes"))
        }
    }
}

fn scm_repository(client: &Client, git_dir: &Path, config: &Config) -> Finding {
    let name = match Context::new(git_dir.to_owned(), config.clone()) {
        Ok(context) => context.repository_name(),
        Err(error) => return Wrong(error.to_string()),
    };
    match lookup::by_name(client, "/scmrepository", rally::posted_name(&name)) {
        Ok(Some(_)) => Fine(name),
        Ok(None) if config.repository.create => match rally::projects(client, config) {
            Ok(_) => Note(format!("{name} is not there yet; the first delivery makes it")),
            Err(error) => Wrong(error.to_string()),
        },
        Ok(None) => {
            Wrong(format!("{name} is not there, and repository.create is off: make it in Rally, or switch it on"))
        }
        Err(error) => Wrong(error.to_string()),
    }
}
