//! One HTTP client with its cookies and, for basic authentication, its security token.

use std::sync::{Arc, Mutex};
use std::time::{Duration, UNIX_EPOCH};

use reqwest::Method;
use reqwest::blocking::{self, RequestBuilder};
use reqwest::header::{HeaderMap, HeaderName, HeaderValue};
use serde_json::Value;

use super::Error;
use crate::clock::{self, Deadline};
use crate::config::{Access, Credentials, Rally, Secret};
use crate::http::{self, Keys, Unread, Way, reason, root_cause};
use crate::permits::Permits;
use crate::text::cut;
use crate::time::Time;

/// Where WSAPI begins on a server.
pub(super) const API: &str = "/slm/webservice/v2.0";

/// Longer answers are refused, in bytes after decompression: what JSON takes in memory is a multiple of it. A page of
/// rows, or the answer to the largest batch, has some hundred thousand.
const MAX_ANSWER: usize = 8 * 1024 * 1024;
/// How many errors or warnings of one answer count, and how long each may be, in bytes.
pub(super) const MAX_TEXTS: usize = 10;
pub(super) const MAX_TEXT: usize = 500;

const KEYS: Keys = Keys {
    server: "rally.server",
    proxy: "rally.proxy",
    proxies: "rally.proxy, or HTTPS_PROXY in the environment",
    ca_file: "rally.ca_file",
};

pub(super) struct Session {
    http: blocking::Client,
    server: String,
    access: Arc<Access>,
    /// Goes with writes; bound to the cookies of this session (docs/wsapi.md, 3.2).
    token: Option<String>,
    timeout: Duration,
    permits: Arc<Permits>,
    /// By how many seconds the server's clock is ahead of this machine's, as its last answer said.
    ahead: Mutex<Option<i64>>,
}

impl Session {
    /// Prepares the connection and, for basic authentication, fetches the security token.
    pub(super) fn start(rally: &Rally, access: &Arc<Access>, permits: &Arc<Permits>) -> Result<Self, Error> {
        let http = http_client(rally, access.certificates.as_deref()).map_err(Error::Setup)?;
        let server = rally.server.trim_end_matches('/').to_owned();
        let (access, permits, timeout) = (Arc::clone(access), Arc::clone(permits), rally.timeout);
        let mut session = Session { http, server, access, token: None, timeout, permits, ahead: Mutex::default() };
        if matches!(session.access.credentials, Credentials::Basic { .. }) {
            let path = "/security/authorize";
            let answer = session.get(path, &[])?;
            let Some(token) = answer["SecurityToken"].as_str() else {
                let excerpt = "an answer without SecurityToken".into();
                return Err(Error::NotWsapi { request: session.at_server(&format!("GET {path}")), excerpt });
            };
            session.token = Some(token.to_owned());
        }
        Ok(session)
    }

    /// Returns by how many seconds the server's clock is ahead of this machine's, if an answer has said so.
    pub(super) fn ahead(&self) -> Option<i64> {
        *self.ahead.lock().expect("no holder panics")
    }

    pub(super) fn get(&self, path: &str, parameters: &[(&str, &str)]) -> Result<Value, Error> {
        self.send(self.request(Method::GET, path).query(parameters), &format!("GET {path}"), 1)
    }

    /// Sends a query as a form, for one that is too long for an address (docs/wsapi.md, 4.3).
    pub(super) fn get_by_post(&self, path: &str, parameters: &[(&str, &str)]) -> Result<Value, Error> {
        let form: Vec<(&str, &str)> = parameters.iter().copied().chain([("_method", "GET")]).collect();
        self.send(self.request(Method::POST, path).form(&form), &format!("POST {path}"), 1)
    }

    /// Writes something. `entries` is how many objects that makes, which gives it more time.
    pub(super) fn post(
        &self,
        path: &str,
        parameters: &[(&str, &str)],
        body: &Value,
        entries: usize,
    ) -> Result<Value, Error> {
        self.send(self.request(Method::POST, path).query(parameters).json(body), &format!("POST {path}"), entries)
    }

