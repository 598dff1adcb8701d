//! `rally-hook man`: the manual's pages about the program and its commands, made from what can be typed, and
//! rally-hook.toml(5), made from `config.sample.toml`.

use std::io;

use clap::CommandFactory;
use clap_mangen::roff::{Inline, Roff, bold, roman};

use super::{Ended, Error, write_out};
use crate::PROGRAM;
use crate::cli::Cli;

/// The page that is about the configuration.
const CONFIGURATION: &str = "rally-hook.toml";
const SAMPLE: &str = include_str!("../../config.sample.toml");

const SOURCE: &str = concat!("rally-hook ", env!("CARGO_PKG_VERSION"));
const MANUAL: &str = "Rally-hook Manual";
/// Without a date, which would be that of a release, the page's footer would take the next value for it.
const NO_DATE: &str = " ";

/// A section: its name, its entries, and what is said of each of them.
type Section = (&'static str, &'static [(&'static str, &'static str)]);

const SECTIONS: [Section; 3] = [
    (
        "EXIT STATUS",
        &[
            ("0", "Done. `post-receive` always exits with 0, because Git ignores it."),
            ("1", "Something was not done, and standard error says what. For `status`: a person must act."),
            ("2", "Wrong usage or configuration."),
        ],
    ),
    (
        "FILES",
        &[
            ("/etc/rally-hook/config.toml", "The configuration for all repositories, see rally-hook.toml(5)."),
            (
                "rally-hook.toml",
                "In the Git directory, in `.hg`, or in the directory of a Subversion repository: its configuration. The other \
                 files below lie there too.",
            ),
            ("rally-hook/queue.db", "The queue. Never delete it while something is queued."),
            ("rally-hook.queue", "Names the directory with the queue, which may be below `queue.dir`."),
            ("rally-hook/log", "The log, if the configuration names no other place."),
            ("hooks/post-receive", "The hook of Git, or where `core.hooksPath` says."),
            ("hooks/post-commit, hooks/post-revprop-change", "The hooks of Subversion."),
            ("hooks/*.before-rally-hook", "A hook that was there before; it runs first."),
            ("rally-hook/hgrc", "The hook of Mercurial, which `hgrc` includes."),
            (
                "/var/lib/rally-hook/permits",
                "What the processes of this machine share: locks that limit their requests to Rally, and Rally's answers. If \
                 this directory does not exist, `~/.local/state/rally-hook` or `$XDG_RUNTIME_DIR/rally-hook` has them.",
            ),
        ],
    ),
    (
        "ENVIRONMENT",
        &[
            ("RALLY_HOOK_CONFIG", "The only configuration file to read, as with `--config`."),
            ("RALLY_API_KEY", "The API key, if no configuration file has credentials."),
            ("RALLY_PASSWORD", "The password, if a configuration file has a user name but no password."),
            ("GIT_DIR", "The repository, as with `--repo`. Git sets it for hooks."),
            (
                "HTTPS_PROXY, ALL_PROXY, NO_PROXY",
                "The proxy for requests to Rally, if the configuration names none, and the servers to reach without it.",
            ),
            ("PATH", "Where `git`, `svn` and `hg` are looked for."),
            ("HG", "The program to run instead of `hg`. Mercurial sets it for hooks."),
            ("NO_COLOR", "If it is set, nothing is coloured."),
        ],
    ),
];

pub(super) fn run(page: Option<&str>) -> Result<Ended, Error> {
    // There is no page for `help`.
    let mut program = Cli::command().disable_help_subcommand(true);
    program.build();
    let page = match page {
        Some(CONFIGURATION) => configuration(),
        None => about(program, "rally-hook-backfill(1) and so on, one page for each command, and rally-hook.toml(5)")?,
        Some(name) => match program.find_subcommand(name) {
            Some(command) => about(command.clone(), "rally-hook(1), rally-hook.toml(5)")?,
            None => {
                let unknown = format!(
                    "there is no page {name:?}; write {CONFIGURATION} or a command; `{PROGRAM} --help` lists them"
                );
                return Err(Error::Usage(unknown));
            }
        },
    };
    write_out(&page)
}

