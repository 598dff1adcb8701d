//! Names of Git's objects. All that depends on their length stands here.

use std::fmt;
use std::str::FromStr;

use git2::Oid;

use crate::commit::Tip;
use crate::time::CommitTime;

/// The length of the longest names, SHA-256, in bytes.
const LONGEST: usize = 32;
/// The length of SHA-1 names, in bytes.
const SHA1: usize = 20;

/// The name of a commit, tag or tree: 20 or 32 bytes.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct ObjectId {
    bytes: [u8; LONGEST],
    is_long: bool,
}

impl ObjectId {
    pub(crate) fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let is_long = bytes.len() == LONGEST;
        let mut id = ObjectId { bytes: [0; LONGEST], is_long };
        (is_long || bytes.len() == SHA1).then(|| {
            id.bytes[..bytes.len()].copy_from_slice(bytes);
            id
        })
    }

    pub(crate) fn oid(self) -> Oid {
        Oid::from_bytes(self.bytes()).expect("both have the same lengths")
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        &self.bytes[..if self.is_long { LONGEST } else { SHA1 }]
    }

    /// Tells whether it is what Git writes for "no such object".
    pub(crate) fn is_zero(self) -> bool {
        self.bytes().iter().all(|&byte| byte == 0)
    }
}

impl std::hash::Hash for ObjectId {
    /// Hashes the first bytes only: they are as random as all of them, and history walks hash a lot.
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        let start: [u8; 8] = self.bytes[..8].try_into().expect("there are more bytes");
        state.write_u64(u64::from_ne_bytes(start));
    }
}

impl fmt::Display for ObjectId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const DIGITS: &[u8; 16] = b"0123456789abcdef";
        let mut hex = [0; 2 * LONGEST];
        for (pair, byte) in hex.chunks_exact_mut(2).zip(self.bytes()) {
            pair.copy_from_slice(&[DIGITS[usize::from(byte >> 4)], DIGITS[usize::from(byte & 15)]]);
        }
        f.pad(std::str::from_utf8(&hex[..2 * self.bytes().len()]).expect("digits are ASCII"))
    }
}

impl fmt::Debug for ObjectId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for ObjectId {
    type Err = ();

    fn from_str(hex: &str) -> Result<Self, ()> {
        let is_long = hex.len() == 2 * LONGEST;
        if !is_long && hex.len() != 2 * SHA1 {
            return Err(());
        }
        let digit = |byte: u8| char::from(byte).to_digit(16).ok_or(());
        let mut id = ObjectId { bytes: [0; LONGEST], is_long };
        for (byte, pair) in id.bytes.iter_mut().zip(hex.as_bytes().chunks_exact(2)) {
            *byte = (digit(pair[0])? << 4 | digit(pair[1])?) as u8;
        }
        Ok(id)
    }
}

/// A commit with its committer's time, by which walks are ordered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Dated {
    pub(crate) time: CommitTime,
    pub(crate) id: ObjectId,
}

impl Dated {
    /// Returns what a seen tip stands for; `None` if it is not from a repository of this kind.
    pub(crate) fn from_tip(tip: &Tip) -> Option<Self> {
        Some(Dated { time: tip.time, id: ObjectId::from_bytes(&tip.id)? })
    }

    pub(crate) fn tip(self) -> Tip {
        Tip { id: self.id.bytes().to_vec(), time: self.time }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_of_either_length_is_read_as_it_is_written() {
        let sha1 = "0123456789abcdef0123456789abcdef01234567";
        let sha256 = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";
        for hex in [sha1, sha256] {
            assert_eq!(hex.parse::<ObjectId>().map(|id| id.to_string()).as_deref(), Ok(hex));
            assert_eq!(hex.to_uppercase().parse::<ObjectId>().map(|id| id.to_string()).as_deref(), Ok(hex));
            assert!(hex[1..].parse::<ObjectId>().is_err() && hex.replace('f', "g").parse::<ObjectId>().is_err());
        }
    }
}
