//! Trouble with the queue's files and the disk: the push succeeds, the trouble is reported, and nothing is posted twice.

use std::fs;
use std::os::unix::fs::{MetadataExt, chown, symlink};
use std::path::{Path, PathBuf};

use crate::support::{Clone, DELIVER_LATER, Server, SmallDisk, expected, git, skipped};

/// Sets up a repository of which two commits are delivered and one waits.
fn with_queue() -> (Server, Clone) {
    let server = Server::delivering_later("");
    let clone = server.new_clone();
    clone.push_commits(&["US1: delivered", "DE2: delivered"]);
    server.deliver_all();
    clone.push_commits(&["TA3: waits"]);
    (server, clone)
}

fn database(server: &Server) -> PathBuf {
    server.git_dir.join("rally-hook/queue.db")
}

/// Moves the write-ahead log into the database file, so that this file holds everything.
fn checkpoint(server: &Server) {
    server.change_queue("PRAGMA wal_checkpoint(TRUNCATE)");
}

/// Asserts that after a backfill each commit is in Rally once.
fn assert_each_once_after_backfill(server: &Server) {
    server.run(&["backfill", "--all"]);
    server.deliver_all();
    server.assert_rally_holds(&expected(&server.git_dir, &["main"]));
}

#[test]
fn a_damaged_queue_is_set_aside_and_replaced() {
    type Damage = fn(&mut Vec<u8>);
    let damages: [(&str, Damage); 4] = [
        ("emptied", |bytes| bytes.clear()),
        ("cut in half", |bytes| bytes.truncate(bytes.len() / 2)),
        ("a page of garbage at its beginning", |bytes| bytes[..4096].fill(0x5a)),
        ("a page of garbage in its middle", |bytes| {
            let page = bytes.len() / 4096 / 2 * 4096;
            bytes[page..page + 4096].fill(0x5a);
        }),
    ];
    for (what, damage) in damages {
        let (server, clone) = with_queue();
        checkpoint(&server);
        let mut bytes = fs::read(database(&server)).expect("it is there");
        damage(&mut bytes);
        fs::write(database(&server), &bytes).expect("it can be written");
        clone.push_commits(&["US4: the queue is damaged"]);
        server.run(&["deliver", "--wait"]);
        let status = server.status();
        assert_eq!((status["damaged_copy"].is_string(), &status["queue_was_lost"]), (true, &true.into()), "{what}");
        server.run(&["status"]).fails_with(1);
        let aside = files_like(&server, "queue.db.damaged-");
        assert!(!aside.is_empty(), "{what}: {}", server.log());
        if bytes.len() < 4096 || bytes[0] == 0x5a {
            // Damage found before the first write leaves the file as it was.
            assert!(aside.iter().any(|path| fs::read(path).is_ok_and(|kept| kept == bytes)), "{what}");
        }
        assert_each_once_after_backfill(&server);
        server.run(&["status"]).succeeds();
    }
}

/// Returns the files of the state directory whose names begin like this.
fn files_like(server: &Server, beginning: &str) -> Vec<PathBuf> {
    let entries = fs::read_dir(server.git_dir.join("rally-hook")).expect("it is there");
    let paths = entries.map(|entry| entry.expect("it can be read").path());
    paths.filter(|path| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(beginning))).collect()
}

#[test]
fn a_deleted_queue_posts_no_history_and_nothing_twice_and_is_reported() {
    let (server, clone) = with_queue();
    for file in files_like(&server, "queue.db") {
        fs::remove_file(file).expect("it was there");
    }
    clone.push_commits(&["US4: the queue is gone"]);
    server.deliver_all();
    let held = server.changesets();
    assert_eq!(held.len(), 3, "two were there, and the new one is; what waited is lost");
    assert!(
        server
            .run(&["status"])
            .stdout
            .contains("lost       what was queued may be missing in Rally; run `rally-hook backfill --all"),
        "and that is told"
    );
    assert!(server.log().contains("the queue was lost"), "{}", server.log());
    assert_each_once_after_backfill(&server);
    assert_eq!(server.status()["queue_was_lost"], false);
}

/// Deletes the directory with all of the program's state.
fn delete_state(server: &Server) {
    fs::remove_dir_all(server.git_dir.join("rally-hook")).expect("it was there");
}

#[test]
fn a_deleted_state_directory_is_reported() {
    let (server, _) = with_queue();
    delete_state(&server);
    let gone = server.run(&["status"]).fails_with(1);
    assert!(gone.stderr.contains("is gone") && gone.stderr.contains("`rally-hook backfill --all"), "{gone:?}");
    assert!(!server.git_dir.join("rally-hook").exists());
    let caught_up = server.run(&["catch-up"]).succeeds();
    assert!(caught_up.stderr.contains("the queue was lost, so the history"), "{caught_up:?}");
    assert_eq!(server.status()["queue_was_lost"], true);
    server.run(&["status"]).fails_with(1);
}

