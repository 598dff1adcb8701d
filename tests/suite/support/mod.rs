//! The outside world in small: a Git server with the hook, clones that push to it, and a simulated Rally.
//!
//! Git runs without this machine's configuration, with fixed names and dates. Nothing here sleeps for a fixed time:
//! tests wait for the event that they need.

mod chance;
mod chaos;
mod clone;
mod command;
mod configuration;
mod disk;
mod expected;
pub mod fault;
pub mod fleet;
mod history;
pub mod host;
mod import;
mod many;
pub mod mercurial;
pub mod network;
pub mod postgres;
pub mod process;
mod server;
pub mod subversion;
mod system_configuration;
mod tfvc;
pub mod tls;
pub mod users;

pub use chance::{Random, rounds, seed};
pub use clone::Clone;
pub use command::{
    Ran, change_files, copy, copy_program, git, hermetic, is_new_format, name_of, output_bytes, output_of, output_text,
    program, ran, skipped, twin,
};
pub use configuration::{Configuration, DELIVER_LATER};
pub use disk::SmallDisk;
pub use expected::{Expected, artifacts, expected, expected_changes, expected_of_all};
pub use history::History;
pub use many::Many;
pub use server::Server;
pub use tfvc::Tfvc;
