//! `doctor` finds each trouble and says what to do about it.

use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;

use crate::support::fault::{errors, status};
use crate::support::users::USERS;
use crate::support::{Server, copy_program, hermetic, program, ran, skipped};

/// Runs the doctor, which ends with this exit code, and returns what it says about a subject.
fn finding(server: &Server, code: i32, subject: &str) -> String {
    let ran = server.run(&["doctor"]).fails_with(code);
    let found = ran.stdout.lines().find(|line| line[6..].starts_with(subject));
    found.unwrap_or_else(|| panic!("nothing about {subject}: {ran:?}")).to_owned()
}

/// Sets up a server with these lines of `[rally]`.
fn with_rally(lines: &str) -> Server {
    let server = Server::new();
    server.write_configuration(server.configuration().rally(lines));
    server
}

/// Sets up a server with this API key.
fn with_key(key: &str) -> Server {
    let server = Server::new();
    server.write_configuration(server.configuration().credentials(&format!("api_key = {key:?}")));
    server
}

#[test]
fn everything_is_ok_on_a_server_in_order() {
    let server = Server::delivering_later("[commits]\nprefixes = [\"US\", \"DE\", \"TA\"]\n");
    let ran = server.run(&["doctor"]).fails_with(0);
    let subjects = [
        "configuration",
        "repository",
        "hook",
        "queue",
        "space",
        "proxy",
        "server",
        "clock",
        "credentials",
        "rights",
        "workspace",
        "prefixes",
    ];
    for subject in subjects {
        assert!(ran.stdout.contains(&format!("ok    {subject}")), "{subject}: {}", ran.stdout);
    }
    assert!(finding(&server, 0, "credentials").contains("connector@acme.example"));
    assert!(!ran.stdout.contains('\x1b'), "no colour but on a terminal");
    assert!(finding(&server, 0, "server").contains(", which answers in "));
}

#[test]
fn in_json_each_check_is_an_object() {
    let server = with_key("_wrong-key");
    let ran = server.run(&["doctor", "--json"]).fails_with(1);
    let found: serde_json::Value = serde_json::from_str(&ran.stdout).expect("JSON");
    assert_eq!((&found["fine"], &found["repository"]), (&false.into(), &server.git_dir.display().to_string().into()));
    let result = |check: &str| {
        let mut checks = found["checks"].as_array().expect("an array").iter();
        checks.find(|found| found["check"] == check).map(|found| found["result"].clone()).unwrap_or_default()
    };
    assert_eq!((result("hook"), result("credentials")), ("ok".into(), "wrong".into()), "{ran:?}");
}

#[test]
fn a_clock_that_is_wrong_is_told() {
    let server = Server::new();
    server.rally.settings(|settings| settings.clock_ahead = std::time::Duration::from_secs(3600));
    let found = finding(&server, 1, "clock");
    assert!(found.contains("this machine's clock is 3") && found.contains(" s behind Rally's"), "{found}");
}

#[test]
fn the_states_that_messages_may_set_are_listed() {
    let server = Server::new();
    server.configure("[commits]\nprefixes = [\"US\", \"DE\", \"TA\"]\n[state]\nupdate = true\n");
    let found = finding(&server, 0, "states");
    assert!(found.contains("DE: ") && found.contains("Fixed") && found.contains("US: "), "{found}");
}

#[test]
fn root_checks_as_the_user_who_owns_the_repository() {
    let server = Server::new();
    if !server.give_to(USERS[0]) {
        return;
    }
    let program = server.path().join("rally-hook");
    copy_program(&program);
    let doctor = || {
        let mut doctor = hermetic(&program);
        doctor.args(["doctor", "--repo"]).arg(&server.git_dir);
        ran(doctor)
    };
    let found = doctor();
    assert!(found.stderr.contains(&format!("belongs to user {}; this runs as user", USERS[0])), "{found:?}");
    assert!(found.stdout.contains("ok    queue"), "{found:?}");
    // Root may read this key; the hook may not.
    let key = server.git_dir.join("api-key");
    std::os::unix::fs::chown(&key, Some(0), Some(0)).expect("root may do that");
    let found = doctor().fails_with(1);
    assert!(found.stdout.contains("WRONG credentials"), "{found:?}");
}

#[test]
fn the_scm_repository_may_be_missing_until_the_first_delivery() {
    let server = Server::delivering_later("");
    assert!(finding(&server, 0, "SCMRepository").contains("the first delivery creates it"));
    server.new_clone().push_commits(&["US1"]);
    server.deliver_all();
    assert!(finding(&server, 0, "SCMRepository").starts_with("ok    SCMRepository  payments"));
}

