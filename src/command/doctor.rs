//! `rally-hook doctor`: is everything in place, and what is to be done where it is not.

use std::io::{self, IsTerminal, Write};
use std::path::Path;
use std::sync::mpsc::channel;
use std::thread;
use std::time::Duration;

use serde_json::{Value, json};

use super::hook_file::{self, HOOK, Hook, KEPT, KEPT_BEFORE, is_executable};
use super::identity::{Naming, identify_at};
use super::many::{Which, each};
use super::{Ended, Error, Site, as_owner, config_file, from_now, git_dir, load_config, neighbours, probe};
use crate::cli::{self, Place};
use crate::clock::now;
use crate::config::{self, Commits, Config, Rally, Trust};
use crate::environment::variable;
use crate::host_dir::SYSTEM_DIR;
use crate::process::{self, effective_user};
use crate::queue::{AFTER_LOSS, AtWork, Pause, Status, Store};
use crate::rally;
use crate::refs::RefPatterns;
use crate::text::{json_safe, plural, printable, with_causes};
use crate::vcs::{self, Repository};
use crate::wsapi::{self, Client, Verdict};

/// A check of what is on this machine may take so long.
const LOCAL_LIMIT: Duration = Duration::from_secs(30);
/// Less space means that a few large pushes fill it: in bytes, and in files.
const LEAST_SPACE: u64 = 50_000_000;
const LEAST_FILES: u64 = 100;
/// By how many seconds the clocks may differ.
const MOST_SECONDS: u64 = 120;

/// How one check went.
pub(super) enum Finding {
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
    let git_dir = git_dir(place)?;
    doctor.begin(&git_dir);
    let loaded = config_file(place, &git_dir).and_then(|file| Ok((load_config(file.as_deref(), &git_dir)?, file)));
    let config = match loaded {
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
    doctor.say("repository", in_time(&git_dir, repository))?;
    doctor.say("hook", in_time(&git_dir, hook))?;
    let (config, config_file) = config.unzip();
    let look = |check: fn(&Site) -> Finding| {
        let config = config.clone().unwrap_or_default();
        in_time(&git_dir, move |git_dir| {
            Site::with_config(git_dir.to_owned(), config).map_or_else(|error| wrong(&error), |site| check(&site))
        })
    };
    doctor.say("queue", look(queue))?;
    doctor.say("space", look(space))?;
    doctor.say("file system", look(file_system))?;
    if let Some(mut config) = config.clone() {
        let naming = identify_at(&git_dir, &mut config).map(|home| Naming::of(&config, &home));
        doctor.say("name", name(naming, &git_dir, &config, config_file.flatten().as_deref()))?;
        doctor.say("refs", look(refs))?;
        doctor.say("log", look(log))?;
        doctor.say("authors", authors(&config))?;
        doctor.rally(&config, probes)?;
    }
    doctor.end(&git_dir)
}

struct Doctor {
    colour: bool,
    all_fine: bool,
    /// Of many repositories only what is not fine is said, below a line with the path, which is said first.
    heading: Option<String>,
    /// The checks so far, where they are to be one JSON object.
    checks: Option<Vec<Value>>,
    /// What Rally was asked about, since most repositories have the same settings; and the workspace, if it was found.
    asked: Vec<(Asked, Option<String>)>,
}

/// The settings that decide Rally's answers, but for those about one repository.
type Asked = (Rally, Vec<String>);

impl Doctor {
    fn begin(&mut self, git_dir: &Path) {
        self.all_fine = true;
        self.heading = self.heading.take().map(|_| format!("{}:\n", git_dir.display()));
    }

