//! What stands between the program and Rally, or in Rally's place.

use std::io::{BufRead, BufReader, Read};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Stdio};

use super::process::{kill, wait_for};
use super::{Clone, Configuration, DELIVER_LATER, Server, expected, hermetic, skipped, tls};

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

/// Tells whether a program is installed that a test needs; if not, says that the test is skipped. With
/// `RALLY_HOOK_TEST_ALL` the test fails then.
pub fn is_installed(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let is_there = std::env::split_paths(&path).any(|dir| dir.join(program).is_file());
    if !is_there {
        assert!(std::env::var_os("RALLY_HOOK_TEST_ALL").is_none(), "{program} is not installed");
        skipped(&format!("{program} is not installed"));
    }
    is_there
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
    pub fn behind_tls(&self, shown: tls::Shown) -> (String, Configuration, PathBuf) {
        let (port, signer) = tls::in_front_of(self.rally.port(), shown);
        let url = format!("https://127.0.0.1:{port}");
        let configuration = self.configuration().rally(&format!("server = {url:?}")).sections(DELIVER_LATER);
        (url, configuration, self.write_private("signer.pem", &signer))
    }

    pub fn assert_all_delivered(&self) {
        self.assert_rally_holds(&expected(&self.git_dir, &["main"]));
        assert_eq!(self.count("pending"), 0);
    }
}

/// A real HTTP proxy, until it is dropped.
pub struct Tinyproxy {
    /// `127.0.0.1:PORT`.
    pub address: String,
    log: PathBuf,
    process: Option<Child>,
}

impl Tinyproxy {
    /// Starts one in this directory with these lines of configuration. `None` if it is not installed.
    pub fn start(dir: &Path, lines: &str) -> Option<Self> {
        if !is_installed("tinyproxy") {
            return None;
        }
        let (listener, _) = listen();
        let port = listener.local_addr().expect("it is bound").port();
        let (log, file) = (dir.join("tinyproxy.log"), dir.join("tinyproxy.conf"));
        let text = format!("Port {port}\nListen 127.0.0.1\nLogFile {log:?}\nLogLevel Connect\nTimeout 60\n{lines}");
        std::fs::write(&file, text).expect("it can be written");
        // It cannot choose a free port itself.
        drop(listener);
        let mut command = hermetic("tinyproxy");
        command.args(["-d", "-c"]).arg(file).stdout(Stdio::null()).stderr(Stdio::null());
        let process = command.spawn().expect("it is installed");
        wait_for("tinyproxy", || TcpStream::connect(("127.0.0.1", port)).is_ok());
        Some(Tinyproxy { address: format!("127.0.0.1:{port}"), log, process: Some(process) })
    }

    /// Tells whether it was asked to connect somewhere.
    pub fn was_asked(&self) -> bool {
        std::fs::read_to_string(&self.log).expect("it keeps a log").contains("CONNECT 127.0.0.1:")
    }
}

impl Drop for Tinyproxy {
    fn drop(&mut self) {
        self.process.take().into_iter().for_each(kill);
    }
}

/// A server that speaks nothing newer than TLS 1.1, until it is dropped.
pub struct OldTls {
    pub url: String,
    /// Its output is kept open: it goes on to write.
    process: Option<(Child, BufReader<ChildStdout>)>,
}

impl OldTls {
    /// Starts one in this directory. `None` if OpenSSL is not installed.
    pub fn start(dir: &Path) -> Option<Self> {
        if !is_installed("openssl") {
            return None;
        }
        let openssl = |arguments: &str| {
            let mut command = hermetic("openssl");
            command.args(arguments.split(' ')).current_dir(dir).stdin(Stdio::null()).stderr(Stdio::null());
            command
        };
        let request = "req -x509 -newkey rsa:2048 -nodes -subj /CN=old -keyout old.key -out old.pem";
        super::ran(openssl(request)).succeeds();
        let mut server =
            openssl("s_server -www -tls1_1 -cipher ALL:@SECLEVEL=0 -accept 127.0.0.1:0 -cert old.pem -key old.key");
        let mut process = server.stdout(Stdio::piped()).spawn().expect("it is installed");
        let mut output = BufReader::new(process.stdout.take().expect("a pipe"));
        let address =
            output.by_ref().lines().find_map(|line| Some(line.expect("text").strip_prefix("ACCEPT ")?.to_owned()));
        Some(OldTls { url: format!("https://{}", address.expect("it listens")), process: Some((process, output)) })
    }
}

impl Drop for OldTls {
    fn drop(&mut self) {
        self.process.take().into_iter().for_each(|(process, _)| kill(process));
    }
}
