//! The hooks of Subversion repositories: every commit is noticed once, whoever makes it, whatever goes wrong.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

use rally_simulator::Action;
use serde_json::Value;

use crate::support::network::{is_installed, listen};
use crate::support::process::{Service, kill, spawn, wait_for};
use crate::support::subversion::Subversion;
use crate::support::users::USERS;
use crate::support::{DELIVER_LATER, SmallDisk, git, hermetic, ran};

#[test]
fn without_install_the_first_commit_is_posted_and_its_history_is_not() {
    let Some(server) = Subversion::delivering_later("") else { return };
    fs::remove_dir_all(server.git_dir.join("rally-hook")).expect("it is there");
    let _ = fs::remove_file(server.git_dir.join("rally-hook.queue"));
    let first = server.commit("US2", &["put", "/dev/null", "trunk/b"]);
    server.assert_delivers(first..=first);
}

#[test]
fn commits_of_a_missed_hook_are_named_by_status_and_made_up_for() {
    let Some(server) = Subversion::delivering_later("") else { return };
    let hook = server.git_dir.join("hooks/post-commit");
    fs::rename(&hook, hook.with_extension("off")).expect("it is there");
    server.commit_each(&["US1", "DE2"]);
    assert_eq!(server.status()["refs_behind"], serde_json::json!(["2–3"]));
    assert_eq!(server.status()["hook"], "missing");
    server.run(&["status"]).fails_with(1);
    server.run(&["catch-up"]).succeeds();
    server.assert_delivers(1..=3);
    server.commit_each(&["US3"]);
    fs::rename(hook.with_extension("off"), &hook).expect("it is there");
    assert_eq!(server.status()["refs_behind"], serde_json::json!(["4"]));
    server.commit_each(&["US4"]);
    server.assert_delivers(1..=5);
    server.assert_refs_behind(&[]);
}

#[test]
fn twenty_commits_at_once_are_posted_once_each() {
    let Some(server) = Subversion::new() else { return };
    let paths: Vec<String> = (0..20).map(|_| server.new_path()).collect();
    std::thread::scope(|scope| {
        for path in &paths {
            let mut command = server.mucc("jane", "US1: at once", &["put", "/dev/null", path]);
            scope.spawn(move || assert!(command.output().expect("it runs").status.success()));
        }
    });
    server.assert_delivers(1..=21);
}

#[test]
fn a_commit_does_not_wait_for_a_rally_that_hangs() {
    let Some(server) = Subversion::new() else { return };
    server.fail_all(Action::Hang);
    server.commit_each(&["US1"]);
    server.rally.wait_for_requests("the delivery", |requests| !requests.is_empty());
    assert!(server.changesets().is_empty());
    server.rally.clear_faults();
    server.deliver_all();
    server.assert_rally_holds(&server.expected(1..=2));
}

#[test]
fn a_hook_that_is_killed_loses_nothing() {
    let Some(server) = Subversion::delivering_later("") else { return };
    for _ in 0..5 {
        // The hook is run for a revision that is there, as Subversion does, and killed somewhere.
        let hook = server.git_dir.join("hooks/post-commit");
        fs::rename(&hook, hook.with_extension("off")).expect("it is there");
        let revision = server.commit_each(&["US1"]).to_string();
        fs::rename(hook.with_extension("off"), &hook).expect("it is there");
        let mut command = hermetic(&hook);
        command.arg(&server.git_dir).args([&revision, "txn"]);
        kill(spawn(command));
    }
    let last = server.commit_each(&["DE1: the next one makes up"]);
    server.assert_delivers(1..=last);
}

#[test]
fn the_hooks_that_were_there_run_first_with_their_arguments_and_come_back() {
    let Some(server) = Subversion::without_hooks("payments") else { return };
    server.configure(DELIVER_LATER);
    let hook = server.git_dir.join("hooks/post-commit");
    let script = "#!/bin/sh\necho \"$# $1 $2\" > \"$1/told\"\n";
    fs::write(&hook, script).expect("a file");
    fs::set_permissions(&hook, fs::Permissions::from_mode(0o755)).expect("it is ours");
    server.run(&["install"]).succeeds();
    server.run(&["install"]).succeeds();
    server.commit_each(&["US1"]);
    let told = fs::read_to_string(server.git_dir.join("told")).expect("it ran");
    assert_eq!(told, format!("3 {} 2\n", server.git_dir.display()));
    server.run(&["uninstall"]).succeeds();
    assert_eq!(fs::read_to_string(&hook).expect("it is back"), script);
    assert!(!server.git_dir.join("hooks/post-revprop-change").exists());
    server.deliver_all();
    server.assert_rally_holds(&server.expected(1..=2));
}

