//! What people and programs type: exit codes, pipes, completions.

use std::process::Stdio;

use crate::support::{Server, ran};

#[test]
fn exit_codes_tell_wrong_usage_from_work_left_undone() {
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
    for arguments in [&["status"][..], &["deliver"], &["deliver", "--wait"], &["catch-up"], &["--version"], &["--help"]]
    {
        server.run(arguments).fails_with(0);
    }
    let mut elsewhere = server.command(&["status"]);
    elsewhere.current_dir("/");
    let told = ran(elsewhere).fails_with(2);
    assert!(told.stderr.contains("is not a Git repository"), "{told:?}");
    let mut by_variable = server.command(&["status", "--json"]);
    by_variable.current_dir("/").env("GIT_DIR", &server.git_dir);
    ran(by_variable).fails_with(0);
    let mut inside = server.command(&["status"]);
    inside.current_dir(server.git_dir.join("objects"));
    ran(inside).fails_with(0);
}

#[test]
fn a_reader_that_goes_away_is_no_failure() {
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

#[test]
fn completions_and_the_manual_know_every_command() {
    let server = Server::without_hook();
    let commands = ["backfill", "deliver", "catch-up", "status", "retry", "install", "uninstall", "doctor"];
    for arguments in [&["completions", "bash"][..], &["completions", "zsh"], &["completions", "fish"], &["--help"]] {
        let text = server.run(arguments).succeeds().stdout;
        assert!(commands.iter().all(|command| text.contains(command)), "{arguments:?}");
    }
    let page = server.run(&["man"]).succeeds().stdout;
    assert!(page.contains(".TH rally-hook 1"), "{page}");
    assert!(commands.iter().all(|command| page.contains(&command.replace('-', "\\-"))), "{page}");
    assert!(!server.git_dir.join("rally-hook").exists());
}
