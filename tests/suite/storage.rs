//! The queue's files in trouble: the push succeeds, the trouble is told, and nothing that was delivered is posted again.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::PathBuf;
use std::process::Command;

use crate::support::DELIVER_LATER;
use crate::support::{Clone, Server, expected, git, ran};

/// A repository of which two commits are delivered and one waits.
fn scene() -> (Server, Clone) {
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

/// Moves the log into the database file, so that this one holds everything.
fn settle(server: &Server) {
    server.change_queue("PRAGMA wal_checkpoint(TRUNCATE)");
}

/// Makes sure that whatever happened, each commit is in Rally once when a backfill has made up for it.
fn assert_each_once_after_backfill(server: &Server) {
    server.run(&["backfill", "--all"]);
    server.deliver_all();
    server.assert_rally_holds(&expected(&server.git_dir, &["main"]));
}

#[test]
fn a_damaged_queue_is_set_aside_and_what_can_be_read_is_taken_over() {
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
        let (server, clone) = scene();
        settle(&server);
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
            // What is found out before anything is written is kept to the letter.
            assert!(aside.iter().any(|path| fs::read(path).is_ok_and(|kept| kept == bytes)), "{what}");
        }
        assert_each_once_after_backfill(&server);
        server.run(&["status"]).succeeds();
    }
}

fn files_like(server: &Server, beginning: &str) -> Vec<PathBuf> {
    let entries = fs::read_dir(server.git_dir.join("rally-hook")).expect("it is there");
    let paths = entries.map(|entry| entry.expect("it can be read").path());
    paths.filter(|path| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(beginning))).collect()
}

#[test]
fn a_deleted_queue_posts_no_history_and_nothing_twice() {
    let (server, clone) = scene();
    for file in files_like(&server, "queue.db") {
        fs::remove_file(file).expect("it was there");
    }
    clone.push_commits(&["US4: the queue is gone"]);
    server.deliver_all();
    let held = server.changesets();
    assert_eq!(held.len(), 3, "two were there, and the new one is; what waited is lost");
    assert!(
        server.run(&["status"]).stdout.contains("lost       some of what waited in the queue may be gone"),
        "and that is told"
    );
    assert!(server.log().contains("the queue's file was gone"), "{}", server.log());
    assert_each_once_after_backfill(&server);
    assert_eq!(server.status()["queue_was_lost"], false);
}

#[test]
fn a_queue_that_is_a_link_or_somebody_elses_is_not_touched() {
    for others in [false, true] {
        let (server, clone) = scene();
        settle(&server);
        let elsewhere = server.path().join("elsewhere");
        fs::rename(database(&server), &elsewhere).expect("it was there");
        match others {
            true => {
                fs::copy(&elsewhere, database(&server)).expect("it can be copied");
                if std::os::unix::fs::chown(database(&server), Some(65534), None).is_err() {
                    eprintln!("skipped: this user may not give files away");
                    return;
                }
            }
            false => symlink(&elsewhere, database(&server)).expect("links can be made"),
        }
        let bytes = fs::read(&elsewhere).expect("it is there");
        clone.push_commits(&["US4: not ours"]);
        let refused = server.run(&["deliver"]).fails_with(1);
        let reason = if others { "belongs to user 65534" } else { "is a symbolic link" };
        assert!(refused.stderr.contains(reason), "{refused:?}");
        assert_eq!(fs::read(&elsewhere).expect("it is there"), bytes);
        fs::remove_file(database(&server)).expect("it was there");
        fs::rename(&elsewhere, database(&server)).expect("it was there");
        server.deliver_all();
        server.assert_rally_holds(&expected(&server.git_dir, &["main"]));
    }
}

#[test]
fn a_queue_of_a_newer_version_is_left_alone_and_the_push_kept() {
    let (server, clone) = scene();
    server.change_queue("PRAGMA user_version = 99");
    let seen = clone.push_commits(&["US4: the queue is newer"]);
    assert!(seen.contains("version 99"), "{seen}");
    server.run(&["deliver"]).fails_with(1);
    server.change_queue("PRAGMA user_version = 2");
    server.deliver_all();
    server.assert_rally_holds(&expected(&server.git_dir, &["main"]));
}

