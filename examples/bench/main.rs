//! How fast it is, as ratios in one run: `cargo run --release --example bench [-- --small] [PATH TO A REPOSITORY]`.
//!
//! Each comparison runs both sides in turn for several rounds and prints their medians. Times of this machine mean
//! little elsewhere; the ratios are what is promised. `--only=start`, `push`, `history`, `wide`, `delivery`, `many`,
//! `svn`, `hg` or `ledger` runs a part; `--program=PATH` measures another build. With `--small` everything is done on little data, and the
//! run fails if a ratio is off by more than a factor of three.

#![expect(unsafe_code, reason = "wait4 tells what a child used")]
#![expect(unreachable_pub, reason = "a program of several modules")]

#[path = "../common/mod.rs"]
mod common;
mod delivery;
mod history;
mod ledger;
mod many;
mod measure;
mod mercurial;
#[path = "../common/postgres.rs"]
mod postgres;
mod push;
mod subversion;

use std::path::PathBuf;
use std::process::ExitCode;

use common::{Result, build_program};
use measure::Table;

/// How much is done.
pub struct Plan {
    pub program: PathBuf,
    pub small: bool,
    /// A real repository to read; else one is made.
    pub repository: Option<PathBuf>,
}

type Measure = fn(&Plan, &mut Table) -> Result<()>;

fn main() -> Result<ExitCode> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let repository = arguments.iter().find(|argument| !argument.starts_with("--")).map(PathBuf::from);
    let small = arguments.iter().any(|argument| argument == "--small");
    let program = arguments.iter().find_map(|argument| argument.strip_prefix("--program=")).map(PathBuf::from);
    if cfg!(debug_assertions) && program.is_none() {
        eprintln!("This is a debug build, which says nothing about speed: use cargo run --release --example bench");
    }
    let plan = Plan { program: program.map_or_else(build_program, Ok)?, small, repository };
    let mut table = Table::default();
    let parts: [(&str, Measure); 9] = [
        ("start", push::start_up),
        ("push", push::pushes),
        ("history", history::read),
        ("wide", history::read_wide),
        ("delivery", delivery::deliver),
        ("many", many::many),
        ("svn", subversion::subversion),
        ("hg", mercurial::mercurial),
        ("ledger", ledger::ledger),
    ];
    let only = arguments.iter().find_map(|argument| argument.strip_prefix("--only="));
    for (_, measure) in parts.iter().filter(|(name, _)| only.is_none_or(|only| only == *name)) {
        measure(&plan, &mut table)?;
    }
    let cores = std::thread::available_parallelism()?;
    let size = std::fs::metadata(&plan.program)?.len() as f64 / 1e6;
    println!("\n{table}\n{cores} cores; the program has {size:.1} MB.");
    let off = small && table.is_far_off();
    Ok(if off { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}
