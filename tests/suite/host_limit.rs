//! One limit for the host: what the processes that use one account of Rally do together.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::time::Duration;

use rally_simulator::Action;

use crate::support::host::{delivering, queue_a_commit, repository, sharing};
use crate::support::process::{holders, kill, spawn, wait_for};
use crate::support::{DELIVER_LATER, Server, ran};

const REPOSITORIES: usize = 20;

/// Sets up many repositories, with these lines of `[rally]`.
fn many_repositories(server: &Server, rally: &str) -> Vec<PathBuf> {
    (0..REPOSITORIES).map(|number| repository(server, &format!("repository{number}"), rally, "")).collect()
}

/// Pushes a commit with two files to each repository, all at once, and waits until Rally has them.
fn push_to_all(server: &Server, git_dirs: &[PathBuf], message: impl Fn(usize) -> String) {
    server.rally.settings(|settings| settings.latency = Duration::from_millis(10));
    let push = |(number, git_dir): (usize, &PathBuf)| {
        let clone = server.new_clone();
        clone.commit(&message(number), &[("a", Some("1")), ("b", Some("1"))]);
        let mut push = sharing(server, clone.command());
        push.args(["push", "--quiet"]).arg(git_dir).arg("HEAD");
        push
    };
    let pushes: Vec<Command> = git_dirs.iter().enumerate().map(push).collect();
    for mut push in pushes.into_iter().map(spawn).collect::<Vec<_>>() {
        assert!(push.wait().expect("it was ours").success());
    }
    server.rally.wait_until("all commits with their files", |world| {
        let held = world.changesets();
        held.len() == git_dirs.len() && held.iter().all(|changeset| changeset.changes.len() == 2)
    });
}

#[test]
fn twenty_repositories_pushed_at_once_keep_one_limit() {
    let server = Server::new();
    let git_dirs = many_repositories(&server, "timeout = \"30s\"\nmax_concurrent_requests = 3");
    push_to_all(&server, &git_dirs, |number| format!("{}{}", ["US", "DE", "TA"][number % 3], 1 + number / 3));
    let most = server.rally.max_concurrent();
    assert!(most <= 3, "{most} at once");
}

#[test]
fn twenty_repositories_that_name_one_artifact_make_no_conflict() {
    let server = Server::new();
    let git_dirs = many_repositories(&server, "timeout = \"30s\"");
    push_to_all(&server, &git_dirs, |_| "US1: the same story".to_owned());
    let requests = server.rally.requests();
    let creates = requests.iter().filter(|request| request.path == "/changeset/create");
    assert_eq!(creates.count(), REPOSITORIES, "a conflict makes one more");
}

#[test]
fn two_accounts_do_not_wait_for_each_other() {
    let server = Server::new();
    let rally = |account: &str| format!("max_concurrent_requests = 1\naccount = {account:?}\ntimeout = \"60s\"");
    let one = repository(&server, "one", &rally("one"), DELIVER_LATER);
    let holder = hanging_delivery(&server, &one, "GET", "/workspace");
    let other = repository(&server, "other", &rally("other"), DELIVER_LATER);
    queue_a_commit(&server, &other);
    ran(delivering(&server, &other)).succeeds();
    kill(holder);
}

#[test]
fn a_delivery_waits_for_the_permit_of_another_until_that_is_killed() {
    let server = Server::new();
    let [one, other] = ["one", "other"]
        .map(|name| repository(&server, name, "max_concurrent_requests = 1\ntimeout = \"60s\"", DELIVER_LATER));
    let holder = hanging_delivery(&server, &one, "GET", "/workspace");
    queue_a_commit(&server, &other);
    let mut waiting = spawn(delivering(&server, &other));
    let locks = fs::read_dir(server.path().join("run/rally-hook")).expect("it was made");
    let mut paths = locks.map(|entry| entry.expect("it can be read").path());
    let gate = paths.find(|path| path.to_string_lossy().ends_with("-gate")).expect("there is a gate");
    wait_for("the other to pass the gate", || holders(&gate) == [waiting.id() as i32]);
    assert_eq!(server.rally.requests().len(), 1, "the second process has sent nothing");
    kill(holder);
    assert!(waiting.wait().expect("it was ours").success());
    assert_eq!(server.changesets().len(), 1);
}

#[test]
fn what_is_noted_of_a_write_does_not_lapse_while_it_waits_for_its_artifact() {
    let server = Server::new();
    let one = repository(&server, "one", "timeout = \"60s\"", DELIVER_LATER);
    let other = repository(&server, "other", "timeout = \"200ms\"", DELIVER_LATER);
    let holder = hanging_delivery(&server, &one, "POST", "/changeset");
    queue_a_commit(&server, &other);
    let mut waiting = spawn(delivering(&server, &other));
    let mut noted = 0;
    for _ in 0..3 {
        let before = noted;
        wait_for("the next note", || {
            noted = settles_at(&other);
            noted > before
        });
    }
    kill(holder);
    assert!(waiting.wait().expect("it was ours").success());
    assert_eq!(server.changesets().len(), 1);
}

/// Returns until when the outcome of the only commit's write is unknown, in milliseconds.
fn settles_at(git_dir: &Path) -> i64 {
    let database = rusqlite::Connection::open(git_dir.join("rally-hook/queue.db")).expect("a database");
    database.busy_timeout(Duration::from_secs(30)).expect("it can wait");
    let noted = database.query_row("SELECT coalesce(max(settles_at), 0) FROM changeset", [], |row| row.get(0));
    noted.expect("a number")
}

/// Starts the delivery of a commit, one request of which Rally does not answer.
fn hanging_delivery(server: &Server, git_dir: &Path, method: &'static str, path: &'static str) -> Child {
    queue_a_commit(server, git_dir);
    server.fail_next_at(method, path, Action::Hang);
    let holder = spawn(delivering(server, git_dir));
    server.rally.wait_for_requests("the request", |requests| {
        requests.iter().any(|request| request.method == method && request.path.starts_with(path))
    });
    holder
}

/// Returns what `doctor` says of the limit, with this directory of the session.
fn limit_with(server: &Server, session: &Path) -> String {
    let mut command = server.command(&["doctor"]);
    command.env("XDG_RUNTIME_DIR", session);
    let ran = ran(command).succeeds();
    ran.stdout.lines().find(|line| line.contains("request limit")).expect("a line about it").to_owned()
}

#[test]
fn doctor_names_the_directory_that_counts() {
    let server = Server::delivering_later("");
    let shown = limit_with(&server, server.path());
    let dir = server.path().join("rally-hook");
    assert!(shown.ends_with(&format!("8 at once, for all processes that share {}", dir.display())), "{shown}");
    let alone = limit_with(&server, Path::new("/proc/nonexistent"));
    assert!(alone.starts_with("note") && alone.contains("for each process, not for all"), "{alone}");
}

#[test]
fn a_link_in_the_place_of_the_directory_is_not_used() {
    let server = Server::delivering_later("");
    let (elsewhere, link) = (server.path().join("elsewhere"), server.path().join("rally-hook"));
    fs::create_dir(&elsewhere).expect("it is new");
    std::os::unix::fs::symlink(&elsewhere, &link).expect("links can be made");
    let shown = limit_with(&server, server.path());
    assert!(shown.contains(&format!("{}: it is a symbolic link", link.display())), "{shown}");
    assert_eq!(fs::read_dir(&elsewhere).expect("it is there").count(), 0);
}
