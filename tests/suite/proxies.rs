//! Proxies, of the configuration and of the environment.

use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;
use std::thread;

use crate::support::network::{assert_nobody_connected, listen};
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
    let (url, configuration, authority) = server.behind_tls();
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
