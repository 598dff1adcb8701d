//! `install` beside a hook that exists already, and `uninstall`.

use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;

use crate::support::{Clone, DELIVER_LATER, Server, copy_program, expected, git, hermetic, name_of, program, ran};

/// A hook that writes its input to a file in the Git directory, and fails.
const FOREIGN: &str =
    "#!/bin/sh\n# a foreign hook\ncat >>\"$GIT_DIR/foreign-input\"\necho foreign says hello\nexit 3\n";

/// Writes [`FOREIGN`] as an executable file.
fn write_foreign(hook: &Path) {
    fs::create_dir_all(hook.parent().expect("a directory")).expect("it can be made");
    fs::write(hook, FOREIGN).expect("a hook");
    fs::set_permissions(hook, fs::Permissions::from_mode(0o750)).expect("a mode");
}

/// Sets up a server with a foreign hook, and ours installed over it.
fn with_foreign_hook() -> Server {
    let server = Server::without_hook();
    server.configure_later("");
    write_foreign(&server.hook());
    server.run(&["install"]).succeeds();
    // A second installation must not take our own hook for a foreign one.
    server.run(&["install"]).succeeds();
    server
}

#[test]
fn install_says_where_it_keeps_a_foreign_hook() {
    let server = Server::without_hook();
    write_foreign(&server.hook());
    let seen = server.run(&["install"]).succeeds().stderr;
    assert!(seen.contains("is kept as") && seen.contains("`rally-hook doctor`"), "{seen}");
}

#[test]
fn a_foreign_hook_runs_first_with_the_same_input() {
    let server = with_foreign_hook();
    let clone = server.new_clone();
    let revision = clone.commit("US1", &[("a", Some("1"))]);
    let seen = clone.push(&["origin", "main", "main:refs/tags/v1"]);
    let (hello, ours) = (seen.find("foreign says hello"), seen.find("rally: 1 commit queued for US1"));
    assert!(hello.is_some() && hello < ours, "{seen}");
    let input = fs::read_to_string(server.git_dir.join("foreign-input")).expect("the foreign hook's file");
    let none = name_of('0');
    assert_eq!(input, format!("{none} {revision} refs/heads/main\n{none} {revision} refs/tags/v1\n"));
    server.deliver_all();
    server.assert_rally_holds(&expected(&server.git_dir, &["main"]));
}

#[test]
fn the_failure_of_a_foreign_hook_is_reported() {
    let server = with_foreign_hook();
    let seen = server.new_clone().push_commits(&["US1"]);
    assert!(seen.contains("the other hook") && seen.contains("exit status: 3"), "{seen}");
}

#[test]
fn uninstall_restores_a_foreign_hook_as_it_was() {
    let server = with_foreign_hook();
    let ran = server.run(&["uninstall"]).succeeds();
    assert!(ran.stderr.contains("put back") && ran.stderr.contains("the queue is empty;"), "{ran:?}");
    assert_eq!(fs::read(server.hook()).expect("the foreign hook"), FOREIGN.as_bytes());
    assert_eq!(fs::metadata(server.hook()).expect("it").permissions().mode() & 0o777, 0o750);
    let left: Vec<_> = fs::read_dir(server.git_dir.join("hooks")).expect("hooks").flatten().collect();
    assert!(left.iter().all(|entry| !entry.file_name().to_string_lossy().contains("rally")), "{left:?}");
    let ran = server.run(&["uninstall"]).fails_with(1);
    assert!(ran.stderr.contains("is not ours; nothing was changed"), "{ran:?}");
    assert_eq!(fs::read(server.hook()).expect("the foreign hook"), FOREIGN.as_bytes());
}

#[test]
fn a_foreign_hook_that_is_a_symbolic_link_stays_one() {
    let server = Server::without_hook();
    let target = server.path().join("shared-hook");
    write_foreign(&target);
    symlink(&target, server.hook()).expect("a link");
    server.run(&["install"]).succeeds();
    let clone = server.new_clone();
    clone.commit("US1", &[("a", Some("1"))]);
    assert!(clone.push(&["origin", "main"]).contains("foreign says hello"));
    server.run(&["uninstall"]).succeeds();
    assert_eq!(fs::read_link(server.hook()).expect("a link"), target);
    assert_eq!(fs::read(&target).expect("its target"), FOREIGN.as_bytes());
}

#[test]
fn both_foreign_hooks_are_kept_if_the_host_writes_a_second_one() {
    let server = Server::without_hook();
    write_foreign(&server.hook());
    server.run(&["install"]).succeeds();
    write_foreign(&server.hook());
    server.run(&["install"]).succeeds();
    for kept in ["post-receive.before-rally-hook", "post-receive.before-rally-hook.old"] {
        assert_eq!(fs::read(server.git_dir.join("hooks").join(kept)).expect("the hook"), FOREIGN.as_bytes());
    }
}

