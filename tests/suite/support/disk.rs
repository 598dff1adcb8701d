//! A disk that is soon full.

use std::path::Path;
use std::process::Command;

use super::{ran, skipped};

/// A small tmpfs over the state directory, unmounted at the end of the test.
pub struct SmallDisk<'p>(&'p Path);

impl<'p> SmallDisk<'p> {
    /// Returns `None`, and says so, where mounting is not permitted.
    pub fn mount(path: &'p Path) -> Option<Self> {
        let mut command = Command::new("mount");
        command.args(["-t", "tmpfs", "-o", "size=400k,mode=0700", "tmpfs"]).arg(path);
        let mounted = ran(command);
        if !mounted.success {
            skipped(&format!("this user may not mount a small disk: {}", mounted.stderr.trim()));
        }
        mounted.success.then_some(SmallDisk(path))
    }

    pub fn remount(&self, option: &str) {
        let mut command = Command::new("mount");
        command.args(["-o", &format!("remount,{option}")]).arg(self.0);
        ran(command).succeeds();
    }
}

impl Drop for SmallDisk<'_> {
    fn drop(&mut self) {
        let mut command = Command::new("umount");
        command.arg("--lazy").arg(self.0);
        ran(command);
    }
}