#[test]
fn the_queue_is_described() {
    let server = Server::delivering_later("");
    server.new_clone().push_commits(&["US1"]);
    assert!(finding(&server, 0, "queue").starts_with("note  queue          1 queued"));
    server.deliver_all();
    assert!(finding(&server, 0, "queue").contains("1 delivered, none queued"));
}

#[test]
fn a_pause_of_delivery_is_noted() {
    let server = Server::delivering_later("");
    server.new_clone().push_commits(&["US1"]);
    server.fail_next(status(503));
    server.run(&["deliver"]).fails_with(1);
    assert!(finding(&server, 0, "queue").starts_with("note  queue          delivery pauses: "));
}

#[test]
fn a_lost_queue_is_wrong_and_a_pause_does_not_hide_it() {
    let server = Server::delivering_later("");
    fs::remove_dir_all(server.git_dir.join("rally-hook")).expect("it was there");
    server.new_clone().push_commits(&["US1"]);
    server.fail_next(status(503));
    server.run(&["deliver"]).fails_with(1);
    let queue = finding(&server, 1, "queue");
    assert!(queue.starts_with("WRONG queue          it was lost") && queue.contains("backfill --all"), "{queue}");
}

#[test]
fn a_kept_hook_that_does_not_run_is_noted() {
    let server = Server::without_hook();
    fs::write(server.hook(), "#!/bin/sh\n").expect("a hook");
    server.run(&["install"]).succeeds();
    assert!(finding(&server, 0, "hook").contains("is not executable and does not run; run: chmod +x"));
    let kept = server.git_dir.join("hooks/post-receive.before-rally-hook");
    fs::set_permissions(kept, fs::Permissions::from_mode(0o755)).expect("a mode");
    assert!(finding(&server, 0, "hook").starts_with("ok    hook"));
    fs::write(server.git_dir.join("hooks/post-receive.before-rally-hook.old"), "#!/bin/sh\n").expect("a hook");
    assert!(finding(&server, 0, "hook").contains("before-rally-hook.old, is kept and does not run"));
}

#[test]
fn a_server_that_cannot_be_reached_is_named() {
    let free = TcpListener::bind("127.0.0.1:0").expect("a free port").local_addr().expect("it is bound");
    let server = with_rally(&format!("server = \"http://{free}\""));
    assert!(finding(&server, 1, "server").contains(&format!("cannot reach http://{free}")));
}

#[test]
fn a_refused_key_is_reported() {
    for key in ["_wrong", "_nobody"] {
        assert!(finding(&with_key(key), 1, "credentials").contains("HTTP 401"), "{key}");
    }
}

#[test]
fn a_read_only_key_is_reported() {
    let told = finding(&with_key("_read-only-key"), 1, "rights");
    assert!(
        told.contains("Rally refused POST /changeset/1: Not authorized") && told.contains("may be read-only"),
        "{told}"
    );
}

#[test]
fn a_refusal_for_another_reason_is_not_taken_for_the_right_to_write() {
    let server = Server::new();
    for action in [status(500), errors("Validation error: odd")] {
        server.fail_next_at("POST", "/changeset/1", action);
        assert!(finding(&server, 0, "rights").starts_with("note  rights         not known, because "));
    }
    assert!(finding(&server, 0, "rights").starts_with("ok    rights"));
}

