//! What people see while a command works, and what an interruption leaves.

use std::process::{Command, Stdio};
use std::time::Duration;

use crate::support::process::{catches, interruptible, signal, wait_for};
use crate::support::{Server, expected, hermetic, program, ran, skipped};

fn queued(commits: usize) -> Server {
    let server = Server::delivering_later("");
    let messages: Vec<String> = (0..commits).map(|number| format!("US{}: change", 1 + number % 9)).collect();
    let messages: Vec<&str> = messages.iter().map(String::as_str).collect();
    server.new_clone().push_commits(&messages);
    server
}

#[test]
fn a_terminal_shows_a_bar_with_rate_and_time_left() {
    let server = queued(3);
    if Command::new("script").arg("--version").output().is_err() {
        return skipped("script (util-linux) is not installed");
    }
    server.rally.settings(|settings| settings.latency = Duration::from_millis(200));
    let mut terminal = hermetic("script");
    let command = format!("'{}' deliver --wait", program().display());
    terminal
        .args(["--quiet", "--return", "--command", &command, "/dev/null"])
        .current_dir(&server.git_dir)
        .env("TERM", "xterm");
    let ran = ran(terminal).succeeds();
    assert!(ran.stdout.contains("delivering") && ran.stdout.contains("/s") && ran.stdout.contains(" left)"), "{ran:?}");
    assert!(ran.stdout.contains("3 commits delivered"), "{ran:?}");
}

#[test]
fn elsewhere_there_is_no_bar() {
    let ran = queued(1).run(&["deliver", "--wait"]).succeeds();
    assert_eq!(ran.stderr, "rally-hook: 1 commit delivered\n");
}

#[test]
fn quiet_commands_speak_only_if_something_is_not_done() {
    let server = queued(2);
    let ran = server.run(&["deliver", "--quiet"]).succeeds();
    assert_eq!((ran.stdout.as_str(), ran.stderr.as_str()), ("", ""));
    let ran = server.run(&["retry", "-q", "00000000"]).fails_with(1);
    assert!(ran.stderr.contains("no dead letter has the revision"), "{ran:?}");
}

#[test]
fn verbose_commands_say_what_the_log_is_told() {
    let server = queued(1);
    let ran = server.run(&["deliver", "-v"]).succeeds();
    let revision = &server.changesets()[0].revision;
    assert!(ran.stderr.contains(&format!("rally-hook: delivered commit {revision}\n")), "{ran:?}");
}

#[test]
fn an_interrupted_delivery_says_what_is_kept() {
    let server = queued(3);
    server.rally.settings(|settings| settings.latency = Duration::from_millis(50));
    let mut deliver = interruptible(server.command(&["deliver", "--wait"]));
    let child = deliver.stdin(Stdio::null()).stderr(Stdio::piped()).spawn().expect("the program can be run");
    server.rally.wait_for_requests("a request", |log| !log.is_empty());
    signal(&child, libc::SIGINT);
    let output = child.wait_with_output().expect("it was ours");
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{stderr}");
    assert!(
        stderr.contains("interrupted; the other commits stay queued, and `rally-hook deliver` continues with them"),
        "{stderr}"
    );
    server.deliver_all();
    server.assert_rally_holds(&expected(&server.git_dir, &["main"]));
}

#[test]
fn an_interrupted_backfill_says_what_is_queued_and_goes_on_when_it_is_run_again() {
    let server = Server::without_hook();
    server.configure_later("");
    let messages: Vec<String> = (0..600).map(|number| format!("US{}: change", 1 + number % 9)).collect();
    server.new_clone().push_commits(&messages.iter().map(String::as_str).collect::<Vec<_>>());
    server.run(&["install"]).succeeds();
    // Nothing can be queued while the test writes, so the interruption comes before the end.
    let database = rusqlite::Connection::open(server.git_dir.join("rally-hook/queue.db")).expect("a database");
    database.execute_batch("BEGIN IMMEDIATE").expect("nobody else writes");
    let mut backfill = interruptible(server.command(&["backfill", "--all"]));
    let child = backfill.stdin(Stdio::null()).stderr(Stdio::piped()).spawn().expect("the program can be run");
    wait_for("the backfill to catch signals", || catches(child.id(), libc::SIGINT));
    signal(&child, libc::SIGINT);
    database.execute_batch("ROLLBACK").expect("it was begun");
    let output = child.wait_with_output().expect("it was ours");
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{stderr}");
    assert!(stderr.contains("interrupted: ") && stderr.contains("queued so far, which stay so"), "{stderr}");
    server.run(&["backfill", "--all"]).succeeds();
    server.deliver_all();
    server.assert_rally_holds(&expected(&server.git_dir, &["main"]));
}
