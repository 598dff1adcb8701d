//! Names of Git's objects. All that depends on their length stands here.

use std::fmt;
use std::str::FromStr;

use git2::Oid;

use crate::commit::Tip;
use crate::time::CommitTime;

/// How many bytes a name has: SHA-1.
pub(super) const LENGTH: usize = 20;

/// The name of a commit, tag or tree.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct ObjectId([u8; LENGTH]);

impl ObjectId {
    pub(crate) fn from_bytes(bytes: &[u8]) -> Option<Self> {
        bytes.try_into().ok().map(ObjectId)
    }

    pub(crate) fn from_oid(oid: Oid) -> Self {
        Self::from_bytes(oid.as_bytes()).expect("both have the same length")
    }

    pub(crate) fn oid(self) -> Oid {
        Oid::from_bytes(&self.0).expect("both have the same length")
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        &self.0
    }

    /// Tells whether it is what Git writes for "no such object".
    pub(crate) fn is_zero(self) -> bool {
        self.0.iter().all(|&byte| byte == 0)
    }
}

impl std::hash::Hash for ObjectId {
    /// Hashes the first bytes only: they are as random as all of them, and history walks hash a lot.
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        let start: [u8; 8] = self.0[..8].try_into().expect("there are more bytes");
        state.write_u64(u64::from_ne_bytes(start));
    }
}

impl fmt::Display for ObjectId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const DIGITS: &[u8; 16] = b"0123456789abcdef";
        let mut hex = [0; 2 * LENGTH];
        for (pair, byte) in hex.chunks_exact_mut(2).zip(self.0) {
            pair.copy_from_slice(&[DIGITS[usize::from(byte >> 4)], DIGITS[usize::from(byte & 15)]]);
        }
        f.pad(std::str::from_utf8(&hex).expect("digits are ASCII"))
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
        if hex.len() != 2 * LENGTH {
            return Err(());
        }
        let digit = |digit: u8| char::from(digit).to_digit(16).ok_or(());
        let mut id = [0; LENGTH];
        for (byte, pair) in id.iter_mut().zip(hex.as_bytes().chunks_exact(2)) {
            *byte = (digit(pair[0])? << 4 | digit(pair[1])?) as u8;
        }
        Ok(ObjectId(id))
    }
}

/// A commit with its committer's time, by which walks are ordered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Dated {
    pub time: CommitTime,
    pub id: ObjectId,
}

impl Dated {
    /// Returns what a seen tip stands for; `None` if it is not from a repository of this kind.
    pub(super) fn from_tip(tip: &Tip) -> Option<Self> {
        Some(Dated { time: tip.time, id: ObjectId::from_bytes(&tip.id)? })
    }

    pub(super) fn tip(self) -> Tip {
        Tip { id: self.id.bytes().to_vec(), time: self.time }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_read_as_it_is_written() {
        let hex = "0123456789abcdef0123456789abcdef01234567";
        assert_eq!(hex.parse::<ObjectId>().map(|id| id.to_string()).as_deref(), Ok(hex));
        assert_eq!(hex.to_uppercase().parse::<ObjectId>().map(|id| id.to_string()).as_deref(), Ok(hex));
        assert!(hex[1..].parse::<ObjectId>().is_err() && hex.replace('f', "g").parse::<ObjectId>().is_err());
    }
}