#[test]
fn an_unknown_workspace_is_reported_with_those_that_the_user_sees() {
    let told = finding(&with_rally("workspace = \"Amce\""), 1, "workspace");
    assert!(told.contains("\"Amce\"") && told.contains(r#"sees: "Acme", "Other""#), "{told}");
}

#[test]
fn a_workspace_with_changesets_disabled_is_reported() {
    let server = Server::new();
    server.rally.world(|world| world.set_changesets_enabled("Acme", false));
    assert!(finding(&server, 1, "workspace").contains("must enable \"Build and Changeset\""));
}

#[test]
fn prefixes_that_the_workspace_does_not_use_are_noted_with_those_that_it_uses() {
    let server = Server::new();
    server.rally.world(|world| world.set_prefix("Defect", "BUG"));
    let prefixes = finding(&server, 0, "prefixes");
    assert!(prefixes.contains("none of: DE") && prefixes.contains("BUG (defect)"), "{prefixes}");
}

#[test]
fn prefixes_are_wrong_if_the_workspace_uses_none_of_them() {
    let server = Server::delivering_later("[commits]\nprefixes = [\"XY\"]\n");
    assert!(finding(&server, 1, "prefixes").starts_with("WRONG prefixes"));
}

#[test]
fn a_missing_scm_repository_that_may_not_be_created_is_reported() {
    let server = Server::new();
    server.configure("[repository]\ncreate = false\n");
    assert!(finding(&server, 1, "SCMRepository").contains("create it in Rally or set create = true"));
}

#[test]
fn an_unknown_project_is_reported() {
    let server = Server::new();
    server.configure("[repository]\nprojects = [\"Nowhere\"]\n");
    assert!(finding(&server, 1, "SCMRepository").contains("no project \"Nowhere\""));
}

#[test]
fn a_missing_hook_is_reported() {
    let server = Server::without_hook();
    assert!(finding(&server, 1, "hook").contains("run: rally-hook install"));
}

#[test]
fn a_hook_that_is_not_executable_is_reported() {
    let server = Server::without_hook();
    fs::write(server.hook(), "#!/bin/sh\n").expect("a hook");
    assert!(finding(&server, 1, "hook").contains(&format!("run: chmod +x {}", server.hook().display())));
}

#[test]
fn a_hook_on_a_noexec_mount_is_reported() {
    let server = Server::new();
    // The mount is in a namespace of its own and goes away with it.
    let mount = "mount --bind hooks hooks && mount -o remount,bind,noexec hooks";
    let in_namespace = |script: &str| {
        let mut command = hermetic("unshare");
        command.args(["--mount", "sh", "-c", &format!("{mount} && {script}")]).arg(program());
        command.current_dir(&server.git_dir);
        ran(command)
    };
    let mounted = in_namespace("true");
    if !mounted.success {
        skipped(&format!("this user may not mount: {}", mounted.stderr.trim()));
        return;
    }
    let found = in_namespace("exec \"$0\" doctor").fails_with(1).stdout;
    assert!(found.contains("WRONG hook") && found.contains("mounted noexec, so Git ignores it"), "{found}");
}

#[test]
fn a_hook_of_another_program_is_reported_until_ours_is_installed() {
    let server = Server::without_hook();
    fs::write(server.hook(), "#!/bin/sh\n").expect("a hook");
    fs::set_permissions(server.hook(), fs::Permissions::from_mode(0o755)).expect("a mode");
    assert!(finding(&server, 1, "hook").contains("does not call rally-hook"));
    server.run(&["install"]).succeeds();
    assert!(finding(&server, 0, "hook").starts_with("ok    hook"));
}

#[test]
fn a_hook_whose_program_is_gone_is_reported() {
    let server = Server::without_hook();
    let program = server.path().join("rally-hook");
    copy_program(&program);
    let mut install = hermetic(&program);
    install.args(["install", "--repo"]).arg(&server.git_dir);
    ran(install).succeeds();
    assert!(finding(&server, 0, "hook").starts_with("ok    hook"));
    fs::remove_file(program).expect("it was there");
    assert!(finding(&server, 1, "hook").contains("does not exist any more; run: rally-hook install"));
}

#[test]
fn a_log_that_cannot_be_written_is_reported() {
    let server = Server::new();
    assert!(finding(&server, 0, "log").contains("rally-hook/log"));
    server.configure("[log]\nfile = \"rally-hook/nonexistent/log\"\n");
    assert!(finding(&server, 1, "log").contains("nonexistent/log"));
}

#[test]
fn a_missing_author_map_is_reported() {
    let server = Server::delivering_later("[authors]\nmap_file = \"authors.toml\"\n");
    assert!(finding(&server, 1, "authors").starts_with("WRONG authors"));
    fs::write(server.git_dir.join("authors.toml"), "\"jane@laptop\" = \"jane.roe@acme.example\"\n").expect("a file");
    assert!(finding(&server, 0, "authors").starts_with("ok    authors"));
}

#[test]
fn refs_that_are_not_recorded_are_noted_until_catch_up_has_run() {
    let server = Server::delivering_later("");
    let clone = server.new_clone();
    clone.commit("US1", &[("a", Some("1"))]);
    server.disable_hook();
    clone.push(&["origin", "main"]);
    server.enable_hook();
    assert!(finding(&server, 0, "refs").contains("commits of refs/heads/main are not recorded"));
    server.run(&["catch-up"]).succeeds();
    assert!(finding(&server, 0, "refs").starts_with("ok    refs"));
}

#[test]
fn settings_with_which_nothing_could_be_posted_are_reported() {
    let server = Server::new();
    for wrong in ["[commits]\nrefs = []\n", "[repository]\nlinks = \"custom\"\ncommit_link = \"https://h/{rev}\"\n"] {
        server.configure_later(wrong);
        finding(&server, 1, "configuration");
    }
}
