//! What stands between the program and Rally, or in Rally's place.

use std::net::TcpListener;
use std::path::PathBuf;

use super::{Clone, Configuration, DELIVER_LATER, Server, expected, tls};

/// Returns a listener on a free port, and its address as a URL.
pub fn listen() -> (TcpListener, String) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let url = format!("http://{}", listener.local_addr().expect("it is bound"));
    (listener, url)
}

pub fn assert_nobody_connected(listener: &TcpListener) {
    listener.set_nonblocking(true).expect("it can be set");
    assert!(listener.accept().is_err(), "nobody connects");
}

/// Setting up.
impl Server {
    /// Sets up a server with one queued commit and these lines of `[rally]`.
    pub fn with_queued_commit(rally: &str) -> (Server, Clone) {
        let server = Server::delivering_later("");
        let clone = server.new_clone();
        clone.push_commits(&["US1"]);
        server.configure_rally(rally);
        (server, clone)
    }

    /// Replaces the configuration file: the usual keys and these lines of `[rally]`, and [`DELIVER_LATER`].
    pub fn configure_rally(&self, rally: &str) {
        self.write_configuration(self.configuration().rally(rally).sections(DELIVER_LATER));
    }

    /// Puts TLS before the simulator. Returns the address, a configuration for it, and the certificate of whoever signed
    /// the one that is shown.
    pub fn behind_tls(&self) -> (String, Configuration, PathBuf) {
        let (port, signer) = tls::in_front_of(self.rally.port());
        let url = format!("https://127.0.0.1:{port}");
        let configuration = self.configuration().rally(&format!("server = {url:?}")).sections(DELIVER_LATER);
        (url, configuration, self.write_private("signer.pem", &signer))
    }

    pub fn assert_all_delivered(&self) {
        self.assert_rally_holds(&expected(&self.git_dir, &["main"]));
        assert_eq!(self.count("pending"), 0);
    }
}