    pub(super) fn delete(&self, path: &str, parameters: &[(&str, &str)]) -> Result<Value, Error> {
        self.send(self.request(Method::DELETE, path).query(parameters), &format!("DELETE {path}"), 1)
    }

    /// Begins a request. All but reads have the token.
    fn request(&self, method: Method, path: &str) -> RequestBuilder {
        let token = self.token.as_ref().filter(|_| method != Method::GET);
        let request = self.http.request(method, format!("{}{API}{path}", self.server));
        match token {
            Some(token) => request.query(&[("key", token)]),
            None => request,
        }
    }

    /// Sends a request and returns what the one key of the answer's envelope holds. `name` is its method and path.
    fn send(&self, request: RequestBuilder, name: &str, entries: usize) -> Result<Value, Error> {
        let request = match &self.access.credentials {
            Credentials::ApiKey(key) => request.header(HeaderName::from_static("zsessionid"), sensitive(key.expose())?),
            Credentials::Basic { username, password } => request.basic_auth(username, Some(password.expose())),
        };
        // A whole batch may take longer than a single call (docs/wsapi.md, 6.1).
        let timeout = self.timeout + Duration::from_secs(entries as u64 - 1);
        let not_sent = |reason| Error::NotSent { request: name.to_owned(), reason };
        let _permit = self.permits.take(timeout).map_err(not_sent)?;
        let deadline = Deadline::after(timeout);
        let response = request.timeout(timeout).send().map_err(|error| self.transport_error(name, &error, timeout))?;
        let status = response.status();
        let header = |name| response.headers().get(name).and_then(|value: &HeaderValue| value.to_str().ok());
        if let Some(date) = header("date").and_then(|value| httpdate::parse_http_date(value).ok()) {
            let theirs = date.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs() as i64;
            *self.ahead.lock().expect("no holder panics") = Some(theirs - clock::now().millis() / 1000);
        }
        let retry_after = header("retry-after").and_then(|value| parse_retry_after(value, clock::now()));
        let target =
            header("location").filter(|_| status.is_redirection()).map(|location| http::target(&self.server, location));
        let body = http::read(response, MAX_ANSWER, deadline).map_err(|unread| self.unread(name, unread, timeout))?;
        if !status.is_success() {
            // A validation error may come with a status; what the server says is then in its usual form.
            let texts = envelope(&body).map(|answer| errors(&answer)).filter(|texts| !texts.is_empty());
            let excerpt = match (target, texts) {
                (Some(target), _) => format!("it redirects to {target}"),
                (None, Some(texts)) => http::excerpt(&texts.join("; ")),
                (None, None) => self.said(&body),
            };
            return Err(Error::Status { request: self.at_server(name), code: status.as_u16(), retry_after, excerpt });
        }
        let not_wsapi = || Error::NotWsapi { request: self.at_server(name), excerpt: self.said(&body) };
        let answer = envelope(&body).ok_or_else(not_wsapi)?;
        match errors(&answer) {
            texts if texts.is_empty() => Ok(answer),
            texts => Err(Error::Rejected { request: name.to_owned(), texts }),
        }
    }

    fn unread(&self, name: &str, unread: Unread, after: Duration) -> Error {
        let request = self.at_server(name);
        match unread {
            Unread::TooLong => {
                Error::NotWsapi { request, excerpt: format!("an answer of more than {MAX_ANSWER} bytes") }
            }
            Unread::TimedOut => Error::Timeout { request, after },
            Unread::Broken(reason) => Error::Broken { request, reason },
        }
    }

    /// Describes a failure without the address's query, which may hold the token.
    fn transport_error(&self, name: &str, error: &reqwest::Error, after: Duration) -> Error {
        let request = self.at_server(name);
        if error.is_connect() {
            Error::Connect { server: self.server.clone(), request: name.to_owned(), reason: reason(error, &KEYS) }
        } else if error.is_timeout() {
            Error::Timeout { request, after }
        } else {
            Error::Broken { request, reason: root_cause(error) }
        }
    }

