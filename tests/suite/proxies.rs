//! Proxies, of the configuration and of the environment.

use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;
use std::thread;

use crate::support::network::{Tinyproxy, assert_nobody_connected, listen};
use crate::support::tls::Shown;
use crate::support::{Server, ran};

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
    let (server, _) = Server::with_queued_commit(&format!("proxy = {proxy:?}"));
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
    let (url, configuration, authority) = server.behind_tls(Shown::Valid);
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
    let (server, _) = Server::with_queued_commit("");
    let mut command = server.command(&["deliver"]);
    command.env("HTTP_PROXY", &proxy).env("ALL_PROXY", &proxy);
    ran(command).succeeds();
    server.assert_all_delivered();
    assert_nobody_connected(&listener);
}

const WITH_PASSWORD: &str = "BasicAuth connector s3cret-word\n";

/// A server behind TLS with a queued commit, and a proxy with these lines of configuration. `None` if none is installed.
fn behind_proxy(lines: &str) -> Option<(Server, Tinyproxy)> {
    let (server, _) = Server::with_queued_commit("");
    let proxy = Tinyproxy::start(server.path(), lines)?;
    Some((server, proxy))
}

/// Configures TLS to the server and these lines of `[rally]`. Returns the address of the server.
fn configure(server: &Server, rally: &str) -> String {
    let (url, configuration, signer) = server.behind_tls(Shown::Valid);
    server.write_configuration(configuration.rally(&format!("ca_file = {signer:?}")).rally(rally));
    url
}

#[test]
fn tls_goes_through_a_proxy() {
    let Some((server, proxy)) = behind_proxy("") else { return };
    configure(&server, &format!("proxy = \"http://{}\"", proxy.address));
    server.run(&["deliver"]).succeeds();
    server.assert_all_delivered();
    assert!(proxy.was_asked());
}

#[test]
fn a_proxy_gets_the_password_of_its_address() {
    let Some((server, proxy)) = behind_proxy(WITH_PASSWORD) else { return };
    configure(&server, &format!("proxy = \"http://connector:s3cret%2Dword@{}\"", proxy.address));
    server.run(&["deliver"]).succeeds();
    server.assert_all_delivered();
}

#[test]
fn a_proxy_that_wants_another_password_is_told_from_rally_and_no_password_is_shown() {
    let Some((server, proxy)) = behind_proxy(WITH_PASSWORD) else { return };
    // It answers 407 to the first and 401 to the second.
    for (user, reason) in [
        ("", "the proxy refuses the user name and password, or wants some"),
        (
            "connector:wr0ng-word@",
            "the proxy refuses to connect to it; check the user name and password in rally.proxy",
        ),
    ] {
        let url = configure(&server, &format!("proxy = \"http://{user}{}\"", proxy.address));
        let ran = server.run(&["deliver"]).fails_with(1);
        assert!(ran.stderr.contains(&format!("cannot reach {url} for ")) && ran.stderr.contains(reason), "{ran:?}");
        assert!(!ran.stderr.contains("wr0ng"), "{ran:?}");
        let doctor = server.run(&["doctor"]).fails_with(1);
        assert!(doctor.stdout.contains("in rally.proxy") || doctor.stdout.contains("into rally.proxy"), "{doctor:?}");
        assert!(!doctor.stdout.contains("wr0ng") && !server.log().contains("wr0ng"));
    }
    assert!(server.rally.requests().is_empty());
}

#[test]
fn a_proxy_that_refuses_the_server_is_told_from_one_that_cannot_be_reached() {
    let Some((server, proxy)) = behind_proxy("ConnectPort 1\n") else { return };
    configure(&server, &format!("proxy = \"http://{}\"", proxy.address));
    let ran = server.run(&["deliver"]).fails_with(1);
    assert!(ran.stderr.contains("the proxy refuses to connect to it"), "{ran:?}");
    drop(proxy);
    let ran = server.run(&["deliver"]).fails_with(1);
    assert!(ran.stderr.contains("the proxy cannot be reached: Connection refused"), "{ran:?}");
}

#[test]
fn the_proxy_of_the_environment_gets_its_password_and_is_passed_by_for_what_no_proxy_names() {
    let Some((server, proxy)) = behind_proxy(WITH_PASSWORD) else { return };
    configure(&server, "batch = \"auto\"");
    let deliver = |no_proxy: &str| {
        let mut command = server.command(&["deliver"]);
        command.env("HTTPS_PROXY", format!("http://connector:s3cret-word@{}", proxy.address)).env("NO_PROXY", no_proxy);
        ran(command).succeeds();
    };
    deliver("localhost,127.0.0.1");
    server.assert_all_delivered();
    assert!(!proxy.was_asked());
    server.new_clone().push_commits(&["US2: another"]);
    deliver("localhost");
    server.assert_all_delivered();
    assert!(proxy.was_asked());
}
