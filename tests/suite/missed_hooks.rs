//! Hooks that did not run, or could not do their work: the next push or `catch-up` makes up for them.

use std::fs;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use serde_json::json;

use crate::support::fault::errors;
use crate::support::process::{kill, kill_after, spawn};
use crate::support::{Clone, Server, expected, ran};

fn assert_behind(server: &Server, refs: &[&str]) {
    assert_eq!(server.status()["refs_behind"], json!(refs));
    if !refs.is_empty() {
        let ran = server.run(&["status"]).fails_with(1);
        assert!(refs.iter().all(|name| ran.stdout.contains(name)), "{ran:?}");
    }
}

/// Pushes while the hook is disabled.
fn push_without_hook(server: &Server, clone: &Clone, refspecs: &[&str]) {
    server.disable_hook();
    clone.push(&[&["origin"], refspecs].concat());
    server.enable_hook();
}

#[test]
fn what_a_missing_hook_left_out_comes_with_the_next_push() {
    let server = Server::delivering_later("");
    let clone = server.new_clone();
    clone.push_commits(&["US1: seen"]);
    clone.commit("US2: missed", &[("a", Some("missed"))]);
    push_without_hook(&server, &clone, &["main"]);
    assert_behind(&server, &["refs/heads/main"]);
    clone.push_commits(&["DE3: seen again"]);
    assert_behind(&server, &[]);
    server.deliver_all();
    server.assert_rally_holds(&expected(&server.git_dir, &["main"]));
}

#[test]
fn catch_up_records_what_was_missed_on_all_refs() {
    let server = Server::delivering_later("");
    let clone = server.new_clone();
    clone.push_commits(&["US1: seen"]);
    clone.commit("US2: missed", &[("a", Some("missed"))]);
    clone.git(&["tag", "-a", "-m", "a tag", "v1"]);
    push_without_hook(&server, &clone, &["main", "main:side", "v1"]);
    assert_behind(&server, &["refs/heads/main", "refs/heads/side", "refs/tags/v1"]);
    let ran = server.run(&["catch-up"]).succeeds();
    assert!(ran.stderr.contains("1 commit queued"), "{ran:?}");
    assert_behind(&server, &[]);
    server.deliver_all();
    server.assert_rally_holds(&expected(&server.git_dir, &["main"]));
    assert!(server.run(&["catch-up"]).succeeds().stderr.contains("0 commits queued"));
}

#[test]
fn commits_forced_away_before_the_hook_could_read_them_are_posted() {
    let server = Server::delivering_later("");
    // A config that cannot be read: the push is kept, nothing is walked.
    let config = server.read_configuration();
    server.write_configuration("[rally]\nservr = 1\n");
    let clone = server.new_clone();
    let seen = clone.push_commits(&["US1: forced away"]);
    assert!(seen.contains("this push waits until the configuration is put right"), "{seen}");
    let lost = clone.head();
    clone.git(&["checkout", "--quiet", "--orphan", "other"]);
    clone.commit("DE2: in its place", &[("a", Some("other"))]);
    clone.push(&["--force", "origin", "other:main"]);
    clone.push(&["origin", "other:refs/heads/gone"]);
    clone.push(&["origin", ":gone"]);
    server.write_configuration(&config);
    server.deliver_all();
    server.assert_rally_holds(&expected(&server.git_dir, &["main", &lost]));
    assert_behind(&server, &[]);
}

#[test]
fn commits_pruned_after_the_hook_ran_are_posted_from_the_queue() {
    let server = Server::delivering_later("");
    let clone = server.new_clone();
    clone.push_commits(&["US1: kept"]);
    clone.git(&["checkout", "--quiet", "-b", "gone"]);
    clone.push_commits(&["DE2: pruned"]);
    let wanted = expected(&server.git_dir, &["main", "gone"]);
    clone.push(&["origin", ":gone"]);
    server.collect_garbage();
    server.deliver_all();
    server.assert_rally_holds(&wanted);
}

