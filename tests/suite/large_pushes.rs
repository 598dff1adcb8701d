//! Long histories: recording them takes little memory, and may be interrupted at any time.

use std::time::Duration;

use crate::support::process::{kill_after, limit_memory, spawn};
use crate::support::{Clone, Server, ran};

/// Number of commits in the long history.
const COMMITS: usize = 50_000;
/// One of so many commits names an artifact.
const EVERY: usize = 25;
/// Memory in bytes that recording them may use, besides the packs, which are mapped.
const MEMORY: u64 = 100_000_000;
/// Address space in bytes for the stack of each thread that reads commits, hardly any of which is used; as in
/// src/git/read.rs.
const STACK: u64 = 16 << 20;
/// Number of threads that read commits, at most; as in src/git/read.rs.
const READERS: usize = 4;

/// Makes the long history in a clone: small commits to many files.
fn long_history(clone: &Clone) {
    let mut stream = String::new();
    for number in 0..COMMITS {
        let message = match number % EVERY {
            0 => format!("US{}: commit {number}", number / EVERY % 9 + 1),
            _ => format!("commit {number} {}", "with words that nobody reads ".repeat(40)),
        };
        stream += &format!("commit refs/heads/main\ncommitter A <a@x> {} +0000\n", 1_600_000_000 + number * 60);
        stream += &format!("data {}\n{message}\n", message.len());
        stream += &format!("M 100644 inline dir{0}/file{1}\ndata 6\n{number:06}\n", number % 30, number % 97);
    }
    clone.git_with(&["fast-import", "--quiet"], stream.as_bytes());
}

/// One test for both, because the history takes long to make.
#[test]
fn a_long_history_is_recorded_whole_in_little_memory_although_catch_up_is_killed() {
    let server = Server::delivering_later("");
    let clone = server.new_clone();
    long_history(&clone);
    let seen = clone.push(&["origin", "main"]);
    assert!(seen.contains("this push is kept; its commits are recorded later, because there are many"), "{seen}");
    // Each run that goes on with it is killed somewhere.
    for millis in [300, 900] {
        kill_after(spawn(server.command(&["catch-up"])), Duration::from_millis(millis));
        server.assert_counts_add_up();
    }
    let mut catch_up = server.command(&["catch-up"]);
    let readers = std::thread::available_parallelism().map_or(1, |cores| cores.get().min(READERS)) as u64;
    limit_memory(&mut catch_up, MEMORY + readers * STACK);
    ran(catch_up).succeeds();
    server.assert_refs_behind(&[]);
    assert_eq!((server.count("recorded"), server.count("unread_pushes")), ((COMMITS / EVERY) as i64, 0));
    server.deliver_all();
    assert_eq!(server.changesets().len(), COMMITS / EVERY);
    server.assert_counts_add_up();
}

#[test]
fn a_command_that_cannot_start_a_thread_fails_and_loses_nothing() {
    let server = Server::delivering_later("");
    let clone = server.new_clone();
    for number in 1..=100 {
        clone.commit(&format!("US{number}: one"), &[]);
    }
    server.disable_hook();
    clone.push(&["origin", "main"]);
    server.enable_hook();
    let mut catch_up = server.command(&["catch-up"]);
    limit_memory(&mut catch_up, STACK - 1);
    let ran = ran(catch_up).fails_with(1);
    assert!(ran.stderr.contains("cannot start a thread to read commits"), "{ran:?}");
    server.run(&["catch-up"]).succeeds();
    assert_eq!((server.count("recorded"), server.count("unread_pushes")), (100, 0));
}