#[test]
fn a_hook_that_fails_is_told_to_the_client() {
    let Some(server) = Subversion::delivering_later("") else { return };
    server.write_private("rally-hook.toml", "[rally]\nserver = 1\n");
    let mut svn = server.svn("svn");
    svn.args(["mkdir", "--message", "US1"]).arg(format!("{}/trunk/dir", server.url()));
    let committed = ran(svn).succeeds();
    let told = format!("{}{}", committed.stdout, committed.stderr);
    assert!(told.contains("this commit is kept until the configuration is fixed"), "{told}");
    server.configure(DELIVER_LATER);
    server.assert_delivers(1..=2);
}

#[test]
fn status_and_doctor_know_the_kind() {
    let Some(server) = Subversion::new() else { return };
    let status = server.status();
    assert_eq!((&status["vcs"], &status["hook"]), (&"svn".into(), &"installed".into()));
    let doctor = server.run(&["doctor"]).succeeds();
    assert!(doctor.stdout.contains("a repository of Subversion"), "{doctor:?}");
}

#[test]
fn all_repositories_are_found_whatever_their_kind() {
    let Some(server) = Subversion::new() else { return };
    git(server.path(), &["init", "--quiet", "--bare", "other.git"]);
    let all = ["--all-repos", server.path().to_str().expect("UTF-8")];
    let config = ["--config", "payments/rally-hook.toml"];
    let mut install = server.command(&[&["install"][..], &all, &config].concat());
    install.current_dir(server.path());
    ran(install).succeeds();
    let listed = server.run(&[&["status", "--json"][..], &all].concat());
    let kinds: Vec<String> = listed
        .stdout
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).expect("JSON")["vcs"].as_str().unwrap_or_default().to_owned())
        .collect();
    assert_eq!(kinds, ["git", "svn"], "{listed:?}");
}

#[test]
fn the_worker_notices_a_commit() {
    let Some(server) = Subversion::delivering_later("") else { return };
    let worker = Service::start(server.command(&["worker", "--all-repos", server.path().to_str().expect("UTF-8")]));
    server.commit_each(&["US1"]);
    server.rally.wait_until("the commit", |world| world.changesets().len() == 1);
    // Without a hook it is found by a look.
    fs::remove_file(server.git_dir.join("hooks/post-commit")).expect("it is there");
    worker.end();
    let worker = Service::start(server.command(&[
        "worker",
        "--every",
        "100ms",
        "--all-repos",
        server.path().to_str().expect("UTF-8"),
    ]));
    server.commit_each(&["US2"]);
    server.rally.wait_until("the other commit", |world| world.changesets().len() == 2);
    worker.end();
}

#[test]
fn a_commit_through_svnserve_is_posted() {
    let Some(server) = Subversion::delivering_later("") else { return };
    fs::write(server.git_dir.join("conf/svnserve.conf"), "[general]\nanon-access = write\n").expect("a file");
    // Nobody else takes a port that was free a moment ago.
    let port = listen().0.local_addr().expect("it is bound").port();
    let mut serve = hermetic("svnserve");
    serve.args(["--daemon", "--foreground", "--listen-host", "127.0.0.1", "--listen-port", &port.to_string()]);
    let _serve = Service::start({
        serve.arg("--root").arg(server.path());
        serve
    });
    let url = format!("svn://127.0.0.1:{port}/payments");
    let commit = || {
        let mut svn = server.svn("svn");
        svn.args(["mkdir", "--quiet", "--message", "US1: served"]).arg(format!("{url}/trunk/dir"));
        ran(svn).success
    };
    wait_for("svnserve", commit);
    server.assert_delivers(1..=2);
}

#[test]
fn a_disk_that_is_full_loses_nothing() {
    let Some(server) = Subversion::without_hooks("payments") else { return };
    server.configure(DELIVER_LATER);
    let state = server.git_dir.join("rally-hook");
    fs::create_dir(&state).expect("it is new");
    let Some(_disk) = SmallDisk::mount(&state) else { return };
    server.run(&["install"]).succeeds();
    let filler = state.join("filler");
    // This writes until the disk is full.
    fs::write(&filler, vec![0; 1 << 20]).expect_err("the disk is small");
    let mut svn = server.svn("svn");
    svn.args(["mkdir", "--message", "US1"]).arg(format!("{}/trunk/dir", server.url()));
    let committed = ran(svn).succeeds();
    let told = format!("{}{}", committed.stdout, committed.stderr);
    assert!(told.contains("rally-hook catch-up"), "{told}");
    fs::remove_file(&filler).expect("it was there");
    server.assert_refs_behind(&["2"]);
    server.run(&["catch-up"]).succeeds();
    server.assert_delivers(2..=2);
}