    fn end(&mut self, git_dir: &Path) -> Result<Ended, Error> {
        if let Some(checks) = &mut self.checks {
            let checks = std::mem::take(checks);
            let object = json!({"repository": git_dir.to_string_lossy(), "fine": self.all_fine, "checks": checks});
            writeln!(io::stdout(), "{}", json_safe(&object.to_string()))?;
            return Ok(Ended::done_if(self.all_fine));
        }
        if self.heading.as_ref().is_some_and(|heading| !heading.is_empty()) {
            self.heading = None;
            self.say("repository", Fine(git_dir.display().to_string()))?;
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

    fn rally(&mut self, config: &Config, probes: bool) -> Result<(), Error> {
        self.say("proxy", proxy(&config.rally))?;
        let access = match config.rally.access() {
            Ok(access) => access,
            Err(error @ config::Error::NotSet { what: "workspace", .. }) => {
                return self.say("workspace", wrong(&error));
            }
            Err(error) => return self.say("credentials", wrong(&error)),
        };
        let name = access.workspace.clone();
        let mut client = Client::new(&config.rally, access);
        let settings = (Rally { trust: Trust::default(), ..config.rally.clone() }, config.commits.prefixes.clone());
        if let Some((_, workspace)) = self.asked.iter().find(|(asked, _)| *asked == settings) {
            let Some(workspace) = workspace else { return Ok(()) };
            client.set_workspace(workspace);
            return self.say("SCMRepository", scm_repository(&client, config));
        }
        self.asked.push((settings, None));
        let asked_at = now();
        let user = match client.read("/user", "UserName,DisplayName,Disabled") {
            Ok(user) => user,
            Err(error @ wsapi::Error::Status { code: 401 | 403, .. }) => {
                return self.say("credentials", wrong(&error));
            }
            Err(error) => return self.say("server", wrong(&error)),
        };
        let took = now().since(asked_at).as_millis();
        self.say("server", Fine(format!("{}, which answers in {took} ms", config.rally.server)))?;
        self.say("clock", clock(client.server_ahead()))?;
        self.say(
            "credentials",
            Fine(format!("they belong to user {}", user["UserName"].as_str().unwrap_or("(unnamed)"))),
        )?;
        self.say("request limit", request_limit(&client, config.rally.max_concurrent_requests))?;
        self.say("rights", rights(&client))?;
        let workspace = match rally::workspace(&client, &name) {
            Ok(workspace) => workspace,
            Err(error) => return self.say("workspace", wrong(&error)),
        };
        client.set_workspace(&workspace.rally_ref);
        self.asked.iter_mut().rev().take(1).for_each(|(_, known)| *known = Some(workspace.rally_ref.clone()));
        let finding = match workspace.changesets_enabled {
            Some(true) => Fine(format!("{name}, which shows Changesets")),
            Some(false) => Wrong(format!(
                "{name} does not show Changesets; a workspace administrator must enable \"Build and Changeset\""
            )),
            None => Note(format!(
                "{name}; it does not say whether it shows Changesets (Build and Changeset must be enabled)"
            )),
        };
        self.say("workspace", finding)?;
        self.say("prefixes", prefixes(&client, &config.commits.prefixes))?;
        if config.state.update {
            self.say("states", states(&client, &config.commits.prefixes))?;
        }
        self.say("SCMRepository", scm_repository(&client, config))?;
        match probes {
            true => {
                probe::run(&client, &workspace.rally_ref, config.rally.read_lag, &mut |what, how| self.say(what, how))
            }
            false => Ok(()),
        }
    }
}

/// Tells under which name the repository is posted, and whether other repositories of this host are too.
fn name(naming: Option<Naming>, git_dir: &Path, config: &Config, config_file: Option<&Path>) -> Finding {
    let name = &config.repository.name;
    match (neighbours::look(git_dir, config, config_file), naming) {
        (Ok(Some(clash)), _) | (_, Some(Naming::Clash(clash))) => Wrong(clash),
        (_, Some(Naming::Notable(text))) => Note(text),
        (Ok(None), _) => Fine(format!("{name}, a name that no other repository of this host has by accident")),
        (Err(error), _) => {
            Note(format!("{name}; whether others of this host post to it is not known: {}", with_causes(&error)))
        }
    }
}

fn repository(git_dir: &Path) -> Finding {
    match Repository::open(git_dir).and_then(|repository| repository.ref_names()) {
        Ok(names) => Fine(format!("{} with {}", git_dir.display(), plural(names.len(), "ref"))),
        Err(error) => wrong(&error),
    }
}

fn hook(git_dir: &Path) -> Finding {
    let hooks = match vcs::hooks_dir(git_dir) {
        Ok(dir) => dir,
        Err(error) => return wrong(&error),
    };
    let hook = hooks.join(HOOK);
    let name = hook.display();
    match hook_file::look(&hooks) {
        Hook::IsDispatched(file) => Fine(format!("{}, which the host's own hook runs", file.display())),
        Hook::Missing => Wrong(format!("{name} does not exist; run: rally-hook install")),
        Hook::NotExecutable => Wrong(format!("{name} is not executable, so Git ignores it; run: chmod +x {name}")),
        Hook::OnNoexecMount => Wrong(format!(
            "{name} lies on a file system mounted noexec, so Git ignores it; set core.hooksPath to a directory on another \
             one, then run: rally-hook install"
        )),
        Hook::ProgramGone => {
            Wrong(format!("{name} calls a program that does not exist any more; run: rally-hook install"))
        }
        Hook::Other => Wrong(format!(
            "{name} does not call rally-hook, so pushes are not posted; run: rally-hook install (it keeps that hook)"
        )),
        Hook::Runs => kept_hooks(&hook),
    }
}

/// Tells whether the hooks that ours keeps run.
fn kept_hooks(hook: &Path) -> Finding {
    let name = hook.display();
    let kept = [hook.with_file_name(KEPT), hook.with_file_name(KEPT_BEFORE)];
    match kept {
        [kept, _] if kept.exists() && !is_executable(&kept) => Note(format!(
            "{name}; the hook that it keeps, {0}, is not executable and does not run; run: chmod +x {0}",
            kept.display()
        )),
        [_, older] if older.exists() => {
            Note(format!("{name}; an older hook, {}, is kept and does not run; remove it", older.display()))
        }
        _ => Fine(name.to_string()),
    }
}

fn queue(site: &Site) -> Finding {
    let mut store = Store::new(site.state.clone(), Duration::from_secs(1));
    let looked: Result<_, Error> = store.run(|queue| {
        let (_, strange) = site.state.kept_pushes()?;
        Ok((queue.status(now())?, site.state.at_work()?, strange))
    });
    for notice in store.notices() {
        site.note(notice);
    }
    let (status, at_work, strange) = match looked {
        Ok(found) => found,
        Err(error) => return wrong(&error),
    };
    if let Some(strange) = strange.first() {
        return Wrong(format!("{} is not a push that rally-hook kept; remove it", strange.display()));
    }
    if let Some(base) = site.config.queue.dir.as_ref().filter(|_| !site.state.is_elsewhere()) {
        return Wrong(format!(
            "it lies in {}, although queue.dir is {}; run: rally-hook install",
            site.state.path().display(),
            base.display()
        ));
    }
    match state_of_queue(&status) {
        Note(text) if status.is_work_left() && at_work == AtWork::Nobody => {
            Note(format!("{text}; no process is at work on it; run `rally-hook deliver`"))
        }
        finding => finding,
    }
}

/// Tells whether the queue lies where other hosts may use it too, which its locks are not made for.
fn file_system(site: &Site) -> Finding {
    let looked: Result<_, Error> =
        Store::new(site.state.clone(), Duration::from_secs(1)).run(|queue| Ok(queue.network()?));
    let remedy = "set queue.dir to a directory on a local disk, then run: rally-hook install";
    let on = |network| format!("the queue lies on a network file system ({network})");
    match looked {
        Ok(None) => Fine("the queue lies on a local one".into()),
        Ok(Some((network, true))) => {
            Note(format!("{}, so hooks and commands may run on one host only; {remedy}", on(network)))
        }
        Ok(Some((network, false))) => {
            Wrong(format!("{}, and has a write-ahead log, which needs a local one; {remedy}", on(network)))
        }
        Err(error) => wrong(&error),
    }
}

/// Names all that a person has to act on; of the rest, what matters most.
fn state_of_queue(status: &Status) -> Finding {
    let pause = status.pause.as_ref();
    let pauses = |pause: &Pause| format!("delivery pauses: {}; `rally-hook deliver` tries again at once", pause.error);
    let wrong = [
        status.lost.then(|| format!("it was lost, and what was queued may be missing in Rally; {AFTER_LOSS}")),
        (status.failed > 0).then(|| format!("{}; `rally-hook status` says why", plural(status.failed, "dead letter"))),
        pause.filter(|pause| pause.needs_person).map(pauses),
    ];
    let wrong: Vec<String> = wrong.into_iter().flatten().collect();
    if !wrong.is_empty() {
        return Wrong(wrong.join("; "));
    }
    if let Some(pause) = pause {
        return Note(pauses(pause));
    }
    if status.pushes > 0 {
        let pushes = plural(status.pushes, "push");
        return Note(format!(
            "it holds {pushes} whose commits are not recorded yet; `rally-hook deliver` records them"
        ));
    }
    match status.oldest_pending {
        Some(oldest) => Note(format!("{} queued, the oldest recorded {}", status.pending, from_now(oldest))),
        None => Fine(format!("{} delivered, none queued", status.delivered)),
    }
}

/// Tells whether all watched refs have been recorded.
fn refs(site: &Site) -> Finding {
    let repository = site.repository().map_err(Error::from);
    let behind = repository.and_then(|repository| site.with_recorder(&repository, |recorder| recorder.refs_behind()));
    let unmatched = unmatched_patterns(&site.git_dir, &site.config.commits.refs);
    match behind {
        Ok(refs) if refs.is_empty() && !unmatched.is_empty() => Note(format!(
            "no ref matches {}; check commits.refs, unless such refs are pushed later",
            unmatched.join(", ")
        )),
        Ok(refs) if refs.is_empty() => Fine("all watched refs are recorded".into()),
        Ok(refs) => Note(format!("commits of {} are not recorded; run: rally-hook catch-up", refs.join(", "))),
        Err(error) => wrong(&error),
    }
}

/// Does a check of a repository. A file system that hangs ends it.
fn in_time(git_dir: &Path, check: impl FnOnce(&Path) -> Finding + Send + 'static) -> Finding {
    let (git_dir, (done, answer)) = (git_dir.to_owned(), channel());
    thread::spawn(move || done.send(check(&git_dir)));
    let too_long = || {
        let limit = LOCAL_LIMIT.as_secs();
        Wrong(format!("no answer within {limit} s; a file system may hang, or another process may hold the queue"))
    };
    answer.recv_timeout(LOCAL_LIMIT).unwrap_or_else(|_| too_long())
}

/// Tells whether there is room for the queue.
fn space(site: &Site) -> Finding {
    let dir = site.state.path();
    match process::free_space(dir) {
        Ok((bytes, files)) if bytes < LEAST_SPACE || files < LEAST_FILES => Wrong(format!(
            "{} MB and {files} files are left for the queue; without space, pushes are not recorded; make some",
            bytes / 1_000_000
        )),
        Ok((bytes, _)) => Fine(format!("{} MB are left for the queue", bytes / 1_000_000)),
        Err(error) => Wrong(format!("{}: its file system does not tell its space: {error}", dir.display())),
    }
}

/// Compares the clocks. The times in Rally come from commits; this machine's clock decides about retries and certificates.
fn clock(ahead: Option<i64>) -> Finding {
    match ahead {
        Some(ahead) if ahead.unsigned_abs() > MOST_SECONDS => Wrong(format!(
            "this machine's clock is {} s {} Rally's; set it, for example with chrony",
            ahead.unsigned_abs(),
            if ahead > 0 { "behind" } else { "ahead of" }
        )),
        Some(_) => Fine("it agrees with Rally's".into()),
        None => Note("not compared: Rally's answer has no date".into()),
    }
}

/// Lists the states that messages may set.
fn states(client: &Client, prefixes: &[String]) -> Finding {
    let allowed = || {
        let mut lists = Vec::new();
        for kind in rally::artifact_types(client)?.iter().filter(|kind| prefixes.contains(&kind.prefix)) {
            let names = rally::state_names(client, kind)?.filter(|names| !names.is_empty());
            lists.extend(names.map(|names| format!("{}: {}", kind.prefix, names.join(", "))));
        }
        Ok::<_, wsapi::Error>(lists)
    };
    match allowed() {
        Ok(lists) if lists.is_empty() => Note("the workspace lets no state of these types be set".into()),
        Ok(lists) => Fine(lists.join("; ")),
        Err(error) => wrong(&error),
    }
}

/// Returns the patterns that match no ref of the repository, if it has any refs; the defaults are no mistake.
fn unmatched_patterns(git_dir: &Path, patterns: &[String]) -> Vec<String> {
    let names = Repository::open(git_dir).and_then(|repository| repository.ref_names()).unwrap_or_default();
    let is_matched = |pattern: &String| {
        let refs = RefPatterns::new(std::slice::from_ref(pattern));
        names.iter().any(|name| refs.matches(name))
    };
    let is_default = |pattern: &String| Commits::default().refs.contains(pattern);
    let unmatched = patterns.iter().filter(|pattern| !is_default(pattern) && !is_matched(pattern));
    unmatched.filter(|_| !names.is_empty()).map(|pattern| format!("{pattern:?}")).collect()
}

/// Tells whether the log can be written. Nothing else ever says so.
fn log(site: &Site) -> Finding {
    match site.log.check() {
        Ok(place) => Fine(place),
        Err(error) => Wrong(format!("{}; set log.file or log.target, or make it writable", with_causes(&error))),
    }
}

/// Tells whether the map of authors can be read.
fn authors(config: &Config) -> Finding {
    match (&config.authors.map_file, config.authors.map()) {
        (_, Err(error)) => wrong(&error),
        (Some(file), Ok(map)) => Fine(format!("{} has {}", file.display(), plural(map.len(), "author"))),
        (None, Ok(_)) => Fine("no map_file is set".into()),
    }
}

fn proxy(rally: &Rally) -> Finding {
    let variables = ["HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"];
    let set = variables.iter().find(|name| variable(name).is_some());
    match (&rally.proxy, set) {
        (Some(_), _) => Note("rally.proxy is used".into()),
        (None, Some(name)) => Note(format!(
            "the environment's {name} is used, unless NO_PROXY names the server; hooks may have another environment"
        )),
        (None, None) => Fine("none".into()),
    }
}

/// Tells which processes keep the limit together.
fn request_limit(client: &Client, limit: usize) -> Finding {
    let permits = client.permits();
    let refused: String = permits.refused().iter().map(|error| format!("; {}", with_causes(error))).collect();
    match permits.dir() {
        Some(dir) => {
            let text = format!("{limit} at once, for all processes that share {}{refused}", dir.display());
            if refused.is_empty() { Fine(text) } else { Note(text) }
        }
        None => Note(format!(
            "{limit} at once for each process, not for all: there is no directory for their locks{refused}; as root, run: \
             install -d -m 700 -o {} {SYSTEM_DIR}",
            effective_user()
        )),
    }
}

/// Finds out whether the credentials may write, by an update that changes nothing of an object that does not exist: Rally
/// looks for the object only if the user may write (docs/wsapi.md, 3.1).
fn rights(client: &Client) -> Finding {
    let nothing = wsapi::Write { path: "/changeset/1".into(), body: serde_json::json!({"Changeset": {}}) };
    match client.write(&nothing) {
        Ok(_) => Fine("writes are not refused".into()),
        Err(error) if error.is_about_missing_object() => Fine("writes are not refused".into()),
        Err(error) if matches!(error.verdict(), Verdict::Stop | Verdict::Refused) => wrong(&error),
        Err(error) => Note(format!(
            "not known, because the question failed: {}; run `rally-hook doctor` again, or with --probe",
            with_causes(&error)
        )),
    }
}

/// Compares the configured prefixes with the workspace's own.
fn prefixes(client: &Client, configured: &[String]) -> Finding {
    let types = match rally::artifact_types(client) {
        Ok(types) => types,
        Err(error) => return wrong(&error),
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

fn scm_repository(client: &Client, config: &Config) -> Finding {
    let name = config.repository.name.clone();
    match rally::find_repository(client, &name) {
        Ok(Some(_)) => Fine(name),
        Ok(None) if config.repository.create => {
            match config.repository.projects.iter().try_for_each(|name| rally::project(client, name).map(drop)) {
                Ok(()) => Note(format!("{name} does not exist yet; the first delivery creates it")),
                Err(error) => wrong(&error),
            }
        }
        Ok(None) => wrong(&rally::Error::NoRepository { name }),
        Err(error) => wrong(&error),
    }
}
