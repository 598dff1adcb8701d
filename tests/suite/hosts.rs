//! The environments of hosts: users, variables, and the places where hooks live.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Stdio;

use crate::support::{Ran, Server, expected, git, hermetic, name_of, output_of, program, ran, skipped};

/// Runs a hook's command with the update of one new branch.
fn run_for_push(server: &Server, mut command: std::process::Command) -> String {
    let new = server.tip("refs/heads/main").expect("it is there");
    command.current_dir(&server.git_dir).env("GIT_DIR", ".");
    output_of(command, format!("{} {new} refs/heads/main\n", name_of('0')).as_bytes())
}

/// Sets up a server with a commit that no hook has seen.
fn with_unseen_commit() -> Server {
    let server = Server::delivering_later("");
    server.disable_hook();
    server.new_clone().push_commits(&["US1: unseen"]);
    server
}

#[test]
fn a_broken_user_configuration_that_git_does_not_read_is_no_obstacle() {
    let server = Server::delivering_later("");
    let home = server.path().join("home");
    fs::create_dir(&home).expect("a directory");
    fs::write(home.join(".gitconfig"), "[broken\n").expect("a file");
    let clone = server.new_clone();
    clone.commit("US1", &[("a", Some("1"))]);
    let mut push = clone.command();
    push.args(["push", "--quiet", "origin", "main"]).env("HOME", &home);
    assert!(ran(push).succeeds().stderr.contains("1 commit queued"));
    let mut status = server.command(&["catch-up"]);
    status.env("HOME", &home);
    ran(status).succeeds();
}

#[test]
fn install_in_a_linked_work_tree_uses_the_hooks_and_the_queue_of_the_repository() {
    let server = Server::without_hook();
    let clone = server.new_clone();
    clone.commit("US1", &[("a", Some("1"))]);
    clone.git(&["worktree", "add", "--quiet", "-b", "side", "../linked"]);
    let linked = server.path().join("linked");
    let mut install = hermetic(program());
    install.arg("install").current_dir(&linked);
    let installed = ran(install).succeeds().stderr;
    assert!(clone.path.join(".git/hooks/post-receive").is_file(), "{installed}");
    assert!(clone.path.join(".git/rally-hook/queue.db").is_file());
    assert!(!clone.path.join(".git/worktrees/linked/rally-hook").exists());
}

#[test]
fn a_hooks_path_of_an_included_configuration_is_where_install_writes() {
    let server = Server::without_hook();
    let hooks = server.path().join("shared-hooks");
    let included = server.path().join("included");
    fs::write(&included, format!("[core]\nhooksPath = {}\n", hooks.display())).expect("a file");
    let condition = format!("includeIf.gitdir:{}/.path", server.git_dir.canonicalize().expect("it exists").display());
    server.git(&["config", &condition, &included.display().to_string()]);
    let installed = server.run(&["install"]).succeeds();
    assert!(hooks.join("post-receive").is_file() && installed.stderr.contains("all repositories"), "{installed:?}");
    let refused = server.run(&["uninstall"]).fails_with(1);
    assert!(refused.stderr.contains("serves all repositories") && hooks.join("post-receive").is_file(), "{refused:?}");
}

#[test]
fn a_relative_hooks_path_of_a_repository_with_a_work_tree_begins_at_its_git_directory() {
    let server = Server::without_hook();
    git(server.path(), &["clone", "--quiet", "payments.git", "checkout"]);
    let checkout = server.path().join("checkout");
    server.write_configuration(server.configuration().credentials("api_key_file = \"api-key\""));
    fs::copy(server.git_dir.join("rally-hook.toml"), checkout.join(".git/rally-hook.toml")).expect("a file");
    fs::copy(server.git_dir.join("api-key"), checkout.join(".git/api-key")).expect("a file");
    git(&checkout, &["config", "core.hooksPath", "own-hooks"]);
    run_in(&checkout, &["install"]).succeeds();
    let clone = server.new_clone();
    clone.commit("US1", &[("a", Some("1"))]);
    let seen = clone.push(&["../checkout", "main:side"]);
    assert!(seen.contains("1 commit queued for US1"), "{seen}");
}

#[test]
fn a_hook_works_where_the_command_line_of_receive_pack_names_its_directory() {
    let (server, hooks) = with_hooks_of_the_command_line();
    let clone = server.new_clone();
    clone.commit("US1", &[("a", Some("1"))]);
    let receive_pack = format!("git -c core.hooksPath={} receive-pack", hooks.display());
    let seen = clone.push(&["--receive-pack", &receive_pack, "origin", "main"]);
    assert!(seen.contains("1 commit queued for US1"), "{seen}");
    server.deliver_all();
    server.assert_rally_holds(&expected(&server.git_dir, &["main"]));
}

