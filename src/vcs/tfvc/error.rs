//! What can go wrong between this program and a TFVC server.

use std::time::Duration;

#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error("cannot prepare the connection to the TFVC server: {0}")]
    Setup(String),
    #[error("cannot reach {server}: {reason}")]
    Connect { server: String, reason: String },
    #[error("{request} was not answered within {}; rally.timeout sets this time", humantime::format_duration(*.after))]
    Timeout { request: String, after: Duration },
    #[error("the connection broke during {request}: {reason}")]
    Broken { request: String, reason: String },
    /// A status that says so, or a page to sign in, which may come with any status.
    #[error(
        "the server does not accept the token for {request} ({how}): it may have expired, or lack the scope Code (Read); \
         or the server wants NTLM or Kerberos, which rally-hook does not speak, or IIS has basic authentication enabled, \
         which keeps tokens out; replace tfvc.token_file, or enable tokens on the server"
    )]
    SignIn { request: String, how: String },
    #[error("{request} was answered with HTTP {code}{}", hint(*code, excerpt))]
    Status { request: String, code: u16, excerpt: String },
    #[error("{request} was answered with something that is not a TFVC server's JSON: {excerpt}")]
    NotJson { request: String, excerpt: String },
    #[error("the server does not list the newest changesets first, so it is not known which are new")]
    Order,
    #[error("the server repeats the same changesets on each page, so it is not known which are new")]
    Repeats,
    #[error("the server's list lacks changeset {newest}, which it names as the newest; the next poll tries again")]
    Missing { newest: u32 },
    #[error(
        "the server lists more than {most} changesets after {seen}, which is not plausible; `rally-hook install` in a new \
         directory marks them as seen"
    )]
    TooMany { seen: u32, most: usize },
    #[error(
        "the server lists no changeset below {path}, where {seen} was seen before; check tfvc.path, and whether the token \
         may still read it"
    )]
    Nothing { path: String, seen: u32 },
    #[error("the server lists no changes of changeset {number}; the token may not read the paths that it changes")]
    NoChanges { number: u32 },
    #[error(
        "the newest changeset of the collection is {newest}, but {seen} was seen before: the collection was restored from \
         a backup, or is another one. Where it is another one, use a new directory for it"
    )]
    Older { newest: u32, seen: u32 },
}

impl Error {
    /// Tells whether the server as a whole cannot be asked at present.
    pub(super) fn is_of_connection(&self) -> bool {
        matches!(self, Error::Setup(_) | Error::Connect { .. } | Error::Timeout { .. } | Error::Broken { .. })
    }
}

/// Says what to do about a status.
fn hint(code: u16, excerpt: &str) -> String {
    let advice = match code {
        404 => "; check tfvc.collection and tfvc.project",
        429 | 503 => "; the next poll tries again",
        _ => "",
    };
    match excerpt {
        "" => advice.to_owned(),
        excerpt => format!(": {excerpt}{advice}"),
    }
}
