//! `rally-hook completions`: made from what can be typed.

use clap::CommandFactory;
use clap_complete::Shell;

use super::{Ended, Error, write_out};
use crate::PROGRAM;
use crate::cli::Cli;

pub(super) fn run(shell: Shell) -> Result<Ended, Error> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), PROGRAM, &mut script);
    write_out(&script)
}
