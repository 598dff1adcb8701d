//! Users, groups and modes: who may use what the hook creates.

use std::fs;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::Path;

use crate::support::users::{GROUP, USERS};
use crate::support::{DELIVER_LATER, Server, hermetic, program, ran, skipped};

/// Runs nothing else, so that the limit on its processes means this test alone.
const LIMITED: u32 = 61_003;

#[test]
fn files_of_the_hook_are_for_its_owner_only_whatever_the_umask() {
    let server = Server::without_hook();
    server.configure(DELIVER_LATER);
    assert_modes_under(&server, "000", 0o700, 0o600);
}

#[test]
fn files_of_the_hook_are_for_the_group_in_a_shared_repository() {
    let server = Server::with_repository(&["--shared=group"]);
    server.configure(DELIVER_LATER);
    assert_modes_under(&server, "077", 0o2770, 0o660);
}

/// Asserts that the hook, with this umask, creates a directory and files with these modes.
fn assert_modes_under(server: &Server, umask: &str, directory: u32, file: u32) {
    let hook = program().display();
    let run = |script: String| {
        let mut command = hermetic("sh");
        command.current_dir(&server.git_dir).env("GIT_DIR", ".").args(["-c", &format!("umask {umask}; {script}")]);
        ran(command).succeeds();
    };
    run(format!("{hook} install"));
    let update = server.import("refs/heads/main", &["US1"]);
    run(format!("printf '%s' '{update}' | {hook} post-receive; {hook} deliver"));
    let state = server.git_dir.join("rally-hook");
    let mode = |path: &Path| fs::metadata(path).expect("it is there").permissions().mode() & 0o7777;
    assert_eq!(mode(&state), directory);
    let entries = fs::read_dir(&state).expect("it is there");
    let files: Vec<_> = entries.map(|entry| entry.expect("it can be read").path()).collect();
    assert!(files.iter().any(|path| path.ends_with("queue.db")) && files.iter().any(|path| path.ends_with("log")));
    for path in files {
        assert_eq!(mode(&path), file, "{}", path.display());
    }
    assert_eq!(server.changesets().len(), 1);
}

#[test]
fn the_hook_works_for_several_users_of_one_group() {
    let server = Server::with_repository(&["--shared=group"]);
    server.configure(DELIVER_LATER);
    let messages = ["US1: by the first", "DE2: by the second", "TA3: by the first again"];
    let updates = messages.map(|message| server.import("refs/heads/main", &[message]));
    if !server.give_to(USERS[0]) {
        return;
    }
    // The key and the configuration reach the users through their group, whoever of the trusted users owns them.
    for (name, owner) in [("api-key", USERS[0]), ("rally-hook.toml", 0)] {
        let path = server.git_dir.join(name);
        chown(&path, Some(owner), Some(GROUP)).expect("root may do that");
        fs::set_permissions(path, fs::Permissions::from_mode(0o640)).expect("root may do that");
    }
    fs::write(server.path().join(".gitconfig"), "[safe]\n\tdirectory = *\n").expect("it can be written");
    for (user, update) in [USERS[0], USERS[1], USERS[0]].into_iter().zip(&updates) {
        let hook = server.run_as(user, &format!("printf '%s' '{update}' | $0 post-receive"));
        assert!(hook.stderr.contains("1 commit queued"), "{hook:?}");
    }
    server.run_as(USERS[1], "$0 deliver --wait").succeeds();
    server.run_as(USERS[0], "$0 status").succeeds();
    assert_eq!(server.changesets().len(), 3);
}

#[test]
fn a_home_of_another_user_is_no_obstacle() {
    let server = Server::without_hook();
    server.configure_later("");
    server.new_clone().commit("US1", &[("a", Some("1"))]);
    if !server.give_to(USERS[0]) {
        return;
    }
    // As where `sudo -u git` keeps root's.
    let home = server.path().join("home");
    fs::create_dir(&home).expect("a directory");
    fs::set_permissions(&home, fs::Permissions::from_mode(0o700)).expect("a mode");
    server.run_as(USERS[0], "HOME=../home; $0 install").succeeds();
    let push = server.run_as(USERS[0], "HOME=$PWD/../home; unset GIT_DIR; cd ../clone0; git push origin main");
    let warned = push.stderr.contains("home/") && push.stderr.contains("Permission denied");
    assert!(warned && push.stderr.contains("1 commit queued for US1"), "{push:?}");
    server.run_as(USERS[0], "HOME=../home; $0 deliver --wait").succeeds();
    assert_eq!(server.changesets().len(), 1);
}

#[test]
fn a_push_succeeds_although_delivery_cannot_start_threads() {
    let server = Server::without_hook();
    server.configure("[queue]\ndeliver = \"inline\"\n");
    server.write_private("updates", &server.import("refs/heads/main", &["US1: first"]));
    if !server.give_to(LIMITED) {
        return;
    }
    // What cannot be started is a thread of the HTTP client, of the resolver, or our own.
    for threads in 1..=3 {
        let script = format!("exec prlimit --nproc={threads} $0 post-receive <updates");
        let hook = server.run_as(LIMITED, &script).succeeds();
        assert!(hook.stderr.lines().count() <= 1, "{hook:?}");
    }
    assert!(server.log().contains("delivery ended: a bug in rally-hook"), "{}", server.log());
    server.run_as(LIMITED, "$0 deliver --wait").succeeds();
    assert_eq!(server.changesets().len(), 1);
}

#[test]
fn root_creates_nothing_in_a_repository_of_another_user() {
    let server = Server::without_hook();
    if chown(&server.git_dir, Some(65534), None).is_err() {
        skipped("this user may not give files away");
        return;
    }
    for command in ["install", "deliver"] {
        let ran = server.run(&[command]).fails_with(1);
        assert!(ran.stderr.contains("belongs to user 65534"), "{ran:?}");
    }
    assert!(!server.git_dir.join("rally-hook").exists());
}
