//! What the clients of services have in common: how a connection is made, how much of an answer is read, and what is said
//! where either fails.

#![expect(clippy::disallowed_types, reason = "this module is a user of the HTTP library")]

mod page;
mod reason;

use std::io::{self, Read};
use std::time::Duration;

use reqwest::blocking::{Client, ClientBuilder};
use reqwest::{Certificate, Proxy, Url, redirect};

use crate::clock::Deadline;

#[cfg(any(test, fuzzing))]
pub(crate) use page::EXCERPT;
pub(crate) use page::{excerpt, said};
pub(crate) use reason::{reason, root_cause};

/// How much of an answer is read at once.
const CHUNK: usize = 64 * 1024;
/// How long a connection may take to come about; after that the server counts as not reachable.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// What an administrator sets to change where a connection goes, for messages.
pub(crate) struct Keys {
    pub server: &'static str,
    /// Where user name and password for a proxy belong, and all that can name a proxy.
    pub proxy: &'static str,
    pub proxies: &'static str,
    pub ca_file: &'static str,
}

/// A server and the way to it.
pub(crate) struct Way<'w> {
    pub server: &'w str,
    pub proxy: Option<&'w str>,
    /// Certificates to trust besides the system's, as PEM.
    pub certificates: Option<&'w [u8]>,
    pub timeout: Duration,
    pub keys: &'w Keys,
}

impl Way<'_> {
    /// Begins a client that follows no redirect: it might lead the credentials elsewhere.
    pub(crate) fn client(&self) -> Result<ClientBuilder, String> {
        let mut builder = Client::builder()
            .user_agent(concat!("rally-hook/", env!("CARGO_PKG_VERSION")))
            .redirect(redirect::Policy::none())
            .connect_timeout(CONNECT_TIMEOUT.min(self.timeout));
        if let Some(proxy) = self.proxy {
            let proxy = Proxy::all(proxy).map_err(|_| format!("{} is not an address", self.keys.proxy))?;
            builder = builder.proxy(proxy);
        }
        if let Some(pem) = self.certificates {
            let certificates = Certificate::from_pem_bundle(pem);
            let certificates = certificates.map_err(|_| format!("{} holds no valid certificate", self.keys.ca_file))?;
            builder = builder.tls_certs_merge(certificates);
        }
        if self.server.starts_with("http://") {
            // Only to this machine, and then no certificates are looked for: a server without any must do. Nor does the
            // environment's proxy get to see the credentials.
            builder = builder.tls_certs_only([]);
            if self.proxy.is_none() {
                builder = builder.no_proxy();
            }
        }
        Ok(builder)
    }
}

/// Why an answer was not read to its end.
pub(crate) enum Unread {
    TooLong,
    TimedOut,
    Broken(String),
}

/// Reads an answer of at most `limit` bytes. The client's own time limit begins anew with each part that arrives.
pub(crate) fn read(mut answer: impl Read, limit: usize, deadline: Deadline) -> Result<String, Unread> {
    let mut body = Vec::new();
    let mut chunk = vec![0; CHUNK];
    loop {
        let length = answer.read(&mut chunk).map_err(|error| match error.kind() {
            io::ErrorKind::TimedOut => Unread::TimedOut,
            _ => Unread::Broken(root_cause(&error)),
        })?;
        body.extend_from_slice(&chunk[..length]);
        match () {
            () if length == 0 => return Ok(String::from_utf8_lossy(&body).into_owned()),
            () if body.len() > limit => return Err(Unread::TooLong),
            () if deadline.has_passed() => return Err(Unread::TimedOut),
            () => {}
        }
    }
}

/// Returns where a redirect leads, without what may be confidential: user, query, and a session in the path.
pub(crate) fn target(server: &str, location: &str) -> String {
    let Some(mut url) = Url::parse(server).and_then(|server| server.join(location)).ok() else {
        return "an invalid address".into();
    };
    let path = url.path().split(';').next().unwrap_or_default().to_owned();
    url.set_path(&path);
    url.set_query(None);
    url.set_fragment(None);
    // These fail only for addresses that have no host.
    let _ = url.set_username("");
    let _ = url.set_password(None);
    excerpt(url.as_str())
}

/// Returns what a page says, without these secrets, which it may repeat.
pub(crate) fn said_without(page: &str, secrets: &[&str]) -> String {
    let secrets = secrets.iter().filter(|secret| !secret.is_empty());
    said(&secrets.fold(page.to_owned(), |page, secret| page.replace(secret, "(hidden)")))
}

/// Returns a user name and password as they stand in the header of a request.
pub(crate) fn encoded(client: &Client, server: &str, username: &str, password: &str) -> Option<String> {
    let request = client.get(server).basic_auth(username, Some(password)).build().ok()?;
    let header = request.headers().get("authorization")?.to_str().ok()?;
    header.strip_prefix("Basic ").map(str::to_owned)
}
