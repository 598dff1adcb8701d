//! Where a repository's state lies, and the file in the Git directory that says so.
//!
//! That file is left where the state itself may go: it tells a repository whose state was deleted from one that never had
//! any, such as a repository that Git has just made from a template with our hook.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use crate::PROGRAM;

/// The file in the Git directory. Its first line names the state directory, the rest the Git directory.
pub(crate) const MARKER: &str = "rally-hook.queue";

/// What there is of a repository's state.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Trace {
    Present,
    /// It was there, and its directory is gone.
    Deleted,
    Never,
}

/// What the file says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Marker {
    pub state: PathBuf,
    /// Where the repository was when this was written.
    pub git_dir: PathBuf,
}

impl Marker {
    /// Tells whether there is such a file, whatever it says.
    pub(super) fn is_in(git_dir: &Path) -> bool {
        git_dir.join(MARKER).symlink_metadata().is_ok()
    }

    /// Writes the file. A crash leaves the old one or the new one.
    pub(super) fn write(&self) -> io::Result<()> {
        let temporary = self.git_dir.join(format!("{MARKER}.tmp-{}", std::process::id()));
        let write = || {
            let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&temporary)?;
            // The state in the Git directory moves with it.
            let state = self.state.strip_prefix(&self.git_dir).unwrap_or(&self.state);
            file.write_all(
                &[state.as_os_str().as_bytes(), b"\n", self.git_dir.as_os_str().as_bytes(), b"\n"].concat(),
            )?;
            // It holds no secret, and other users of a shared repository read it.
            file.set_permissions(fs::Permissions::from_mode(0o644))?;
            file.sync_all()?;
            fs::rename(&temporary, self.git_dir.join(MARKER))?;
            File::open(&self.git_dir)?.sync_all()
        };
        write().inspect_err(|_| drop(fs::remove_file(&temporary)))
    }
}

/// Returns the state directory in a Git directory.
pub(super) fn own(git_dir: &Path) -> PathBuf {
    git_dir.join(PROGRAM)
}
