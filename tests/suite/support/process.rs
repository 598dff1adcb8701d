//! Processes that a test starts, kills or waits for.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::os::unix::process::CommandExt;
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

/// A process that would go on for ever: it is killed when this is dropped, also if the test fails.
pub struct Service(Child);

impl Service {
    /// Starts a program whose output is discarded.
    pub fn start(command: Command) -> Self {
        Service(spawn(command))
    }

    pub fn id(&self) -> i32 {
        self.0.id() as i32
    }

    /// Asks the process to end, as a service manager does, and waits until it has; panics unless it succeeds.
    pub fn end(mut self) {
        signal(&self.0, libc::SIGTERM);
        assert!(self.0.wait().expect("it was ours").success());
    }
}

impl From<Child> for Service {
    fn from(child: Child) -> Self {
        Service(child)
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Sends a signal to a process.
pub fn signal(child: &Child, signal: i32) {
    // SAFETY: the child has not been waited for, so its number is still its own.
    assert_eq!(unsafe { libc::kill(child.id() as libc::pid_t, signal) }, 0, "it is there");
}

/// Lets a program be interrupted and hung up, also where a shell or nohup has started these tests with that ignored.
pub fn interruptible(mut command: Command) -> Command {
    // SAFETY: signal may be called between fork and exec.
    unsafe {
        command.pre_exec(|| {
            libc::signal(libc::SIGINT, libc::SIG_DFL);
            libc::signal(libc::SIGHUP, libc::SIG_DFL);
            Ok(())
        })
    };
    command
}

/// Tells whether a process catches a signal.
pub fn catches(pid: u32, signal: i32) -> bool {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigCgt:"));
    mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).is_some_and(|mask| mask >> (signal - 1) & 1 == 1)
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

/// Returns the processes that deliver for this repository in the background: who holds the lock on its file.
pub fn deliverers(git_dir: &Path) -> Vec<i32> {
    holders(&git_dir.join("rally-hook/background.lock"))
}

/// Returns the processes that hold the lock on a file.
///
/// The kernel prints its list of locks in pieces; what changes meanwhile makes others appear twice, or not at all. So it
/// is read until two readings say the same.
pub fn holders(lock: &Path) -> Vec<i32> {
    let mut latest = holders_read(lock);
    loop {
        let again = holders_read(lock);
        if again == latest {
            return latest.into_iter().collect();
        }
        latest = again;
    }
}

fn holders_read(lock: &Path) -> BTreeSet<i32> {
    let Ok(lock) = fs::metadata(lock) else { return BTreeSet::new() };
    // "1: FLOCK  ADVISORY  WRITE 4711 08:01:917514 0 EOF"; each file system counts its inodes from the beginning.
    let device = lock.dev();
    let inode = format!(" {:02x}:{:02x}:{} ", libc::major(device), libc::minor(device), lock.ino());
    let locks = fs::read_to_string("/proc/locks").expect("Linux");
    let held = locks.lines().filter(|line| line.contains("FLOCK") && line.contains(&inode));
    held.filter_map(|line| line.split_whitespace().nth(4)?.parse().ok()).filter(|pid| *pid > 0).collect()
}

/// Limits the memory of a command to so many bytes. Mapped files such as packs do not count.
pub fn limit_memory(command: &mut Command, bytes: u64) {
    let limit = libc::rlimit { rlim_cur: bytes, rlim_max: bytes };
    // SAFETY: setrlimit may be called between fork and exec, and reads a structure that is the closure's own.
    unsafe {
        command.pre_exec(move || match libc::setrlimit(libc::RLIMIT_DATA, &limit) {
            0 => Ok(()),
            _ => Err(std::io::Error::last_os_error()),
        });
    }
}