#[test]
fn doctor_finds_a_hook_of_the_command_line_if_it_is_given_the_same_setting() {
    let (server, hooks) = with_hooks_of_the_command_line();
    let missing = server.run(&["doctor"]).fails_with(1).stdout;
    assert!(missing.contains("hooks/post-receive does not exist"), "{missing}");
    let mut doctor = server.command(&["doctor"]);
    doctor.env("GIT_CONFIG_COUNT", "1").env("GIT_CONFIG_KEY_0", "core.hooksPath").env("GIT_CONFIG_VALUE_0", &hooks);
    let found = ran(doctor).succeeds().stdout;
    assert!(found.contains(&format!("ok    hook           {}/post-receive", hooks.display())), "{found}");
}

/// Sets up a server whose hook lies in a directory that no configuration file names.
fn with_hooks_of_the_command_line() -> (Server, PathBuf) {
    let server = Server::delivering_later("");
    let hooks = server.path().join("hooks-of-the-command-line");
    fs::rename(server.git_dir.join("hooks"), &hooks).expect("they can be moved");
    (server, hooks)
}

#[test]
fn a_link_of_any_name_that_a_dispatcher_runs_is_a_hook() {
    let server = with_unseen_commit();
    let dispatched = server.git_dir.join("hooks/post-receive.d");
    fs::create_dir(&dispatched).expect("a directory");
    symlink(program(), dispatched.join("50-rally")).expect("a link");
    let seen = run_for_push(&server, hermetic(dispatched.join("50-rally")));
    assert!(seen.contains("1 commit queued for US1"), "{seen}");
    fs::write(server.hook(), "#!/bin/sh\nexec run-parts hooks/post-receive.d\n").expect("a file");
    let found = server.run(&["doctor"]).stdout;
    assert!(found.contains("50-rally, which the host's own hook runs"), "{found}");
}

#[test]
fn a_hook_that_a_shell_runs_works() {
    let server = with_unseen_commit();
    let mut shell = hermetic("sh");
    shell.arg(server.git_dir.join("hooks/disabled"));
    // Its name tells the program that it is the hook.
    server.enable_hook();
    let mut shell = hermetic("sh");
    shell.arg("hooks/post-receive");
    assert!(run_for_push(&server, shell).contains("1 commit queued for US1"));
}

#[test]
fn install_repairs_a_hook_that_the_host_has_rewritten() {
    let server = Server::without_hook();
    let foreign = |text: &str| {
        fs::write(server.hook(), format!("#!/bin/sh\necho {text}\n")).expect("a file");
        fs::set_permissions(server.hook(), fs::Permissions::from_mode(0o755)).expect("a mode");
    };
    foreign("first");
    server.run(&["install"]).succeeds();
    foreign("second");
    server.run(&["install"]).succeeds();
    let seen = server.new_clone().push_commits(&["US1"]);
    assert!(seen.contains("second") && !seen.contains("first") && seen.contains("1 commit queued"), "{seen}");
}

#[test]
fn gerrits_ref_updated_records_the_update() {
    let server = with_unseen_commit();
    let new = server.tip("refs/heads/main").expect("it is there");
    for name in ["refs/heads/main", "main"] {
        let mut command = server.command(&["ref-updated", "--project", "payments", "--refname", name]);
        command.args(["--oldrev", &name_of('0'), "--newrev", &new, "--submitter", "Jane", "--submitter-username", "j"]);
        command.env("GIT_DIR", &server.git_dir).current_dir("/");
        ran(command).succeeds();
    }
    assert_eq!(server.count("recorded"), 1);
    server.deliver_all();
    server.assert_rally_holds(&expected(&server.git_dir, &["main"]));
}

fn run_in(dir: &Path, arguments: &[&str]) -> Ran {
    let mut command = hermetic(program());
    command.args(arguments).current_dir(dir).stdin(Stdio::null());
    ran(command)
}

#[test]
fn outside_of_a_repository_nothing_is_made() {
    let place = tempfile::tempdir().expect("a directory");
    let hook = run_in(place.path(), &["post-receive"]).succeeds();
    assert!(hook.stderr.contains("is not a Git repository"), "{hook:?}");
    run_in(place.path(), &["status"]).fails_with(2);
    assert_eq!(fs::read_dir(place.path()).expect("it is there").count(), 0);
}

#[test]
fn status_of_a_repository_without_a_queue_makes_nothing_and_fails() {
    let server = Server::without_hook();
    let status = server.run(&["status"]).fails_with(1);
    assert!(status.stderr.contains("run `rally-hook install`"), "{status:?}");
    assert!(!server.git_dir.join("rally-hook").exists());
}

