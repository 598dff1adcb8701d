//! What this program asks of the operating system about processes. All unsafe code stands here.

use std::ffi::{CString, OsStr};
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, IntoRawFd, OwnedFd};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{self, Command};
use std::sync::atomic::{AtomicBool, AtomicI32, Ordering};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::StatVfsMountFlags;
use rustix::io::Errno;
use rustix::pipe::PipeFlags;
use rustix::process::{DumpableBehavior, Resource, getrlimit, set_dumpable_behavior, setrlimit};

/// What the delivery's process is called in lists of processes.
const NAME: &std::ffi::CStr = c"rally-deliver";
/// How much it gives way to other processes: the push that began it goes first.
const NICENESS: libc::c_int = 10;

/// Returns the number of the user whose rights this process has.
pub(crate) fn effective_user() -> u32 {
    rustix::process::geteuid().as_raw()
}

/// Tells whether this process has the rights of a group because it is in it, and not because it is root.
pub(crate) fn is_in_group(group: u32) -> bool {
    let groups = rustix::process::getgroups().unwrap_or_default();
    let own = std::iter::once(rustix::process::getegid()).chain(groups);
    effective_user() != 0 && own.into_iter().any(|own| own.as_raw() == group)
}

/// Returns what this host is called.
pub(crate) fn host_name() -> String {
    rustix::system::uname().nodename().to_string_lossy().into_owned()
}

/// Keeps other processes of the same user from reading this one's memory, and the system from writing it to a core file.
pub(crate) fn hide_memory() {
    let _ = set_dumpable_behavior(DumpableBehavior::NotDumpable);
}

/// Lets this process open as many files as it ever may.
pub(crate) fn allow_many_files() {
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    let _ = setrlimit(Resource::Nofile, limit);
}

/// Tells the service manager how this service stands, if one has started it (`man 3 sd_notify`). It is not waited for.
pub(crate) fn tell_service_manager(socket: &OsStr, state: &str) {
    let address = match socket.as_bytes() {
        [b'@', name @ ..] => SocketAddr::from_abstract_name(name),
        _ => SocketAddr::from_pathname(socket),
    };
    let _ = address.and_then(|address| UnixDatagram::unbound()?.send_to_addr(state.as_bytes(), &address));
}

/// Removes a variable from the environment, and overwrites its text, which the system shows as the process's environment.
pub(crate) fn erase_variable(name: &str) {
    let Ok(name) = CString::new(name) else { return };
    // SAFETY: there is no other thread that could read the environment; getenv returns a string that ends with NUL or null.
    unsafe {
        let value = libc::getenv(name.as_ptr());
        if !value.is_null() {
            std::ptr::write_bytes(value, b'*', libc::strlen(value));
            libc::unsetenv(name.as_ptr());
        }
    }
}

/// Returns how many characters a line of standard output has, if that is a terminal.
pub(crate) fn terminal_width() -> Option<usize> {
    rustix::termios::tcgetwinsize(io::stdout()).ok().map(|size| usize::from(size.ws_col)).filter(|width| *width > 0)
}

/// How much room a file system has for this user: in bytes, and in files.
pub(crate) fn free_space(dir: &Path) -> io::Result<(u64, u64)> {
    let stat = rustix::fs::statvfs(dir)?;
    // Some file systems do not count files.
    let files = if stat.f_files == 0 { u64::MAX } else { stat.f_favail };
    Ok((stat.f_bavail.saturating_mul(stat.f_frsize), files))
}

/// Tells whether programs on the file system of this file cannot be run.
pub(crate) fn is_on_noexec_mount(path: &Path) -> bool {
    rustix::fs::statvfs(path).is_ok_and(|stat| stat.f_flag.contains(StatVfsMountFlags::NOEXEC))
}

/// Returns the number by which the kernel knows the kind of file system that holds a file (`man 2 statfs`).
pub(crate) fn file_system_type(path: &Path) -> Option<u32> {
    // Its type differs between C libraries; all numbers have 32 bits.
    rustix::fs::statfs(path).ok().map(|stat| stat.f_type as u32)
}

/// Has the signals ignored that would end this process when the client of a push goes away.
pub(crate) fn ignore_hang_ups() {
    // SAFETY: setting a signal's disposition to "ignore" has no preconditions.
    unsafe {
        libc::signal(libc::SIGPIPE, libc::SIG_IGN);
        libc::signal(libc::SIGHUP, libc::SIG_IGN);
    }
}

/// Whether somebody has asked this process to end.
static IS_TERMINATED: AtomicBool = AtomicBool::new(false);

