//! `rally-hook worker`: the service that delivers for many repositories.

use std::fs;
use std::os::unix::net::UnixDatagram;
use std::path::PathBuf;
use std::time::Duration;

use rally_simulator::{Action, Fault, Match};

use crate::support::process::{Service, deliverers, wait_for};
use crate::support::{DELIVER_LATER, Many, git, hermetic, program, ran};

const REPOSITORIES: usize = 60;

/// Starts a worker. It looks at all repositories this often.
fn start(many: &Many, every: &str) -> Service {
    Service::start(many.command(&["worker", "--every", every]))
}

/// Starts a worker and waits until it serves the repositories.
fn started(many: &Many, every: &str) -> Service {
    let child = start(many, every);
    wait_for("the worker to serve all", || many.git_dirs.iter().all(is_served));
    child
}

fn is_served(git_dir: &PathBuf) -> bool {
    let mut status = hermetic(program());
    status.args(["status", "--json", "--repo"]).arg(git_dir);
    ran(status).stdout.contains("\"worker\":true")
}

fn latency(many: &Many, millis: u64) {
    many.server.rally.settings(|settings| settings.latency = Duration::from_millis(millis));
}

#[test]
fn sixty_repositories_pushed_at_once_are_delivered_within_one_limit_and_by_no_process_of_a_push() {
    let many = Many::new(REPOSITORIES, "timeout = \"30s\"\nmax_concurrent_requests = 3", DELIVER_LATER);
    let worker = started(&many, "1h");
    latency(&many, 10);
    let revision = many.commit("US1: the same story for all");
    many.push(&revision, &many.git_dirs);
    assert!(many.git_dirs.iter().all(|git_dir| deliverers(git_dir) == [worker.id()]));
    many.wait_for_delivery(&[&revision], &many.git_dirs);
    let most = many.server.rally.max_concurrent();
    assert!(most <= 3, "{most} at once");
    let requests = many.server.rally.requests();
    let creates = requests.iter().filter(|request| request.path == "/changeset/create").count();
    assert!(creates <= REPOSITORIES * 12 / 10, "{creates} creates");
    drop(worker);
}

#[test]
fn a_worker_killed_at_any_time_loses_nothing_and_posts_nothing_twice() {
    let many = Many::new(12, "timeout = \"1s\"\nmax_concurrent_requests = 4", DELIVER_LATER);
    latency(&many, 5);
    let first = many.commit("US1");
    many.push(&first, &many.git_dirs);
    for requests in [3, 20, 45, 70] {
        let worker = start(&many, "1h");
        many.server.rally.wait_for_requests("some requests", |log| log.len() >= requests);
        drop(worker);
    }
    let second = many.commit("US2");
    many.push(&second, &many.git_dirs);
    let worker = start(&many, "1h");
    many.wait_for_delivery(&[&first, &second], &many.git_dirs);
    drop(worker);
}

#[test]
fn a_worker_that_is_asked_to_end_sends_nothing_more_and_leaves_nothing_unclear() {
    let many = Many::new(6, "max_concurrent_requests = 1\nbatch = \"off\"", DELIVER_LATER);
    latency(&many, 30);
    let revision = many.commit("US1");
    many.push(&revision, &many.git_dirs);
    let worker = start(&many, "1h");
    let creates =
        |log: &[rally_simulator::Request]| log.iter().filter(|request| request.path.contains("/create")).count();
    many.server.rally.wait_for_requests("a create", |log| creates(log) >= 1);
    worker.end();
    let ran = many.run(&["status", "--json"]);
    assert!(ran.stdout.lines().all(|line| line.contains("\"unclear\":0,")), "{ran:?}");
    assert!(many.server.changesets().len() < 6, "it ended before all was done");
    let worker = start(&many, "1h");
    many.wait_for_delivery(&[&revision], &many.git_dirs);
    drop(worker);
}

