//! The few questions that a TFVC server is asked (docs/tfvc.md names the sources).

#![expect(clippy::disallowed_types, reason = "this module is a user of the HTTP library")]

use std::time::Duration;

use reqwest::blocking::Client;
use serde::de::DeserializeOwned;

use super::error::Error;
use super::wire::{Changed, Listed, Page, RawChange, RawChangeset, listed};
use crate::clock::Deadline;
use crate::config::TfvcAccess;
use crate::http::{self, Keys, Unread, Way};
use crate::links::escaped;

/// How many entries are asked for at once. Servers are known that send more; a shorter page is the last one.
pub(super) const PAGE: usize = 100;
/// The same for the paths of one changeset, of which a branch has tens of thousands.
const PAGE_OF_CHANGES: usize = 1000;
/// How much of a comment a list holds; longer ones are fetched singly, at this length.
const LISTED_COMMENT: &str = "2000";
const WHOLE_COMMENT: &str = "1000000";
/// Longer answers are refused, in bytes after decompression. A page of changes has some hundred thousand.
const MAX_ANSWER: usize = 8 * 1024 * 1024;
/// Every server since TFS 2013 knows it.
const VERSION: (&str, &str) = ("api-version", "1.0");

const KEYS: Keys = Keys {
    server: "tfvc.collection",
    proxy: "HTTPS_PROXY",
    proxies: "HTTPS_PROXY in the environment",
    ca_file: "tfvc.ca_file",
};

pub(super) struct Server {
    http: Client,
    access: TfvcAccess,
    timeout: Duration,
}

impl Server {
    pub(super) fn new(access: TfvcAccess, timeout: Duration) -> Result<Self, Error> {
        let certificates = access.certificates.as_deref();
        let way = Way { server: &access.collection, proxy: None, certificates, timeout, keys: &KEYS };
        let built = way.client().and_then(|builder| builder.build().map_err(|error| http::root_cause(&error)));
        Ok(Server { http: built.map_err(Error::Setup)?, access, timeout })
    }

    /// Lists changesets below a path, the newest first, up to the number `last`. Servers are known that ignore path or
    /// number.
    pub(super) fn list(&self, path: &str, top: usize, skip: usize, last: Option<u32>) -> Result<Vec<Listed>, Error> {
        let address = format!("{}/_apis/tfvc/changesets", escaped(self.access.project.as_bytes()));
        // The root of all projects is written with its slash.
        let path = if path == "$" { "$/" } else { path };
        let mut parameters = vec![
            ("searchCriteria.itemPath", path.to_owned()),
            ("$orderby", "id desc".to_owned()),
            ("$top", top.to_string()),
            ("$skip", skip.to_string()),
            ("maxCommentLength", LISTED_COMMENT.to_owned()),
        ];
        parameters.extend(last.map(|last| ("searchCriteria.toId", last.to_string())));
        self.listed(&address, &parameters)
    }

    /// Returns the newest changeset below a path. Two are asked for: their order shows that the newest is the first.
    pub(super) fn newest(&self, path: &str) -> Result<Option<Listed>, Error> {
        Ok(self.list(path, 2, 0, None)?.into_iter().next())
    }

    /// Returns the number of the newest changeset of the collection: all its projects share the numbers.
    pub(super) fn newest_of_all(&self) -> Result<Option<u32>, Error> {
        let newest = self.listed("_apis/tfvc/changesets", &[("$top", "1".to_owned())])?;
        Ok(newest.first().map(|listed| listed.number))
    }

    fn listed(&self, address: &str, parameters: &[(&str, String)]) -> Result<Vec<Listed>, Error> {
        let (page, _) = self.get::<Page<RawChangeset>>(address, parameters)?;
        let page = page.value.into_iter().map(|raw| self.understood(address, raw)).collect::<Result<Vec<_>, _>>()?;
        let is_ordered = page.windows(2).all(|pair| pair[0].number > pair[1].number);
        if is_ordered { Ok(page) } else { Err(Error::Order) }
    }

    /// Returns one changeset, with its comment as long as it is.
    pub(super) fn changeset(&self, number: u32) -> Result<Listed, Error> {
        let address = format!("_apis/tfvc/changesets/{number}");
        let (raw, _) = self.get(&address, &[("maxCommentLength", WHOLE_COMMENT.to_owned())])?;
        let listed = self.understood(&address, raw)?;
        match listed.number == number {
            true => Ok(listed),
            false => Err(self.not_json(&address, &format!("changeset {}", listed.number))),
        }
    }

