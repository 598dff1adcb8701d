//! `doctor` finds what is wrong and says what to do.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use crate::support::fault::{errors, status};
use crate::support::{DELIVER_LATER, Server, copy_program, expected};

/// Returns what the doctor says about a subject.
fn finding(server: &Server, code: i32, subject: &str) -> String {
    let ran = server.run(&["doctor"]).fails_with(code);
    let found = ran.stdout.lines().find(|line| line[6..].starts_with(subject));
    found.unwrap_or_else(|| panic!("nothing about {subject}: {ran:?}")).to_owned()
}

/// Configures these keys of `[rally]` and nothing else.
fn rally_with(server: &Server, lines: &str) {
    server.write_configuration(server.configuration().rally(lines));
}

#[test]
fn a_server_in_order_is_found_in_order() {
    let server = Server::delivering_later("[commits]\nprefixes = [\"US\", \"DE\", \"TA\"]\n");
    let ran = server.run(&["doctor"]).fails_with(0);
    let subjects = [
        "configuration",
        "repository",
        "hook",
        "queue",
        "proxy",
        "server",
        "credentials",
        "rights",
        "workspace",
        "prefixes",
    ];
    for subject in subjects {
        assert!(ran.stdout.contains(&format!("ok    {subject}")), "{subject}: {}", ran.stdout);
    }
    assert!(finding(&server, 0, "SCMRepository").contains("the first delivery makes it"));
    assert!(finding(&server, 0, "credentials").contains("connector@acme.example"));
    let clone = server.new_clone();
    clone.commit("US1", &[("a", Some("1"))]);
    clone.push(&["origin", "main"]);
    assert!(finding(&server, 0, "queue").starts_with("note  queue          1 pending"));
    server.deliver_all();
    assert!(finding(&server, 0, "SCMRepository").starts_with("ok    SCMRepository  payments"));
    assert!(finding(&server, 0, "queue").contains("1 delivered, nothing pending"));
    assert!(!ran.stdout.contains('\x1b'), "no colour but on a terminal");
}

