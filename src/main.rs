//! Parses, runs, and tells the outcome.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Parser;
use rally_hook::cli::{Cli, Place, PostReceive};
use rally_hook::command::{self, Ended, post_receive};
use rally_hook::messages::tell;

// What unwinds a panic becomes part of the program, so that no libgcc_s has to be found and loaded at each start.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
#[link(name = "gcc_eh")]
unsafe extern "C" {}

fn main() -> ExitCode {
    if let Some(hook) = hook_file() {
        post_receive::run(&Place::default(), &PostReceive { hook: Some(hook) });
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

/// Returns the hook that is run, where there is nothing to parse: the program was linked or copied to
/// `hooks/post-receive`, or is the interpreter of the file that `install` wrote there.
fn hook_file() -> Option<PathBuf> {
    let is_named_so = |path: &OsString| Path::new(path).file_name().is_some_and(|name| name == "post-receive");
    let arguments: Vec<OsString> = std::env::args_os().take(4).collect();
    match arguments.as_slice() {
        [hook, ..] if is_named_so(hook) => Some(hook.into()),
        [_, command, hook] if command == "post-receive" && is_named_so(hook) => Some(hook.into()),
        _ => None,
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