#[test]
fn uninstall_names_an_older_hook_and_what_is_queued() {
    let server = with_foreign_hook();
    write_foreign(&server.hook());
    server.run(&["install"]).succeeds();
    server.new_clone().push_commits(&["US1"]);
    let ran = server.run(&["uninstall"]).succeeds();
    assert!(ran.stderr.contains("post-receive.before-rally-hook.old; it does not run"), "{ran:?}");
    assert!(ran.stderr.contains("the queue is not empty (1 queued, 0 failed, 0 pushes unread)"), "{ran:?}");
}

#[test]
fn the_hook_is_installed_in_core_hooks_path() {
    let server = Server::without_hook();
    server.configure_later("");
    for path in ["own-hooks".to_owned(), server.path().join("absolute hooks'").display().to_string()] {
        server.git(&["config", "core.hooksPath", &path]);
        server.run(&["install"]).succeeds();
        assert!(server.git_dir.join(&path).join("post-receive").exists());
        let clone = server.new_clone();
        clone.commit(&format!("US1 {path}"), &[("a", Some(&path))]);
        let seen = clone.push(&["--force", "origin", "main"]);
        assert!(seen.contains("1 commit queued for US1"), "{seen}");
        server.run(&["uninstall"]).succeeds();
        assert!(!server.git_dir.join(&path).join("post-receive").exists());
    }
    assert!(!server.hook().exists());
}

#[test]
fn install_counts_history_as_seen_even_without_a_configuration() {
    let server = Server::without_hook();
    let config = server.read_configuration();
    fs::remove_file(server.git_dir.join("rally-hook.toml")).expect("it was there");
    let clone = server.new_clone();
    let old = clone.commit("US1 long ago", &[("a", Some("1"))]);
    clone.push(&["origin", "main", "main:topic"]);
    let seen = server.run(&["install"]).succeeds().stderr;
    assert!(seen.contains("counts as seen") && seen.contains("no configuration"), "{seen}");
    clone.commit("US2", &[("a", Some("2"))]);
    clone.push(&["origin", "main"]);
    server.write_configuration(&config);
    // A second installation does not count what came since as history.
    server.run(&["install"]).succeeds();
    server.deliver_all();
    server.assert_rally_holds(&expected(&server.git_dir, &["main", &format!("^{old}")]));
}

#[test]
fn the_hook_finds_the_program_in_any_directory() {
    for directory in ["plain", "it's a directory with spaces", &"long".repeat(40)] {
        let server = Server::without_hook();
        server.configure_later("");
        let place = server.path().join(directory);
        fs::create_dir(&place).expect("it is new");
        let copy = place.join("rally-hook");
        copy_program(&copy);
        let mut install = hermetic(&copy);
        install.args(["install", "--repo"]).arg(&server.git_dir);
        ran(install).succeeds();
        let clone = server.new_clone();
        let seen = clone.push_commits(&["US1"]);
        assert!(seen.contains("rally: 1 commit queued for US1"), "{seen}");
        // Git ignores a hook that is a dangling link, but reports one that cannot be run.
        fs::remove_file(&copy).expect("it was there");
        let seen = clone.push_commits(&["DE2"]);
        assert!(seen.contains("rally-hook") && seen.contains("not found") || seen.contains("cannot"), "{seen}");
    }
}

#[test]
fn install_keeps_the_pushes_that_wait_for_a_configuration() {
    let server = Server::without_hook();
    let clone = server.new_clone();
    clone.push_commits(&["US1: history"]);
    symlink(program(), server.hook()).expect("there is no hook");
    server.write_configuration("[rally\n");
    let before = clone.head();
    clone.push_commits(&["US2: waits"]);
    server.configure_later("");
    server.run(&["install"]).succeeds();
    clone.push_commits(&["US3: comes later"]);
    server.deliver_all();
    server.assert_rally_holds(&expected(&server.git_dir, &["main", &format!("^{before}")]));
}

#[test]
fn a_hook_that_is_this_program_is_replaced_and_not_kept() {
    for link in [true, false] {
        let server = Server::without_hook();
        server.configure_later("");
        match link {
            true => symlink(program(), server.hook()).expect("there is no hook"),
            false => copy_program(&server.hook()),
        }
        server.run(&["install"]).succeeds();
        assert!(!server.git_dir.join("hooks/post-receive.before-rally-hook").exists());
        let seen = server.new_clone().push_commits(&["US1"]);
        assert_eq!(seen.lines().count(), 1, "{seen}");
        server.run(&["uninstall"]).succeeds();
        assert!(!server.hook().exists());
    }
}

