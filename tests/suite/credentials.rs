//! The credentials for Rally: where they come from, and that they stay secret.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use rally_simulator::Action;

use crate::support::process::{deliverers, wait_for};
use crate::support::{Clone, DELIVER_LATER, Server, expected, git, ran};

const BASIC: &str = "username = \"connector@acme.example\"";

/// Sets up a server with one queued commit that logs in with these lines of `[rally]`.
fn with_queued_commit(credentials: &str) -> (Server, Clone) {
    let server = Server::delivering_later("");
    let clone = server.new_clone();
    clone.commit("US1", &[("a", Some("1"))]);
    clone.push(&["origin", "main"]);
    log_in_with(&server, credentials);
    (server, clone)
}

fn log_in_with(server: &Server, credentials: &str) {
    server.write_configuration(server.configuration().credentials(credentials).sections(DELIVER_LATER));
}

fn assert_delivered(server: &Server) {
    server.assert_rally_holds(&expected(&server.git_dir, &["main"]));
    assert_eq!(server.count("pending"), 0);
}

fn set_mode(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).expect("modes can be set");
}

#[test]
fn delivery_without_credentials_fails_and_names_the_keys_to_set() {
    let (server, _) = with_queued_commit("");
    let ran = server.run(&["deliver"]).fails_with(1);
    assert!(ran.stderr.contains("[rally] has no credentials; set api_key_file"), "{ran:?}");
}

#[test]
fn the_api_key_may_come_from_the_environment() {
    let (server, _) = with_queued_commit("");
    let mut command = server.command(&["deliver"]);
    command.env("RALLY_API_KEY", "_full-access-key");
    ran(command).succeeds();
    assert_delivered(&server);
    assert!(server.rally.requests().iter().all(|request| request.header("zsessionid") == Some("_full-access-key")));
}

#[test]
fn the_api_key_may_stand_in_the_configuration() {
    let (server, _) = with_queued_commit("api_key = \"_full-access-key\"");
    server.run(&["deliver"]).succeeds();
    assert_delivered(&server);
}

#[test]
fn a_relative_path_starts_from_the_directory_of_the_configuration_file() {
    let (server, _) = with_queued_commit("api_key_file = \"api-key\"");
    let mut command = server.command(&["deliver", "--repo"]);
    command.arg(&server.git_dir).current_dir("/");
    ran(command).succeeds();
    assert_delivered(&server);
}

#[test]
fn a_security_token_is_renewed_when_it_expires() {
    let (server, clone) = with_queued_commit(&format!("{BASIC}\npassword = \"secret-password\""));
    server.rally.settings(|settings| settings.token_lifetime = Some(2));
    for file in ["b", "c", "d"] {
        clone.commit("DE1", &[(file, Some("1"))]);
    }
    clone.push(&["origin", "main"]);
    server.run(&["deliver", "--wait"]).succeeds();
    assert_delivered(&server);
    let tokens = server.rally.requests().iter().filter(|request| request.path == "/security/authorize").count();
    assert!(tokens > 1, "a token is good for two writes here");
}

#[test]
fn a_security_token_that_expires_during_a_delivery_is_replaced() {
    for lifetime in [1, 2, 5] {
        let server = Server::delivering_later("");
        let rally = "password = \"secret-password\"\nbatch = \"off\"\nmax_concurrent_requests = 1";
        log_in_with(&server, &format!("{BASIC}\n{rally}"));
        server.rally.settings(|settings| settings.token_lifetime = Some(lifetime));
        server.fail_next_at("POST", "/change/create", Action::ExpireToken);
        server.new_clone().push_commits(&["US1: first", "DE2: second", "TA3: third", "US4, DE2: fourth"]);
        server.deliver_all();
        let tokens = server.rally.requests().iter().filter(|request| request.path == "/security/authorize").count();
        assert!(tokens > 1, "{tokens} tokens for 13 writes");
        server.assert_rally_holds(&expected(&server.git_dir, &["main"]));
    }
}

