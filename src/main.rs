//! Parses, runs, and tells the outcome.

use std::path::Path;
use std::process::ExitCode;

use clap::Parser;
use rally_hook::cli::{Cli, Place, PostReceive};
use rally_hook::command::{self, Ended, post_receive};
use rally_hook::messages::tell;

fn main() -> ExitCode {
    // Linked or copied to hooks/post-receive, the program is the hook.
    let name = std::env::args_os().next().unwrap_or_default();
    if Path::new(&name).file_name().is_some_and(|name| name == "post-receive") {
        post_receive::run(&Place::default(), &PostReceive::default());
        return ExitCode::SUCCESS;
    }
    match command::run(Cli::parse()) {
        Ok(Ended::Done) => ExitCode::SUCCESS,
        Ok(Ended::NotAll) => ExitCode::FAILURE,
        Err(error) if error.is_closed_pipe() => ExitCode::SUCCESS,
        Err(error) => {
            tell(&chain(&error));
            error.exit_code()
        }
    }
}

/// Returns an error with its causes.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        // Some say their cause themselves.
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            text = format!("{text}: {cause_text}");
        }
        source = cause.source();
    }
    text
}
