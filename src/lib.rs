//! rally-hook posts the commits of a Git push to Rally. This is the map.
//!
//! Data flows one way:
//!
//! ```text
//! stdin ─► push::RefUpdate ─► git::Walk ─► git::Reader ─► changeset::Changeset ─► queue ─► deliver ─► wsapi
//! ```
//!
//! * Pure, and used by all: [`push`] (what Git tells the hook), [`artifact`] (mentions), [`state`] (state changes),
//!   [`links`], [`refs`], [`changeset`], [`backoff`], [`text`].
//! * One module for each outside world, none knowing another: [`git`] (libgit2), [`queue`] (SQLite), [`wsapi`] (HTTP),
//!   [`config`] (files and environment).
//! * Where they meet: [`record`] (Git to queue), [`deliver`] (queue to Rally), [`command`] (one file a subcommand).
//! * [`background`] lets work go on that nobody waits for; [`context`] carries what every command needs; [`log`] and [`messages`] speak to people.

pub mod artifact;
pub mod background;
pub mod backoff;
pub mod changeset;
pub mod cli;
pub mod command;
pub mod config;
pub mod context;
pub mod deliver;
pub mod git;
pub mod links;
pub mod log;
pub mod messages;
pub mod panics;
pub mod push;
pub mod queue;
pub mod record;
pub mod refs;
pub mod state;
#[cfg(test)]
mod test_vectors;
pub mod text;
pub mod wsapi;