    /// Returns some of the changes of a changeset, and what to ask for the next ones with where the server says so.
    pub(super) fn changes(
        &self,
        number: u32,
        skip: usize,
        token: Option<&str>,
    ) -> Result<(Vec<Changed>, Option<String>), Error> {
        let place = match token {
            Some(token) => ("continuationToken", token.to_owned()),
            None => ("$skip", skip.to_string()),
        };
        let address = format!("_apis/tfvc/changesets/{number}/changes");
        let (page, next) = self.get::<Page<RawChange>>(&address, &[("$top", PAGE_OF_CHANGES.to_string()), place])?;
        Ok((page.value.into_iter().map(Changed::from).collect(), next))
    }

    fn understood(&self, address: &str, raw: RawChangeset) -> Result<Listed, Error> {
        listed(raw).map_err(|problem| self.not_json(address, &problem))
    }

    /// Asks, and returns the answer with the server's continuation token.
    fn get<T: DeserializeOwned>(
        &self,
        address: &str,
        parameters: &[(&str, String)],
    ) -> Result<(T, Option<String>), Error> {
        let request = self.name(address);
        let sent = self.http.get(format!("{}/{address}", self.access.collection));
        let sent = sent.query(&[VERSION]).query(parameters).header("accept", "application/json");
        let sent = sent.basic_auth("", Some(self.access.token.expose())).timeout(self.timeout);
        let deadline = Deadline::after(self.timeout);
        let answer = sent.send().map_err(|error| self.not_sent(&request, &error))?;
        let status = answer.status();
        let header = |name| Some(answer.headers().get(name)?.to_str().ok()?.to_owned());
        let (location, token) = (header("location"), header("x-ms-continuationtoken"));
        let body = http::read(answer, MAX_ANSWER, deadline).map_err(|unread| self.unread(&request, unread))?;
        // Some answers begin with a byte order mark.
        let body = body.trim_start_matches('\u{feff}').trim_start();
        if let Some(location) = location.filter(|_| status.is_redirection()) {
            let target = http::target(&self.access.collection, &location);
            return Err(Error::SignIn { request, how: format!("HTTP {}: it redirects to {target}", status.as_u16()) });
        }
        let is_page = body.starts_with('<');
        match status.as_u16() {
            401 | 403 | 203 => Err(Error::SignIn { request, how: self.how(status.as_u16(), body) }),
            200 if is_page => Err(Error::SignIn { request, how: self.how(200, body) }),
            200 => match serde_json::from_str(body) {
                Ok(answer) => Ok((answer, token.filter(|token| !token.is_empty()))),
                Err(_) => Err(self.not_json(address, &self.said(body))),
            },
            code => Err(Error::Status { request, code, excerpt: self.said(body) }),
        }
    }

    fn name(&self, address: &str) -> String {
        format!("GET {address} at {}", self.access.collection)
    }

    fn not_json(&self, address: &str, excerpt: &str) -> Error {
        Error::NotJson { request: self.name(address), excerpt: http::excerpt(excerpt) }
    }

    fn how(&self, code: u16, body: &str) -> String {
        match self.said(body).as_str() {
            "" => format!("HTTP {code}"),
            said => format!("HTTP {code}: {said}"),
        }
    }

    /// Returns what an answer says, which may repeat the token.
    fn said(&self, body: &str) -> String {
        let message = serde_json::from_str::<serde_json::Value>(body).ok();
        let message = message.as_ref().and_then(|answer| answer["message"].as_str()).unwrap_or(body);
        let token = self.access.token.expose();
        let encoded = http::encoded(&self.http, &self.access.collection, "", token).unwrap_or_default();
        http::said_without(message, &[token, &encoded])
    }

    fn not_sent(&self, request: &str, error: &reqwest::Error) -> Error {
        let request = request.to_owned();
        if error.is_connect() {
            Error::Connect { server: self.access.collection.clone(), reason: http::reason(error, &KEYS) }
        } else if error.is_timeout() {
            Error::Timeout { request, after: self.timeout }
        } else {
            Error::Broken { request, reason: http::root_cause(error) }
        }
    }

    fn unread(&self, request: &str, unread: Unread) -> Error {
        let request = request.to_owned();
        match unread {
            Unread::TooLong => {
                Error::NotJson { request, excerpt: format!("an answer of more than {MAX_ANSWER} bytes") }
            }
            Unread::TimedOut => Error::Timeout { request, after: self.timeout },
            Unread::Broken(reason) => Error::Broken { request, reason },
        }
    }
}
