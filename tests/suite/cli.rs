//! The command line: exit codes, pipes, completions, terminals.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::FromRawFd;
use std::process::{Command, Stdio};

use crate::support::{Server, hermetic, ran, skipped};

/// Runs a command whose output goes to a terminal, and returns what the terminal shows.
fn on_a_terminal(mut command: Command) -> String {
    let (mut ours, mut its) = (0, 0);
    let size = libc::winsize { ws_row: 24, ws_col: 80, ws_xpixel: 0, ws_ypixel: 0 };
    // SAFETY: the places for the descriptors are ours; a name and settings are not asked for.
    let opened = unsafe { libc::openpty(&mut ours, &mut its, std::ptr::null_mut(), std::ptr::null(), &size) };
    assert_eq!(opened, 0, "a terminal");
    // SAFETY: both are open, and nothing else owns them.
    let (mut ours, its) = unsafe { (File::from_raw_fd(ours), File::from_raw_fd(its)) };
    command.env("TERM", "xterm").stdin(Stdio::null());
    command.stdout(its.try_clone().expect("it is open")).stderr(its);
    let mut child = command.spawn().expect("the program can be run");
    // The command holds the terminal's other end until it is dropped.
    drop(command);
    let mut shown = Vec::new();
    // When the other end is closed, the kernel reports an error.
    let _ = ours.read_to_end(&mut shown);
    assert!(child.wait().expect("it was ours").success());
    String::from_utf8_lossy(&shown).into_owned()
}

#[test]
fn wrong_usage_exits_with_2() {
    let server = Server::new();
    let wrong: [&[&str]; 10] = [
        &[],
        &["frobnicate"],
        &["backfill"],
        &["backfill", "main", "--json"],
        &["backfill", "no-such-branch"],
        &["backfill", "main..no-such-branch", "--dry-run"],
        &["deliver", "--wait", "--all-repos", "."],
        &["deliver", "--all-repos", "/nonexistent"],
        &["--repo", "/nonexistent", "status"],
        &["completions", "tcsh"],
    ];
    for arguments in wrong {
        let ran = server.run(arguments).fails_with(2);
        assert!(ran.stdout.is_empty() && !ran.stderr.is_empty(), "{ran:?}");
    }
}

#[test]
fn commands_with_nothing_left_to_do_exit_with_0() {
    let server = Server::new();
    for arguments in [&["status"][..], &["deliver"], &["deliver", "--wait"], &["catch-up"], &["--version"], &["--help"]]
    {
        server.run(arguments).fails_with(0);
    }
}

#[test]
fn outside_a_repository_the_program_says_so() {
    let server = Server::new();
    let mut elsewhere = server.command(&["status"]);
    elsewhere.current_dir("/");
    let told = ran(elsewhere).fails_with(2);
    assert!(told.stderr.contains("is not a Git repository"), "{told:?}");
}

#[test]
fn a_damaged_repository_still_shows_its_queue() {
    let server = Server::delivering_later("");
    server.new_clone().push_commits(&["US1: queued"]);
    std::fs::remove_file(server.git_dir.join("HEAD")).expect("it was there");
    let ran = server.run(&["status"]).fails_with(1);
    assert!(ran.stdout.contains("queued     1") && ran.stdout.contains("repository "), "{ran:?}");
}

#[test]
fn nothing_was_recorded_before_the_first_command() {
    let server = Server::without_hook();
    for _ in 0..2 {
        let ran = server.run(&["status"]).fails_with(1);
        assert!(ran.stderr.contains("nothing was ever recorded for"), "{ran:?}");
        // It makes the directory of the queue.
        server.run(&["doctor"]);
    }
}

#[test]
fn the_repository_is_found_by_git_dir_or_from_a_directory_inside_it() {
    let server = Server::new();
    let mut by_variable = server.command(&["status", "--json"]);
    by_variable.current_dir("/").env("GIT_DIR", &server.git_dir);
    ran(by_variable).fails_with(0);
    let mut inside = server.command(&["status"]);
    inside.current_dir(server.git_dir.join("objects"));
    ran(inside).fails_with(0);
}

#[test]
fn a_closed_pipe_is_success() {
    let server = Server::new();
    let clone = server.new_clone();
    for number in 0..3 {
        clone.commit("US1", &[("a", Some(&number.to_string()))]);
    }
    clone.push(&["origin", "main"]);
    let commands: [&[&str]; 6] = [
        &["backfill", "--all", "--dry-run", "--json"],
        &["backfill", "--all", "--dry-run"],
        &["status"],
        &["status", "--json"],
        &["man"],
        &["completions", "bash"],
    ];
    for arguments in commands {
        let (reader, writer) = std::io::pipe().expect("a pipe");
        drop(reader);
        let mut command = server.command(arguments);
        let child = command.stdin(Stdio::null()).stdout(writer).stderr(Stdio::piped()).spawn().expect("it runs");
        let output = child.wait_with_output().expect("it ends");
        let told = String::from_utf8_lossy(&output.stderr);
        assert!(
            output.status.success() && !told.contains("panicked") && !told.contains("pipe"),
            "{arguments:?} {told}"
        );
    }
}

const COMMANDS: [&str; 8] = ["backfill", "deliver", "catch-up", "status", "retry", "install", "uninstall", "doctor"];

#[test]
fn completions_and_help_list_every_command() {
    let server = Server::without_hook();
    for arguments in [&["completions", "bash"][..], &["completions", "zsh"], &["completions", "fish"], &["--help"]] {
        let text = server.run(arguments).succeeds().stdout;
        assert!(COMMANDS.iter().all(|command| text.contains(command)), "{arguments:?}");
    }
    assert!(!server.git_dir.join("rally-hook").exists());
}

