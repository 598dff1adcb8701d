//! `queue.dir`: the state of repositories apart from their Git directories.

use std::fs;
use std::os::unix::fs::{PermissionsExt, chown, symlink};
use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::support::users::{GROUP, USERS};
use crate::support::{Clone, DELIVER_LATER, Ran, Server, copy, git, hermetic, program, ran};

/// A server whose hooks read a configuration with `queue.dir`.
struct Apart {
    server: Server,
    clone: Clone,
    config: PathBuf,
    base: PathBuf,
}

impl Apart {
    fn new() -> Self {
        let apart = Apart::without_hook();
        apart.install();
        apart
    }

    fn without_hook() -> Self {
        let server = Server::without_hook();
        let base = server.path().canonicalize().expect("it is there").join("queues");
        fs::create_dir(&base).expect("a directory");
        fs::set_permissions(&base, fs::Permissions::from_mode(0o700)).expect("a mode");
        let clone = server.new_clone();
        let config = server.path().join("named.toml");
        fs::copy(server.git_dir.join("api-key"), server.path().join("api-key")).expect("a file");
        let apart = Apart { server, clone, config, base };
        apart.configure(true);
        apart
    }

    fn configure(&self, is_apart: bool) {
        let key = if is_apart { format!("dir = {:?}\n", self.base) } else { String::new() };
        let configuration = self.server.configuration().credentials("api_key_file = \"api-key\"");
        fs::write(&self.config, configuration.sections(&format!("{DELIVER_LATER}{key}")).to_string())
            .expect("it can be written");
    }

    fn install(&self) -> Ran {
        self.run_in(&self.server.git_dir, &["install"]).succeeds()
    }

    fn run(&self, arguments: &[&str]) -> Ran {
        self.run_in(&self.server.git_dir, arguments)
    }

    fn run_in(&self, git_dir: &Path, arguments: &[&str]) -> Ran {
        let mut command = hermetic(program());
        command.args(arguments).arg("--config").arg(&self.config).current_dir(git_dir);
        ran(command)
    }

    fn status_of(&self, git_dir: &Path) -> Value {
        let ran = self.run_in(git_dir, &["status", "--json"]);
        serde_json::from_str(&ran.stdout).unwrap_or_else(|error| panic!("{error}: {ran:?}"))
    }

    fn push(&self, git_dir: &Path, message: &str) -> String {
        self.clone.commit(message, &[("a", Some(message))]);
        self.clone.push(&[&git_dir.display().to_string(), "main"])
    }

    /// Returns the state directories, in the order of their names.
    fn states(&self) -> Vec<PathBuf> {
        let entries = fs::read_dir(&self.base).expect("it is there");
        let mut states: Vec<PathBuf> = entries.map(|entry| entry.expect("it can be read").path()).collect();
        states.sort();
        states
    }

    fn sibling(&self, name: &str) -> PathBuf {
        self.base.with_file_name(name)
    }
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).expect("it is there").permissions().mode() & 0o7777
}

#[test]
fn the_state_lies_below_queue_dir_under_the_name_of_the_repository() {
    let apart = Apart::new();
    apart.push(&apart.server.git_dir, "US1");
    apart.run(&["deliver", "--wait"]).succeeds();
    let states = apart.states();
    let name = states[0].file_name().expect("a name").to_string_lossy();
    assert!(states.len() == 1 && name.starts_with("payments-"), "{states:?}");
    assert!(states[0].join("queue.db").is_file() && states[0].join("log").is_file());
    assert!(!apart.server.git_dir.join("rally-hook").exists());
    assert_eq!((mode(&states[0]), mode(&states[0].join("queue.db"))), (0o700, 0o600));
    apart.run(&["status"]).succeeds();
    assert_eq!(apart.server.changesets().len(), 1);
}

#[test]
fn a_moved_repository_finds_its_state() {
    let apart = Apart::new();
    apart.push(&apart.server.git_dir, "US1");
    let moved = apart.sibling("moved.git");
    fs::rename(&apart.server.git_dir, &moved).expect("it can be moved");
    assert_eq!(apart.status_of(&moved)["pending"], 1);
    apart.push(&moved, "US2");
    apart.run_in(&moved, &["deliver", "--wait"]).succeeds();
    assert_eq!((apart.server.changesets().len(), apart.states().len()), (2, 1));
    assert!(fs::read_to_string(apart.states()[0].join("log")).expect("a log").contains("was moved"));
}

#[test]
fn a_new_repository_in_the_place_of_a_moved_one_has_its_own_state() {
    let apart = Apart::new();
    apart.push(&apart.server.git_dir, "US1");
    let moved = apart.sibling("moved.git");
    fs::rename(&apart.server.git_dir, &moved).expect("it can be moved");
    git(apart.server.path(), &["init", "--quiet", "--bare", "payments.git"]);
    apart.install();
    assert_eq!(apart.status_of(&apart.server.git_dir)["pending"], 0);
    assert_eq!(apart.status_of(&moved)["pending"], 1);
    assert_eq!(apart.states().len(), 2);
}