#[test]
fn a_pushed_commit_that_is_gone_before_anyone_reads_it_holds_up_nobody() {
    let server = Server::delivering_later("");
    let nowhere = format!("{} {} refs/heads/gone\n", "0".repeat(40), "1".repeat(40));
    let update = server.import("refs/heads/main", &["US1: there"]);
    server.run_hook((nowhere + &update).as_bytes()).succeeds();
    server.deliver_all();
    server.assert_rally_holds(&expected(&server.git_dir, &["main"]));
    assert!(server.log().contains("refs/heads/gone: its commits cannot be recorded"), "{}", server.log());
}

/// A tmpfs over the state directory, unmounted with the test.
struct SmallDisk<'p>(&'p Path);

impl<'p> SmallDisk<'p> {
    /// Returns `None`, and says so, where mounting is not permitted.
    fn mount(path: &'p Path) -> Option<Self> {
        let mut command = Command::new("mount");
        command.args(["-t", "tmpfs", "-o", "size=400k,mode=0700", "tmpfs"]).arg(path);
        let mounted = ran(command);
        if !mounted.success {
            eprintln!("skipped: this user may not mount a small disk: {}", mounted.stderr.trim());
        }
        mounted.success.then_some(SmallDisk(path))
    }

    fn remount(&self, option: &str) {
        let mut command = Command::new("mount");
        command.args(["-o", &format!("remount,{option}")]).arg(self.0);
        ran(command).succeeds();
    }
}

impl Drop for SmallDisk<'_> {
    fn drop(&mut self) {
        let mut command = Command::new("umount");
        command.arg("--lazy").arg(self.0);
        ran(command);
    }
}

#[test]
fn a_full_disk_fails_no_push_and_is_made_up_for() {
    let server = Server::without_hook();
    server.configure(crate::support::DELIVER_LATER);
    let state = server.git_dir.join("rally-hook");
    fs::create_dir(&state).expect("it is new");
    let Some(_disk) = SmallDisk::mount(&state) else { return };
    server.run(&["install"]).succeeds();
    let clone = server.new_clone();
    clone.push_commits(&["US1: there is room"]);
    let filler = state.join("filler");
    // As much as there is room for; the error says that there is no more.
    fs::write(&filler, vec![0; 1 << 20]).expect_err("the disk is small");
    let seen = clone.push_commits(&["DE2: there is none"]);
    assert_eq!(seen.matches("rally: ").count(), 1, "{seen}");
    assert!(seen.contains("rally-hook catch-up"), "{seen}");
    fs::remove_file(&filler).expect("it was there");
    assert_behind(&server, &["refs/heads/main"]);
    server.run(&["catch-up"]).succeeds();
    server.deliver_all();
    server.assert_rally_holds(&expected(&server.git_dir, &["main"]));
}

#[test]
fn a_read_only_disk_fails_no_push_and_is_made_up_for() {
    let server = Server::without_hook();
    server.configure(crate::support::DELIVER_LATER);
    let state = server.git_dir.join("rally-hook");
    fs::create_dir(&state).expect("it is new");
    let Some(disk) = SmallDisk::mount(&state) else { return };
    server.run(&["install"]).succeeds();
    disk.remount("ro");
    let clone = server.new_clone();
    let seen = clone.push_commits(&["US1: nothing can be noted"]);
    assert_eq!(seen.matches("rally: ").count(), 1, "{seen}");
    assert!(seen.contains("rally-hook catch-up"), "{seen}");
    disk.remount("rw");
    assert_behind(&server, &["refs/heads/main"]);
    server.run(&["catch-up"]).succeeds();
    server.deliver_all();
    server.assert_rally_holds(&expected(&server.git_dir, &["main"]));
}

#[test]
fn a_hook_killed_before_it_read_anything_is_made_up_for() {
    let server = Server::delivering_later("");
    let update = server.import("refs/heads/main", &["US1: its hook is killed"]);
    let mut child = server.hook_command().stdin(std::process::Stdio::piped()).spawn().expect("the program can be run");
    let stdin = child.stdin.take().expect("a pipe");
    kill(child);
    drop((stdin, update));
    assert_behind(&server, &["refs/heads/main"]);
    server.receive(&["DE2: the next one"]);
    assert_behind(&server, &[]);
    server.deliver_all();
    server.assert_rally_holds(&expected(&server.git_dir, &["main"]));
}

