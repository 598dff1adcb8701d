//! Processes that a test starts, kills or waits for, and events to wait for.

use std::fs;
use std::path::Path;
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

/// Returns the processes that deliver for this repository in the background.
pub fn deliverers(git_dir: &Path) -> Vec<i32> {
    let dir = git_dir.canonicalize().expect("it is there");
    let is_one = |pid: &i32| {
        fs::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|name| name.trim() == "rally-deliver")
            && fs::read_link(format!("/proc/{pid}/cwd")).is_ok_and(|cwd| cwd == dir)
    };
    let entries = fs::read_dir("/proc").expect("Linux").flatten();
    entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).filter(is_one).collect()
}

/// Lets a process run for that long, then kills it and the group that it leads; returns whether it had ended before.
pub fn kill_after(mut child: Child, delay: Duration) -> bool {
    let end = Instant::now() + delay;
    while Instant::now() < end {
        if child.try_wait().expect("it was ours").is_some() {
            return true;
        }
        std::thread::sleep(Duration::from_micros(200).min(end.saturating_duration_since(Instant::now())));
    }
    super::fault::kill_group(child);
    false
}