#[test]
fn a_copy_does_not_share_the_state_of_its_original() {
    let apart = Apart::new();
    apart.push(&apart.server.git_dir, "US1");
    let copied = apart.sibling("copy.git");
    copy(&apart.server.git_dir, &copied);
    let seen = apart.push(&copied, "US2");
    assert!(seen.contains("1 commit queued for US2 (repository copy)"), "{seen}");
    let (original, copy) = (apart.status_of(&apart.server.git_dir), apart.status_of(&copied));
    assert_eq!((&original["pending"], &copy["pending"]), (&1.into(), &1.into()));
    let path = apart.server.git_dir.canonicalize().expect("it is there");
    assert_eq!(copy["copy_of"], path.to_str().expect("UTF-8"));
    let told = apart.run_in(&copied, &["doctor"]).stdout;
    assert!(told.contains(&format!("it is a copy of {}, which posts to \"payments\"", path.display())), "{told}");
}

#[test]
fn state_that_was_deleted_is_reported() {
    let apart = Apart::new();
    apart.push(&apart.server.git_dir, "US1");
    fs::remove_dir_all(&apart.states()[0]).expect("it is there");
    let gone = apart.run(&["status"]).fails_with(1);
    assert!(gone.stderr.contains("is gone") && apart.states().is_empty(), "{gone:?}");
    apart.run(&["catch-up"]).succeeds();
    assert_eq!(apart.status_of(&apart.server.git_dir)["queue_was_lost"], true);
}

#[test]
fn install_moves_the_queue_to_where_queue_dir_says() {
    let apart = Apart::without_hook();
    apart.configure(false);
    apart.install();
    apart.push(&apart.server.git_dir, "US1");
    apart.run(&["deliver", "--wait"]).succeeds();
    apart.push(&apart.server.git_dir, "US2");
    apart.configure(true);
    let doctor = apart.run(&["doctor"]).fails_with(1).stdout;
    assert!(doctor.contains("although queue.dir is ") && doctor.contains("run: rally-hook install"), "{doctor}");
    let told = apart.install().stderr;
    assert!(
        told.contains("moved the queue from ") && !apart.server.git_dir.join("rally-hook/queue.db").exists(),
        "{told}"
    );
    let status = apart.status_of(&apart.server.git_dir);
    assert_eq!(
        (&status["pending"], &status["delivered"], &status["queue_was_lost"]),
        (&1.into(), &1.into(), &false.into())
    );
    apart.push(&apart.server.git_dir, "US3");
    apart.run(&["deliver", "--wait"]).succeeds();
    assert_eq!(apart.server.changesets().len(), 3);
    let log = fs::read_to_string(apart.states()[0].join("log")).expect("a log");
    assert_eq!(log.matches("push by ").count(), 3, "{log}");
}

#[test]
fn until_install_moves_it_the_queue_works_where_it_is() {
    let apart = Apart::without_hook();
    apart.configure(false);
    apart.install();
    apart.configure(true);
    apart.push(&apart.server.git_dir, "US1");
    apart.run(&["deliver", "--wait"]).succeeds();
    assert!(apart.server.changesets().len() == 1 && apart.states().is_empty());
}

#[test]
fn without_queue_dir_the_queue_is_named_and_install_moves_it_back() {
    let apart = Apart::new();
    apart.push(&apart.server.git_dir, "US1");
    apart.configure(false);
    let seen = apart.push(&apart.server.git_dir, "US2");
    assert!(seen.contains("this push is kept") && seen.contains("not below queue.dir"), "{seen}");
    apart.run(&["deliver"]).fails_with(1);
    apart.install();
    apart.run(&["deliver", "--wait"]).succeeds();
    assert_eq!(apart.server.changesets().len(), 2);
    assert!(apart.server.git_dir.join("rally-hook/queue.db").is_file());
}

#[test]
fn a_queue_that_is_in_use_is_not_moved() {
    let apart = Apart::without_hook();
    apart.configure(false);
    apart.install();
    apart.push(&apart.server.git_dir, "US1");
    apart.configure(true);
    let user = rusqlite::Connection::open(apart.server.git_dir.join("rally-hook/queue.db")).expect("a database");
    user.query_row("SELECT count(*) FROM changeset", [], |row| row.get::<_, i64>(0)).expect("it can be read");
    let refused = apart.run(&["install"]).fails_with(1);
    assert!(refused.stderr.contains("another process uses the queue"), "{refused:?}");
    drop(user);
    apart.install();
    assert_eq!(apart.status_of(&apart.server.git_dir)["pending"], 1);
}