#[test]
fn the_password_may_come_from_a_file() {
    let (server, _) = with_queued_commit("");
    let file = server.write_private("password", "secret-password\n");
    log_in_with(&server, &format!("{BASIC}\npassword_file = {file:?}"));
    server.rally.settings(|settings| settings.token_lifetime = Some(2));
    server.run(&["deliver", "--wait"]).succeeds();
    assert_delivered(&server);
}

#[test]
fn the_password_may_come_from_the_environment() {
    let (server, _) = with_queued_commit(BASIC);
    server.rally.settings(|settings| settings.token_lifetime = Some(2));
    let mut command = server.command(&["deliver", "--wait"]);
    command.env("RALLY_PASSWORD", "secret-password");
    ran(command).succeeds();
    assert_delivered(&server);
}

#[test]
fn refused_credentials_stop_delivery_and_the_next_pusher_is_told() {
    let (server, clone) = with_queued_commit("api_key = \"_wrong-key\"");
    server.run(&["deliver"]).fails_with(1);
    let asked = server.rally.requests().len();
    clone.commit("US2", &[("a", Some("2"))]);
    let seen = clone.push(&["origin", "main"]);
    assert!(seen.contains("nothing has been posted since"), "{seen}");
    let status = server.status();
    assert_eq!((&status["pending"], &status["paused"]["needs_person"]), (&2.into(), &true.into()), "{status}");
    server.run(&["status"]).fails_with(1);
    assert!(asked < 4, "{asked} requests for one wrong key");
    log_in_with(&server, "api_key = \"_full-access-key\"");
    server.run(&["deliver", "--wait"]).succeeds();
    assert_delivered(&server);
}

#[test]
fn the_background_process_itself_tries_refused_credentials_again() {
    let server = Server::new();
    server.write_private("api-key", "_wrong-key\n");
    server.new_clone().push_commits(&["US1"]);
    wait_for("the pause", || server.status()["paused"]["needs_person"] == true);
    server.write_private("api-key", "_full-access-key\n");
    wait_for("the delivery", || server.count("delivered") == 1);
}

#[test]
fn a_read_only_key_stops_delivery_until_it_is_replaced() {
    let server = Server::delivering_later("");
    server.new_clone().push_commits(&["US1: first", "DE2: second"]);
    server.write_private("api-key", "_read-only-key\n");
    server.run(&["deliver", "--wait"]).fails_with(1);
    server.assert_stopped("Invalid key");
    server.assert_counts_add_up();
    assert!(server.changesets().is_empty() && server.count("failed") == 0);
    server.write_private("api-key", "_full-access-key\n");
    server.deliver_all();
    server.assert_rally_holds(&expected(&server.git_dir, &["main"]));
}

#[test]
fn a_key_file_that_others_may_read_is_refused_with_the_chmod_command() {
    let server = Server::delivering_later("");
    let clone = server.new_clone();
    let key = server.git_dir.join("api-key");
    set_mode(&key, 0o644);
    clone.commit("US1", &[("a", Some("1"))]);
    let seen = clone.push(&["origin", "main"]);
    assert!(seen.contains("1 commit queued"), "{seen}");
    let cure = format!("run: chmod 600 {}", key.display());
    assert!(server.run(&["deliver"]).fails_with(1).stderr.contains(&cure));
    assert!(server.run(&["doctor"]).fails_with(1).stdout.contains(&cure));
    assert!(server.rally.requests().is_empty());
    set_mode(&key, 0o600);
    server.deliver_all();
    assert_delivered(&server);
}

#[test]
fn a_configuration_with_a_key_that_others_may_read_is_refused_with_the_chmod_command() {
    let (server, clone) = with_queued_commit("api_key = \"_full-access-key\"");
    let config = server.git_dir.join("rally-hook.toml");
    set_mode(&config, 0o644);
    clone.commit("US2", &[("a", Some("2"))]);
    let seen = clone.push(&["origin", "main"]);
    assert!(seen.contains("this push is kept until the configuration is fixed"), "{seen}");
    let cure = format!("run: chmod 600 {}", config.display());
    assert!(server.run(&["deliver"]).fails_with(2).stderr.contains(&cure));
    set_mode(&config, 0o600);
    server.deliver_all();
    assert_delivered(&server);
}

