//! Loose objects: files of their own below the object directories (`git help gitrepository-layout`).
//!
//! They are read here and not by libgit2, whose reader does not end on a file that was cut off (1.9.7).

use std::cell::RefCell;
use std::collections::{HashMap, HashSet};
use std::fs::{self, File};
use std::io::{self, BufRead, BufReader, Read};
use std::path::{Path, PathBuf};

use flate2::bufread::ZlibDecoder;
use git2::ObjectType;

use super::id::ObjectId;
use super::objects::LARGEST;

/// The longest header, `commit 268435456` and its NUL, has fewer bytes.
const LONGEST_HEADER: u64 = 32;

/// The loose objects of a repository and of those that it borrows from.
pub(crate) struct Loose {
    dirs: Vec<PathBuf>,
    /// What there is below the directories in which an object was looked for in vain: most objects are in packs, and
    /// nobody wants to look for a file for each of them.
    listed: RefCell<HashMap<(usize, u8), HashSet<ObjectId>>>,
}

impl Loose {
    pub(crate) fn new(dirs: Vec<PathBuf>) -> Self {
        Loose { dirs, listed: RefCell::default() }
    }

    /// Reads an object; `None` if none of that name is loose.
    ///
    /// # Errors
    /// If its file is not what Git would have written.
    pub(crate) fn read(&self, id: ObjectId) -> io::Result<Option<(ObjectType, Vec<u8>)>> {
        let first = id.bytes()[0];
        for (at, dir) in self.dirs.iter().enumerate() {
            let mut listed = self.listed.borrow_mut();
            if listed.get(&(at, first)).is_some_and(|ids| !ids.contains(&id)) {
                continue;
            }
            let hex = id.to_string();
            let fan_out = dir.join(&hex[..2]);
            match File::open(fan_out.join(&hex[2..])) {
                Ok(file) => return inflate(BufReader::new(file)).map(Some),
                Err(error) if error.kind() == io::ErrorKind::NotFound => {
                    listed.insert((at, first), list(&fan_out, &hex[..2]));
                }
                Err(error) => return Err(error),
            }
        }
        Ok(None)
    }
}

/// Returns the objects whose files are in a directory. One that cannot be read has none.
fn list(fan_out: &Path, start: &str) -> HashSet<ObjectId> {
    let entries = fs::read_dir(fan_out).into_iter().flatten().flatten();
    entries.filter_map(|entry| format!("{start}{}", entry.file_name().to_str()?).parse().ok()).collect()
}

/// Reads a zlib stream of `type size NUL data`.
fn inflate(file: impl BufRead) -> io::Result<(ObjectType, Vec<u8>)> {
    let mut stream = BufReader::new(ZlibDecoder::new(file));
    let mut header = Vec::new();
    stream.by_ref().take(LONGEST_HEADER).read_until(0, &mut header)?;
    let wrong = |problem: &str| io::Error::new(io::ErrorKind::InvalidData, problem);
    let parsed = std::str::from_utf8(&header).ok().and_then(|header| header.strip_suffix('\0')?.split_once(' '));
    let (kind, size) = parsed.ok_or_else(|| wrong("its file is damaged"))?;
    let kind = ObjectType::from_str(kind).ok_or_else(|| wrong("its file is damaged"))?;
    let size: u64 = size.parse().map_err(|_| wrong("its file is damaged"))?;
    if kind == ObjectType::Blob {
        return Ok((kind, Vec::new()));
    }
    if size > LARGEST as u64 {
        return Err(wrong(&format!("it is too large: {size} bytes; at most {LARGEST} are read")));
    }
    let mut data = Vec::new();
    stream.take(size + 1).read_to_end(&mut data)?;
    if data.len() as u64 == size { Ok((kind, data)) } else { Err(wrong("its file is cut off or damaged")) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use flate2::{Compression, write::ZlibEncoder};
    use proptest::prelude::*;
    use std::io::Write;

    fn deflated(text: &[u8]) -> Vec<u8> {
        let mut encoder = ZlibEncoder::new(Vec::new(), Compression::default());
        encoder.write_all(text).expect("memory");
        encoder.finish().expect("memory")
    }

    #[test]
    fn an_object_is_read_as_it_was_written() {
        let read = inflate(&deflated(b"commit 5\0hello")[..]).expect("whole");
        assert_eq!(read, (ObjectType::Commit, b"hello".to_vec()));
    }

    #[test]
    fn a_file_that_is_cut_anywhere_is_an_error() {
        let noise: Vec<u8> = (0..2000u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
        let whole = deflated(&[b"commit 2000\0", &noise[..]].concat());
        // The last four bytes are a checksum of what was read before.
        assert!((0..whole.len() - 4).all(|length| inflate(&whole[..length]).is_err()));
    }

    #[test]
    fn a_wrong_size_is_an_error() {
        assert!(inflate(&deflated(b"commit 4\0hello")[..]).is_err());
        assert!(inflate(&deflated(b"commit 6\0hello")[..]).is_err());
        assert!(inflate(&deflated(b"commit 99999999999\0hello")[..]).is_err());
    }

    proptest! {
        #[test]
        fn no_bytes_panic(bytes in any::<Vec<u8>>()) {
            let _ = inflate(&bytes[..]);
            let _ = inflate(&deflated(&bytes)[..]);
        }
    }
}