#[test]
fn pushes_are_kept_while_the_configuration_is_broken() {
    let apart = Apart::new();
    fs::write(&apart.config, "broken").expect("a file");
    let seen = apart.push(&apart.server.git_dir, "US1");
    assert!(seen.contains("this push is kept until the configuration is fixed"), "{seen}");
    apart.configure(true);
    assert_eq!(apart.status_of(&apart.server.git_dir)["unread_pushes"], 1);
    apart.run(&["deliver", "--wait"]).succeeds();
    assert_eq!(apart.server.changesets().len(), 1);
}

#[test]
fn a_directory_that_others_could_fill_is_refused_and_pushes_are_kept() {
    let apart = Apart::new();
    let elsewhere = apart.sibling("elsewhere");
    let damages: [(&str, &dyn Fn()); 3] = [
        ("everybody may write to it (mode 777)", &|| {
            fs::set_permissions(&apart.base, fs::Permissions::from_mode(0o777)).expect("a mode");
        }),
        ("it is a symbolic link", &|| {
            fs::rename(&apart.base, &elsewhere).expect("it can be moved");
            symlink(&elsewhere, &apart.base).expect("a link");
        }),
        ("No such file or directory", &|| fs::remove_file(&apart.base).expect("it was a link")),
    ];
    for (number, (problem, damage)) in damages.iter().enumerate() {
        damage();
        let seen = apart.push(&apart.server.git_dir, &format!("US{}", number + 1));
        assert!(seen.contains("this push is kept") && seen.contains(problem), "{seen}");
        let refused = apart.run(&["deliver"]).fails_with(1);
        assert!(refused.stderr.contains(problem) && refused.stderr.contains("install -d -m 700"), "{refused:?}");
    }
    fs::rename(&elsewhere, &apart.base).expect("it can be moved");
    fs::set_permissions(&apart.base, fs::Permissions::from_mode(0o700)).expect("a mode");
    apart.run(&["deliver", "--wait"]).succeeds();
    assert_eq!(apart.server.changesets().len(), 3);
}

#[test]
fn the_file_of_a_repository_does_not_set_queue_dir() {
    let server = Server::delivering_later("dir = \"/var/lib/rally-hook/queues\"\n");
    let refused = server.run(&["status"]).fails_with(2);
    assert!(
        refused.stderr.contains("`queue.dir`: the configuration of a repository does not say where"),
        "{refused:?}"
    );
}

#[test]
fn a_repository_that_names_the_state_of_another_one_does_not_get_it() {
    let apart = Apart::new();
    apart.push(&apart.server.git_dir, "US1");
    let thief = apart.sibling("thief.git");
    git(apart.server.path(), &["init", "--quiet", "--bare", "thief.git"]);
    let forged = format!("{}\n{}\n", apart.states()[0].display(), thief.display());
    fs::write(thief.join("rally-hook.queue"), forged).expect("a file");
    let refused = apart.run_in(&thief, &["deliver"]).fails_with(1);
    assert!(refused.stderr.contains("rally-hook.queue names the queue of "), "{refused:?}");
    assert_eq!(apart.status_of(&apart.server.git_dir)["pending"], 1);
}

#[test]
fn a_directory_of_a_group_opens_the_state_to_the_group() {
    let apart = Apart::without_hook();
    if chown(&apart.base, None, Some(GROUP)).is_err() {
        crate::support::skipped("this user may not give files away");
        return;
    }
    fs::set_permissions(&apart.base, fs::Permissions::from_mode(0o2770)).expect("a mode");
    apart.install();
    let state = &apart.states()[0];
    assert_eq!((mode(state), mode(&state.join("queue.db"))), (0o2770, 0o660));
}

#[test]
fn a_git_directory_that_cannot_be_written_has_its_state_by_its_path() {
    let apart = Apart::without_hook();
    let updates = ["US1", "US2"].map(|message| apart.server.import("refs/heads/main", &[message]));
    if !apart.server.give_to(USERS[0]) {
        return;
    }
    chown(&apart.config, Some(0), None).expect("root may do that");
    fs::set_permissions(&apart.server.git_dir, fs::Permissions::from_mode(0o555)).expect("a mode");
    for update in updates {
        let script = format!("printf '%s' '{update}' | $0 --config ../named.toml post-receive");
        let hook = apart.server.run_as(USERS[0], &script);
        assert!(hook.stderr.contains("1 commit queued"), "{hook:?}");
    }
    assert_eq!(apart.states().len(), 1);
    assert!(!apart.server.git_dir.join("rally-hook.queue").exists());
}

#[test]
fn uninstall_finds_the_queue_where_only_the_hook_names_the_configuration() {
    let apart = Apart::new();
    let ran = apart.server.run(&["uninstall"]).succeeds();
    assert!(ran.stderr.contains(&format!("the queue is empty; {}", apart.base.display())), "{ran:?}");
}
