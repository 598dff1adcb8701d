//! Writes whose outcome is not known: Rally is asked, and nothing is made again while Rally may be at work on it.

use rally_simulator::{Action, Fault, Match};

use crate::support::fault::{errors, status};
use crate::support::process::{kill, spawn, wait_for};
use crate::support::{DELIVER_LATER, Server, expected};

/// A server with these lines of `[rally]`, on which US1, DE2 and TA3 are queued in one commit each.
fn queued(rally: &str) -> Server {
    let server = Server::new();
    server.write_configuration(server.configuration().rally(rally).sections(DELIVER_LATER));
    server.receive(&["US1: first", "DE2: second", "TA3: third"]);
    server
}

/// Starts a delivery, and kills it at the first request to this path, which Rally is then still at work on.
fn kill_at(server: &Server, path: &'static str) {
    let on = Match { method: Some("POST"), path: Some(path), ..Match::default() };
    server.rally.fault(Fault { on, times: 1, action: Action::Hang });
    let child = spawn(server.command(&["deliver"]));
    wait_for("the request", || server.was_asked("POST", path));
    kill(child);
}

#[test]
fn nothing_is_made_again_while_rally_may_be_at_work_on_what_a_killed_delivery_sent() {
    for path in ["/scmrepository/create", "/changeset/create", "/change/create", "/batch"] {
        let batch = if path == "/batch" { "auto" } else { "off" };
        let rally = format!("timeout = \"30s\"\nread_lag = \"1ms\"\nbatch = \"{batch}\"\nmax_concurrent_requests = 1");
        let server = queued(&rally);
        kill_at(&server, path);
        let is_it = |request: &rally_simulator::Request| request.method == "POST" && request.path.starts_with(path);
        let sent = server.rally.requests().into_iter().find(is_it).expect("it was sent").body;
        let ran = server.run(&["deliver"]).fails_with(1);
        if path != "/scmrepository/create" {
            let status = server.run(&["status"]).stdout;
            for text in [&ran.stderr, &status] {
                assert!(
                    text.contains("no answer from Rally") && text.contains("nothing is sent again until"),
                    "{text}"
                );
            }
        }
        let again = server.rally.requests().iter().filter(|request| request.body == sent).count();
        assert_eq!(again, 1, "{path}");
        assert!(server.count("pending") > 0 && server.status()["next_attempt"].is_string(), "{}", server.status());
        server.let_time_pass();
        server.deliver_all();
        server.assert_rally_holds(&expected(&server.git_dir, &["main"]));
        assert_eq!(server.rally.world(|world| world.repositories().len()), 1, "{path}");
    }
}

#[test]
fn what_took_effect_after_the_kill_is_found_and_not_made_again() {
    let server = queued("timeout = \"30s\"\nbatch = \"off\"\nmax_concurrent_requests = 1");
    let on = Match { method: Some("POST"), path: Some("/changeset/create"), ..Match::default() };
    server.rally.fault(Fault { on, times: 1, action: Action::HangAfter });
    let child = spawn(server.command(&["deliver"]));
    server.rally.wait_until("the effect", |world| world.changesets().len() == 1);
    kill(child);
    server.let_time_pass();
    server.deliver_all();
    server.assert_rally_holds(&expected(&server.git_dir, &["main"]));
}

#[test]
fn an_invalid_key_after_a_write_that_took_effect_creates_nothing_twice() {
    for batch in ["auto", "off"] {
        let server = queued(&format!("batch = \"{batch}\""));
        let path = if batch == "auto" { "/batch" } else { "/changeset/create" };
        let invalid = Action::ErrorsAfter(vec!["Not authorized to perform action: Invalid key".into()]);
        let on = Match { method: Some("POST"), path: Some(path), ..Match::default() };
        server.rally.fault(Fault { on, times: 1, action: invalid });
        server.run(&["deliver"]);
        server.let_time_pass();
        server.deliver_all();
        server.assert_rally_holds(&expected(&server.git_dir, &["main"]));
    }
}

