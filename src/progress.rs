//! How far a command is: a bar on a terminal, a line now and then elsewhere.

#![expect(clippy::disallowed_types, reason = "this module draws the bars")]

use std::cell::Cell;
use std::io::{self, IsTerminal};
use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::clock::Deadline;
use crate::messages::{is_quiet, is_verbose, tell};

/// How often a line is written where stderr is not a terminal.
const INTERVAL: Duration = Duration::from_secs(10);

/// A bar on stderr, which goes away in the end.
pub(crate) struct Progress {
    bar: ProgressBar,
    what: &'static str,
    /// When the next line is due, where there is no bar.
    next_line: Cell<Option<Deadline>>,
}

impl Progress {
    /// Counts commits up to a number that is known.
    pub(crate) fn of(total: u64, what: &'static str) -> Self {
        Progress::styled(ProgressBar::new(total), "{msg} {wide_bar} {pos}/{len} ({per_sec}, {eta} left)", what)
    }

    /// Counts commits without an end in sight.
    pub(crate) fn endless(what: &'static str) -> Self {
        Progress::styled(ProgressBar::new_spinner(), "{spinner} {msg} {pos} commits ({per_sec})", what)
    }

    fn styled(bar: ProgressBar, template: &str, what: &'static str) -> Self {
        let (is_terminal, is_quiet) = (io::stderr().is_terminal() && !is_verbose(), is_quiet());
        bar.set_draw_target(if is_terminal && !is_quiet {
            ProgressDrawTarget::stderr()
        } else {
            ProgressDrawTarget::hidden()
        });
        let style = ProgressStyle::with_template(template).expect("the template is valid");
        let next_line = Cell::new((!is_terminal && !is_quiet).then(|| Deadline::after(INTERVAL)));
        Progress { bar: bar.with_style(style).with_message(what), what, next_line }
    }

    pub(crate) fn advance(&self) {
        self.bar.inc(1);
        if self.next_line.get().is_some_and(Deadline::has_passed) {
            self.next_line.set(Some(Deadline::after(INTERVAL)));
            tell(&self.line());
        }
    }

    /// Returns how far it is, in words.
    fn line(&self) -> String {
        let (done, rate) = (self.bar.position(), self.bar.per_sec());
        match self.bar.length() {
            Some(total) => {
                let left = humantime::format_duration(Duration::from_secs(self.bar.eta().as_secs()));
                format!("{}: {done} of {total} commits ({rate:.0} a second, {left} left)", self.what)
            }
            None => format!("{}: {done} commits ({rate:.0} a second)", self.what),
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_tells_how_much_is_done_and_how_much_there_is() {
        let progress = Progress::of(100, "delivering");
        (0..30).for_each(|_| progress.advance());
        let line = progress.line();
        assert!(line.starts_with("delivering: 30 of 100 commits (") && line.ends_with(" left)"), "{line}");
        let line = Progress::endless("reading").line();
        assert!(line.starts_with("reading: 0 commits ("), "{line}");
    }
}
