//! The connection to Rally: proxy, TLS, redirects, time-outs, the workspace, and how many requests run at once.

use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;
use std::path::PathBuf;
use std::thread;

use rally_simulator::Action;

use crate::support::fault::redirect;
use crate::support::{Clone, Configuration, DELIVER_LATER, Server, expected, ran, tls};

/// Sets up a server with one queued commit and these lines of `[rally]`.
fn with_queued_commit(rally: &str) -> (Server, Clone) {
    let server = Server::delivering_later("");
    let clone = server.new_clone();
    clone.commit("US1", &[("a", Some("1"))]);
    clone.push(&["origin", "main"]);
    configure(&server, rally);
    (server, clone)
}

fn configure(server: &Server, rally: &str) {
    server.write_configuration(server.configuration().rally(rally).sections(DELIVER_LATER));
}

/// Puts TLS before the simulator. Returns the address, a configuration for it, and the authority's certificate.
fn behind_tls(server: &Server) -> (String, Configuration, PathBuf) {
    let (port, authority) = tls::in_front_of(server.rally.port());
    let url = format!("https://127.0.0.1:{port}");
    let configuration = server.configuration().rally(&format!("server = {url:?}")).sections(DELIVER_LATER);
    (url, configuration, server.write_private("authority.pem", &authority))
}

/// Returns a listener on a free port, and its address as a URL.
fn listen() -> (TcpListener, String) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let url = format!("http://{}", listener.local_addr().expect("it is bound"));
    (listener, url)
}

fn assert_nobody_connected(listener: &TcpListener) {
    listener.set_nonblocking(true).expect("it can be set");
    assert!(listener.accept().is_err(), "nobody connects");
}

fn assert_delivered(server: &Server) {
    server.assert_rally_holds(&expected(&server.git_dir, &["main"]));
    assert_eq!(server.count("pending"), 0);
}

#[test]
fn redirects_are_not_followed() {
    let (server, _) = with_queued_commit("");
    let (elsewhere, url) = listen();
    for code in [302, 307, 308] {
        server.fail_next(redirect(code, &format!("{url}/")));
        let ran = server.run(&["deliver"]).fails_with(1);
        assert!(ran.stderr.contains(&format!("HTTP {code}: it redirects to {url}/: ")), "{ran:?}");
    }
    assert_nobody_connected(&elsewhere);
    server.deliver_all();
    assert_delivered(&server);
}

#[test]
fn the_target_of_a_redirect_is_shown_without_what_is_confidential() {
    let (server, _) = with_queued_commit("");
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
    let (server, _) = with_queued_commit("");
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
    let (server, _) = with_queued_commit("");
    server.fail_next(Action::Status { code: 403, headers: Vec::new(), body: "zsessionid: _full-access-key".into() });
    let ran = server.run(&["deliver"]).fails_with(1);
    assert!(ran.stderr.contains("zsessionid: (hidden)") && !server.log().contains("_full-access-key"), "{ran:?}");
}

#[test]
fn requests_name_the_integration_and_accept_gzip() {
    let (server, _) = with_queued_commit("");
    server.deliver_all();
    assert_delivered(&server);
    for request in server.rally.requests() {
        assert_eq!(request.header("x-rallyintegrationname"), Some("rally-hook"));
        assert_eq!(request.header("x-rallyintegrationvendor"), Some("rally-hook"));
        assert_eq!(request.header("x-rallyintegrationversion"), Some(env!("CARGO_PKG_VERSION")));
        assert_eq!(request.header("accept-encoding"), Some("gzip"));
    }
}

#[test]
fn a_request_is_given_up_after_the_configured_timeout() {
    let (server, _) = with_queued_commit("timeout = \"100ms\"");
    server.fail_next(Action::Hang);
    let ran = server.run(&["deliver"]).fails_with(1);
    assert!(ran.stderr.contains("100ms"), "{ran:?}");
    assert_eq!(server.count("pending"), 1);
}

#[test]
fn an_unknown_workspace_is_reported_with_those_that_the_user_sees() {
    let (server, _) = with_queued_commit("workspace = \"Amce\"");
    let ran = server.run(&["deliver"]).fails_with(1);
    assert!(ran.stderr.contains("Amce") && ran.stderr.contains("Acme") && ran.stderr.contains("Other"), "{ran:?}");
    assert!(server.changesets().is_empty());
}

#[test]
fn changesets_go_to_the_configured_workspace_even_if_the_users_default_is_another() {
    let server = Server::delivering_later("");
    server.rally.world(|world| world.add_artifact_in("Other", "US77", "There alone"));
    configure(&server, "workspace = \"Other\"");
    server.new_clone().push_commits(&["US77: there", "US2: in the user's own"]);
    server.run(&["deliver"]).succeeds();
    let held = server.changesets();
    assert_eq!(held.len(), 1, "US2 is of another workspace");
    assert_eq!((held[0].workspace.as_str(), held[0].artifacts.as_slice()), ("Other", &["US77".to_owned()][..]));
    let repositories = server.rally.world(|world| world.repositories());
    assert!(repositories.iter().all(|repository| repository.workspace == "Other"), "{repositories:?}");
}