/// Sets up a server with a foreign hook that has no `#!` line, and ours installed over it.
fn with_hook_without_shebang() -> (Server, Clone) {
    let server = Server::without_hook();
    server.configure_later("");
    fs::write(server.hook(), "echo no shebang, $GIT_DIR\n").expect("a hook");
    fs::set_permissions(server.hook(), fs::Permissions::from_mode(0o755)).expect("a mode");
    server.run(&["install"]).succeeds();
    let clone = server.new_clone();
    (server, clone)
}

#[test]
fn a_foreign_hook_without_shebang_runs() {
    let (_server, clone) = with_hook_without_shebang();
    let seen = clone.push_commits(&["US1"]);
    assert!(seen.contains("no shebang, .") && !seen.contains("cannot be run"), "{seen}");
}

#[test]
fn a_foreign_hook_runs_after_the_repository_was_moved() {
    let (server, clone) = with_hook_without_shebang();
    let moved = server.path().join("moved elsewhere.git");
    fs::rename(&server.git_dir, &moved).expect("it can be moved");
    clone.git(&["remote", "set-url", "origin", &moved.display().to_string()]);
    let seen = clone.push_commits(&["US2"]);
    assert!(seen.contains("no shebang, ."), "{seen}");
}

#[test]
fn a_foreign_hook_that_is_not_executable_is_ignored() {
    // Git ignores it, too.
    let (server, clone) = with_hook_without_shebang();
    let kept = server.git_dir.join("hooks/post-receive.before-rally-hook");
    fs::set_permissions(kept, fs::Permissions::from_mode(0o644)).expect("a mode");
    let seen = clone.push_commits(&["US3"]);
    assert!(!seen.contains("no shebang") && seen.lines().count() == 1, "{seen}");
}

#[test]
fn a_failed_install_leaves_the_hook_that_is_there() {
    let server = Server::without_hook();
    write_foreign(&server.hook());
    let config = server.path().join(std::ffi::OsStr::from_bytes(b"config-\xff.toml"));
    fs::write(&config, server.configuration().to_string()).expect("a file");
    let mut install = server.command(&["install", "--config"]);
    install.arg(&config);
    let ran = ran(install).fails_with(1);
    assert!(ran.stderr.contains("is not UTF-8"), "{ran:?}");
    assert_eq!(fs::read(server.hook()).expect("the foreign hook"), FOREIGN.as_bytes());
    server.run(&["install"]).succeeds();
}

/// Makes a repository from a template that holds the hook of a server, and returns a clone of it.
fn from_template(server: &Server, name: &str) -> Clone {
    let config = server.write_private("named.toml", &server.configuration().sections(DELIVER_LATER).to_string());
    server.run(&["install", "--config", &config.display().to_string()]).succeeds();
    let template = server.path().join("template");
    fs::create_dir_all(template.join("hooks")).expect("a directory");
    fs::copy(server.hook(), template.join("hooks/post-receive")).expect("a hook");
    let option = format!("--template={}", template.display());
    git(server.path(), &["init", "--quiet", "--bare", "--initial-branch=main", &option, name]);
    git(server.path(), &["clone", "--quiet", name, "clone-of-it"]);
    Clone::at(server.path().join("clone-of-it"), 1_600_000_000)
}

#[test]
fn the_first_push_to_a_repository_made_from_a_template_posts_all_its_commits() {
    let server = Server::without_hook();
    let seen = from_template(&server, "fresh.git").push_commits(&["US1", "US2"]);
    assert!(seen.contains("2 commits queued for US1, US2 (repository fresh)"), "{seen}");
    let fresh = server.path().join("fresh.git").display().to_string();
    server.run(&["deliver", "--wait", "--repo", &fresh]).succeeds();
    assert_eq!(server.changesets().len(), 2);
    server.run(&["status", "--repo", &fresh]).succeeds();
}

#[test]
fn a_repository_made_from_a_template_has_lost_no_queue() {
    let server = Server::without_hook();
    from_template(&server, "fresh.git");
    let fresh = server.path().join("fresh.git").display().to_string();
    let status = server.run(&["status", "--repo", &fresh]).fails_with(1);
    assert!(status.stderr.contains("nothing was ever recorded"), "{status:?}");
    server.run(&["deliver", "--repo", &fresh]).succeeds();
    assert!(!server.run(&["status", "--repo", &fresh]).stdout.contains("lost"));
}
