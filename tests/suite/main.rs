//! Drives the real binary with the real Git, against the simulated Rally over real HTTP. One file a promise.

mod support;

mod access;
mod backfill;
mod cli;
mod config_errors;
mod delivery;
mod doctor;
mod history;
mod hook;
mod install;
mod refs;
mod repositories;
mod settings;
mod states;
