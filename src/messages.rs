//! What people see on stderr: one line each, with the program's name, harmless to a terminal.

use std::io::Write;

use crate::text;

/// More than this is never written at once by the hook: a pipe that nobody reads holds some thousand bytes, and a
/// hook that waits for a client that has died hangs for ever.
const MAX_LINE: usize = 300;

/// Writes a line to stderr. A stderr that is gone is no trouble.
pub fn tell(message: &str) {
    let _ = writeln!(std::io::stderr(), "rally-hook: {}", text::printable(message));
}

/// Writes the hook's one line, which Git passes on to the pusher.
pub fn tell_pusher(message: &str) {
    let line = text::printable(message);
    let _ = writeln!(std::io::stderr(), "rally: {}", text::cut(&line, MAX_LINE));
}