#[test]
fn each_trouble_with_rally_is_told_apart() {
    let server = Server::new();
    let free = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port").local_addr().expect("it is bound");
    rally_with(&server, &format!("server = \"http://{free}\""));
    assert!(finding(&server, 1, "server").contains(&format!("cannot reach http://{free}")));
    server.write_configuration(server.configuration().credentials("api_key = \"_wrong\""));
    assert!(server.run(&["doctor"]).fails_with(1).stdout.contains("HTTP 401"));
    server.write_configuration(server.configuration().credentials("api_key = \"_read-only-key\""));
    assert!(finding(&server, 1, "rights").contains("may be read-only"));
    rally_with(&server, "workspace = \"Amce\"");
    let told = finding(&server, 1, "workspace");
    assert!(told.contains("\"Amce\"") && told.contains(r#"sees: "Acme", "Other""#), "{told}");
    rally_with(&server, "");
    server.rally.world(|world| world.set_changesets_enabled("Acme", false));
    assert!(finding(&server, 1, "workspace").contains("has to enable \"Build and Changeset\""));
    server.rally.world(|world| {
        world.set_changesets_enabled("Acme", true);
        world.set_prefix("Defect", "BUG");
    });
    let prefixes = finding(&server, 0, "prefixes");
    assert!(prefixes.contains("none of: DE") && prefixes.contains("BUG (defect)"), "{prefixes}");
    server.configure("[repository]\ncreate = false\n");
    assert!(finding(&server, 1, "SCMRepository").contains("make it in Rally, or switch it on"));
}

#[test]
fn each_trouble_with_the_hook_is_told_apart() {
    let server = Server::without_hook();
    let hook = server.hook();
    assert!(finding(&server, 1, "hook").contains("run: rally-hook install"));
    fs::write(&hook, "#!/bin/sh\n").expect("a hook");
    assert!(finding(&server, 1, "hook").contains(&format!("run: chmod +x {}", hook.display())));
    fs::set_permissions(&hook, fs::Permissions::from_mode(0o755)).expect("a mode");
    assert!(finding(&server, 1, "hook").contains("is another program's"));
    server.run(&["install"]).succeeds();
    assert!(finding(&server, 0, "hook").starts_with("ok    hook"));
}

#[test]
fn a_log_that_cannot_be_written_and_projects_that_are_not_there_are_found() {
    let server = Server::new();
    assert!(finding(&server, 0, "log").contains("rally-hook/log"));
    server.configure("[log]\nfile = \"/nonexistent/log\"\n");
    assert!(finding(&server, 1, "log").contains("/nonexistent/log"));
    server.configure("[repository]\nprojects = [\"Nowhere\"]\n");
    assert!(finding(&server, 1, "SCMRepository").contains("no project \"Nowhere\""));
}

#[test]
fn dead_letters_are_listed_with_their_reason_and_can_be_tried_again() {
    let server = Server::delivering_later("");
    let clone = server.new_clone();
    let first = clone.commit("US1", &[("a", Some("1"))]);
    clone.commit("US2", &[("a", Some("2"))]);
    let third = clone.commit("US3", &[("a", Some("3"))]);
    for revision in [&first, &third] {
        let action = errors("Validation error: Changeset.Message \x1b[31mis odd");
        server.fail_all_with("/changeset/create", revision, action);
    }
    server.write_configuration(server.configuration().rally("batch = \"off\"").sections(DELIVER_LATER));
    clone.push(&["origin", "main"]);
    let ran = server.run(&["deliver"]).fails_with(1);
    assert!(ran.stderr.contains("1 commit delivered, 2 given up"), "{ran:?}");
    let status = server.run(&["status"]).fails_with(1).stdout;
    assert!(status.contains(&first) && status.contains(&third) && status.contains("?[31mis odd"), "{status}");
    assert!(!status.contains('\x1b') && status.contains("rally-hook retry"), "{status}");
    assert!(finding(&server, 1, "queue").contains("2 dead letters; `rally-hook status` lists them"));

    server.rally.clear_faults();
    server.run(&["retry", "zzzz"]).fails_with(2);
    server.run(&["retry"]).fails_with(2);
    let ran = server.run(&["retry", "00000000"]).fails_with(1);
    assert!(ran.stderr.contains("no dead letter has the revision 00000000"), "{ran:?}");
    server.run(&["retry", &first[..8].to_uppercase()]).succeeds();
    assert_eq!((server.count("failed"), server.count("pending")), (1, 1));
    server.run(&["retry", "--all"]).succeeds();
    server.deliver_all();
    server.assert_rally_holds(&expected(&server.git_dir, &["main"]));
    let status = server.run(&["status"]).fails_with(0).stdout;
    assert!(status.contains("delivered  3") && status.contains("pending    0"), "{status}");
}

#[test]
fn what_waits_or_cannot_be_read_is_found() {
    let server = Server::delivering_later("[authors]\nmap_file = \"authors.toml\"\n");
    assert!(finding(&server, 1, "authors").starts_with("WRONG authors"));
    fs::write(server.git_dir.join("authors.toml"), "\"jane@laptop\" = \"jane.roe@acme.example\"\n").expect("a file");
    assert!(finding(&server, 0, "authors").starts_with("ok    authors"));

    let clone = server.new_clone();
    clone.commit("US1", &[("a", Some("1"))]);
    server.disable_hook();
    clone.push(&["origin", "main"]);
    server.enable_hook();
    assert!(finding(&server, 0, "refs").contains("refs/heads/main hold commits that are not recorded"));
    server.run(&["catch-up"]).succeeds();
    assert!(finding(&server, 0, "refs").starts_with("ok    refs"));

    server.fail_next(status(503));
    server.run(&["deliver"]).fails_with(1);
    assert!(finding(&server, 0, "queue").starts_with("note  queue          delivery pauses: "));
}

#[test]
fn settings_with_which_nothing_could_be_posted_are_wrong() {
    let server = Server::delivering_later("[commits]\nprefixes = [\"XY\"]\n");
    assert!(finding(&server, 1, "prefixes").starts_with("WRONG prefixes"));
    server.write_configuration(server.configuration().credentials("api_key = \"_nobody\""));
    assert!(finding(&server, 1, "credentials").contains("HTTP 401"));
    server.configure_later("");
    let program = server.path().join("rally-hook");
    copy_program(&program);
    let mut install = crate::support::hermetic(&program);
    install.args(["install", "--repo"]).arg(&server.git_dir);
    crate::support::ran(install).succeeds();
    assert!(finding(&server, 0, "hook").starts_with("ok    hook"));
    fs::remove_file(program).expect("it was there");
    assert!(finding(&server, 1, "hook").contains("is not there any more; run: rally-hook install"));
    for wrong in ["[commits]\nrefs = []\n", "[repository]\nlinks = \"custom\"\ncommit_link = \"https://h/{rev}\"\n"] {
        server.configure_later(wrong);
        finding(&server, 1, "configuration");
    }
}