#[test]
fn retry_times_survive_a_clock_that_is_set_back() {
    let server = Server::delivering_later("");
    server.fail_all_at(
        "POST",
        "/changeset/create",
        errors("Concurrency conflict: [Object has been modified since being read]"),
    );
    server.receive(&["US1"]);
    server.run(&["deliver"]).fails_with(1);
    server.rally.clear_faults();
    // All times are a day ahead of a clock that went back by a day.
    server.change_queue(
        "UPDATE changeset SET next_attempt = next_attempt + 86400000, settles_at = settles_at + 86400000, \
         first_attempt = first_attempt + 86400000, recorded_at = recorded_at + 86400000",
    );
    server.receive(&["DE2: after it"]);
    server.deliver_all();
    assert_eq!(server.changesets().len(), 2, "neither waits for a day");
    server.assert_rally_holds(&expected(&server.git_dir, &["main"]));
}

#[test]
fn all_pushes_that_waited_for_a_configuration_are_posted_and_what_was_there_before_is_not() {
    let server = Server::without_hook();
    let clone = server.new_clone();
    clone.push_commits(&["US1: from before"]);
    std::os::unix::fs::symlink(crate::support::program(), server.hook()).expect("there is no hook");
    let config = server.read_configuration();
    server.write_configuration("[rally\n");
    let before = clone.head();
    clone.push_commits(&["US2: the first that waits"]);
    clone.push_commits(&["US3: the second"]);
    server.write_configuration(&config);
    server.deliver_all();
    server.assert_rally_holds(&expected(&server.git_dir, &["main", &format!("^{before}")]));
}

#[test]
fn a_promised_commit_that_is_gone_is_named_until_somebody_gives_it_up() {
    let server = Server::delivering_later("");
    let config = server.read_configuration();
    let clone = server.new_clone();
    clone.push_commits(&["US1: stays"]);
    server.write_configuration("[rally\n");
    clone.push_commits(&["DE2: is gone before it is read"]);
    let gone = clone.head();
    clone.push(&["--force", "origin", "main~1:main"]);
    server.collect_garbage();
    server.write_configuration(&config);
    server.run(&["deliver"]);
    let status = server.run(&["status"]).fails_with(1);
    assert!(status.stdout.contains(&gone) && status.stdout.contains("cannot be recorded"), "{status:?}");
    server.assert_counts_add_up();
    let retried = server.run(&["retry", &gone]).succeeds();
    assert!(retried.stderr.contains("is forgotten") && !retried.stderr.contains("no dead letter"), "{retried:?}");
    server.run(&["status"]).succeeds();
    server.assert_counts_add_up();
    // If it comes back it is as good as any other.
    clone.push(&["origin", "main"]);
    server.deliver_all();
    server.assert_rally_holds(&expected(&server.git_dir, &["main"]));
}

#[test]
fn what_a_missing_hook_left_out_is_posted_although_the_next_push_takes_it_away() {
    let server = Server::delivering_later("");
    let clone = server.new_clone();
    clone.push_commits(&["US1: seen"]);
    let mut missed = Vec::new();
    for (name, message) in [("forced", "US2: missed, forced away"), ("deleted", "DE3: missed, then deleted")] {
        clone.git(&["checkout", "--quiet", "-b", name, "main"]);
        missed.push(clone.commit(message, &[(name, Some("missed"))]));
    }
    push_without_hook(&server, &clone, &["forced", "deleted"]);
    clone.push(&["--force", "origin", "main:forced", ":deleted"]);
    server.deliver_all();
    server.assert_rally_holds(&expected(&server.git_dir, &["main", &missed[0], &missed[1]]));
}