/// Returns the page about the program or a command.
fn about(mut command: clap::Command, see_also: &str) -> io::Result<Vec<u8>> {
    let usage = command.render_usage().to_string();
    let text = command.get_after_help().map(ToString::to_string).unwrap_or_default();
    let (description, examples) = text.split_once("Examples:\n").unwrap_or((&text, ""));
    let has_commands = command.has_subcommands();
    let man = clap_mangen::Man::new(command).date(NO_DATE).source(SOURCE).manual(MANUAL);
    let mut page = Vec::new();
    man.render_title(&mut page)?;
    man.render_name_section(&mut page)?;
    let mut purpose = Roff::new();
    purpose.control("SH", ["SYNOPSIS"]).text([bold(usage.trim_start_matches("Usage: "))]);
    purpose.control("SH", ["DESCRIPTION"]);
    paragraphs(&mut purpose, description, "PP");
    purpose.to_writer(&mut page)?;
    man.render_options_section(&mut page)?;
    if has_commands {
        man.render_subcommands_section(&mut page)?;
    }
    let mut rest = Roff::new();
    for (name, entries) in SECTIONS {
        rest.control("SH", [name]);
        for (entry, text) in entries {
            rest.control("TP", []).text([bold(*entry)]).text(marked(text));
        }
    }
    rest.control("SH", ["EXAMPLES"]);
    literally(&mut rest, examples.lines().map(str::trim_start));
    rest.control("SH", ["SEE ALSO"]).text([roman(see_also)]);
    rest.to_writer(&mut page)?;
    Ok(page)
}

/// Returns the page about the configuration: the comments and settings of the sample, block by block.
fn configuration() -> Vec<u8> {
    let mut page = Roff::new();
    page.control("TH", [CONFIGURATION, "5", NO_DATE, SOURCE, MANUAL]);
    page.control("SH", ["NAME"]).text([roman("rally-hook.toml - configuration of rally-hook")]);
    page.control("SH", ["DESCRIPTION"]);
    for block in SAMPLE.trim_end().split("\n\n") {
        let mut lines = block.lines().peekable();
        if let Some(section) = lines.next_if(|line| line.starts_with('[')) {
            page.control("SH", [section]);
        }
        let mut comment = String::new();
        while let Some(line) = lines.next_if(|line| *line == "#" || line.starts_with("# ")) {
            comment.extend([line.strip_prefix("# ").unwrap_or_default(), "\n"]);
        }
        let settings: Vec<&str> = lines.collect();
        match settings.split_first() {
            None => paragraphs(&mut page, &comment, "PP"),
            Some((first, _)) if first.starts_with("#[[") => {
                page.control("SH", [first.trim_start_matches('#')]);
                paragraphs(&mut page, &comment, "PP");
                page.control("PP", []);
                literally(&mut page, settings);
            }
            Some((first, others)) => {
                page.control("TP", []).text([bold(*first)]);
                for other in others {
                    page.control("TQ", []).text([bold(*other)]);
                }
                paragraphs(&mut page, &comment, "IP");
            }
        }
    }
    page.control("SH", ["SEE ALSO"]).text([roman("rally-hook(1), rally-hook-config(1), rally-hook-doctor(1)")]);
    page.render().into_bytes()
}

/// Writes text whose paragraphs an empty line divides, with this request between them. An indented line stays a line.
fn paragraphs(page: &mut Roff, text: &str, between: &str) {
    for (number, paragraph) in text.trim().split("\n\n").filter(|text| !text.is_empty()).enumerate() {
        if number > 0 {
            page.control(between, []);
        }
        for (number, line) in paragraph.split("\n  ").enumerate() {
            if number > 0 {
                page.control("br", []);
            }
            page.text(marked(line.trim_start()));
        }
    }
}

/// Returns text in which what stands between backticks is bold.
fn marked(text: &str) -> Vec<Inline> {
    let part = |(number, part): (usize, &str)| {
        let part = part.replace('\n', " ");
        if number % 2 == 0 { roman(part) } else { bold(part) }
    };
    text.split('`').enumerate().map(part).collect()
}

/// Writes lines as they are.
fn literally<'a>(page: &mut Roff, lines: impl IntoIterator<Item = &'a str>) {
    page.control("nf", []);
    for line in lines {
        page.text([roman(line)]);
    }
    page.control("fi", []);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_about_the_configuration_has_every_key_and_its_text() {
        let page = String::from_utf8(configuration()).expect("text");
        let entry = |setting: &str, text: &str| format!("\\fB{setting}\\fR\n{text}");
        for expected in [
            entry("server = \"https://rally1.rallydev.com\"", "The address of the Rally server"),
            entry("#password = \"secret\"", "The credentials: an API key"),
            entry("match = [\"email\", \"username\", \"display\\-name\"]", "How rally\\-hook finds the Rally user"),
            ".SH [authors]\n.TP\n\\fB#map_file".to_owned(),
            ".br\nusername:     the user\\*(Aqs user name".to_owned(),
            ".SH [[match]]\nKeys for some repositories.".to_owned(),
        ] {
            assert!(page.contains(&expected), "{expected} in {page}");
        }
        let settings = SAMPLE.lines().filter(|line| line.contains(" = ") && !line.starts_with("# "));
        for setting in settings {
            assert!(page.contains(&setting.replace('-', "\\-")), "{setting}");
        }
        assert!(page.is_ascii());
    }
}
