//! What people see on stderr: one line each, with the program's name, harmless to a terminal.

use std::io::Write;
use std::sync::atomic::{AtomicBool, Ordering};
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

/// Lines that are written only if something is not done.
static HELD: Mutex<Option<Vec<String>>> = Mutex::new(None);
static IS_VERBOSE: AtomicBool = AtomicBool::new(false);

/// From now on, lines are held back until it is known whether all was done.
pub(crate) fn hold() {
    HELD.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert_default();
}

/// Writes the lines that were held back.
pub(crate) fn release() {
    let held = HELD.lock().unwrap_or_else(PoisonError::into_inner).take();
    held.iter().flatten().for_each(|line| write(line));
}

pub(crate) fn is_quiet() -> bool {
    HELD.lock().unwrap_or_else(PoisonError::into_inner).is_some()
}

/// From now on, what the log is told of is told on stderr too.
pub(crate) fn set_verbose() {
    IS_VERBOSE.store(true, Ordering::Relaxed);
}

pub(crate) fn is_verbose() -> bool {
    IS_VERBOSE.load(Ordering::Relaxed)
}

/// Writes a line to stderr. Nothing happens if stderr is closed.
pub(crate) fn tell(message: &str) {
    let subject = SUBJECT.lock().unwrap_or_else(PoisonError::into_inner);
    let line = format!("{PROGRAM}: {}{}", text::printable(&subject), text::printable(message));
    match &mut *HELD.lock().unwrap_or_else(PoisonError::into_inner) {
        Some(held) => held.push(line),
        None => write(&line),
    }
}

fn write(line: &str) {
    let _ = writeln!(std::io::stderr(), "{line}");
}

/// Whether the pusher was told anything.
static IS_PUSHER_TOLD: AtomicBool = AtomicBool::new(false);

pub(crate) fn is_pusher_told() -> bool {
    IS_PUSHER_TOLD.load(Ordering::Relaxed)
}

/// Writes the hook's one line, which Git passes on to the pusher.
pub(crate) fn tell_pusher(message: &str) {
    IS_PUSHER_TOLD.store(true, Ordering::Relaxed);
    let line = text::printable(message);
    let _ = writeln!(std::io::stderr(), "rally: {}", text::cut(&line, MAX_LINE));
}
