//! `rally-hook completions` and `rally-hook man`: made from what can be typed.

use clap::CommandFactory;
use clap_complete::Shell;

use super::{Ended, Error, write_out};
use crate::PROGRAM;
use crate::cli::Cli;

pub(super) fn completions(shell: Shell) -> Result<Ended, Error> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), PROGRAM, &mut script);
    write_out(&script)
}

pub(super) fn man(command: Option<&str>) -> Result<Ended, Error> {
    // There is no page for `help`.
    let mut program = Cli::command().disable_help_subcommand(true);
    program.build();
    let topic = match command {
        None => program,
        Some(name) => program
            .find_subcommand(name)
            .cloned()
            .ok_or_else(|| Error::Usage(format!("there is no command {name:?}; `{PROGRAM} --help` lists them")))?,
    };
    let mut page = Vec::new();
    let source = concat!("rally-hook ", env!("CARGO_PKG_VERSION"));
    // Without a date, which would be that of a release, the page's footer would take the next value for it.
    clap_mangen::Man::new(topic).date(" ").source(source).manual("Rally-hook Manual").render(&mut page)?;
    write_out(&page)
}