#[test]
fn only_a_backfill_of_all_refs_ends_a_loss() {
    let (server, _) = with_queue();
    delete_state(&server);
    server.run(&["backfill", "main~1..main"]).succeeds();
    assert_eq!(server.status()["queue_was_lost"], true);
    server.run(&["backfill", "--all", "--since", "2023-01-01"]).succeeds();
    assert_eq!(server.status()["queue_was_lost"], false);
    assert_each_once_after_backfill(&server);
}

#[test]
fn status_of_a_lost_queue_does_not_claim_that_nothing_was_recorded() {
    let (server, _) = with_queue();
    delete_state(&server);
    server.run(&["deliver"]).succeeds();
    let status = server.run(&["status"]).fails_with(1);
    assert!(status.stdout.contains("lost ") && !status.stderr.contains("ever recorded"), "{status:?}");
}

#[test]
fn a_directory_in_the_place_of_the_queue_is_named() {
    let (server, clone) = with_queue();
    delete_state(&server);
    fs::create_dir_all(database(&server)).expect("it can be made");
    let refused = server.run(&["deliver"]).fails_with(1);
    assert!(refused.stderr.contains("queue.db is not a file"), "{refused:?}");
    clone.push_commits(&["US4: kept beside it"]);
    fs::remove_dir(database(&server)).expect("it is empty");
    server.deliver_all();
    assert!(server.changesets().iter().any(|held| held.message.contains("kept beside it")));
}

#[test]
fn a_queue_that_is_a_symbolic_link_is_refused_and_not_touched() {
    let (server, clone) = with_queue();
    let elsewhere = move_queue(&server);
    symlink(&elsewhere, database(&server)).expect("links can be made");
    assert_not_touched(&server, &clone, &elsewhere, "is a symbolic link");
}

#[test]
fn a_queue_of_another_user_is_refused_and_not_touched() {
    let (server, clone) = with_queue();
    let elsewhere = move_queue(&server);
    fs::copy(&elsewhere, database(&server)).expect("it can be copied");
    if chown(database(&server), Some(65534), None).is_err() {
        skipped("this user may not give files away");
        return;
    }
    assert_not_touched(&server, &clone, &elsewhere, "belongs to user 65534");
}

/// Moves the queue's file out of the repository and returns its new place.
fn move_queue(server: &Server) -> PathBuf {
    checkpoint(server);
    let elsewhere = server.path().join("elsewhere");
    fs::rename(database(server), &elsewhere).expect("it was there");
    elsewhere
}

/// Asserts that delivery refuses the queue for this reason, and goes on once the moved file is back.
fn assert_not_touched(server: &Server, clone: &Clone, elsewhere: &Path, reason: &str) {
    let bytes = fs::read(elsewhere).expect("it is there");
    clone.push_commits(&["US4: not ours"]);
    let refused = server.run(&["deliver"]).fails_with(1);
    assert!(refused.stderr.contains(reason), "{refused:?}");
    for file in [elsewhere, &database(server)] {
        assert_eq!(fs::read(file).expect("it is there"), bytes);
    }
    fs::remove_file(database(server)).expect("it was there");
    fs::rename(elsewhere, database(server)).expect("it was there");
    server.deliver_all();
    server.assert_rally_holds(&expected(&server.git_dir, &["main"]));
}

#[test]
fn a_queue_of_a_newer_version_is_refused_and_the_push_is_kept() {
    let (server, clone) = with_queue();
    server.change_queue("PRAGMA user_version = 99");
    let seen = clone.push_commits(&["US4: the queue is newer"]);
    assert!(seen.contains("version 99"), "{seen}");
    server.run(&["deliver"]).fails_with(1);
    server.change_queue("PRAGMA user_version = 4");
    server.deliver_all();
    server.assert_rally_holds(&expected(&server.git_dir, &["main"]));
}

#[test]
fn a_queue_of_an_earlier_version_is_migrated() {
    let (server, clone) = with_queue();
    for sql in [
        "DROP TABLE forwarded; ALTER TABLE seen_tip DROP COLUMN forwarded",
        "DROP INDEX seen_tip_by_time; ALTER TABLE seen_tip DROP COLUMN covered",
        "DROP INDEX state_request_due; ALTER TABLE state_request DROP COLUMN done",
        "ALTER TABLE receipt DROP COLUMN destination",
        "PRAGMA user_version = 1",
    ] {
        server.change_queue(sql);
    }
    clone.push_commits(&["US4: the queue is older"]);
    server.assert_refs_behind(&[]);
    server.deliver_all();
    server.assert_rally_holds(&expected(&server.git_dir, &["main"]));
}

#[test]
fn a_push_with_a_locked_queue_is_read_in_the_background() {
    let server = Server::new();
    let clone = server.new_clone();
    let other = rusqlite::Connection::open(database(&server)).expect("a database");
    other.execute_batch("BEGIN EXCLUSIVE").expect("nobody else holds it");
    let seen = clone.push_commits(&["US1: one"]);
    assert!(seen.contains("this push is kept, but not recorded yet: "), "{seen}");
    other.execute_batch("COMMIT").expect("it is ours");
    server.rally.wait_until("the commit", |world| !world.changesets().is_empty());
}

