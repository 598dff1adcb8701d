//! The system's configuration file, which the program reads first: the tests must not see that of this machine.

use std::cell::Cell;
use std::io;
use std::path::Path;
use std::ptr;

/// Where the program looks for the system's configuration file.
const DIRECTORY: &str = "/etc/rally-hook";

thread_local! {
    static IS_HIDDEN: Cell<bool> = const { Cell::new(false) };
}

/// Hides the system's configuration from this thread and from what it starts.
///
/// Each test runs in a thread of its own. Where the directory exists, the thread gets a mount namespace of its own and
/// mounts an empty directory over it; that takes root's rights. Panics where they are missing.
pub fn hide() {
    if IS_HIDDEN.get() || !Path::new(DIRECTORY).exists() {
        return;
    }
    if let Err(error) = mount_empty_directory() {
        panic!("cannot hide {DIRECTORY} from the tests: {error}; run them as root or where it does not exist");
    }
    IS_HIDDEN.set(true);
}

fn mount_empty_directory() -> io::Result<()> {
    let private = libc::MS_REC | libc::MS_PRIVATE;
    // SAFETY: unshare takes a number only.
    check(unsafe { libc::unshare(libc::CLONE_NEWNS) })?;
    // SAFETY: the strings end with NUL; null stands for what the call does not use.
    check(unsafe { libc::mount(ptr::null(), c"/".as_ptr(), ptr::null(), private, ptr::null()) })?;
    let (kind, target) = (c"tmpfs".as_ptr(), c"/etc/rally-hook".as_ptr());
    // SAFETY: as above.
    check(unsafe { libc::mount(kind, target, kind, 0, ptr::null()) })
}

fn check(result: libc::c_int) -> io::Result<()> {
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
