//! TLS: whose certificates are trusted, and what the administrator is told where one is not.

use std::io::Write;
use std::thread;

use crate::support::network::{OldTls, listen};
use crate::support::tls::Shown;
use crate::support::{Ran, Server};

#[test]
fn a_ca_file_that_is_missing_or_not_a_certificate_is_named() {
    let (server, _) = Server::with_queued_commit("");
    let file = server.write_private("ca.pem", "no certificate");
    for path in [file, server.git_dir.join("not-there.pem")] {
        server.configure_rally(&format!("ca_file = {path:?}"));
        let ran = server.run(&["deliver"]).fails_with(1);
        assert!(ran.stderr.contains(&path.display().to_string()) && ran.stderr.contains("ca_file"), "{ran:?}");
    }
    assert_eq!(server.count("pending"), 1);
}

#[test]
fn a_certificate_of_an_unknown_authority_is_refused() {
    let (server, _) = Server::with_queued_commit("");
    let (url, configuration, _) = server.behind_tls(Shown::Valid);
    server.write_configuration(configuration);
    let ran = server.run(&["deliver"]).fails_with(1);
    assert!(ran.stderr.contains(&url) && ran.stderr.contains("certificate"), "{ran:?}");
}

#[test]
fn a_certificate_of_the_configured_authority_is_trusted() {
    let (server, _) = Server::with_queued_commit("");
    let (_, configuration, authority) = server.behind_tls(Shown::Valid);
    server.write_configuration(configuration.rally(&format!("ca_file = {authority:?}")));
    server.run(&["deliver"]).succeeds();
    server.assert_all_delivered();
}

/// Delivers to a server that shows this certificate, with its signer's as `ca_file`.
fn deliver_to(shown: Shown) -> (Server, Ran) {
    let (server, _) = Server::with_queued_commit("");
    let (url, configuration, signer) = server.behind_tls(shown);
    server.write_configuration(configuration.rally(&format!("ca_file = {signer:?}")));
    let ran = server.run(&["deliver"]);
    assert!(ran.success || ran.stderr.contains(&format!("cannot reach {url}")), "{ran:?}");
    (server, ran)
}

fn assert_refused(shown: Shown, reason: &str) {
    let (server, ran) = deliver_to(shown);
    let ran = ran.fails_with(1);
    assert!(ran.stderr.contains(reason), "{ran:?}");
    assert!(server.rally.requests().is_empty() && server.count("pending") == 1);
}

#[test]
fn the_date_of_an_expired_certificate_is_told() {
    assert_refused(Shown::Expired, "its certificate expired on 2020-12-31T00:00:00Z; have it renewed");
}

#[test]
fn the_date_of_a_certificate_that_is_not_valid_yet_is_told() {
    assert_refused(
        Shown::NotYetValid,
        "its certificate is not valid before 2100-01-01T00:00:00Z, or this machine's clock",
    );
}

#[test]
fn the_names_of_a_certificate_for_another_host_are_told() {
    assert_refused(
        Shown::ForAnotherHost,
        "its certificate is for other.example and not for 127.0.0.1; check rally.server",
    );
}

#[test]
fn a_self_signed_certificate_is_trusted_only_if_it_is_the_ca_file() {
    let (server, ran) = deliver_to(Shown::SelfSigned);
    ran.succeeds();
    server.assert_all_delivered();
    let (server, _) = Server::with_queued_commit("");
    let (_, configuration, _) = server.behind_tls(Shown::SelfSigned);
    server.write_configuration(configuration);
    let ran = server.run(&["deliver"]).fails_with(1);
    assert!(ran.stderr.contains("signed by itself or by an authority"), "{ran:?}");
}

#[test]
fn a_server_with_old_tls_only_is_refused() {
    let (server, _) = Server::with_queued_commit("");
    let Some(old) = OldTls::start(server.path()) else { return };
    server.configure_rally(&format!("server = {:?}", old.url));
    let ran = server.run(&["deliver"]).fails_with(1);
    assert!(ran.stderr.contains(&format!("cannot reach {} for ", old.url)), "{ran:?}");
    assert!(ran.stderr.contains(": it speaks no TLS that is still safe"), "{ran:?}");
}

#[test]
fn a_port_without_tls_is_told_from_a_bad_certificate() {
    let (server, _) = Server::with_queued_commit("");
    let (listener, _) = listen();
    let port = listener.local_addr().expect("it is bound").port();
    thread::spawn(move || listener.accept()?.0.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n"));
    // The simulator ends the connection, others complain.
    for (port, reason) in [(server.rally.port(), "it broke off the TLS handshake"), (port, "its answer is not TLS")] {
        server.configure_rally(&format!("server = \"https://127.0.0.1:{port}\""));
        let ran = server.run(&["deliver"]).fails_with(1);
        assert!(ran.stderr.contains(&format!("{reason}: it may speak plain HTTP at this port")), "{ran:?}");
    }
}