/// How many commits the first push of a large repository brings, and every how many of them names an artifact.
const MANY: usize = 50_000;
const EVERY: usize = 25;
/// What recording them may have in memory at most besides the packs, which are mapped; in bytes.
const MEMORY: u64 = 100_000_000;
/// Address space for the stack of each thread that reads, of which hardly any is ever used, and how many such threads
/// there are at most; as in src/git/read.rs.
const STACK: u64 = 16 << 20;
const READERS: usize = 4;

/// Makes a history in a clone: small commits to many files, some of which name an artifact.
fn long_history(clone: &Clone) {
    let mut stream = String::new();
    for number in 0..MANY {
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

/// Lets a command have at most that much memory of its own, in bytes. What it maps, as the packs, does not count.
fn limit_memory(command: &mut Command, bytes: u64) {
    let limit = libc::rlimit { rlim_cur: bytes, rlim_max: bytes };
    // SAFETY: setrlimit may be called between fork and exec, and reads a structure that is the closure's own.
    unsafe {
        command.pre_exec(move || match libc::setrlimit(libc::RLIMIT_DATA, &limit) {
            0 => Ok(()),
            _ => Err(std::io::Error::last_os_error()),
        });
    }
}

#[test]
fn a_first_push_of_a_long_history_is_recorded_whole_in_little_memory_though_it_is_killed() {
    let server = Server::delivering_later("");
    let clone = server.new_clone();
    long_history(&clone);
    let seen = clone.push(&["origin", "main"]);
    assert!(seen.contains("this push is kept; its commits are being read"), "{seen}");
    // Whoever goes on with it is killed, somewhere.
    for millis in [300, 900] {
        kill_after(spawn(server.command(&["catch-up"])), Duration::from_millis(millis));
        server.assert_counts_add_up();
    }
    let mut catch_up = server.command(&["catch-up"]);
    let readers = std::thread::available_parallelism().map_or(1, |cores| cores.get().min(READERS)) as u64;
    limit_memory(&mut catch_up, MEMORY + readers * STACK);
    ran(catch_up).succeeds();
    assert_behind(&server, &[]);
    assert_eq!((server.count("recorded"), server.count("unread_pushes")), ((MANY / EVERY) as i64, 0));
    server.deliver_all();
    assert_eq!(server.changesets().len(), MANY / EVERY);
    server.assert_counts_add_up();
}

#[test]
fn where_no_thread_can_be_started_that_is_said_and_nothing_is_lost() {
    let server = Server::delivering_later("");
    let clone = server.new_clone();
    for number in 1..=100 {
        clone.commit(&format!("US{number}: one"), &[]);
    }
    push_without_hook(&server, &clone, &["main"]);
    let mut catch_up = server.command(&["catch-up"]);
    limit_memory(&mut catch_up, STACK - 1);
    let ran = ran(catch_up).fails_with(1);
    assert!(ran.stderr.contains("cannot start a thread to read commits"), "{ran:?}");
    server.run(&["catch-up"]).succeeds();
    assert_eq!((server.count("recorded"), server.count("unread_pushes")), (100, 0));
}

#[test]
fn a_commit_whose_trees_cannot_be_read_is_posted_when_they_can() {
    let server = Server::delivering_later("");
    server.import("refs/heads/main", &["US1: one"]);
    let tree = server.git(&["rev-parse", "main^{tree}"]);
    let object = server.git_dir.join("objects").join(&tree[..2]).join(&tree[2..]);
    let away = server.path().join("tree");
    fs::rename(&object, &away).expect("it is a loose object");
    let ran = server.run(&["backfill", "main"]).fails_with(1);
    assert!(ran.stderr.contains(&tree), "{ran:?}");
    server.run(&["catch-up"]).succeeds();
    let status = server.run(&["status"]).fails_with(1);
    assert!(status.stdout.contains(&tree), "{status:?}");
    server.run(&["retry", "--all"]);
    assert_eq!(server.count("failed"), 1, "it is not forgotten");
    server.run(&["deliver"]);
    assert!(server.changesets().is_empty());
    fs::rename(&away, &object).expect("it was there");
    server.run(&["retry", "--all"]).succeeds();
    server.deliver_all();
    server.assert_rally_holds(&expected(&server.git_dir, &["main"]));
    server.assert_counts_add_up();
}
