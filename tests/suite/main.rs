//! Drives the real binary with the real Git, against the simulated Rally over real HTTP. Each file tests one
//! topic.

#![expect(unsafe_code, reason = "signals, terminals and mounts have no safe interface in the standard library")]
#![expect(unreachable_pub, reason = "a program of several modules")]

mod support;

mod all_repositories;
mod backfill;
mod certificates;
mod cli;
mod config;
mod configuration;
mod connection;
mod crashes;
mod credentials;
mod dead_letters;
mod delivery;
mod doctor;
mod formats;
mod history;
mod hook;
mod hook_process;
mod host_answers;
mod host_limit;
mod host_names;
mod hostile_pushes;
mod hostile_text;
mod hosts;
mod install;
mod large_pushes;
mod lies;
mod log;
mod look_ups;
mod mercurial;
mod mercurial_hook;
mod mercurial_properties;
mod mercurial_reading;
mod missed_hooks;
mod moves;
mod names;
mod outages;
mod permissions;
mod probe;
mod progress;
mod properties;
mod proxies;
mod queue_dir;
mod races;
mod refs;
mod repositories;
mod request_faults;
mod settings;
mod states;
mod status;
mod storage;
mod subversion;
mod subversion_history;
mod subversion_hook;
mod subversion_properties;
mod tfvc;
mod tfvc_faults;
mod tfvc_setup;
mod trust;
mod unknown_outcomes;
mod worker;
