//! TLS: whose certificates are trusted, and what the administrator is told where one is not.

use crate::support::Server;

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
    let (url, configuration, _) = server.behind_tls();
    server.write_configuration(configuration);
    let ran = server.run(&["deliver"]).fails_with(1);
    assert!(ran.stderr.contains(&url) && ran.stderr.contains("certificate"), "{ran:?}");
}

#[test]
fn a_certificate_of_the_configured_authority_is_trusted() {
    let (server, _) = Server::with_queued_commit("");
    let (_, configuration, authority) = server.behind_tls();
    server.write_configuration(configuration.rally(&format!("ca_file = {authority:?}")));
    server.run(&["deliver"]).succeeds();
    server.assert_all_delivered();
}
