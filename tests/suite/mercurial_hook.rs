//! The hook of a Mercurial repository: how it is installed, removed, and found wanting.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use crate::support::mercurial::Mercurial;
use crate::support::users::USERS;
use crate::support::{Ran, copy_program, hermetic, ran};

/// Returns the doctor's line about the hook.
fn hook_line(ran: &Ran) -> String {
    ran.stdout.lines().find(|line| line.contains(" hook ")).unwrap_or_default().to_owned()
}

#[test]
fn install_adds_one_line_to_the_configuration_however_often_it_runs() {
    let Some(server) = Mercurial::without_hook("payments") else { return };
    let hgrc = server.git_dir.join("hgrc");
    fs::write(&hgrc, "[ui]\nusername = x").expect("a file");
    server.run(&["install"]).succeeds();
    server.run(&["install"]).succeeds();
    assert_eq!(fs::read_to_string(&hgrc).expect("a file"), "[ui]\nusername = x\n%include rally-hook/hgrc");
    let own = fs::read_to_string(server.git_dir.join("rally-hook/hgrc")).expect("a file");
    assert!(own.contains("[hooks]\ntxnclose.rally-hook = '") && own.ends_with("rally-hook' txnclose\n"), "{own}");
}

#[test]
fn uninstall_restores_the_configuration_byte_for_byte() {
    let Some(server) = Mercurial::without_hook("payments") else { return };
    let hgrc = server.git_dir.join("hgrc");
    for text in [&b"[ui]\nx = caf\xe9"[..], b"[ui]\r\n", b""] {
        fs::write(&hgrc, text).expect("a file");
        fs::set_permissions(&hgrc, fs::Permissions::from_mode(0o640)).expect("it is ours");
        server.run(&["install"]).succeeds();
        server.run(&["uninstall"]).succeeds();
        assert_eq!(fs::read(&hgrc).expect("a file"), text);
        assert_eq!(hgrc.metadata().expect("a file").permissions().mode() & 0o777, 0o640);
    }
    assert!(!server.git_dir.join("rally-hook/hgrc").exists());
    server.run(&["uninstall"]).fails_with(1);
}

#[test]
fn uninstall_removes_a_configuration_that_install_made() {
    let Some(server) = Mercurial::new() else { return };
    assert!(server.git_dir.join("hgrc").exists());
    server.run(&["uninstall"]).succeeds();
    assert!(!server.git_dir.join("hgrc").exists());
    assert_eq!(server.status()["hook"], "missing");
}

#[test]
fn uninstall_leaves_what_was_added_to_a_configuration_that_install_made() {
    let Some(server) = Mercurial::new() else { return };
    server.add_settings("[web]\nallow-push = *\n");
    server.run(&["uninstall"]).succeeds();
    assert_eq!(
        fs::read_to_string(server.git_dir.join("hgrc")).expect("it stays").trim_start(),
        "[web]\nallow-push = *\n"
    );
}

#[test]
fn a_share_is_served_once() {
    let Some(server) = Mercurial::delivering_later("") else { return };
    server.root().hg(&["--config", "extensions.share=", "share", "--quiet", ".", "../share"]);
    let all = server.run(&["status", "--json", "--all-repos", server.path().to_str().expect("UTF-8")]);
    assert_eq!(all.stdout.lines().count(), 1, "{all:?}");
    let share = server.path().join("share/.hg");
    let of_share = server.run(&["status", "--json", "--repo", share.to_str().expect("UTF-8")]);
    assert!(of_share.stdout.contains("payments/.hg"), "{of_share:?}");
}

#[test]
fn the_configuration_that_install_names_is_read_by_the_hook_and_all_commands() {
    let Some(server) = Mercurial::without_hook("payments") else { return };
    let elsewhere = server.path().join("it's.toml");
    fs::rename(server.git_dir.join("rally-hook.toml"), &elsewhere).expect("it is there");
    server.run(&["install", "--config", elsewhere.to_str().expect("UTF-8")]).succeeds();
    server.new_clone().push_each(&["US1"]);
    server.rally.wait_until("the changeset", |world| world.changesets().len() == 1);
    server.run(&["deliver", "--wait"]).succeeds();
}

#[test]
fn the_state_may_lie_elsewhere() {
    let Some(server) = Mercurial::without_hook("payments") else { return };
    let states = server.path().join("states");
    fs::create_dir(&states).expect("a directory");
    let elsewhere = server.path().join("rally-hook.toml");
    let text = format!("{}dir = {states:?}\n", server.configuration().sections("[queue]\n"));
    fs::write(&elsewhere, text).expect("a file");
    server.run(&["install", "--config", elsewhere.to_str().expect("UTF-8")]).succeeds();
    server.new_clone().push_each(&["US1"]);
    server.rally.wait_until("the changeset", |world| world.changesets().len() == 1);
    assert!(!server.git_dir.join("rally-hook/queue.db").exists());
    server.run(&["uninstall"]).succeeds();
    assert!(!server.git_dir.join("rally-hook").exists());
}