#[test]
fn an_encoding_by_iconvs_name_is_decoded_as_git_does() {
    let server = Server::delivering_later("");
    let clone = server.new_clone();
    let encodings: [(&str, &[u8]); 3] = [
        ("cp932", b"\x83o\x83b\x83N\x83A\x83b\x83vUS1\x91\xce\x89\x9e"),
        ("eucJP", b"\xa5\xd7US2"),
        ("cp850", b"caf\x82 US3"),
    ];
    for (encoding, message) in encodings {
        clone.git(&["config", "i18n.commitEncoding", encoding]);
        clone.git_with(&["commit", "--quiet", "--allow-empty", "--file=-"], message);
    }
    clone.push(&["origin", "main"]);
    server.deliver_all();
    let shown = git(&server.git_dir, &["log", "--reverse", "--encoding=UTF-8", "--format=%s", "main"]);
    let posted: Vec<String> = server.changesets().iter().map(|held| held.message.trim_end().to_owned()).collect();
    let mut shown: Vec<&str> = shown.lines().collect();
    let mut posted: Vec<&str> = posted.iter().map(String::as_str).collect();
    shown.sort_unstable();
    posted.sort_unstable();
    assert_eq!(posted, shown);
}

#[test]
fn a_pattern_that_matches_no_ref_is_reported_by_doctor() {
    let server = Server::delivering_later("[commits]\nrefs = [\"mian\"]\n");
    server.new_clone().push_commits(&["US1"]);
    let found = server.run(&["doctor"]).stdout;
    assert!(found.contains("no ref matches \"mian\""), "{found}");
}

#[test]
fn ignored_ids_are_not_posted_and_a_dry_run_ends_with_those_named_most() {
    let server = Server::delivering_later("[commits]\nignore = [\"US9\"]\n");
    server.new_clone().push_commits(&["US1 US9", "US1 DE2", "US9"]);
    let dry_run = server.run(&["backfill", "main", "--dry-run"]).succeeds().stderr;
    assert!(dry_run.contains("mentioned most: US1 (2), DE2 (1);"), "{dry_run}");
    assert_eq!(server.count("recorded"), 2);
}

#[test]
fn an_empty_configuration_variable_counts_as_unset() {
    let server = Server::delivering_later("");
    let mut status = server.command(&["status"]);
    status.env("RALLY_HOOK_CONFIG", "");
    ran(status).succeeds();
}

#[test]
fn a_lack_of_file_descriptors_passes() {
    let server = Server::delivering_later("");
    server.receive(&["US1"]);
    let mut few = hermetic("sh");
    few.args(["-c", "ulimit -n 10; exec \"$0\" deliver"]).arg(program()).current_dir(&server.git_dir);
    ran(few).fails_with(1);
    assert_ne!(server.status()["paused"]["needs_person"], true);
    server.deliver_all();
    server.assert_rally_holds(&expected(&server.git_dir, &["main"]));
}

#[test]
fn a_file_that_names_the_git_directory_may_be_given_in_its_place() {
    let server = Server::without_hook();
    fs::write(server.path().join("link.git"), "gitdir: payments.git\n").expect("a file");
    run_in(server.path(), &["install", "--repo", "link.git"]).succeeds();
    assert!(server.hook().is_file());
}

#[test]
fn bare_repositories_are_read_where_git_accepts_only_those_that_are_named() {
    let server = Server::delivering_later("");
    server.receive(&["US1"]);
    let config = server.path().join("explicit");
    fs::write(&config, "[safe]\nbareRepository = explicit\n").expect("a file");
    let mut backfill = server.command(&["backfill", "--all", "--dry-run", "--json"]);
    backfill.env("GIT_CONFIG_GLOBAL", &config);
    assert!(ran(backfill).succeeds().stdout.contains("US1"));
}

/// Runs the program in the repository as another user, with this `safe.directory` in a global configuration.
fn catch_up_as_another_user(server: &Server, safe: &str) -> Ran {
    let config = server.path().join("safe");
    fs::write(&config, format!("[safe]\ndirectory = {safe}\n")).expect("a file");
    let mut other = hermetic("setpriv");
    other.args(["--reuid=65534", "--regid=65534", "--clear-groups"]).arg(program());
    other.args(["backfill", "--all", "--dry-run", "--json"]).env("GIT_CONFIG_GLOBAL", &config);
    other.current_dir(&server.git_dir).stdin(Stdio::null());
    ran(other)
}

#[test]
fn git_decides_whose_repository_may_be_read() {
    let server = Server::delivering_later("");
    server.receive(&["US1"]);
    fs::remove_file(server.git_dir.join("rally-hook.toml")).expect("it was there");
    let place = server.path().canonicalize().expect("it exists");
    for open in [place.as_path(), &server.git_dir] {
        fs::set_permissions(open, fs::Permissions::from_mode(0o755)).expect("a mode");
    }
    let mut user = hermetic("setpriv");
    user.args(["--reuid=65534", "--clear-groups", "true"]);
    if !user.status().is_ok_and(|status| status.success()) {
        skipped("this user may not become another one");
        return;
    }
    let refused = catch_up_as_another_user(&server, "/nowhere").fails_with(1);
    assert!(refused.stderr.contains("belongs to user 0; run this as that user"), "{refused:?}");
    for safe in [server.git_dir.display().to_string(), format!("{}/*", place.display()), "*".to_owned()] {
        let ran = catch_up_as_another_user(&server, &safe).succeeds();
        assert!(ran.stdout.contains("US1"), "{safe}: {ran:?}");
    }
}
