//! The log: `key=value` lines, in a file, in syslog or in the journal.

use std::fs;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use crate::support::process::{Service, wait_for};
use crate::support::{DELIVER_LATER, Many, Server, skipped};

/// Takes the place of syslog or the journal, for as long as it lives.
struct Receiver {
    socket: UnixDatagram,
    path: PathBuf,
}

impl Receiver {
    /// Binds to this path. `None` on a host that has such a service, or where the test may not take its place.
    fn at(path: &str) -> Option<Self> {
        let path = PathBuf::from(path);
        if path.symlink_metadata().is_ok() {
            skipped(&format!("{} is there already", path.display()));
            return None;
        }
        let made = fs::create_dir_all(path.parent().expect("a directory")).and_then(|()| UnixDatagram::bind(&path));
        let Ok(socket) = made else {
            skipped(&format!("this user may not make {}", path.display()));
            return None;
        };
        socket.set_read_timeout(Some(Duration::from_secs(60))).expect("a limit");
        Some(Receiver { socket, path })
    }

    /// Returns the next event that is about this repository.
    fn receive(&self, git_dir: &Path) -> String {
        let mut buffer = [0; 16 * 1024];
        loop {
            let length = self.socket.recv(&mut buffer).expect("an event");
            let event = String::from_utf8_lossy(&buffer[..length]).into_owned();
            if event.contains(&git_dir.display().to_string()) {
                return event;
            }
        }
    }
}

impl Drop for Receiver {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.path);
    }
}

/// Pushes and delivers one commit with these keys of `[log]`.
fn deliver_with(server: &Server, log: &str) -> String {
    server.configure_later(&format!("[log]\n{log}\n"));
    let revision = server.new_clone().push_commits(&["US1 and DE2: fixed"]);
    server.run(&["deliver"]).succeeds();
    revision
}

#[test]
fn a_line_names_the_repository_the_event_the_artifacts_and_the_time() {
    let server = Server::new();
    let revision = deliver_with(&server, "level = \"info\"").trim().to_owned();
    let log = server.log();
    let path = server.git_dir.display();
    let line = log.lines().find(|line| line.contains("event=delivered")).expect("a line");
    for part in [
        "level=info pid=".to_owned(),
        format!(" repository={path} "),
        format!(" revision={} ", server.changesets()[0].revision),
        " artifacts=US1,DE2 ".to_owned(),
        " took=".to_owned(),
    ] {
        assert!(line.contains(&part), "{part:?} in {line} ({revision})");
    }
}

#[test]
fn text_of_others_ends_no_line_and_no_value() {
    let server = Server::new();
    server.configure_later("");
    let clone = server.new_clone();
    fs::write(clone.path.join("a"), "a").expect("a file");
    clone.git(&["add", "."]);
    let author = "--author=a\" event=forged x=\"b <nobody@example.org>";
    clone.git(&["commit", "--quiet", author, "-m", "US1"]);
    clone.push(&["origin", "HEAD:main"]);
    server.run(&["deliver"]).succeeds();
    let log = server.log();
    let line = log.lines().find(|line| line.contains("event=author-unknown")).expect("a line");
    assert!(line.contains(r#"a\" event=forged x=\"b"#), "{line}");
}

#[test]
fn repositories_share_a_log_file() {
    let server = Server::new();
    let file = server.path().join("shared.log");
    let many = Many::new(6, "", &format!("[log]\nfile = {:?}\n", file.display().to_string()));
    let revision = many.commit("US1");
    many.push(&revision, &many.git_dirs);
    many.wait_for_delivery(&[&revision], &many.git_dirs);
    wait_for("the last line", || fs::read_to_string(&file).unwrap_or_default().matches("event=delivered").count() == 6);
    let log = fs::read_to_string(&file).expect("a log");
    for git_dir in &many.git_dirs {
        let own = format!("repository={} event=delivered", git_dir.display());
        assert_eq!(log.lines().filter(|line| line.starts_with("time=") && line.contains(&own)).count(), 1, "{log}");
    }
}

#[test]
fn events_go_to_syslog() {
    let Some(receiver) = Receiver::at("/dev/log") else { return };
    let server = Server::new();
    deliver_with(&server, "target = \"syslog\"");
    let event = receiver.receive(&server.git_dir);
    assert!(event.starts_with("<30>rally-hook[") && event.contains("event=push"), "{event}");
    assert!(receiver.receive(&server.git_dir).contains("event=delivered"));
    let doctor = server.run(&["doctor"]);
    assert!(doctor.stdout.contains("log            /dev/log"), "{doctor:?}");
    drop(receiver);
    let doctor = server.run(&["doctor"]).fails_with(1);
    assert!(doctor.stdout.contains("WRONG log") && doctor.stdout.contains("/dev/log"), "{doctor:?}");
}

#[test]
fn events_go_to_the_journal_with_fields() {
    let Some(receiver) = Receiver::at("/run/systemd/journal/socket") else { return };
    let server = Server::new();
    deliver_with(&server, "target = \"journal\"");
    receiver.receive(&server.git_dir);
    let event = receiver.receive(&server.git_dir);
    let repository = format!("RALLY_REPOSITORY={}", server.git_dir.display());
    for line in
        ["PRIORITY=6", "SYSLOG_IDENTIFIER=rally-hook", "RALLY_EVENT=delivered", "RALLY_ARTIFACTS=US1,DE2", &repository]
    {
        assert!(event.lines().any(|found| found == line), "{line} in {event}");
    }
}

#[test]
fn a_service_writes_its_log_to_standard_error() {
    let many = Many::new(2, "", &format!("{DELIVER_LATER}[log]\nfile = \"/dev/stderr\"\n"));
    let revision = many.commit("US1");
    many.push(&revision, &many.git_dirs);
    // A pipe, as that of a container; a file would do for `open`.
    let mut worker = many.command(&["worker"]);
    let mut child = worker.stdin(Stdio::null()).stderr(Stdio::piped()).spawn().expect("the program can be run");
    let mut stderr = child.stderr.take().expect("a pipe");
    let worker = Service::from(child);
    many.wait_for_delivery(&[&revision], &many.git_dirs);
    worker.end();
    let mut log = String::new();
    std::io::Read::read_to_string(&mut stderr, &mut log).expect("text");
    assert_eq!(log.matches("event=delivered").count(), 2, "{log}");
}
