//! TFVC: setting it up, and what status and doctor tell of it.

use std::fs;

use tfvc_double::Fault;

use crate::support::network::{assert_nobody_connected, listen};
use crate::support::process::wait_for;
use crate::support::tls::{Shown, in_front_of};
use crate::support::{DELIVER_LATER, Ran, Tfvc, hermetic, program, ran};

#[test]
fn status_tells_of_the_last_poll_and_asks_no_server() {
    let tfvc = Tfvc::new();
    let before = tfvc.double.requests().len();
    tfvc.world(|world| world.fault("", Fault::Hang));
    let status = tfvc.server.status();
    assert_eq!((&status["vcs"], &status["hook"]), (&"tfvc".into(), &"installed".into()));
    assert!(status["polled"]["last"].is_string() && status["polled"]["error"].is_null(), "{status}");
    let ran = tfvc.server.run(&["status"]).succeeds();
    assert!(ran.stdout.contains("\npolled     "), "{ran:?}");
    assert_eq!(tfvc.double.requests().len(), before);
}

#[test]
fn status_fails_once_no_poll_has_succeeded_for_long() {
    let tfvc = Tfvc::new();
    let late = |ran: Ran| ran.code == Some(1);
    tfvc.configure("every = \"1ms\"", DELIVER_LATER);
    wait_for("the poll to be late", || late(tfvc.server.run(&["status"])));
    tfvc.world(|world| world.fault("", Fault::Status(500)));
    tfvc.catch_up().fails_with(1);
    let ran = tfvc.server.run(&["status"]).fails_with(1);
    assert!(ran.stdout.contains("since then: ") && ran.stdout.contains("HTTP 500"), "{ran:?}");
    tfvc.configure("every = \"1h\"", DELIVER_LATER);
    tfvc.server.run(&["status"]).succeeds();
}

#[test]
fn all_repositories_include_it() {
    let tfvc = Tfvc::new();
    tfvc.check_in_one("US2");
    let run = |arguments: &[&str]| {
        let mut command = hermetic(program());
        command.args(arguments).arg("--all-repos").arg(tfvc.server.path()).current_dir("/");
        ran(command)
    };
    run(&["catch-up"]).succeeds();
    run(&["deliver"]).succeeds();
    assert_eq!(tfvc.server.changesets().len(), 1);
    let status = run(&["status", "--json"]).succeeds();
    assert!(status.stdout.contains("\"vcs\":\"tfvc\""), "{status:?}");
}

#[test]
fn doctor_says_what_the_server_answers_and_that_no_real_one_was_tried() {
    let tfvc = Tfvc::new();
    let line = |tfvc: &Tfvc| {
        let ran = tfvc.server.run(&["doctor"]);
        let line = ran.stdout.lines().find(|line| line.contains(" repository ")).map(str::to_owned);
        line.unwrap_or_else(|| panic!("{ran:?}"))
    };
    let fine = line(&tfvc);
    assert!(fine.starts_with("ok") && fine.contains("accepts the token"), "{fine}");
    assert!(fine.contains("not tested against a real server, and does not speak NTLM"), "{fine}");
    tfvc.configure("path = \"$/Payments/nowhere\"", DELIVER_LATER);
    assert!(line(&tfvc).contains("lists no changeset below $/Payments/nowhere"));
    tfvc.configure("project = \"Nowhere\"", DELIVER_LATER);
    assert!(line(&tfvc).contains("check tfvc.collection and tfvc.project"));
    tfvc.configure("", DELIVER_LATER);
    tfvc.server.write_private("token", "another");
    assert!(line(&tfvc).contains("does not accept the token"));
}

#[test]
fn a_server_that_is_down_at_install_leaves_nothing_marked() {
    let tfvc = Tfvc::without_install();
    tfvc.world(|world| world.fault("", Fault::Status(503)));
    let ran = tfvc.server.run(&["install"]).fails_with(1);
    assert!(ran.stderr.contains("HTTP 503"), "{ran:?}");
    tfvc.world(tfvc_double::World::clear_faults);
    tfvc.server.run(&["install"]).succeeds();
    tfvc.check_in_one("US2");
    assert_eq!(tfvc.posted(), ["2"]);
}

#[test]
fn install_needs_a_whole_configuration_in_the_directory() {
    let tfvc = Tfvc::without_install();
    let config = tfvc.server.git_dir.join("rally-hook.toml");
    let named = tfvc.server.run(&["install", "--config", &config.display().to_string()]).fails_with(2);
    assert!(named.stderr.contains("no hook that could name another configuration"), "{named:?}");
    fs::remove_file(tfvc.server.git_dir.join("token")).expect("it is there");
    let ran = tfvc.server.run(&["install"]).fails_with(2);
    assert!(ran.stderr.contains("payments/token"), "{ran:?}");
}

#[test]
fn the_directorys_file_names_a_token_in_the_directory_only() {
    let tfvc = Tfvc::without_install();
    tfvc.configure("token_file = \"/etc/hostname\"", DELIVER_LATER);
    let ran = tfvc.server.run(&["catch-up"]).fails_with(2);
    assert!(ran.stderr.contains("`tfvc.token_file`: the configuration of a repository names files"), "{ran:?}");
}

#[test]
fn the_token_of_another_file_is_not_sent_to_another_collection() {
    let tfvc = Tfvc::without_install();
    let (listener, elsewhere) = listen();
    let text = tfvc.server.read_configuration();
    let system = text.replace("\"token\"", &format!("{:?}", tfvc.server.git_dir.join("token")));
    tfvc.server.write_configuration(format!("[tfvc]\ncollection = {elsewhere:?}\n"));
    let catch_up = |directory: &str| {
        let script = "mount -t tmpfs none /etc && mkdir /etc/rally-hook && cp -p \"$0\" /etc/rally-hook/config.toml && \
                      exec \"$@\"";
        let mut command = hermetic("unshare");
        command
            .args(["--mount", "sh", "-c", script, "system.toml"])
            .arg(program())
            .args(["catch-up", "--repo", directory]);
        command.current_dir(tfvc.server.path());
        ran(command)
    };
    fs::write(tfvc.server.path().join("system.toml"), system).expect("it can be written");
    let ran = catch_up("payments");
    if !ran.stderr.contains("unshare") {
        assert!(ran.stderr.contains("so the token of another file is not sent there"), "{ran:?}");
        assert_nobody_connected(&listener);
    }
}

#[test]
fn uninstall_says_how_the_polling_ends() {
    let tfvc = Tfvc::new();
    let ran = tfvc.server.run(&["uninstall"]).succeeds();
    assert!(ran.stderr.contains("remove the section [tfvc]"), "{ran:?}");
}

#[test]
fn certificates_are_those_of_the_configured_authority() {
    let tfvc = Tfvc::without_install();
    let (port, signer) = in_front_of(tfvc.double.port(), Shown::Valid);
    let authority = tfvc.server.write_private("signer.pem", &signer);
    let collection = format!("collection = \"https://127.0.0.1:{port}/tfs/DefaultCollection\"\n");
    tfvc.configure(&collection, DELIVER_LATER);
    let refused = tfvc.server.run(&["install"]).fails_with(1);
    assert!(refused.stderr.contains("set tfvc.ca_file to the authority's certificate"), "{refused:?}");
    tfvc.configure(&format!("{collection}ca_file = {authority:?}"), DELIVER_LATER);
    tfvc.server.run(&["install"]).succeeds();
}
