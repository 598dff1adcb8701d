//! The connection to Rally: redirects, time-outs, the workspace, and how many requests run at once.

use rally_simulator::Action;

use crate::support::fault::redirect;
use crate::support::network::{assert_nobody_connected, listen};
use crate::support::{DELIVER_LATER, Server};

#[test]
fn redirects_are_not_followed() {
    let (server, _) = Server::with_queued_commit("");
    let (elsewhere, url) = listen();
    for code in [302, 307, 308] {
        server.fail_next(redirect(code, &format!("{url}/")));
        let ran = server.run(&["deliver"]).fails_with(1);
        assert!(ran.stderr.contains(&format!("HTTP {code}: it redirects to {url}/: ")), "{ran:?}");
    }
    assert_nobody_connected(&elsewhere);
    server.deliver_all();
    server.assert_all_delivered();
}

#[test]
fn the_target_of_a_redirect_is_shown_without_what_is_confidential() {
    let (server, _) = Server::with_queued_commit("");
    for location in
        ["https://joe:secret@sso.example/log%20in;jsessionid=secret?ticket=secret#secret", "//sso.example/log%20in"]
    {
        server.fail_next(redirect(302, location));
        let ran = server.run(&["deliver"]).fails_with(1);
        assert!(ran.stderr.contains("://sso.example/log%20in: "), "{ran:?}");
        assert!(!ran.stderr.contains("secret") && ran.stderr.contains("maintenance"), "{ran:?}");
    }
    server.fail_next(redirect(302, "/login?ticket=secret"));
    let ran = server.run(&["deliver"]).fails_with(1);
    assert!(ran.stderr.contains(&format!("it redirects to {}/login: ", server.rally.url())), "{ran:?}");
}

#[test]
fn what_a_page_of_rally_says_is_shown() {
    let (server, _) = Server::with_queued_commit("");
    let range = "Your IP address, 10.1.2.3, is not within the allowed range that your subscription administrator has \
                 configured.";
    let incorrect = "The username or password you entered is incorrect.";
    let long = "<p>Some text that matters to nobody.</p>".repeat(50);
    for (code, page, shown) in [
        (401, format!("<title>Error 401</title><body>{long}<h2>Error 401</h2><p>{incorrect}"), incorrect),
        (401, "<p>Your account is <b>locked</b>.</p>".into(), "Your account is locked."),
        (403, format!("<html><body>{long}<div>Sorry.\n{range} Bye.</div>"), range),
        (502, "<title>Rally</title><h1>Down for\u{1b}[2J maintenance</h1>".into(), "Rally Down for?[2J maintenance"),
        (200, "<title>Rally</title><script>x()</script><h1>Back at 9:00</h1>".into(), "Rally Back at 9:00"),
    ] {
        server.fail_next(Action::Status { code, headers: Vec::new(), body: page });
        let ran = server.run(&["deliver"]).fails_with(1);
        assert!(ran.stderr.contains(&format!(": {shown}")) && !ran.stderr.contains("nobody"), "{ran:?}");
        assert!(server.log().contains(shown), "{}", server.log());
    }
}

#[test]
fn a_page_that_repeats_the_key_does_not_reveal_it() {
    let (server, _) = Server::with_queued_commit("");
    server.fail_next(Action::Status { code: 403, headers: Vec::new(), body: "zsessionid: _full-access-key".into() });
    let ran = server.run(&["deliver"]).fails_with(1);
    assert!(ran.stderr.contains("zsessionid: (hidden)") && !server.log().contains("_full-access-key"), "{ran:?}");
}

