//! The Rally Web Services API: one client, blocking, over a few kept connections.
//!
//! Facts about the service come from its public clients and documents; where they disagree, the client works either way.

#![expect(clippy::disallowed_types, reason = "this module is a user of the HTTP library")]

mod client;
mod error;
#[cfg(any(test, fuzzing))]
pub(crate) mod fuzzing;
mod query;
mod repair;
mod session;
mod write;

pub(crate) use client::{Client, relative};
pub(crate) use error::{Error, Verdict, is_conflict};
pub(crate) use query::Query;
pub(crate) use write::{Created, Write};

/// The longest text that Message, Uri and PathAndFilename take (TypeDefinitions of Changeset and Change).
pub(crate) const MAX_TEXT: usize = 4000;
/// The longest Revision, Action and, as far as is known, Branch; also of SCMRepository.Name.
pub(crate) const MAX_SHORT_TEXT: usize = 256;
