//! How fast it is, as ratios in one run: `cargo run --release --example bench [-- --small] [PATH TO A REPOSITORY]`.
//!
//! Each comparison runs both sides in turn for several rounds and prints their medians. Times of this machine mean
//! little elsewhere; the ratios are what is promised. With `--small` everything is done on little data, and the run
//! fails if a ratio is off by more than a factor of two.

#[path = "../common/mod.rs"]
mod common;
mod delivery;
mod history;
mod measure;
mod push;

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

fn main() -> Result<ExitCode> {
    if cfg!(debug_assertions) {
        eprintln!("This is a debug build, which says nothing about speed: use cargo run --release --example bench");
    }
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let repository = arguments.iter().find(|argument| !argument.starts_with("--")).map(PathBuf::from);
    let small = arguments.iter().any(|argument| argument == "--small");
    let plan = Plan { program: build_program()?, small, repository };
    let mut table = Table::default();
    push::start_up(&plan, &mut table)?;
    push::pushes(&plan, &mut table)?;
    history::read(&plan, &mut table)?;
    delivery::deliver(&plan, &mut table)?;
    let cores = std::thread::available_parallelism()?;
    let size = std::fs::metadata(&plan.program)?.len() as f64 / 1e6;
    println!("\n{table}\n{cores} cores; the program has {size:.1} MB.");
    let off = small && table.is_off_by_a_factor_of_two();
    Ok(if off { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}