#[test]
fn a_configuration_with_a_proxy_password_that_others_may_read_is_refused_with_the_chmod_command() {
    let server = Server::delivering_later("");
    let proxy = "proxy = \"http://user:secret@127.0.0.1:9\"";
    server.write_configuration(server.configuration().rally(proxy).sections(DELIVER_LATER));
    let config = server.git_dir.join("rally-hook.toml");
    set_mode(&config, 0o644);
    let ran = server.run(&["deliver"]).fails_with(2);
    let cure = format!("run: chmod 600 {}", config.display());
    assert!(ran.stderr.contains(&cure) && !ran.stderr.contains("user:secret"), "{ran:?}");
}

#[test]
fn an_api_key_appears_in_no_output_file_or_environment() {
    assert_stays_secret("api_key = \"_canary-5f3a9d\"", "_canary-5f3a9d");
}

#[test]
fn a_password_appears_in_no_output_file_or_environment() {
    assert_stays_secret(&format!("{BASIC}\npassword = \"_canary-5f3a9d\""), "_canary-5f3a9d");
}

/// Pushes and delivers with these credentials, and looks for them in all that is printed, logged or visible to `ps`.
fn assert_stays_secret(credentials: &str, key: &str) {
    let server = Server::new();
    let log = "[log]\nlevel = \"debug\"\n";
    server.write_configuration(server.configuration().credentials(credentials).sections(log));
    server.fail_next(Action::Hang);
    let clone = server.new_clone();
    clone.commit("US1", &[("a", Some("1"))]);
    let mut shown = clone.push(&["origin", "main"]);
    server.rally.wait_for_requests("the delivery in the background", |requests| !requests.is_empty());
    let running = deliverers(&server.git_dir);
    assert_eq!(running.len(), 1);
    for file in ["cmdline", "environ"] {
        shown += &String::from_utf8_lossy(&fs::read(format!("/proc/{}/{file}", running[0])).expect("it lives"));
    }
    // Some servers repeat what they were sent.
    let body = format!("{{\"OperationResult\":{{\"Errors\":[\"refused\"]}}}} {key}");
    server.fail_all(Action::Status { code: 401, headers: Vec::new(), body });
    for arguments in
        [&["deliver", "--wait"][..], &["status"], &["status", "--json"], &["doctor"], &["backfill", "main"]]
    {
        let ran = server.run(arguments);
        shown += &(ran.stdout + &ran.stderr);
    }
    shown += &clone.push(&["origin", "main:again"]);
    assert!(!shown.contains("canary"), "{shown}");
    assert_state_lacks(&server, "canary");
}

#[test]
fn a_refused_api_key_of_a_file_appears_in_no_other_file_and_no_output() {
    let server = Server::delivering_later("");
    server.write_private("api-key", "_canary-0123456789\n");
    let clone = server.new_clone();
    let mut said = clone.push_commits(&["US1"]);
    for arguments in [&["deliver"][..], &["status"], &["status", "--json"], &["doctor"]] {
        let ran = server.run(arguments);
        said += &(ran.stdout + &ran.stderr);
    }
    server.assert_stopped("HTTP 401");
    assert!(!said.contains("canary"), "{said}");
    assert_state_lacks(&server, "canary");
    assert!(!git(&server.git_dir, &["config", "--list"]).contains("canary"));
}

/// Asserts that no file of the state directory holds this text.
fn assert_state_lacks(server: &Server, text: &str) {
    for file in fs::read_dir(server.git_dir.join("rally-hook")).expect("the state").flatten() {
        // Temporary files of the database may be gone already.
        let bytes = fs::read(file.path()).unwrap_or_default();
        assert!(!String::from_utf8_lossy(&bytes).contains(text), "{:?}", file.path());
    }
}