#[test]
fn new_repositories_missed_hooks_and_backfills_are_noticed() {
    let many = Many::new(2, "", DELIVER_LATER);
    let worker = started(&many, "200ms");
    let first = many.commit("US1");
    // A hook that is missing.
    let hooks = [many.git_dirs[0].join("hooks"), many.git_dirs[0].join("no-hooks")];
    fs::rename(&hooks[0], &hooks[1]).expect("it can be moved");
    many.push(&first, &many.git_dirs[..1]);
    fs::rename(&hooks[1], &hooks[0]).expect("it can be moved");
    many.wait_for_delivery(&[&first], &many.git_dirs[..1]);
    // A repository that is new.
    let new = many.root.join("team0/new.git");
    git(many.server.path(), &["init", "--quiet", "--bare", "--template=", &new.display().to_string()]);
    many.install();
    many.push(&first, std::slice::from_ref(&new));
    many.wait_for_delivery(&[&first], &[many.git_dirs[0].clone(), new.clone()]);
    // A backfill, which records only.
    let hooks = [many.git_dirs[1].join("hooks"), many.git_dirs[1].join("no-hooks")];
    fs::rename(&hooks[0], &hooks[1]).expect("it can be moved");
    many.push(&first, &many.git_dirs[1..]);
    fs::rename(&hooks[1], &hooks[0]).expect("it can be moved");
    let mut backfill = hermetic(program());
    backfill.args(["backfill", "--all", "--config"]).arg(many.server.git_dir.join("many.toml"));
    backfill.arg("--repo").arg(&many.git_dirs[1]);
    ran(backfill).succeeds();
    many.wait_for_delivery(&[&first], &[many.git_dirs[0].clone(), many.git_dirs[1].clone(), new]);
    drop(worker);
}

#[test]
fn a_configuration_that_was_mended_ends_the_pause() {
    let many = Many::new(1, "workspace = \"Elsewhere\"", DELIVER_LATER);
    let worker = started(&many, "200ms");
    let revision = many.commit("US1");
    many.push(&revision, &many.git_dirs);
    wait_for("the pause", || many.run(&["status", "--json"]).stdout.contains("\"needs_person\":true"));
    many.configure(|text| text.replace("Elsewhere", "Acme"));
    many.wait_for_delivery(&[&revision], &many.git_dirs);
    drop(worker);
}

#[test]
fn an_outage_of_rally_is_waited_out() {
    let many = Many::new(2, "", DELIVER_LATER);
    let down = Action::Status { code: 503, body: String::new(), headers: Vec::new() };
    many.server.rally.fault(Fault { on: Match::default(), times: 3, action: down });
    let worker = started(&many, "1h");
    let revision = many.commit("US1");
    many.push(&revision, &many.git_dirs);
    many.wait_for_delivery(&[&revision], &many.git_dirs);
    drop(worker);
}

#[test]
fn status_tells_whether_a_worker_runs() {
    let many = Many::new(2, "", DELIVER_LATER);
    let worker = started(&many, "1h");
    drop(worker);
    assert!(!is_served(&many.git_dirs[0]));
}

#[test]
fn the_service_manager_is_told_when_the_worker_is_ready_and_when_it_ends() {
    let many = Many::new(2, "", DELIVER_LATER);
    let path = many.server.path().join("notify");
    let socket = UnixDatagram::bind(&path).expect("a socket");
    socket.set_read_timeout(Some(Duration::from_secs(60))).expect("a limit");
    let mut command = many.command(&["worker"]);
    command.env("NOTIFY_SOCKET", &path);
    let worker = Service::start(command);
    let receive = || {
        let mut buffer = [0; 1000];
        let length = socket.recv(&mut buffer).expect("a message");
        String::from_utf8_lossy(&buffer[..length]).into_owned()
    };
    let ready = receive();
    assert!(ready.starts_with("READY=1\n") && ready.contains("STATUS=2 repositories"), "{ready}");
    worker.end();
    assert_eq!(receive(), "STOPPING=1");
}
