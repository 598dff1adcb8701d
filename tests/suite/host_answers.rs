//! What one repository of the host has learnt of Rally, the others do not ask again.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rally_simulator::Action;

use crate::support::fault::status;
use crate::support::host::{delivering, queue_a_commit, repository, sharing};
use crate::support::process::{kill, spawn};
use crate::support::{DELIVER_LATER, Server, hermetic, program, ran};

/// Sets up repositories that deliver when the test asks for it.
fn repositories<const N: usize>(server: &Server, names: [&str; N]) -> [PathBuf; N] {
    names.map(|name| repository(server, name, "timeout = \"30s\"", DELIVER_LATER))
}

/// Delivers a new commit, and returns the requests that it cost.
fn requests_for_a_commit(server: &Server, git_dir: &Path) -> Vec<String> {
    queue_a_commit(server, git_dir);
    server.rally.clear_requests();
    ran(delivering(server, git_dir)).succeeds();
    server.rally.requests().iter().map(|request| format!("{} {}", request.method, request.path)).collect()
}

/// Returns the database that the repositories of this server share.
fn database(server: &Server) -> PathBuf {
    server.path().join("run/rally-hook/host.db")
}

#[test]
fn the_first_commit_of_another_repository_costs_five_requests() {
    let server = Server::new();
    let [one, other] = repositories(&server, ["one", "other"]);
    let first = requests_for_a_commit(&server, &one);
    let second = requests_for_a_commit(&server, &other);
    assert!(second.len() <= 5 && first.len() > 5, "{second:#?} after {first:#?}");
    assert_eq!(server.changesets().len(), 2);
    let mode = fs::metadata(database(&server)).expect("it was made").permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
}

#[test]
fn an_artifact_that_was_deleted_is_forgotten_for_all() {
    let server = Server::new();
    let [one, other, third] = repositories(&server, ["one", "other", "third"]);
    requests_for_a_commit(&server, &one);
    server.rally.world(|world| {
        world.delete_artifact("US1");
        world.add_artifact("US1", "Another of this name");
    });
    requests_for_a_commit(&server, &other);
    let asked = requests_for_a_commit(&server, &third);
    assert!(!asked.iter().any(|request| request.contains("hierarchicalrequirement")), "{asked:#?}");
    let held = server.changesets();
    assert!(held.len() == 3 && held.iter().skip(1).all(|changeset| changeset.artifacts == ["US1"]), "{held:#?}");
}

#[test]
fn a_database_that_cannot_be_used_costs_only_requests() {
    type Damage = fn(&Path);
    let damages: [(&str, Damage); 5] = [
        ("a directory", |path| fs::create_dir(path).expect("it is new")),
        ("text", |path| fs::write(path, "no database".repeat(100)).expect("it can be written")),
        ("nothing", |path| fs::write(path, "").expect("it can be written")),
        ("a link", |path| std::os::unix::fs::symlink("/etc/passwd", path).expect("links can be made")),
        ("open to all", |path| {
            fs::write(path, "").expect("it can be written");
            fs::set_permissions(path, fs::Permissions::from_mode(0o666)).expect("modes can be set");
        }),
    ];
    for (what, damage) in damages {
        let server = Server::new();
        let [one, other] = repositories(&server, ["one", "other"]);
        let path = database(&server);
        fs::create_dir_all(path.parent().expect("a directory")).expect("directories can be made");
        damage(&path);
        for git_dir in [&one, &other] {
            requests_for_a_commit(&server, git_dir);
        }
        assert_eq!(server.changesets().len(), 2, "{what}");
    }
}

#[test]
fn a_refused_workspace_is_forgotten_for_all() {
    let server = Server::new();
    let [one, other, third] = repositories(&server, ["one", "other", "third"]);
    requests_for_a_commit(&server, &one);
    queue_a_commit(&server, &other);
    server.fail_next_at("GET", "/scmrepository", status(403));
    ran(delivering(&server, &other)).fails_with(1);
    let asked = requests_for_a_commit(&server, &third);
    assert!(asked.contains(&"GET /workspace".to_owned()), "{asked:#?}");
}

#[test]
fn two_repositories_of_one_name_that_deliver_at_once_make_one_scm_repository() {
    let server = Server::new();
    let rally = "timeout = \"30s\"\nread_lag = \"1ms\"";
    let sections = format!("{DELIVER_LATER}[repository]\nname = \"api\"\n");
    let git_dirs = ["one", "two", "three", "four"].map(|name| repository(&server, name, rally, &sections));
    server.rally.settings(|settings| {
        settings.latency = Duration::from_millis(30);
        // To who did not create it, Rally shows it later.
        settings.read_lag = Duration::from_secs(600);
    });
    git_dirs.iter().for_each(|git_dir| queue_a_commit(&server, git_dir));
    let children = git_dirs.iter().map(|git_dir| spawn(delivering(&server, git_dir))).collect::<Vec<_>>();
    for mut child in children {
        assert!(child.wait().expect("it was ours").success());
    }
    let creates = server.rally.requests().iter().filter(|request| request.path == "/scmrepository/create").count();
    assert_eq!((creates, server.changesets().len()), (1, 4));
}

#[test]
fn what_a_killed_delivery_may_have_created_is_not_created_by_another_repository() {
    let server = Server::new();
    let sections = format!("{DELIVER_LATER}[repository]\nname = \"api\"\n");
    let [one, two] = ["one", "two"].map(|name| repository(&server, name, "timeout = \"30s\"", &sections));
    queue_a_commit(&server, &one);
    queue_a_commit(&server, &two);
    server.fail_next_at("POST", "/scmrepository/create", Action::Hang);
    let killed = spawn(delivering(&server, &one));
    server.rally.wait_for_requests("the create", |requests| {
        requests.iter().any(|request| request.path == "/scmrepository/create")
    });
    kill(killed);
    let mut once = hermetic(program());
    once.args(["deliver", "--repo"]).arg(&two);
    let ran = ran(sharing(&server, once)).fails_with(1);
    assert!(ran.stderr.contains("Rally may still be creating the SCMRepository \"api\""), "{ran:?}");
}
