//! Many servers with replicas of the same repositories, one ledger and one Rally.

use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;
use std::process::Command;

use serde_json::Value;

use super::postgres::{OWNER, Postgres, ROLE};
use super::process::{Service, spawn};
use super::{Clone, Ran, Server, git, hermetic, program, ran};

/// A fleet.
pub struct Fleet {
    pub postgres: Postgres,
    /// Has the Rally; its own repository is not used.
    pub server: Server,
    pub hosts: Vec<Host>,
    pub clone: Clone,
    /// The lines of `[rally]`, and further sections of the configuration.
    rally: String,
    sections: String,
}

/// One of its servers.
pub struct Host {
    pub root: PathBuf,
    pub git_dirs: Vec<PathBuf>,
    pub config: PathBuf,
    /// What its processes share.
    run: PathBuf,
}

/// Rally may be at work on a request for 20 s and some more; a lease is over after 11 s.
pub const SHORT: &str = "timeout = \"2s\"\nread_lag = \"10ms\"";

impl Fleet {
    /// Sets up so many servers with so many repositories each, the same ones, with the hook and a migrated ledger. `None`
    /// where PostgreSQL is not installed.
    pub fn new(hosts: usize, repositories: usize, rally: &str) -> Option<Self> {
        let fleet = Fleet::without_hook(hosts, repositories, rally, "")?;
        fleet.migrate();
        fleet.install();
        Some(fleet)
    }

    /// Does the same without hooks and tables. The sections follow in the configuration.
    pub fn without_hook(hosts: usize, repositories: usize, rally: &str, sections: &str) -> Option<Self> {
        let postgres = Postgres::start()?;
        let server = Server::without_hook();
        let clone = server.new_clone();
        let mut fleet = Fleet {
            postgres,
            server,
            hosts: Vec::new(),
            clone,
            rally: rally.to_owned(),
            sections: sections.to_owned(),
        };
        for _ in 0..hosts {
            fleet.add_host(repositories);
        }
        Some(fleet)
    }

    /// Adds a server with new, empty replicas.
    pub fn add_host(&mut self, repositories: usize) -> usize {
        let number = self.hosts.len();
        let base = self.server.path().join(format!("host{number}"));
        let (root, run) = (base.join("root"), base.join("run"));
        fs::create_dir_all(&run).expect("it is new");
        let git_dirs: Vec<PathBuf> = (0..repositories).map(|number| root.join(format!("repo{number}.git"))).collect();
        for git_dir in &git_dirs {
            let path = git_dir.display().to_string();
            git(self.server.path(), &["init", "--quiet", "--bare", "--template=", "--initial-branch=main", &path]);
        }
        let config = self.server.git_dir.join(format!("host{number}.toml"));
        self.hosts.push(Host { root, git_dirs, config, run });
        self.configure(number, Some(&self.postgres.url()));
        number
    }

    /// Writes the configuration of a server, with this ledger or none.
    pub fn configure(&self, host: usize, store: Option<&str>) {
        let Host { root, .. } = &self.hosts[host];
        let store = store.map(|url| format!("store = {url:?}\n")).unwrap_or_default();
        let sections = format!(
            "[repository]\nroot = {root:?}\nname = \"{{dir}}\"\n[queue]\nretry_delay = \"100ms\"\n{store}{}",
            self.sections
        );
        let text = self.server.configuration().rally(&self.rally).sections(&sections);
        self.server.write_private(&format!("host{host}.toml"), &text.to_string());
    }

    pub fn configure_all(&self, store: Option<&str>) {
        (0..self.hosts.len()).for_each(|host| self.configure(host, store));
    }

    /// Makes the tables, as the role that owns them.
    pub fn migrate(&self) {
        let file = self
            .server
            .write_private("migrate.toml", &format!("[queue]\nstore = {:?}\n", self.postgres.url_for(OWNER)));
        let mut migrate = hermetic(program());
        migrate.args(["store", "migrate", "--grant", ROLE, "--config"]).arg(file);
        ran(migrate).succeeds();
    }