#[test]
fn history_is_not_posted_after_damage_to_the_table_of_seen_tips() {
    let (server, clone) = with_queue();
    checkpoint(&server);
    let root = {
        let queue = rusqlite::Connection::open(database(&server)).expect("a database");
        let sql = "SELECT rootpage FROM sqlite_master WHERE name = 'seen_tip'";
        queue.query_row(sql, [], |row| row.get::<_, u32>(0)).expect("the table") as usize
    };
    let mut bytes = fs::read(database(&server)).expect("it is there");
    bytes[(root - 1) * 4096..root * 4096].fill(0x5a);
    fs::write(database(&server), &bytes).expect("it can be written");
    let before = server.changesets().len();
    let seen = clone.push_commits(&["US4: what was seen is damaged"]);
    assert!(seen.contains("rally: 1 commit queued for US4"), "{seen}");
    server.deliver_all();
    assert_eq!(server.changesets().len(), before + 2, "what waited, and what is new");
    assert_each_once_after_backfill(&server);
}

/// Asserts that `status` names main as not recorded up to its tip.
fn assert_main_is_behind(server: &Server) {
    server.assert_refs_behind(&["refs/heads/main"]);
    let ran = server.run(&["status"]).fails_with(1);
    assert!(ran.stdout.contains("refs/heads/main"), "{ran:?}");
}

#[test]
fn doctor_says_that_there_is_no_space() {
    let server = Server::new();
    let state = server.git_dir.join("rally-hook");
    let Some(_disk) = SmallDisk::mount(&state) else { return };
    let ran = server.run(&["doctor"]).fails_with(1);
    assert!(ran.stdout.contains("WRONG space") && ran.stdout.contains("pushes are not recorded"), "{ran:?}");
}

#[test]
fn a_full_disk_fails_no_push_and_catch_up_records_it() {
    let server = Server::without_hook();
    server.configure(DELIVER_LATER);
    let state = server.git_dir.join("rally-hook");
    fs::create_dir(&state).expect("it is new");
    let Some(_disk) = SmallDisk::mount(&state) else { return };
    server.run(&["install"]).succeeds();
    let clone = server.new_clone();
    clone.push_commits(&["US1: there is room"]);
    let filler = state.join("filler");
    // This writes until the disk is full.
    fs::write(&filler, vec![0; 1 << 20]).expect_err("the disk is small");
    let seen = clone.push_commits(&["DE2: there is none"]);
    assert_eq!(seen.matches("rally: ").count(), 1, "{seen}");
    assert!(seen.contains("rally-hook catch-up"), "{seen}");
    fs::remove_file(&filler).expect("it was there");
    assert_main_is_behind(&server);
    server.run(&["catch-up"]).succeeds();
    server.deliver_all();
    server.assert_rally_holds(&expected(&server.git_dir, &["main"]));
}

#[test]
fn a_read_only_disk_fails_no_push_and_catch_up_records_it() {
    let server = Server::without_hook();
    server.configure(DELIVER_LATER);
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
    assert_main_is_behind(&server);
    server.run(&["catch-up"]).succeeds();
    server.deliver_all();
    server.assert_rally_holds(&expected(&server.git_dir, &["main"]));
}

#[test]
fn a_large_log_is_rotated_and_kept_once() {
    let (server, clone) = with_queue();
    let log = server.git_dir.join("rally-hook/log");
    fs::write(&log, vec![b'x'; 6 << 20]).expect("it can be written");
    clone.push_commits(&["US4: the log is full"]);
    server.deliver_all();
    assert!(fs::metadata(&log).expect("it is there").size() < 1 << 20);
    assert_eq!(fs::metadata(log.with_extension("1")).expect("it is kept once").size(), 6 << 20);
}

#[test]
fn the_number_of_receipts_is_bounded() {
    let (server, clone) = with_queue();
    server.change_queue(
        "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 200100) \
         INSERT INTO receipt (revision, outcome, rally_ref, at) SELECT printf('%040x', i), 'delivered', '/changeset/1', i FROM n",
    );
    clone.push_commits(&["US4: the newest"]);
    server.deliver_all();
    let database = rusqlite::Connection::open(database(&server)).expect("a database");
    let count = |sql: &str| database.query_row(sql, [], |row| row.get::<_, i64>(0)).expect("a number");
    assert!((200_000..=200_010).contains(&count("SELECT count(*) FROM receipt")));
    let newest = git(&server.git_dir, &["rev-parse", "main"]);
    assert_eq!(count(&format!("SELECT count(*) FROM receipt WHERE revision = '{newest}'")), 1);
}

#[test]
fn a_queue_with_the_journal_for_network_file_systems_works() {
    let (server, clone) = with_queue();
    server.change_queue("PRAGMA journal_mode = DELETE");
    clone.push_commits(&["US4: without a write-ahead log"]);
    assert!(files_like(&server, "queue.db-wal").is_empty());
    server.deliver_all();
    server.assert_rally_holds(&expected(&server.git_dir, &["main"]));
}