#[test]
fn a_page_that_repeats_the_password_or_its_header_does_not_reveal_it() {
    let (server, _) = Server::with_queued_commit("");
    let basic = "username = \"connector@acme.example\"\npassword = \"secret-password\"";
    server.write_configuration(server.configuration().credentials(basic).sections(DELIVER_LATER));
    let encoded = "Y29ubmVjdG9yQGFjbWUuZXhhbXBsZTpzZWNyZXQtcGFzc3dvcmQ=";
    let body = format!("You sent secret-password in Authorization: Basic {encoded}");
    server.fail_next(Action::Status { code: 403, headers: Vec::new(), body });
    let ran = server.run(&["deliver"]).fails_with(1);
    assert!(ran.stderr.contains("You sent (hidden) in Authorization: Basic (hidden)"), "{ran:?}");
    assert!(!server.log().contains("secret-password") && !server.log().contains(encoded));
}

#[test]
fn requests_name_the_integration_and_accept_gzip() {
    let (server, _) = Server::with_queued_commit("");
    server.deliver_all();
    server.assert_all_delivered();
    for request in server.rally.requests() {
        assert_eq!(request.header("x-rallyintegrationname"), Some("rally-hook"));
        assert_eq!(request.header("x-rallyintegrationvendor"), Some("rally-hook"));
        assert_eq!(request.header("x-rallyintegrationversion"), Some(env!("CARGO_PKG_VERSION")));
        assert_eq!(request.header("accept-encoding"), Some("gzip"));
    }
}

#[test]
fn a_request_is_given_up_after_the_configured_timeout() {
    let (server, _) = Server::with_queued_commit("timeout = \"100ms\"");
    server.fail_next(Action::Hang);
    let ran = server.run(&["deliver"]).fails_with(1);
    assert!(ran.stderr.contains("100ms"), "{ran:?}");
    assert_eq!(server.count("pending"), 1);
}

#[test]
fn an_unknown_workspace_is_reported_with_those_that_the_user_sees() {
    let (server, _) = Server::with_queued_commit("workspace = \"Amce\"");
    let ran = server.run(&["deliver"]).fails_with(1);
    assert!(ran.stderr.contains("Amce") && ran.stderr.contains("Acme") && ran.stderr.contains("Other"), "{ran:?}");
    assert!(server.changesets().is_empty());
}

#[test]
fn changesets_go_to_the_configured_workspace_even_if_the_users_default_is_another() {
    let server = Server::delivering_later("");
    server.rally.world(|world| world.add_artifact_in("Other", "US77", "There alone"));
    server.configure_rally("workspace = \"Other\"");
    server.new_clone().push_commits(&["US77: there", "US2: in the user's own"]);
    server.run(&["deliver"]).succeeds();
    let held = server.changesets();
    assert_eq!(held.len(), 1, "US2 is of another workspace");
    assert_eq!((held[0].workspace.as_str(), held[0].artifacts.as_slice()), ("Other", &["US77".to_owned()][..]));
    let repositories = server.rally.world(|world| world.repositories());
    assert!(repositories.iter().all(|repository| repository.workspace == "Other"), "{repositories:?}");
}

/// Delivers 13 commits to a slow Rally with these settings.
fn deliver_many(batch: &str, limit: usize) -> Server {
    let (server, clone) = Server::with_queued_commit(&format!("batch = {batch:?}\nmax_concurrent_requests = {limit}"));
    for number in 0..12 {
        let name = format!("file{number}");
        clone.commit(&format!("US{}", 1 + number % 9), &[(name.as_str(), Some("1"))]);
    }
    clone.push(&["origin", "main"]);
    server.rally.settings(|settings| settings.latency = std::time::Duration::from_millis(5));
    server.run(&["deliver", "--wait"]).succeeds();
    server.assert_all_delivered();
    server
}

#[test]
fn no_more_requests_run_at_once_than_configured() {
    for (batch, limit) in [("auto", 8), ("off", 3), ("off", 1)] {
        let most = deliver_many(batch, limit).rally.max_concurrent();
        assert!(most <= limit && (batch == "auto" || most == limit), "{most} at once, {limit} allowed");
    }
}

#[test]
fn batches_are_sent_unless_they_are_switched_off() {
    for (batch, is_sent) in [("auto", true), ("off", false)] {
        assert_eq!(deliver_many(batch, 8).was_asked("POST", "/batch"), is_sent, "batch = {batch:?}");
    }
}
