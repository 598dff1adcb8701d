//! Processes that a test starts, kills or waits for, and events to wait for.

use std::process::Child;
use std::time::{Duration, Instant};

/// How long a wait lasts before it is given up as failed.
const MAX_WAIT: Duration = Duration::from_secs(60);

/// Waits until something is so; panics if that takes too long.
pub fn wait_for(what: &str, mut is_so: impl FnMut() -> bool) {
    let end = Instant::now() + MAX_WAIT;
    while !is_so() {
        assert!(Instant::now() < end, "waited in vain for {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Lets a process run for that long, then kills it; returns whether it had ended before.
pub fn kill_after(mut child: Child, delay: Duration) -> bool {
    let end = Instant::now() + delay;
    while Instant::now() < end {
        if child.try_wait().expect("it was ours").is_some() {
            return true;
        }
        std::thread::sleep(Duration::from_micros(200).min(end.saturating_duration_since(Instant::now())));
    }
    super::fault::kill(child);
    false
}