#[test]
fn users_of_one_group_commit_to_one_repository() {
    let Some(server) = Subversion::without_hooks("payments") else { return };
    server.configure(DELIVER_LATER);
    if !server.give_to(USERS[0]) {
        return;
    }
    // What Subversion's book says for access through ssh: everything is the group's.
    ran(hermetic_shell(&server, "chmod -R g+ws db && chmod 640 rally-hook.toml api-key")).succeeds();
    server.run_as(USERS[0], "umask 002; \"$0\" install").succeeds();
    for (user, path) in USERS.into_iter().zip(["a", "b"]) {
        let words = format!("mkdir {}/trunk/{path} -m US1 --config-dir /nonexistent/x", server.url());
        let committed = server.run_as(user, &format!("umask 002; svn {words}")).succeeds();
        assert!(!format!("{committed:?}").contains("arning"), "{committed:?}");
    }
    server.run_as(USERS[1], "\"$0\" deliver --wait").succeeds();
    let revisions: Vec<String> = server.changesets().into_iter().map(|changeset| changeset.revision).collect();
    assert_eq!(revisions, ["2", "3"]);
}

fn hermetic_shell(server: &Subversion, script: &str) -> Command {
    let mut command = hermetic("sh");
    command.args(["-c", script]).current_dir(&server.git_dir);
    command
}

#[test]
fn a_commit_over_http_is_posted_with_the_user_who_logged_in() {
    let Some(server) = Subversion::delivering_later("[authors]\ndomain = \"acme.example\"\n") else { return };
    if !is_installed("apache2") || !server.give_to(USERS[0]) {
        return;
    }
    let port = listen().0.local_addr().expect("it is bound").port();
    write_apache_configuration(server.path(), port);
    let run = format!("exec apache2 -X -d {0} -f {0}/apache.conf", server.path().display());
    let _apache = Service::start(server.command_as(USERS[0], &run));
    let url = format!("http://127.0.0.1:{port}/svn/payments/trunk/dir");
    let commit = || {
        let mut svn = server.svn("svn");
        svn.args(["mkdir", "--message", "US1: over HTTP", "--username", "jane.roe", "--password", "secret", &url]);
        ran(svn)
    };
    let mut said = String::new();
    wait_for("Apache", || {
        let committed = commit();
        said = committed.stderr;
        committed.success
    });
    assert!(said.is_empty(), "{said}");
    let delivered = server.run_as(USERS[0], "\"$0\" deliver --wait");
    assert!(delivered.success, "{delivered:?}");
    assert_eq!(server.changeset("2").author.as_deref(), Some("jane.roe@acme.example"));
}

/// Configures a web server for the repositories below a directory.
fn write_apache_configuration(path: &Path, port: u16) {
    let modules = ["mpm_event", "authn_core", "authz_core", "authn_file", "authz_user", "auth_basic", "dav", "dav_svn"];
    let load = |name: &&str| format!("LoadModule {name}_module /usr/lib/apache2/modules/mod_{name}.so\n");
    let dir = path.display();
    let text = format!(
        "{modules}ServerName localhost\nListen 127.0.0.1:{port}\nDefaultRuntimeDir {dir}\nPidFile {dir}/apache.pid\n\
         ErrorLog {dir}/apache.log\n<Location /svn>\nDAV svn\nSVNParentPath {dir}\nAuthType Basic\nAuthName x\n\
         AuthUserFile {dir}/passwords\nRequire valid-user\n</Location>\n",
        modules = modules.iter().map(load).collect::<String>(),
    );
    // The password is "secret", as `openssl passwd -apr1 -salt rally secret` prints it.
    let passwords = "jane.roe:$apr1$rally$W5DGbPJhdDqzf0XoAeews.\n";
    for (name, text) in [("apache.conf", text.as_str()), ("passwords", passwords)] {
        fs::write(path.join(name), text).expect("a file");
        fs::set_permissions(path.join(name), fs::Permissions::from_mode(0o644)).expect("it is ours");
    }
}