#[test]
fn a_forbidden_artifact_costs_only_the_commits_that_name_it() {
    for (batch, action) in [
        ("auto", status(403)),
        ("off", status(403)),
        ("off", errors("Not authorized to create: Changeset")),
        ("off", errors("Not authorized to perform action: create")),
    ] {
        let server = Server::new();
        server
            .write_configuration(server.configuration().rally(&format!("batch = \"{batch}\"")).sections(DELIVER_LATER));
        let messages: Vec<String> = (1..=9).map(|n| format!("US{n}: allowed")).collect();
        let messages: Vec<&str> =
            ["DE17: forbidden", "DE17: too"].into_iter().chain(messages.iter().map(String::as_str)).collect();
        server.receive(&messages);
        let artifact = format!("/defect/{}", server.rally.world(|world| world.add_artifact("DE17", "Forbidden")));
        server.fail_all_with("/changeset/create", &artifact, action.clone());
        server.fail_all_with("/batch", &artifact, action);
        server.run(&["deliver"]).fails_with(1);
        assert_eq!(server.changesets().len(), 9, "{batch}");
        let status = server.status();
        assert_eq!(
            (&status["failed"], &status["pending"], status["paused"].is_null()),
            (&2.into(), &0.into(), true),
            "{status}"
        );
        server.rally.clear_faults();
        server.run(&["retry", "--all"]);
        server.let_time_pass();
        server.deliver_all();
        assert_eq!((server.changesets().len(), server.count("failed")), (11, 0));
    }
}

#[test]
fn one_refused_entry_of_a_batch_halts_nothing() {
    let server = queued("");
    let on = Match { path: Some("/batch"), ..Match::default() };
    let refused = vec!["Not authorized to create: Changeset".to_owned()];
    server.rally.fault(Fault { on, times: 1, action: Action::EntryErrors { every: 3, errors: refused } });
    server.run(&["deliver"]).fails_with(1);
    let held = server.changesets();
    assert!(held.len() == 2 && held.iter().all(|changeset| changeset.changes.len() == 2), "{held:?}");
    assert_eq!(server.count("failed"), 1);
}

#[test]
fn an_artifact_that_may_not_be_written_is_left_out() {
    for batch in ["auto", "off"] {
        let server = Server::new();
        server
            .write_configuration(server.configuration().rally(&format!("batch = \"{batch}\"")).sections(DELIVER_LATER));
        server.receive(&["US1, DE17: both", "DE17: alone", "US2: another"]);
        let id = server.rally.world(|world| world.add_artifact("DE17", "Forbidden"));
        let artifact = format!("/defect/{id}");
        let refused = errors(&format!("Not authorized to update: Defect {id}"));
        server.fail_all_with("/changeset/create", &artifact, refused);
        if batch == "auto" {
            // One entry of a batch cannot be met; so the batch as a whole is refused for its size.
            server.fail_all_at("POST", "/batch", status(413));
        }
        server.run(&["deliver"]);
        server.let_time_pass();
        server.run(&["deliver"]);
        let held: Vec<_> = server.changesets().into_iter().map(|changeset| changeset.artifacts).collect();
        assert!(
            held.contains(&vec!["US1".to_owned()]) && held.contains(&vec!["US2".to_owned()]) && held.len() == 2,
            "{held:?}"
        );
        assert!(server.log().contains("is posted without DE17"), "{}", server.log());
        assert_eq!((server.count("failed"), server.count("pending")), (1, 0));
    }
}

#[test]
fn the_changes_of_one_changeset_are_in_one_request_at_a_time() {
    for batch in ["auto", "off"] {
        let server = Server::new();
        server
            .write_configuration(server.configuration().rally(&format!("batch = \"{batch}\"")).sections(DELIVER_LATER));
        let clone = server.new_clone();
        let many: Vec<(String, Option<&str>)> = (0..60).map(|n| (format!("file{n}"), Some("1"))).collect();
        let files: Vec<(&str, Option<&str>)> = many.iter().map(|(name, text)| (name.as_str(), *text)).collect();
        clone.commit("US1: many files", &files);
        clone.push(&["origin", "main"]);
        server.rally.settings(|settings| settings.detect_parallel_changes = true);
        server.run(&["deliver"]).succeeds();
        assert_eq!(server.changesets()[0].changes.len(), 60);
        let posts = server.rally.requests().iter().filter(|request| request.method == "POST").count();
        assert!(posts <= if batch == "auto" { 6 } else { 64 }, "{posts} requests");
    }
}
