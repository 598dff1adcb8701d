//! What this program asks of the operating system about processes. All unsafe code stands here.

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::process::CommandExt;
use std::process::{self, Command};

/// What the delivery's process is called in lists of processes.
const NAME: &std::ffi::CStr = c"rally-deliver";
/// How much it gives way to other processes: the push that began it goes first.
const NICENESS: libc::c_int = 10;

/// Returns the number of the user whose rights this process has.
pub(crate) fn effective_user() -> u32 {
    // SAFETY: geteuid has no preconditions and cannot fail.
    unsafe { libc::geteuid() }
}

/// Has the signals ignored that would end this process when the client of a push goes away.
pub(crate) fn ignore_hang_ups() {
    // SAFETY: setting a signal's disposition to "ignore" has no preconditions.
    unsafe {
        libc::signal(libc::SIGPIPE, libc::SIG_IGN);
        libc::signal(libc::SIGHUP, libc::SIG_IGN);
    }
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
    // SAFETY: these take no pointers but to a constant, and may fail without harm.
    unsafe {
        libc::setsid();
        libc::nice(NICENESS);
        #[cfg(target_os = "linux")]
        libc::prctl(libc::PR_SET_NAME, NAME.as_ptr());
    }
    Ok(())
}
