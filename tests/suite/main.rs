//! Drives the real binary with the real Git, against the simulated Rally over real HTTP. One file a promise.

mod support;

mod backfill;
mod crashes;
mod delivery;
mod hook;
mod missed_hooks;
mod no_socket;
mod properties;
mod races;
mod rally_at_its_worst;
mod rally_in_odd_ways;
mod storage;
