//! How SQLite keeps its journal, which depends on the file system.
//!
//! The write-ahead log is shared in memory by all that use a database, so they must be on one host
//! (<https://sqlite.org/wal.html>). On a network file system the rollback journal takes its place; locks are less certain
//! there all the same, so that the hooks of one host only may use the queue.

use std::path::Path;

use crate::process;

/// The file systems of other hosts, by their numbers in the kernel (`man 2 statfs`, linux/magic.h).
const NETWORK: [(u32, &str); 13] = [
    (0x6969, "NFS"),
    (0x517b, "SMB"),
    (0xff53_4d42, "CIFS"),
    (0xfe53_4d42, "SMB2"),
    (0x00c3_6400, "Ceph"),
    (0x0bd0_0bd0, "Lustre"),
    (0x4750_4653, "GPFS"),
    (0x1983_0326, "BeeGFS"),
    (0x7461_636f, "OCFS2"),
    (0x0116_1970, "GFS2"),
    (0x5346_414f, "AFS"),
    (0x0102_1997, "9p"),
    // GlusterFS and sshfs; some file systems of FUSE are local, and lose nothing but speed.
    (0x6573_5546, "FUSE"),
];

/// Returns the name of a kind of file system that other hosts may use too.
fn network_name(kind: u32) -> Option<&'static str> {
    NETWORK.iter().find(|(number, _)| *number == kind).map(|(_, name)| *name)
}

/// Returns the name of the network file system that holds a file, if one does.
pub(super) fn network_of(path: &Path) -> Option<&'static str> {
    process::file_system_type(path).and_then(network_name)
}

/// Returns SQLite's name of the mode for a database on such a file system.
pub(super) fn mode_on(network: Option<&str>) -> &'static str {
    if network.is_some() { "DELETE" } else { "WAL" }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn file_systems_of_other_hosts_get_the_rollback_journal() {
        for (kind, name) in [(0x6969, "NFS"), (0xff53_4d42, "CIFS"), (0x00c3_6400, "Ceph"), (0x6573_5546, "FUSE")] {
            assert_eq!((network_name(kind), mode_on(network_name(kind))), (Some(name), "DELETE"));
        }
    }

    #[test]
    fn local_file_systems_get_the_write_ahead_log() {
        // ext4, xfs, btrfs, tmpfs, zfs, overlayfs
        for kind in [0xef53, 0x5846_5342, 0x9123_683e, 0x0102_1994, 0x2fc1_2fc1, 0x794c_7630] {
            assert_eq!((network_name(kind), mode_on(network_name(kind))), (None, "WAL"), "{kind:x}");
        }
    }
}