#[test]
fn a_queue_of_an_earlier_version_is_brought_up_to_date_with_all_that_it_holds() {
    let (server, clone) = scene();
    for sql in [
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
fn what_the_hook_makes_is_for_its_owner_only_whatever_the_umask() {
    let server = Server::without_hook();
    server.configure(DELIVER_LATER);
    assert_modes_under(&server, "000", 0o700, 0o600);
}

#[test]
fn in_a_shared_repository_the_group_may_use_what_the_hook_makes() {
    let server = Server::with_repository(&["--shared=group"]);
    server.configure(DELIVER_LATER);
    assert_modes_under(&server, "077", 0o2770, 0o660);
}

/// Two users of one group, neither of them root.
const GROUP: u32 = 61_000;
const USERS: [u32; 2] = [61_001, 61_002];
/// One who runs nothing else at the same time.
const LIMITED: u32 = 61_003;

#[test]
fn the_hook_works_for_several_users_of_one_group() {
    let server = Server::with_repository(&["--shared=group"]);
    server.configure(DELIVER_LATER);
    let messages = ["US1: by the first", "DE2: by the second", "TA3: by the first again"];
    let updates = messages.map(|message| server.import("refs/heads/main", &[message]));
    if !give_to(&server, USERS[0]) {
        return;
    }
    // The key and the configuration are root's, and reach the users through their group.
    for name in ["api-key", "rally-hook.toml"] {
        let path = server.git_dir.join(name);
        std::os::unix::fs::chown(&path, Some(0), Some(GROUP)).expect("root may do that");
        fs::set_permissions(path, fs::Permissions::from_mode(0o640)).expect("root may do that");
    }
    fs::write(server.path().join(".gitconfig"), "[safe]\n\tdirectory = *\n").expect("it can be written");
    for (user, update) in [USERS[0], USERS[1], USERS[0]].into_iter().zip(&updates) {
        let hook = run_as(&server, user, &format!("printf '%s' '{update}' | $0 post-receive"));
        assert!(hook.stderr.contains("1 commit queued"), "{hook:?}");
    }
    run_as(&server, USERS[1], "$0 deliver --wait").succeeds();
    run_as(&server, USERS[0], "$0 status").succeeds();
    assert_eq!(server.changesets().len(), 3);
}

#[test]
fn a_queue_that_somebody_holds_is_waited_for_in_the_background() {
    let server = Server::new();
    let clone = server.new_clone();
    let other = rusqlite::Connection::open(database(&server)).expect("a database");
    other.execute_batch("BEGIN EXCLUSIVE").expect("nobody else holds it");
    let seen = clone.push_commits(&["US1: one"]);
    assert!(seen.contains("this push is kept, but its commits cannot be read yet"), "{seen}");
    other.execute_batch("COMMIT").expect("it is ours");
    server.rally.wait_until("the commit", |world| !world.changesets().is_empty());
}

#[test]
fn a_delivery_for_which_no_threads_can_be_started_fails_no_push() {
    let server = Server::without_hook();
    server.configure("[queue]\ndeliver = \"inline\"\n");
    server.write_private("updates", &server.import("refs/heads/main", &["US1: first"]));
    if !give_to(&server, LIMITED) {
        return;
    }
    // Whatever it is that cannot be started: a thread of the HTTP client, of the resolver, or ours.
    for threads in 1..=3 {
        let script = format!("exec prlimit --nproc={threads} $0 post-receive <updates");
        let hook = run_as(&server, LIMITED, &script).succeeds();
        assert!(hook.stderr.lines().count() <= 1, "{hook:?}");
    }
    assert!(server.log().contains("delivery ended by a fault of its own"), "{}", server.log());
    run_as(&server, LIMITED, "$0 deliver --wait").succeeds();
    assert_eq!(server.changesets().len(), 1);
}

/// Gives the repository to another user, who may find it. Returns false, and says so, where that is not permitted.
fn give_to(server: &Server, user: u32) -> bool {
    let mut own = Command::new("chown");
    own.args(["-R", &format!("{user}:{GROUP}")]).arg(&server.git_dir);
    if !ran(own).success {
        eprintln!("skipped: this user may not give files away");
        return false;
    }
    fs::set_permissions(server.path(), fs::Permissions::from_mode(0o755)).expect("it is ours");
    true
}

/// Runs a shell script in the repository as another user, with the program as `$0`.
fn run_as(server: &Server, user: u32, script: &str) -> crate::support::Ran {
    let mut command = crate::support::hermetic("setpriv");
    let ids = [format!("--reuid={user}"), format!("--regid={GROUP}"), "--clear-groups".to_owned()];
    let program = server.path().join("rally-hook");
    // The built one may lie where others may not look.
    if !program.exists() {
        crate::support::copy_program(&program);
    }
    command.args(ids).args(["sh", "-c", &format!("umask 077; {script}")]).arg(program);
    command.current_dir(&server.git_dir).env("GIT_DIR", ".").env("HOME", server.path());
    command.env_remove("GIT_CONFIG_GLOBAL");
    ran(command)
}

fn assert_modes_under(server: &Server, umask: &str, directory: u32, file: u32) {
    let hook = crate::support::program().display();
    let run = |script: String| {
        let mut command = crate::support::hermetic("sh");
        command.current_dir(&server.git_dir).env("GIT_DIR", ".").args(["-c", &format!("umask {umask}; {script}")]);
        ran(command).succeeds();
    };
    run(format!("{hook} install"));
    let update = server.import("refs/heads/main", &["US1"]);
    run(format!("printf '%s' '{update}' | {hook} post-receive; {hook} deliver"));
    let state = server.git_dir.join("rally-hook");
    let mode = |path: &PathBuf| fs::metadata(path).expect("it is there").permissions().mode() & 0o7777;
    assert_eq!(mode(&state), directory);
    let files = files_like(server, "");
    assert!(files.iter().any(|path| path.ends_with("queue.db")) && files.iter().any(|path| path.ends_with("log")));
    for path in files {
        assert_eq!(mode(&path), file, "{}", path.display());
    }
    assert_eq!(server.changesets().len(), 1);
}

#[test]
fn deliver_all_repos_goes_on_past_a_broken_one() {
    let (server, _clone) = scene();
    let config = server.read_configuration();
    let root = server.path().join("root");
    fs::create_dir(&root).expect("it is new");
    for name in ["one", "two", "three"] {
        let copy = root.join(format!("{name}.git"));
        crate::support::copy(&server.git_dir, &copy);
        fs::write(copy.join("rally-hook.toml"), format!("{config}\n[repository]\nname = \"{name}\"\n"))
            .expect("it can be written");
    }
    fs::write(root.join("one.git/rally-hook.toml"), "nonsense").expect("it can be written");
    // A repository may be reached by links, and by several.
    fs::rename(root.join("three.git"), server.path().join("elsewhere.git")).expect("it can be moved");
    for name in ["three.git", "again.git"] {
        symlink(server.path().join("elsewhere.git"), root.join(name)).expect("links can be made");
    }
    let root = root.to_str().expect("UTF-8");
    let seen = server.run(&["deliver", "--all-repos", root]).fails_with(1);
    let mut of: Vec<String> = server.changesets().iter().map(|held| held.repository.clone()).collect();
    of.retain(|name| name != "payments");
    of.sort();
    assert_eq!(of, ["three", "two"], "{seen:?}");
}

#[test]
fn the_log_is_rotated_and_receipts_are_bounded() {
    let (server, clone) = scene();
    let log = server.git_dir.join("rally-hook/log");
    fs::write(&log, vec![b'x'; 6 << 20]).expect("it can be written");
    server.change_queue(
        "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 200100) \
         INSERT INTO receipt (revision, outcome, rally_ref, at) SELECT printf('%040x', i), 'delivered', '/changeset/1', i FROM n",
    );
    clone.push_commits(&["US4: the log is full"]);
    server.deliver_all();
    assert!(fs::metadata(&log).expect("it is there").size() < 1 << 20);
    assert_eq!(fs::metadata(log.with_extension("1")).expect("it is kept once").size(), 6 << 20);
    let database = rusqlite::Connection::open(database(&server)).expect("a database");
    let count = |sql: &str| database.query_row(sql, [], |row| row.get::<_, i64>(0)).expect("a number");
    assert!((200_000..=200_010).contains(&count("SELECT count(*) FROM receipt")));
    let newest = git(&server.git_dir, &["rev-parse", "main"]);
    assert_eq!(count(&format!("SELECT count(*) FROM receipt WHERE revision = '{newest}'")), 1);
}

#[test]
fn history_counts_as_seen_when_damage_has_taken_what_was_seen() {
    let (server, clone) = scene();
    settle(&server);
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

#[test]
fn root_makes_nothing_in_a_repository_of_somebody_else() {
    let server = Server::without_hook();
    if std::os::unix::fs::chown(&server.git_dir, Some(65534), None).is_err() {
        eprintln!("skipped: this user may not give files away");
        return;
    }
    for command in ["status", "install", "deliver"] {
        let ran = server.run(&[command]).fails_with(1);
        assert!(ran.stderr.contains("belongs to user 65534"), "{ran:?}");
    }
    assert!(!server.git_dir.join("rally-hook").exists());
}
