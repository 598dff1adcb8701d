//! Panics: faults of our own, which must neither fail a push nor go by unheard.

use std::panic::{self, AssertUnwindSafe};
use std::sync::{Mutex, PoisonError};

/// What the first panic of the work at hand said; one in a thread comes before the one of who waits for it.
static FIRST: Mutex<Option<String>> = Mutex::new(None);

/// Does some work. A panic in it is not printed.
///
/// # Errors
/// Where and why it panicked.
pub(crate) fn caught<T>(work: impl FnOnce() -> T) -> Result<T, String> {
    let first = || FIRST.lock().unwrap_or_else(PoisonError::into_inner);
    let usual = panic::take_hook();
    panic::set_hook(Box::new(move |panic| {
        first().get_or_insert_with(|| panic.to_string());
    }));
    let done = caught_in_thread(work);
    panic::set_hook(usual);
    done
}

/// Does some work on a thread, while [`caught`] waits for that thread.
///
/// # Errors
/// Where and why it panicked.
pub(crate) fn caught_in_thread<T>(work: impl FnOnce() -> T) -> Result<T, String> {
    let done = panic::catch_unwind(AssertUnwindSafe(work));
    done.map_err(|_| FIRST.lock().unwrap_or_else(PoisonError::into_inner).take().unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_panic_is_told_with_its_place_though_it_was_in_a_thread() {
        assert_eq!(caught(|| 1), Ok(1));
        let error = caught(|| {
            std::thread::scope(|scope| {
                scope.spawn(|| panic!("what went wrong")).join().expect("the thread does not panic");
            });
        });
        assert!(error.as_ref().is_err_and(|text| text.contains("what went wrong") && text.contains("panics.rs")));
        assert_eq!(caught(|| 2), Ok(2));
    }
}
