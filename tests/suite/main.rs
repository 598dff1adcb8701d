//! Drives the real binary with the real Git, against the simulated Rally over real HTTP. One file a promise.

mod support;

mod backfill;
mod cli;
mod configuration;
mod connection;
mod crashes;
mod credentials;
mod delivery;
mod doctor;
mod history;
mod hook;
mod install;
mod missed_hooks;
mod no_socket;
mod properties;
mod races;
mod rally_at_its_worst;
mod rally_in_odd_ways;
mod refs;
mod repositories;
mod settings;
mod states;
mod storage;