#[test]
fn a_configuration_that_is_a_link_is_left_alone() {
    let Some(server) = Mercurial::without_hook("payments") else { return };
    let shared = server.path().join("shared.rc");
    fs::write(&shared, "[ui]\n").expect("a file");
    std::os::unix::fs::symlink(&shared, server.git_dir.join("hgrc")).expect("a link");
    let told = server.run(&["install"]).fails_with(1);
    assert!(told.stderr.contains("hgrc: it is a symbolic link"), "{told:?}");
    assert_eq!(fs::read_to_string(&shared).expect("a file"), "[ui]\n");
}

#[test]
fn doctor_sees_that_the_configuration_does_not_include_the_hook() {
    let Some(server) = Mercurial::new() else { return };
    let line = |server: &Mercurial| hook_line(&server.run(&["doctor"]));
    assert!(line(&server).starts_with("ok"), "{}", line(&server));
    fs::write(server.git_dir.join("hgrc"), "[ui]\n").expect("a file");
    assert!(line(&server).contains("hgrc does not include the hook; run: rally-hook install"), "{}", line(&server));
    fs::remove_file(server.git_dir.join("rally-hook/hgrc")).expect("it is there");
    assert!(line(&server).contains("rally-hook/hgrc does not exist; run: rally-hook install"), "{}", line(&server));
    assert_eq!(server.status()["hook"], "missing");
}

#[test]
fn doctor_sees_that_the_program_of_the_hook_is_gone() {
    let Some(server) = Mercurial::without_hook("payments") else { return };
    let copy = server.path().join("rally-hook");
    copy_program(&copy);
    let mut install = hermetic(&copy);
    install.args(["install", "--repo"]).arg(&server.git_dir);
    ran(install).succeeds();
    fs::remove_file(&copy).expect("it is there");
    let line = hook_line(&server.run(&["doctor"]));
    assert!(line.contains("calls a program that does not exist any more"), "{line}");
}

#[test]
fn doctor_accepts_a_hook_of_the_administrators_own() {
    let Some(server) = Mercurial::without_hook("payments") else { return };
    server.add_settings("[hooks]\ntxnclose.x = /usr/bin/rally-hook txnclose\n");
    let line = hook_line(&server.run(&["doctor"]));
    assert!(line.starts_with("ok"), "{line}");
}

#[test]
fn doctor_sees_a_hook_that_mercurial_does_not_trust_for_others() {
    let Some(server) = Mercurial::new() else { return };
    let mut open = hermetic("chmod");
    open.args(["-R", "g+w"]).arg(server.git_dir.join("store"));
    ran(open).succeeds();
    if !server.give_to(USERS[0]) {
        return;
    }
    let hg = |settings: &str| {
        let path = server.path().join("machine.rc");
        fs::write(&path, settings).expect("a file");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).expect("it is ours");
        let script = format!("HGRCPATH='{}' \"$0\" doctor --repo .", path.display());
        hook_line(&server.run_as(USERS[0], &script))
    };
    let untrusted = hg("");
    assert!(untrusted.contains(&format!("belongs to {}, whom Mercurial does not trust", USERS[0])), "{untrusted}");
    assert!(hg(&format!("[trusted]\nusers = {}\n", USERS[0])).starts_with("ok"));
    assert!(hg("[hooks]\ntxnclose.rally = /usr/bin/rally-hook txnclose\n").starts_with("ok"));
}

#[test]
fn users_who_may_only_read_the_repository_are_not_disturbed() {
    let Some(server) = Mercurial::new() else { return };
    server.root().commit("first", &[("a", Some("1"))]);
    if !server.give_to(USERS[0]) {
        return;
    }
    let mut open = hermetic("chmod");
    open.args(["-R", "go+rX"]).arg(server.root().path).arg(Path::new(&server.git_dir).join("hgrc"));
    ran(open).succeeds();
    let mut private = hermetic("chmod");
    private.arg("711").arg(server.git_dir.join("rally-hook"));
    ran(private).succeeds();
    let said = server.run_as(USERS[1], &format!("HGRCPATH= hg -R '{}' id", server.root().path.display()));
    assert!(said.success && !said.stderr.contains("cannot include"), "{said:?}");
}
