//! Notices from the kernel: that a file in a directory was changed, and that somebody asks this process to end.

use std::collections::HashMap;
use std::ffi::{OsStr, OsString};
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::inotify::{self, CreateFlags, ReadFlags, WatchFlags};
use rustix::io::Errno;

/// Room for some hundred events; more are read with the next look.
const BUFFER: usize = 16 * 1024;

/// A file in a watched directory that somebody wrote and closed, or moved there. Without a name, any may have been: there
/// were too many to tell.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Notice {
    pub dir: PathBuf,
    pub name: Option<OsString>,
}

/// Directories that are watched.
pub(crate) struct Notices {
    inotify: OwnedFd,
    dirs: HashMap<i32, PathBuf>,
    /// Can be read once somebody asks this process to end.
    termination: OwnedFd,
}

impl Notices {
    pub(crate) fn new(termination: OwnedFd) -> io::Result<Self> {
        let inotify = inotify::init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK)?;
        Ok(Notices { inotify, dirs: HashMap::new(), termination })
    }

    /// Watches a directory, for as long as it exists.
    ///
    /// # Errors
    /// If the kernel watches as many for this user as it may (`fs.inotify.max_user_watches`).
    pub(crate) fn watch(&mut self, dir: &Path) -> io::Result<()> {
        let flags = WatchFlags::CLOSE_WRITE | WatchFlags::MOVED_TO | WatchFlags::ONLYDIR;
        let number = inotify::add_watch(&self.inotify, dir, flags)?;
        self.dirs.insert(number, dir.to_owned());
        Ok(())
    }

    /// Waits until there is something to tell, but not longer than `limit`. Several changes of one file are one notice.
    pub(crate) fn wait(&mut self, limit: Duration) -> io::Result<Vec<Notice>> {
        let mut sources = [PollFd::new(&self.inotify, PollFlags::IN), PollFd::new(&self.termination, PollFlags::IN)];
        let limit = Timespec { tv_sec: limit.as_secs() as i64, tv_nsec: limit.subsec_nanos().into() };
        match poll(&mut sources, Some(&limit)) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        let mut notices = self.read()?;
        notices.sort();
        notices.dedup();
        Ok(notices)
    }

    fn read(&mut self) -> io::Result<Vec<Notice>> {
        let mut buffer = [MaybeUninit::uninit(); BUFFER];
        let mut reader = inotify::Reader::new(&self.inotify, &mut buffer);
        let mut notices = Vec::new();
        loop {
            let event = match reader.next() {
                Ok(event) => event,
                Err(Errno::AGAIN | Errno::INTR) => return Ok(notices),
                Err(error) => return Err(error.into()),
            };
            if event.events().contains(ReadFlags::QUEUE_OVERFLOW) {
                notices.extend(self.dirs.values().map(|dir| Notice { dir: dir.clone(), name: None }));
            } else if event.events().contains(ReadFlags::IGNORED) {
                self.dirs.remove(&event.wd());
            } else if let Some(dir) = self.dirs.get(&event.wd()) {
                let name = event.file_name().map(|name| OsStr::from_bytes(name.to_bytes()).to_owned());
                notices.push(Notice { dir: dir.clone(), name });
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn a_closed_file_and_a_moved_one_are_noticed_once_each() {
        let dir = tempfile::tempdir().expect("a directory");
        let (termination, _end) = rustix::pipe::pipe().expect("a pipe");
        let mut notices = Notices::new(termination).expect("inotify");
        notices.watch(dir.path()).expect("it is there");
        for _ in 0..3 {
            fs::write(dir.path().join("a"), "").expect("a file");
        }
        fs::rename(dir.path().join("a"), dir.path().join("b")).expect("it is there");
        let expected = ["a", "b"].map(|name| Notice { dir: dir.path().to_owned(), name: Some(name.into()) });
        assert_eq!(notices.wait(Duration::from_secs(9)).expect("inotify"), expected);
    }

    #[test]
    fn a_wait_ends_when_the_process_is_asked_to_end() {
        let (termination, end) = rustix::pipe::pipe().expect("a pipe");
        let mut notices = Notices::new(termination).expect("inotify");
        rustix::io::write(&end, b"x").expect("a pipe");
        assert_eq!(notices.wait(Duration::from_secs(3600)).expect("inotify"), []);
    }
}
