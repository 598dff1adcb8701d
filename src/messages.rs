//! What people see on stderr: one line each, with the program's name, harmless to a terminal.

use std::io::Write;
use std::sync::{Mutex, PoisonError};

use crate::{PROGRAM, text};

/// More than this is never written at once by the hook: a pipe that nobody reads holds some thousand bytes, and a
/// hook that waits for a client that has died hangs for ever.
const MAX_LINE: usize = 300;

/// What each line begins with.
static SUBJECT: Mutex<String> = Mutex::new(String::new());

/// From now on, what is told is about this: one of several repositories. Empty for nothing in particular.
pub(crate) fn set_subject(subject: &str) {
    let subject = if subject.is_empty() { String::new() } else { format!("{subject}: ") };
    *SUBJECT.lock().unwrap_or_else(PoisonError::into_inner) = subject;
}

/// Writes a line to stderr. Nothing happens if stderr is closed.
pub(crate) fn tell(message: &str) {
    let subject = SUBJECT.lock().unwrap_or_else(PoisonError::into_inner);
    let _ = writeln!(std::io::stderr(), "{PROGRAM}: {}{}", text::printable(&subject), text::printable(message));
}

/// Writes the hook's one line, which Git passes on to the pusher.
pub(crate) fn tell_pusher(message: &str) {
    let line = text::printable(message);
    let _ = writeln!(std::io::stderr(), "rally: {}", text::cut(&line, MAX_LINE));
}
