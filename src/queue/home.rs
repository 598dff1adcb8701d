//! Which repository a queue belongs to, so that a move and a copy are noticed.
//!
//! A repository that was moved goes on with its queue. A copy has a copy of the queue, and what waits there is delivered
//! by the original: the copy drops it.

use std::ffi::OsString;
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::Duration;

use rusqlite::{Connection, OpenFlags, Transaction};
use serde::{Deserialize, Serialize};

use super::{Error, Queue, StateDir, count, meta, outbox, place, set_meta};
use crate::text::plural;

const KEY: &str = "home";

/// How long another queue is waited for that a process writes to.
const PATIENCE: Duration = Duration::from_secs(1);

/// The repository that a queue belongs to.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Home {
    /// Tells this queue from all others but its copies.
    id: String,
    at: Location,
    /// The path by which its host knows the repository, where a hook was told.
    pub host_path: Option<String>,
    pub pin: Option<Pin>,
    copy_of: Option<Original>,
}

/// The name under which a repository is posted, however its directory is called later.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Pin {
    /// The configuration's value that the name was made from.
    pub template: String,
    pub name: String,
    /// What the template gives now, where that differs and has been told.
    pub told: Option<String>,
}

/// The repository that another one was copied from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Original {
    path: OsString,
    /// The name under which it was posted.
    pub name: Option<String>,
}

impl Original {
    pub(crate) fn path(&self) -> &Path {
        Path::new(&self.path)
    }
}

/// A repository's directory. Its path changes when it is moved, its numbers when it is restored or moved to another disk.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Location {
    path: OsString,
    device: u64,
    inode: u64,
}

impl Location {
    pub(super) fn of(repo_dir: &Path) -> io::Result<Self> {
        let meta = fs::metadata(repo_dir)?;
        Ok(Location { path: repo_dir.into(), device: meta.dev(), inode: meta.ino() })
    }

    /// Tells whether this is the directory at a path, as it is where a file system is mounted twice.
    pub(super) fn is_directory(&self, path: &Path) -> bool {
        Location::of(path).is_ok_and(|other| (other.device, other.inode) == (self.device, self.inode))
    }
}

/// What the queue has to do with the repository in which it is opened.
enum Relation {
    /// It belongs there.
    Own,
    /// It belongs there: the repository was moved, or restored, or nothing is noted yet.
    New,
    /// It is the queue of another repository, which is there and uses it, or the queue that this one was copied from.
    Foreign,
}

impl Queue {
    /// Returns the repository that the queue belongs to.
    pub(crate) fn home(&self) -> &Home {
        &self.home
    }

    /// Notes what the repository is called.
    pub(crate) fn name_home(&mut self, host_path: Option<String>, pin: Pin) -> Result<(), Error> {
        self.home.host_path = host_path;
        self.home.pin = Some(pin);
        let home = self.home.clone();
        self.write(|tx| write_home(tx, &home))
    }

    /// Notes which repository the queue belongs to, if that is not known or has changed.
    pub(super) fn settle_home(&mut self) -> Result<(), Error> {
        let dir = self.dir.clone();
        let directory = |source| Error::Directory { path: dir.repo_dir().to_owned(), source };
        let here = Location::of(dir.repo_dir()).map_err(directory)?;
        let noted = self.read(read_home)?;
        match noted.map(|home| (home.relation(&here, &dir), home)) {
            Some((Relation::Own, home)) => {
                self.home = home;
                return Ok(());
            }
            // No copy of a queue, but the queue itself.
            Some((Relation::Foreign, home)) if dir.is_elsewhere() => {
                return Err(Error::Taken { repo_dir: dir.repo_dir().to_owned(), other: home.at.path.into() });
            }
            _ => {}
        }
        let (home, change) = self.write(|tx| {
            // Another process may have noted it since this one looked.
            let noted = read_home(tx)?;
            let relation = noted.as_ref().map_or(Relation::New, |home| home.relation(&here, &dir));
            let (home, change) = match (noted, relation) {
                (Some(home), Relation::Own) => return Ok((home, None)),
                (Some(home), Relation::Foreign) => leave_to_original(tx, home, here)?,
                (Some(home), Relation::New) => {
                    let change = (home.at.path != here.path).then(|| Change::Moved(home.at.path.clone()));
                    (Home { at: here, ..home }, change)
                }
                (None, _) => (Home { id: new_id(tx)?, at: here, ..Home::default() }, None),
            };
            write_home(tx, &home)?;
            Ok((home, change))
        })?;
        self.home = home;
        self.notice = change.map(|change| self.told(change)).transpose()?;
        Ok(())
    }

