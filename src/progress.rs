//! Progress bars on a terminal.

#![expect(clippy::disallowed_types, reason = "this module draws the bars")]

use std::io::{self, IsTerminal};

use indicatif::{ProgressBar, ProgressStyle};

/// A bar on stderr; it shows nothing where that is not a terminal, and goes away in the end.
pub(crate) struct Progress(ProgressBar);

impl Progress {
    /// Counts commits up to a number that is known.
    pub(crate) fn of(total: u64, what: &'static str) -> Self {
        Progress::styled(ProgressBar::new(total), "{msg} {wide_bar} {pos}/{len} ({eta})", what)
    }

    /// Counts commits without an end in sight.
    pub(crate) fn endless(what: &'static str) -> Self {
        Progress::styled(ProgressBar::new_spinner(), "{spinner} {msg} {pos} commits ({per_sec})", what)
    }

    fn styled(bar: ProgressBar, template: &str, what: &'static str) -> Self {
        let bar = if io::stderr().is_terminal() { bar } else { ProgressBar::hidden() };
        let style = ProgressStyle::with_template(template).expect("the template is valid");
        Progress(bar.with_style(style).with_message(what))
    }

    pub(crate) fn advance(&self) {
        self.0.inc(1);
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.0.finish_and_clear();
    }
}
