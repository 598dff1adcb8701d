//! Processes that a test starts, kills or waits for.

use std::fs;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// How long a test waits for an event before it fails.
const MAX_WAIT: Duration = Duration::from_secs(60);

/// Waits until the condition holds; panics if that takes too long.
pub fn wait_for(what: &str, mut holds: impl FnMut() -> bool) {
    let end = Instant::now() + MAX_WAIT;
    while !holds() {
        assert!(Instant::now() < end, "waited in vain for {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Starts a program whose output is discarded.
pub fn spawn(mut command: Command) -> Child {
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    command.spawn().expect("the program can be run")
}

/// Kills a process with `SIGKILL`; it may have ended already.
pub fn kill(mut child: Child) {
    let _ = child.kill();
    child.wait().expect("it was ours");
}

/// Kills a process that the test did not start itself.
pub fn kill_by_id(pid: i32) {
    // SAFETY: kill only takes numbers.
    assert_eq!(unsafe { libc::kill(pid, libc::SIGKILL) }, 0, "process {pid} is there");
}

/// Kills a process together with the process group that it leads, if it leads one.
pub fn kill_group(child: Child) {
    signal_group(&child, libc::SIGKILL);
    kill(child);
}

/// Sends a signal to the process group that a process leads, if it leads one.
pub fn signal_group(child: &Child, signal: i32) {
    // SAFETY: the child has not been waited for, so its number is still its own.
    unsafe { libc::kill(-(child.id() as libc::pid_t), signal) };
}

/// Lets a process run for this long, then kills it with its group; returns whether it ended by itself before.
pub fn kill_after(mut child: Child, delay: Duration) -> bool {
    let end = Instant::now() + delay;
    while Instant::now() < end {
        if child.try_wait().expect("it was ours").is_some() {
            return true;
        }
        std::thread::sleep(Duration::from_micros(200).min(end.saturating_duration_since(Instant::now())));
    }
    kill_group(child);
    false
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
