//! The simulator over the wire.

mod access;
mod client;
mod faults;
mod rejections;
mod speed;
mod wsapi;