/// Runs something that sends one request to the listener, which answers 502; returns the request's first line.
fn first_request(listener: &TcpListener, act: impl FnOnce()) -> String {
    thread::scope(|scope| {
        let seen = scope.spawn(|| {
            let (stream, _) = listener.accept().expect("somebody connects");
            let mut lines = BufReader::new(&stream).lines().map(|line| line.expect("HTTP is text"));
            let first = lines.next().expect("a request line");
            lines.find(String::is_empty).expect("headers end");
            let answer = b"HTTP/1.1 502 Bad Gateway\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
            (&stream).write_all(answer).expect("it listens");
            first
        });
        act();
        seen.join().expect("the proxy saw a request")
    })
}

#[test]
fn requests_go_through_the_proxy_of_the_configuration() {
    let (listener, proxy) = listen();
    let (server, _) = with_queued_commit(&format!("proxy = {proxy:?}"));
    let first = first_request(&listener, || drop(server.run(&["deliver"]).fails_with(1)));
    assert!(first.contains(&server.rally.url()), "{first}");
    assert!(server.rally.requests().is_empty());
}

#[test]
fn requests_over_tls_go_through_the_proxy_of_the_environment() {
    let (listener, proxy) = listen();
    let server = Server::new();
    server.write_configuration(server.configuration().rally("server = \"https://rally.invalid\""));
    let mut command = server.command(&["doctor"]);
    command.env("HTTPS_PROXY", &proxy);
    let first = first_request(&listener, || {
        let ran = ran(command).fails_with(1);
        assert!(ran.stdout.contains("the environment's HTTPS_PROXY is used"), "{ran:?}");
    });
    assert!(first.starts_with("CONNECT rally.invalid:443"), "{first}");
}

#[test]
fn a_server_that_no_proxy_names_is_reached_directly() {
    let (listener, proxy) = listen();
    let server = Server::new();
    let (url, configuration, authority) = behind_tls(&server);
    server.write_configuration(configuration.rally(&format!("ca_file = {authority:?}")));
    let mut command = server.command(&["doctor"]);
    command.env("HTTPS_PROXY", &proxy).env("NO_PROXY", "localhost,127.0.0.1");
    assert!(ran(command).stdout.contains(&format!("ok    server         {url}")));
    assert_nobody_connected(&listener);
}

#[test]
fn a_local_server_without_tls_is_reached_directly() {
    // A proxy would get the credentials unencrypted.
    let (listener, proxy) = listen();
    let (server, _) = with_queued_commit("");
    let mut command = server.command(&["deliver"]);
    command.env("HTTP_PROXY", &proxy).env("ALL_PROXY", &proxy);
    ran(command).succeeds();
    assert_delivered(&server);
    assert_nobody_connected(&listener);
}

#[test]
fn a_ca_file_that_is_missing_or_not_a_certificate_is_named() {
    let (server, _) = with_queued_commit("");
    let file = server.write_private("ca.pem", "no certificate");
    for path in [file, server.git_dir.join("not-there.pem")] {
        configure(&server, &format!("ca_file = {path:?}"));
        let ran = server.run(&["deliver"]).fails_with(1);
        assert!(ran.stderr.contains(&path.display().to_string()) && ran.stderr.contains("ca_file"), "{ran:?}");
    }
    assert_eq!(server.count("pending"), 1);
}

#[test]
fn a_certificate_of_an_unknown_authority_is_refused() {
    let (server, _) = with_queued_commit("");
    let (url, configuration, _) = behind_tls(&server);
    server.write_configuration(configuration);
    let ran = server.run(&["deliver"]).fails_with(1);
    assert!(ran.stderr.contains(&url) && ran.stderr.contains("certificate"), "{ran:?}");
}

#[test]
fn a_certificate_of_the_configured_authority_is_trusted() {
    let (server, _) = with_queued_commit("");
    let (_, configuration, authority) = behind_tls(&server);
    server.write_configuration(configuration.rally(&format!("ca_file = {authority:?}")));
    server.run(&["deliver"]).succeeds();
    assert_delivered(&server);
}

/// Delivers 13 commits to a slow Rally with these settings.
fn deliver_many(batch: &str, limit: usize) -> Server {
    let (server, clone) = with_queued_commit(&format!("batch = {batch:?}\nmax_concurrent_requests = {limit}"));
    for number in 0..12 {
        let name = format!("file{number}");
        clone.commit(&format!("US{}", 1 + number % 9), &[(name.as_str(), Some("1"))]);
    }
    clone.push(&["origin", "main"]);
    server.rally.settings(|settings| settings.latency = std::time::Duration::from_millis(5));
    server.run(&["deliver", "--wait"]).succeeds();
    assert_delivered(&server);
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