    /// Notes that the repository is a copy of another one, whose queue it has no copy of.
    pub(super) fn note_copy(&mut self, of: &Path) -> Result<(), Error> {
        let home = home_in(&StateDir::database_in(&place::named_by(of))).ok().flatten();
        let name = home.and_then(|home| home.pin).map(|pin| pin.name);
        let original = Original { path: of.into(), name };
        self.notice = Some(format!(
            "{} is a copy of {}, which keeps its queue; this one has a new one",
            self.dir.repo_dir().display(),
            of.display()
        ));
        self.home.copy_of = Some(original);
        let home = self.home.clone();
        self.write(|tx| write_home(tx, &home))
    }

    /// Says what has changed. The pushes that a copy has in files are dropped like those in its database.
    fn told(&self, change: Change) -> Result<String, Error> {
        let here = self.dir.repo_dir().display();
        match change {
            Change::Moved(from) => {
                Ok(format!("the repository was moved from {} to {here}; its queue goes on", Path::new(&from).display()))
            }
            Change::Copied { from, changesets, pushes } => {
                let files = self.dir.kept_pushes()?.0;
                files.iter().for_each(|file| drop(fs::remove_file(file)));
                let from = Path::new(&from).display();
                Ok(format!(
                    "{here} is a copy of {from}: {} and {} that were queued are left to that repository; what both have is not \
                     posted again",
                    plural(changesets, "commit"),
                    plural(pushes + files.len(), "push")
                ))
            }
        }
    }
}

/// What was noted.
enum Change {
    Moved(OsString),
    Copied { from: OsString, changesets: usize, pushes: usize },
}

impl Home {
    /// Returns what tells this queue from all others but its copies.
    pub(crate) fn id(&self) -> &str {
        &self.id
    }

    /// Returns the repository that this one is a copy of, as long as it is there.
    pub(crate) fn original(&self) -> Option<&Original> {
        self.copy_of.as_ref().filter(|original| original.path().exists())
    }

    fn relation(&self, here: &Location, dir: &StateDir) -> Relation {
        match () {
            () if self.at == *here => Relation::Own,
            () if self.at.path == here.path => Relation::New,
            () if here.is_directory(Path::new(&self.at.path)) => Relation::Own,
            () if self.is_still_used(dir) => Relation::Foreign,
            () => Relation::New,
        }
    }

    /// Tells whether the repository is there and uses this queue, or the one of which this one is a copy. Where that
    /// cannot be found out it counts as so: the commits of a copy are in Git, and what is posted twice stays in Rally.
    fn is_still_used(&self, dir: &StateDir) -> bool {
        let path = Path::new(&self.at.path);
        let other = place::named_by(path);
        if other == dir.path() || dir.is_elsewhere() && self.at.is_directory(path) {
            return true;
        }
        home_in(&StateDir::database_in(&other)).map_or(true, |other| other.is_some_and(|other| other.id == self.id))
    }
}

/// Makes a queue the copy's own.
fn leave_to_original(tx: &Transaction, home: Home, here: Location) -> rusqlite::Result<(Home, Option<Change>)> {
    let changesets = tx.execute("DELETE FROM changeset", [])?;
    let pushes = tx.execute("DELETE FROM push", [])?;
    tx.execute("DELETE FROM state_request WHERE done = 0", [])?;
    // What was forwarded is the original's, and so is the count of it.
    outbox::clear(tx)?;
    count(tx, "recorded", -(changesets as i64))?;
    let original = Original { path: home.at.path, name: home.pin.map(|pin| pin.name) };
    let change = Change::Copied { from: original.path.clone(), changesets, pushes };
    Ok((Home { id: new_id(tx)?, at: here, copy_of: Some(original), ..Home::default() }, Some(change)))
}

fn new_id(db: &Connection) -> rusqlite::Result<String> {
    db.query_row("SELECT lower(hex(randomblob(16)))", [], |row| row.get(0))
}

fn read_home(db: &Connection) -> rusqlite::Result<Option<Home>> {
    let json = meta::<String>(db, KEY)?;
    Ok(json.and_then(|json| serde_json::from_str(&json).ok()))
}

fn write_home(tx: &Transaction, home: &Home) -> rusqlite::Result<()> {
    set_meta(tx, KEY, &serde_json::to_string(home).expect("plain data becomes JSON"))
}

/// Tells whether a queue is that of the repository at a path.
pub(super) fn is_of(database: &Path, repo_dir: &Path) -> bool {
    home_in(database).ok().flatten().is_some_and(|home| home.at.is_directory(repo_dir))
}

/// Returns the repository that a queue belongs to, `None` if there is no queue.
fn home_in(database: &Path) -> rusqlite::Result<Option<Home>> {
    if matches!(database.try_exists(), Ok(false)) {
        return Ok(None);
    }
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NOFOLLOW;
    let connection = Connection::open_with_flags(database, flags)?;
    connection.busy_timeout(PATIENCE)?;
    read_home(&connection)
}
