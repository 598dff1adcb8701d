//! Work that goes on when the process that began it is not waited for any more.
//!
//! A push waits until the hook's process has ended and nobody holds its output. So the hook splits in two: the one that
//! Git waits for does nothing, and its child does the work, lets go when the push may go on, and lives on to deliver.
//! Starting the program anew for that would cost the push as much as all of the recording does.

use std::fs::File;
use std::io::{self, PipeReader, PipeWriter, Read};
use std::os::fd::AsRawFd;

/// What the delivery's process is called in lists of processes.
const NAME: &std::ffi::CStr = c"rally-deliver";
/// How much it gives way to other processes: the push that began it goes first.
const NICENESS: libc::c_int = 10;

/// The two processes after [`split`].
pub enum Side {
    /// The one that is waited for.
    Front(Worker),
    Worker(Front),
}

/// The working process, as the front sees it.
pub struct Worker(PipeReader);

/// The waiting process, as its child sees it: it waits until this is dropped, at the latest when the child ends.
pub struct Front(#[expect(dead_code, reason = "it is there to be closed")] PipeWriter);

/// Makes a child process that works. Must be called while there is one thread, and with no queue open: locks of files
/// stay with the parent.
pub fn split() -> io::Result<Side> {
    let (reader, writer) = io::pipe()?;
    // SAFETY: there is no other thread whose locks the child could find held.
    match unsafe { libc::fork() } {
        -1 => Err(io::Error::last_os_error()),
        0 => Ok(Side::Worker(Front(writer))),
        _ => Ok(Side::Front(Worker(reader))),
    }
}

impl Worker {
    /// Waits until the child lets go or ends.
    pub fn wait(mut self) {
        let _ = self.0.read(&mut [0]);
    }
}

impl Front {
    /// Lets go of the front and of its output, and gets a session of its own, which no signal to the push's reaches.
    pub fn let_go(self) -> io::Result<()> {
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
}