    fn at_server(&self, name: &str) -> String {
        format!("{name} at {}", self.server)
    }

    /// Returns what a page says. A proxy's may repeat the address with its token, or the headers.
    fn said(&self, body: &str) -> String {
        let secret = match &self.access.credentials {
            Credentials::ApiKey(key) => key.expose(),
            Credentials::Basic { password, .. } => password.expose(),
        };
        let encoded = match &self.access.credentials {
            Credentials::ApiKey(_) => None,
            Credentials::Basic { username, password } => {
                http::encoded(&self.http, &self.server, username, password.expose())
            }
        };
        let secrets = [Some(secret), encoded.as_deref(), self.token.as_deref()];
        http::said_without(body, &secrets.into_iter().flatten().collect::<Vec<_>>())
    }
}

fn http_client(rally: &Rally, certificates: Option<&[u8]>) -> Result<blocking::Client, String> {
    let mut headers = HeaderMap::new();
    for (name, value) in [("name", "rally-hook"), ("vendor", "rally-hook"), ("version", env!("CARGO_PKG_VERSION"))] {
        let name = HeaderName::try_from(format!("x-rallyintegration{name}")).expect("a valid name");
        headers.insert(name, HeaderValue::from_static(value));
    }
    headers.insert("accept", HeaderValue::from_static("application/json"));
    let way = Way {
        server: &rally.server,
        proxy: rally.proxy.as_ref().map(Secret::expose),
        certificates,
        timeout: rally.timeout,
        keys: &KEYS,
    };
    let builder = way.client()?.default_headers(headers).cookie_store(true);
    let builder = builder.pool_max_idle_per_host(rally.max_concurrent_requests);
    builder.build().map_err(|error| root_cause(&error))
}

fn sensitive(key: &str) -> Result<HeaderValue, Error> {
    let mut value =
        HeaderValue::from_str(key).map_err(|_| Error::Setup("the API key must be printable ASCII".into()))?;
    value.set_sensitive(true);
    Ok(value)
}

/// Returns what the single key of an answer holds.
pub(super) fn envelope(body: &str) -> Option<Value> {
    match serde_json::from_str(body) {
        Ok(Value::Object(object)) => object.into_iter().next().map(|(_, value)| value),
        _ => None,
    }
}

pub(super) fn errors(answer: &Value) -> Vec<String> {
    texts(answer, "Errors")
}

/// Returns the texts of a list in an answer, as many and as much of each as anybody would read.
pub(super) fn texts(answer: &Value, list: &str) -> Vec<String> {
    let texts = answer[list].as_array().into_iter().flatten().take(MAX_TEXTS);
    let text = |text: &Value| cut(&text.as_str().map_or_else(|| text.to_string(), str::to_owned), MAX_TEXT).to_owned();
    texts.map(text).collect()
}

/// Reads a Retry-After header: seconds or an HTTP date (RFC 9110, 10.2.3).
pub(super) fn parse_retry_after(value: &str, now: Time) -> Option<Duration> {
    if let Ok(seconds) = value.trim().parse() {
        return Some(Duration::from_secs(seconds));
    }
    let at = httpdate::parse_http_date(value).ok()?.duration_since(UNIX_EPOCH).ok()?;
    Some((Time::from_millis(0) + at).since(now))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn retry_after_is_seconds_or_a_date() {
        let asked = |value| parse_retry_after(value, Time::from_millis(946_684_790_000));
        assert_eq!(asked("120"), Some(Duration::from_secs(120)));
        assert_eq!(asked("Fri, 31 Dec 1999 23:59:49 GMT"), Some(Duration::ZERO));
        assert_eq!(asked("Sat, 01 Jan 2000 00:00:00 GMT"), Some(Duration::from_secs(10)));
        assert_eq!(asked("soon"), None);
    }

    #[test]
    fn an_envelope_has_one_key() {
        assert!(envelope(r#"{"CreateResult":{"Errors":["x"]}}"#).is_some_and(|answer| errors(&answer) == ["x"]));
        assert_eq!(envelope("<html>"), None);
    }
}