/// Returns the names of the commands that `--help` lists, but for `help`.
fn listed_commands(server: &Server) -> Vec<String> {
    let help = server.run(&["--help"]).succeeds().stdout;
    let list = help.split("Commands:\n").nth(1).and_then(|rest| rest.split("\n\n").next()).expect("a list");
    let name = |line: &str| line.strip_prefix("  ").and_then(|line| line.split(' ').next()).map(str::to_owned);
    list.lines().filter_map(name).filter(|name| !name.is_empty() && name != "help").collect()
}

#[test]
fn each_command_has_a_help_with_examples_that_fits_a_screen() {
    let server = Server::without_hook();
    for command in listed_commands(&server) {
        let mut help = server.command(&[&command, "--help"]);
        help.env("COLUMNS", "80");
        let help = ran(help).succeeds().stdout;
        assert!(help.lines().count() <= 30 && help.contains(&format!("Usage: rally-hook {command}")), "{help}");
        let examples = help.split("\nExamples:\n").nth(1).expect(&command);
        assert!((1..=4).contains(&examples.lines().count()), "{help}");
    }
    let mut help = server.command(&["--help"]);
    help.env("COLUMNS", "80");
    assert!(ran(help).succeeds().stdout.lines().count() <= 40);
}

#[test]
fn there_is_a_man_page_for_the_program_and_each_command() {
    let server = Server::without_hook();
    let commands = listed_commands(&server);
    let page = server.run(&["man"]).succeeds().stdout;
    assert!(page.contains(".TH rally-hook 1"), "{page}");
    assert!(commands.iter().all(|command| page.contains(&command.replace('-', "\\-"))), "{page}");
    for command in commands {
        let page = server.run(&["man", &command]).succeeds().stdout;
        assert!(page.contains(&format!(".TH rally-hook-{command} 1")), "{page}");
        for section in ["SYNOPSIS", "EXIT STATUS", "FILES", "ENVIRONMENT", "EXAMPLES"] {
            let heading = format!(".SH {section}\n").replace("EXIT STATUS", "\"EXIT STATUS\"");
            assert!(page.contains(&heading), "{section} in {page}");
        }
    }
    server.run(&["man", "no-command"]).fails_with(2);
    assert!(!server.git_dir.join("rally-hook").exists());
}

#[test]
fn groff_and_mandoc_find_no_fault_in_a_man_page() {
    let server = Server::without_hook();
    let mut pages = listed_commands(&server);
    pages.push("rally-hook.toml".into());
    for page in pages {
        let text = server.run(&["man", &page]).succeeds().stdout;
        for checker in [&["groff", "-ww", "-man", "-Tutf8"][..], &["mandoc", "-Tlint", "-Wwarning"]] {
            let mut command = hermetic(checker[0]);
            command.args(&checker[1..]).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
            let Ok(mut child) = command.spawn() else { return skipped("groff or mandoc is not installed") };
            child.stdin.take().expect("a pipe").write_all(text.as_bytes()).expect("it reads");
            let output = child.wait_with_output().expect("it ends");
            let found = [output.stderr, if checker[0] == "mandoc" { output.stdout } else { Vec::new() }].concat();
            let found = String::from_utf8_lossy(&found).into_owned();
            // The pages have no date.
            let faults: Vec<&str> = found.lines().filter(|line| !line.contains("cannot parse date")).collect();
            assert!(faults.is_empty(), "{page}: {faults:?}");
        }
    }
}

#[test]
fn progress_is_shown_on_a_terminal_only() {
    let server = Server::new();
    server.import("refs/heads/main", &["US1: one", "DE2: two"]);
    let backfill = server.command(&["backfill", "main"]);
    let shown = on_a_terminal(backfill);
    assert!(shown.contains("reading") && shown.contains("delivering"), "{shown}");
    assert!(shown.contains("2 commits delivered"), "{shown}");
    let piped = server.run(&["backfill", "main"]).succeeds();
    assert!(!piped.stderr.contains("reading") && !piped.stderr.contains('\r'), "{piped:?}");
}

#[test]
fn colour_is_used_on_a_terminal_and_without_no_color_only() {
    const ESCAPE: char = '\x1b';
    let server = Server::without_hook();
    assert!(on_a_terminal(server.command(&["--help"])).contains(ESCAPE));
    let mut plain = server.command(&["--help"]);
    plain.env("NO_COLOR", "1");
    assert!(!on_a_terminal(plain).contains(ESCAPE));
    assert!(!server.run(&["--help"]).succeeds().stdout.contains(ESCAPE));
}

#[test]
fn status_has_the_time_of_the_oldest_pending_commit_and_of_the_last_delivery() {
    let server = Server::delivering_later("");
    let before = humantime::format_rfc3339_seconds(std::time::SystemTime::now()).to_string();
    let is_recent = |date: &serde_json::Value| {
        date.as_str().is_some_and(|date| humantime::parse_rfc3339(date).is_ok() && date >= before.as_str())
    };
    let status = server.status();
    assert!(status["oldest_pending"].is_null() && status["last_delivery"].is_null(), "{status}");
    server.new_clone().push_commits(&["US1: one"]);
    let status = server.status();
    assert!(is_recent(&status["oldest_pending"]) && status["last_delivery"].is_null(), "{status}");
    server.deliver_all();
    let status = server.status();
    assert!(status["oldest_pending"].is_null() && is_recent(&status["last_delivery"]), "{status}");
    assert!(status["last_error"].is_null(), "{status}");
}
