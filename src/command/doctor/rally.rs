//! What the doctor finds in Rally: the way there, the credentials, the workspace and the repository's object.

use super::Finding::{self, Fine, Note, Wrong};
use super::{Doctor, probe, wrong};
use crate::clock::now;
use crate::config::{self, Config, Rally, Trust};
use crate::environment::variable;
use crate::host_dir::SYSTEM_DIR;
use crate::process::effective_user;
use crate::rally;
use crate::text::with_causes;
use crate::wsapi::{self, Client, Verdict};

/// By how many seconds the clocks may differ.
const MOST_SECONDS: u64 = 120;

impl Doctor {
    pub(super) fn rally(&mut self, config: &Config, probes: bool) {
        self.say("proxy", proxy(&config.rally));
        let access = match config.rally.access() {
            Ok(access) => access,
            Err(error @ config::Error::NotSet { what: "workspace", .. }) => {
                return self.say("workspace", wrong(&error));
            }
            Err(error) => return self.say("credentials", wrong(&error)),
        };
        let name = access.workspace.clone();
        let mut client = Client::new(&config.rally, access, None);
        let settings = (Rally { trust: Trust::default(), ..config.rally.clone() }, config.commits.prefixes.clone());
        if let Some((_, workspace)) = self.asked.iter().find(|(asked, _)| *asked == settings) {
            let Some(workspace) = workspace else { return };
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
        self.say("server", Fine(format!("{}, which answers in {took} ms", config.rally.server)));
        self.say("clock", clock(client.server_ahead()));
        self.say(
            "credentials",
            Fine(format!("they belong to user {}", user["UserName"].as_str().unwrap_or("(unnamed)"))),
        );
        self.say("request limit", request_limit(&client, config.rally.max_concurrent_requests));
        self.say("rights", rights(&client));
        self.workspace(&mut client, &name, config, probes);
    }

    /// Looks at the workspace, and at what is in it.
    fn workspace(&mut self, client: &mut Client, name: &str, config: &Config, probes: bool) {
        let workspace = match rally::workspace(client, name) {
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
        self.say("workspace", finding);
        self.say("prefixes", prefixes(client, &config.commits.prefixes));
        if config.state.update {
            self.say("states", states(client, &config.commits.prefixes));
        }
        self.say("SCMRepository", scm_repository(client, config));
        if probes {
            probe::run(client, &workspace.rally_ref, config.rally.read_lag, &mut |what, how| self.say(what, how));
        }
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
    match rally::find_repository(client, &config.repository) {
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
