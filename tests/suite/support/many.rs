//! Many repositories of one server.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::process::Command;

use super::process::spawn;
use super::{Clone, Ran, Server, git, hermetic, program, ran};

/// A server with many repositories in the directories of three teams, and one configuration for all.
pub struct Many {
    pub server: Server,
    pub root: PathBuf,
    pub git_dirs: Vec<PathBuf>,
    config: PathBuf,
    clone: Clone,
}

impl Many {
    /// Sets up so many repositories, in which the hook is not installed. These lines follow those of `[rally]`.
    pub fn without_hook(count: usize, rally: &str, sections: &str) -> Self {
        let server = Server::without_hook();
        let root = server.path().join("root");
        let git_dirs: Vec<PathBuf> =
            (0..count).map(|number| root.join(format!("team{}/repo{number}.git", number % 3))).collect();
        for git_dir in &git_dirs {
            let path = git_dir.display().to_string();
            git(server.path(), &["init", "--quiet", "--bare", "--template=", "--initial-branch=main", &path]);
        }
        let repository = format!("[repository]\nroot = {root:?}\nname = \"{{dir}}\"\n");
        let configuration = server.configuration().rally(rally).sections(&(repository + sections));
        let config = server.write_private("many.toml", &configuration.to_string());
        let clone = server.new_clone();
        std::fs::create_dir(server.path().join("run")).expect("it is new");
        Many { server, root, git_dirs, config, clone }
    }

    /// Sets up so many repositories with the hook.
    pub fn new(count: usize, rally: &str, sections: &str) -> Self {
        let many = Many::without_hook(count, rally, sections);
        many.install();
        many
    }

    pub fn install(&self) -> Ran {
        self.run(&["install", "--config", &self.config.display().to_string()]).succeeds()
    }

    /// Runs the program for all repositories.
    pub fn run(&self, arguments: &[&str]) -> Ran {
        ran(self.command(arguments))
    }

    /// Returns the command that [`run`](Self::run) runs. All processes of the server share their permits.
    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = hermetic(program());
        command.args(arguments).arg("--all-repos").arg(&self.root).current_dir(self.server.path());
        self.sharing(command)
    }

    /// Replaces the configuration of all repositories.
    pub fn configure(&self, change: impl Fn(&str) -> String) {
        let text = std::fs::read_to_string(&self.config).expect("it is there");
        self.server.write_private("many.toml", &change(&text));
    }

    /// Commits to the clone, and returns the revision.
    pub fn commit(&self, message: &str) -> String {
        self.clone.commit(message, &[("a", Some(message)), ("b", Some(message))])
    }

    /// Pushes a revision to these repositories, all at once.
    pub fn push(&self, revision: &str, git_dirs: &[PathBuf]) {
        let push = |git_dir: &PathBuf| {
            let mut push = self.sharing(self.clone.command());
            push.args(["push", "--quiet"]).arg(git_dir).arg(format!("{revision}:refs/heads/main"));
            push
        };
        let pushes: Vec<_> = git_dirs.iter().map(push).map(spawn).collect();
        for mut push in pushes {
            assert!(push.wait().expect("it was ours").success());
        }
    }

    /// Waits until Rally has these revisions in all these repositories, each with both files; asserts that it has each once.
    pub fn wait_for_delivery(&self, revisions: &[&str], git_dirs: &[PathBuf]) {
        self.server.rally.wait_until("all commits with their files", |world| {
            let held = world.changesets();
            held.len() >= git_dirs.len() * revisions.len() && held.iter().all(|changeset| changeset.changes.len() == 2)
        });
        let held = self.server.changesets();
        let places = |git_dir: &PathBuf| {
            let name = git_dir.strip_prefix(&self.root).expect("below").with_extension("").display().to_string();
            revisions.iter().map(move |revision| (name.clone(), (*revision).to_owned())).collect::<Vec<_>>()
        };
        let expected: BTreeSet<(String, String)> = git_dirs.iter().flat_map(places).collect();
        let found: BTreeSet<(String, String)> =
            held.iter().map(|changeset| (changeset.repository.clone(), changeset.revision.clone())).collect();
        assert_eq!(found, expected);
        assert_eq!(held.len(), expected.len(), "each once");
    }

    fn sharing(&self, mut command: Command) -> Command {
        command.env("XDG_RUNTIME_DIR", self.server.path().join("run"));
        command
    }
}