/// Where such a signal is noted, for whoever waits for it; -1 for nowhere.
static TERMINATION: AtomicI32 = AtomicI32::new(-1);

/// Does what [`note_terminations`] does, and returns what can be read once such a signal came.
pub(crate) fn wait_for_termination() -> io::Result<OwnedFd> {
    let (read, write) = rustix::pipe::pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK)?;
    // It stays open as long as the process lives.
    TERMINATION.store(write.into_raw_fd(), Ordering::Relaxed);
    note_terminations();
    Ok(read)
}

/// From now on, the signals that end a process only make [`is_terminated`] true, for work that must not be left half done.
pub(crate) fn note_terminations() {
    extern "C" fn note(signal: libc::c_int) {
        // Whoever asks twice does not want to wait.
        // SAFETY: a signal may interrupt anything for signal, which sets its disposition to the default.
        unsafe { libc::signal(signal, libc::SIG_DFL) };
        IS_TERMINATED.store(true, Ordering::Relaxed);
        let descriptor = TERMINATION.load(Ordering::Relaxed);
        if descriptor >= 0 {
            // SAFETY: a signal may interrupt anything for write, and the byte lives on the stack.
            unsafe { libc::write(descriptor, [0u8].as_ptr().cast(), 1) };
        }
    }
    let handler: extern "C" fn(libc::c_int) = note;
    for signal in [libc::SIGINT, libc::SIGTERM, libc::SIGHUP] {
        // SAFETY: the handler does only what may be done in one (see `man 7 signal-safety`).
        unsafe {
            // `nohup` has it ignored, and means that.
            if libc::signal(signal, handler as libc::sighandler_t) == libc::SIG_IGN {
                libc::signal(signal, libc::SIG_IGN);
            }
        }
    }
}

/// Tells whether one of these signals came since [`note_terminations`].
pub(crate) fn is_terminated() -> bool {
    IS_TERMINATED.load(Ordering::Relaxed)
}

/// Gives a child the usual signals back, which it would inherit as ignored.
pub(crate) fn with_usual_signals(command: &mut Command) {
    // SAFETY: signal may be called between fork and exec.
    unsafe {
        command.pre_exec(|| {
            libc::signal(libc::SIGPIPE, libc::SIG_DFL);
            libc::signal(libc::SIGHUP, libc::SIG_DFL);
            Ok(())
        });
    }
}

/// Does the work in a child process, which is not waited for and ends with it.
///
/// A push waits until the hook's process has ended and nobody holds its output. So the delivery is a child that lets go
/// of everything. It is not the program started again, which would cost the push as much as all of the recording.
///
/// To be called while there is one thread, and with no queue open: locks of files stay with the parent.
pub(crate) fn apart(work: impl FnOnce()) -> io::Result<()> {
    // SAFETY: there is no other thread whose locks the child could find held.
    match unsafe { libc::fork() } {
        -1 => Err(io::Error::last_os_error()),
        0 => {
            let let_go = let_go();
            if let_go.is_ok() {
                work();
            }
            process::exit(i32::from(let_go.is_err()))
        }
        _ => Ok(()),
    }
}

/// Lets go of the parent's streams, and gets a session of its own, which no signal to the push's reaches.
fn let_go() -> io::Result<()> {
    let nowhere = File::options().read(true).write(true).open("/dev/null")?;
    for stream in 0..=2 {
        // SAFETY: both are open, or will be; nothing in this program owns the standard streams.
        unsafe { libc::dup2(nowhere.as_raw_fd(), stream) };
    }
    drop(nowhere);
    // SAFETY: these take no pointers but to a constant, and may fail without harm. Nothing in this process has a file open
    // here: what is open was inherited, as Git's own files are where it does not close them.
    unsafe {
        libc::syscall(libc::SYS_close_range, 3, libc::c_uint::MAX, 0);
        libc::setsid();
        libc::nice(NICENESS);
        libc::prctl(libc::PR_SET_NAME, NAME.as_ptr());
    }
    Ok(())
}

/// Waits until something can be read, or the end was reached. Returns false if that takes longer than the limit.
pub(crate) fn is_readable_within(file: &impl AsFd, limit: Duration) -> io::Result<bool> {
    let limit = Timespec::try_from(limit).ok();
    loop {
        match poll(&mut [PollFd::new(file, PollFlags::IN)], limit.as_ref()) {
            Err(Errno::INTR) => {}
            ready => return Ok(ready? > 0),
        }
    }
}