    pub fn install(&self) {
        for host in 0..self.hosts.len() {
            self.run(host, &["install"]).succeeds();
        }
    }

    /// Runs a command for all repositories of a server.
    pub fn run(&self, host: usize, arguments: &[&str]) -> Ran {
        ran(self.command(host, arguments))
    }

    pub fn command(&self, host: usize, arguments: &[&str]) -> Command {
        let mut command = self.plain(host, arguments);
        command.arg("--all-repos").arg(&self.hosts[host].root);
        command
    }

    /// Runs a command for one repository of a server.
    pub fn run_in(&self, host: usize, repository: usize, arguments: &[&str]) -> Ran {
        let mut command = self.plain(host, arguments);
        command.arg("--repo").arg(&self.hosts[host].git_dirs[repository]);
        ran(command)
    }

    /// Returns the command for no repository.
    pub fn plain(&self, host: usize, arguments: &[&str]) -> Command {
        let Host { config, run, .. } = &self.hosts[host];
        let mut command = hermetic(program());
        command.args(arguments).arg("--config").arg(config).current_dir(self.server.path());
        command.env("XDG_RUNTIME_DIR", run);
        command
    }

    /// Starts a worker on a server.
    pub fn worker(&self, host: usize) -> Service {
        Service::start(self.command(host, &["worker", "--every", "500ms"]))
    }

    /// Returns what `status --fleet` knows.
    pub fn status(&self) -> Value {
        let ran = ran(self.plain(0, &["status", "--fleet", "--json"]));
        serde_json::from_str(&ran.stdout).unwrap_or_else(|error| panic!("{error}: {ran:?}"))
    }

    /// Commits to the clone, and returns the revision.
    pub fn commit(&self, message: &str) -> String {
        self.clone.commit(message, &[("a", Some(message)), ("b", Some(message))])
    }

    /// Pushes a revision to these repositories of these servers, all at once.
    pub fn push(&self, revision: &str, hosts: &[usize], repositories: &[usize]) {
        let places = hosts.iter().flat_map(|host| repositories.iter().map(move |repository| (*host, *repository)));
        let push = |(host, repository): (usize, usize)| {
            let Host { git_dirs, run, .. } = &self.hosts[host];
            let mut push = self.clone.command();
            push.env("XDG_RUNTIME_DIR", run);
            push.args(["push", "--quiet"]).arg(&git_dirs[repository]).arg(format!("{revision}:refs/heads/main"));
            push
        };
        let pushes: Vec<_> = places.map(push).map(spawn).collect();
        for mut push in pushes {
            assert!(push.wait().expect("it was ours").success());
        }
    }

    /// Waits until Rally has these revisions in these repositories, each with both files; asserts that it has each once.
    pub fn wait_for_delivery(&self, revisions: &[&str], repositories: &[usize]) {
        self.server.rally.wait_until("all commits with their files", |world| {
            let held = world.changesets();
            held.len() >= repositories.len() * revisions.len()
                && held.iter().all(|changeset| changeset.changes.len() == 2)
        });
        self.assert_delivered(revisions, repositories);
    }

    pub fn assert_delivered(&self, revisions: &[&str], repositories: &[usize]) {
        let held = self.server.changesets();
        let places = |repository: &usize| {
            let name = format!("repo{repository}");
            revisions.iter().map(move |revision| (name.clone(), (*revision).to_owned())).collect::<Vec<_>>()
        };
        let expected: BTreeSet<(String, String)> = repositories.iter().flat_map(places).collect();
        let found: BTreeSet<(String, String)> =
            held.iter().map(|changeset| (changeset.repository.clone(), changeset.revision.clone())).collect();
        assert_eq!(found, expected);
        assert_eq!(held.len(), expected.len(), "each once");
    }
}
