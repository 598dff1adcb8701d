//! The operations that we need: query, create, update, and a batch of writes.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::{Value, json};

use super::error::is_invalid_key;
use super::repair::repair;
use super::session::{API, Session};
use super::write::{Created, Write, created};
use super::{Error, Query, Verdict};
use crate::clock::Deadline;
use crate::config::{Access, Credentials, Rally};
use crate::http::excerpt;
use crate::permits::{FleetPermits, Permits};

/// Rows asked for at once; a page of 200 works everywhere (docs/wsapi.md, 4.1).
const PAGE_SIZE: usize = 200;
/// Longer answers to one query are refused: nothing that is asked for has so many, and each takes some memory.
const MAX_ROWS: usize = 50_000;
/// How much memory the rows of one answer may take, about, in bytes.
const MAX_WEIGHT: usize = 64 * 1024 * 1024;
/// The pages of one answer may take this many time limits together.
const TIME_FOR_PAGES: u32 = 20;
/// Addresses longer than this may be refused (docs/wsapi.md, 4.3); the query goes into the body then.
const MAX_URL: usize = 2000;

/// What Rally says about an object to delete that is not there (docs/wsapi.md, 8.2).
const NOTHING_TO_DELETE: &str = "to delete cannot be null";

/// No ref is longer, without the server, in bytes.
pub(super) const MAX_REF: usize = 200;

/// A client for one workspace's server. It may be used by several threads at once.
pub(crate) struct Client {
    rally: Rally,
    access: Arc<Access>,
    permits: Arc<Permits>,
    session: Mutex<Option<Arc<Session>>>,
    /// Goes with every request once it is known; without it Rally takes the user's default workspace.
    workspace: Option<String>,
    /// Whether the server has refused a query in the form of a POST.
    takes_no_form: AtomicBool,
    /// Whether a type takes `project=null`, as far as it is known.
    takes_null_project: Mutex<HashMap<String, bool>>,
}

impl Client {
    /// Makes a client; no connection is made before the first request.
    ///
    /// It shares permits and locks with a fleet, or with the other processes of this host.
    pub(crate) fn new(rally: &Rally, access: Access, fleet: Option<&Arc<dyn FleetPermits>>) -> Self {
        let permits = match fleet {
            Some(fleet) => Permits::of_fleet(Arc::clone(fleet)),
            None => Permits::open(&rally.account(&access.credentials), rally.max_concurrent_requests),
        };
        Client {
            rally: rally.clone(),
            access: Arc::new(access),
            permits: Arc::new(permits),
            session: Mutex::new(None),
            workspace: None,
            takes_no_form: AtomicBool::new(false),
            takes_null_project: Mutex::default(),
        }
    }

    /// Sets the workspace that all further requests are about.
    pub(crate) fn set_workspace(&mut self, rally_ref: &str) {
        self.workspace = Some(rally_ref.to_owned());
    }

    /// Returns what is shared with other processes that use the account.
    pub(crate) fn permits(&self) -> &Permits {
        &self.permits
    }

    /// Returns by how many seconds the server's clock is ahead of this machine's, if an answer has said so.
    pub(crate) fn server_ahead(&self) -> Option<i64> {
        self.session.lock().expect("no holder panics").as_ref()?.ahead()
    }

    /// Returns the time limit for a request of one object.
    pub(crate) fn timeout(&self) -> Duration {
        self.rally.timeout
    }

    /// Reads one object, or a list that is not a query: `/user`, `/subscription`.
    pub(crate) fn read(&self, path: &str, fetch: &str) -> Result<Value, Error> {
        self.session()?.get(path, &self.parameters(&[("fetch", fetch)]))
    }

    /// Returns all rows that the query finds, ordered by ObjectID, so that pages do not overlap.
    pub(crate) fn query(&self, path: &str, query: Option<&Query>, fetch: &str) -> Result<Vec<Value>, Error> {
        let order = ("order", "ObjectID");
        self.pages(
            path,
            fetch,
            &query.map(|query| ("query", query.as_str())).into_iter().chain([order]).collect::<Vec<_>>(),
        )
    }

    /// Returns all rows of a collection, in its own order.
    pub(crate) fn list(&self, path: &str, fetch: &str) -> Result<Vec<Value>, Error> {
        self.pages(path, fetch, &[])
    }

    fn pages(&self, path: &str, fetch: &str, own: &[(&str, &str)]) -> Result<Vec<Value>, Error> {
        let page_size = PAGE_SIZE.to_string();
        let (mut rows, mut size) = (Vec::<Value>::new(), 0);
        let time = self.rally.timeout * TIME_FOR_PAGES;
        let deadline = Deadline::after(time);
        loop {
            let start = (rows.len() + 1).to_string();
            let mut parameters = vec![("fetch", fetch), ("start", start.as_str()), ("pagesize", &page_size)];
            parameters.extend(own);
            let mut page = self.page(path, self.parameters(&parameters))?;
            let results = self::rows(&mut page, path)?;
            let last = results.is_empty();
            size += results.iter().map(weight).sum::<usize>();
            rows.extend(results);
            if rows.len() > MAX_ROWS || size > MAX_WEIGHT {
                return Err(not_a_page(
                    path,
                    format!("a query's answer of more than {MAX_ROWS} rows or {MAX_WEIGHT} bytes"),
                ));
            }
            if deadline.has_passed() {
                return Err(Error::Timeout { request: format!("GET {path}"), after: time });
            }
            if last || rows.len() as u64 >= page["TotalResultCount"].as_u64().unwrap_or(0) {
                return Ok(rows);
            }
        }
    }

    /// Reads a page of the whole workspace. A type without a project may not take the parameter that says so; it is
    /// asked without it then.
    fn page(&self, path: &str, parameters: Vec<(&str, &str)>) -> Result<Value, Error> {
        // Without it, only the user's default project is searched (docs/wsapi.md, 4.1).
        let with_null = [parameters.as_slice(), &[("project", "null")]].concat();
        let kind = kind(path);
        let known = || self.takes_null_project.lock().expect("no holder panics");
        let takes_null = known().get(&kind).copied();
        if takes_null == Some(false) {
            return self.ask(path, &parameters);
        }
        let answer = self.ask(path, &with_null);
        let may_be_null = takes_null.is_none() && has_no_project(&kind);
        match &answer {
            Ok(_) => drop(known().insert(kind, true)),
            // Nobody knows the words of such a refusal.
            Err(error) if may_be_null && matches!(error.verdict(), Verdict::Reject | Verdict::Missing) => {
                if let Ok(page) = self.ask(path, &parameters) {
                    known().insert(kind, false);
                    return Ok(page);
                }
            }
            Err(_) => {}
        }
        answer
    }

    /// Sends a query: in the address, or as a form if it is too long for one.
    ///
    /// # Errors
    /// [`Error::LongQuery`] if it is too long and the server takes no form; then nothing was sent.
    fn ask(&self, path: &str, parameters: &[(&str, &str)]) -> Result<Value, Error> {
        let session = self.session()?;
        let own_length: usize = parameters.iter().map(|(key, value)| key.len() + encoded_length(value) + 2).sum();
        if self.rally.server.len() + API.len() + path.len() + own_length < MAX_URL {
            return session.get(path, parameters);
        }
        if !self.takes_no_form.load(Ordering::Relaxed) {
            match session.get_by_post(path, parameters) {
                Err(Error::Status { code: 404 | 405 | 501, .. }) => self.takes_no_form.store(true, Ordering::Relaxed),
                other => return other,
            }
        }
        Err(Error::LongQuery { request: format!("GET {path}") })
    }

    /// Sends one write; if a value of it is refused that can be repaired, once more.
    pub(crate) fn write(&self, write: &Write) -> Result<Created, Error> {
        let _artifacts = self.permits.lock_artifacts(write.changed());
        let result = self.post(&write.path, &write.body, 1).and_then(|answer| self.created(write, &answer));
        self.repaired(write, result)
    }

    fn created(&self, write: &Write, answer: &Value) -> Result<Created, Error> {
        created(&self.rally.server, write, answer)
    }

    fn repaired(&self, write: &Write, result: Result<Created, Error>) -> Result<Created, Error> {
        let repaired = match &result {
            Err(Error::Rejected { texts, .. }) => repair(write, texts),
            _ => None,
        };
        match repaired {
            Some(write) => self.created(&write, &self.post(&write.path, &write.body, 1)?),
            None => result,
        }
    }

    /// Sends several writes in one request and returns each one's result, in order.
    ///
    /// # Errors
    /// If the request as a whole failed: what became of the writes is then unknown unless the error tells.
    pub(crate) fn batch(&self, writes: &[&Write]) -> Result<Vec<Result<Created, Error>>, Error> {
        let entries: Vec<Value> = writes
            .iter()
            .map(|write| json!({"Entry": {"Path": write.path, "Method": "POST", "Body": write.body}}))
            .collect();
        let _artifacts = self.permits.lock_artifacts(writes.iter().flat_map(|write| write.changed()));
        let answer = self.post("/batch", &json!({"Batch": entries}), writes.len())?;
        match answer["Results"].as_array() {
            Some(results) if results.len() == writes.len() => {
                let answered = writes.iter().zip(results);
                Ok(answered.map(|(write, result)| self.repaired(write, self.created(write, result))).collect())
            }
            _ => Err(Error::OddBatch(excerpt(&answer.to_string()))),
        }
    }

    /// Deletes an object. One that is not there counts as deleted.
    pub(crate) fn delete(&self, rally_ref: &str) -> Result<(), Error> {
        match self.with_token(|session| session.delete(rally_ref, &self.parameters(&[]))) {
            Err(Error::Rejected { texts, .. }) if texts.iter().any(|text| text.contains(NOTHING_TO_DELETE)) => Ok(()),
            other => other.map(drop),
        }
    }

    fn post(&self, path: &str, body: &Value, entries: usize) -> Result<Value, Error> {
        self.with_token(|session| session.post(path, &self.parameters(&[]), body, entries))
    }

    /// Sends; if the security token is refused, once more with a new one. Under an API key the same text is also seen
    /// after a write that took effect (docs/wsapi.md, 3.2), so it is not sent again here.
    fn with_token(&self, send: impl Fn(&Session) -> Result<Value, Error>) -> Result<Value, Error> {
        let session = self.session()?;
        let send = |session: &Session| match send(session) {
            Err(Error::Rejected { request, texts }) if is_invalid_key(&texts) => {
                Err(Error::KeyRefused { request, texts })
            }
            other => other,
        };
        match send(&session) {
            Err(Error::KeyRefused { .. }) if matches!(self.access.credentials, Credentials::Basic { .. }) => {
                self.renew(&session);
                send(&*self.session()?)
            }
            other => other,
        }
    }

    fn parameters<'p>(&'p self, own: &[(&'p str, &'p str)]) -> Vec<(&'p str, &'p str)> {
        let workspace = self.workspace.as_deref().map(|workspace| ("workspace", workspace));
        own.iter().copied().chain(workspace).collect()
    }

    /// Returns the session, started if it is the first time.
    fn session(&self) -> Result<Arc<Session>, Error> {
        let mut session = self.session.lock().expect("no holder panics");
        if session.is_none() {
            *session = Some(Arc::new(Session::start(&self.rally, &self.access, &self.permits)?));
        }
        Ok(Arc::clone(session.as_ref().expect("it was set just now")))
    }

    /// Drops a session, unless another thread has replaced it already.
    fn renew(&self, stale: &Arc<Session>) {
        let mut session = self.session.lock().expect("no holder panics");
        if session.as_ref().is_some_and(|current| Arc::ptr_eq(current, stale)) {
            *session = None;
        }
    }
}

/// Takes the rows out of a page of the answer to a query of this path.
pub(super) fn rows(page: &mut Value, path: &str) -> Result<Vec<Value>, Error> {
    match page.get_mut("Results").map(Value::take) {
        Some(Value::Array(rows)) => Ok(rows),
        _ => Err(not_a_page(path, "a query's answer without Results".into())),
    }
}

/// Returns about how much memory a value takes, in bytes.
fn weight(value: &Value) -> usize {
    const NODE: usize = 64;
    NODE + match value {
        Value::String(text) => text.len(),
        Value::Array(values) => values.iter().map(weight).sum(),
        Value::Object(fields) => fields.iter().map(|(name, value)| name.len() + NODE + weight(value)).sum(),
        _ => 0,
    }
}

fn not_a_page(path: &str, excerpt: String) -> Error {
    Error::NotWsapi { request: format!("GET {path}"), excerpt }
}

/// Returns the type, or the collection of a type, that a path names: `/defect/7/Changesets` is `defect/Changesets`.
fn kind(path: &str) -> String {
    let is_id = |part: &&str| part.bytes().all(|byte| byte.is_ascii_digit());
    path.split('/').filter(|part| !is_id(part)).collect::<Vec<_>>().join("/")
}

/// Tells whether objects of a type belong to no project. Others would be missed outside of the default project.
fn has_no_project(kind: &str) -> bool {
    const WITHOUT: [&str; 9] = [
        "workspace",
        "typedefinition",
        "attributedefinition",
        "state",
        "project",
        "user",
        "scmrepository",
        "changeset",
        "change",
    ];
    WITHOUT.contains(&kind.split('/').next().unwrap_or_default())
}

/// Returns how long a value is in an address.
fn encoded_length(value: &str) -> usize {
    value.bytes().map(|byte| if byte.is_ascii_alphanumeric() || b" -_.*".contains(&byte) { 1 } else { 3 }).sum()
}

/// Shortens `https://host/slm/webservice/v2.0/defect/17` to `/defect/17`, which Rally takes as well: what we keep
/// must not depend on the server's address. `None` if it is no ref: it would become a part of addresses.
pub(crate) fn relative(rally_ref: &str) -> Option<String> {
    let after_version = rally_ref.rsplit_once("/webservice/").and_then(|(_, rest)| rest.split_once('/'));
    let path = after_version.map_or(rally_ref, |(_, path)| path);
    let path = path.trim_start_matches('/').trim_end_matches(".js");
    let is_ref = path.len() <= MAX_REF
        && path.contains('/')
        && path.split('/').all(|part| {
            !part.is_empty()
                && part != "webservice"
                && part.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_".contains(&b))
        });
    is_ref.then(|| format!("/{path}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refs_are_kept_without_the_server() {
        let feature = relative("https://h/slm/webservice/v2.0/portfolioitem/feature/17");
        assert_eq!(feature.as_deref(), Some("/portfolioitem/feature/17"));
        assert_eq!(relative("/defect/17").as_deref(), Some("/defect/17"));
        let again = relative("https://h/webservice/1/slm/webservice/v2.0/defect/17");
        assert_eq!(again.as_deref(), Some("/defect/17"));
    }

    #[test]
    fn only_types_with_a_project_are_always_asked_with_one() {
        assert_eq!(kind("/typedefinition/17/Attributes"), "typedefinition/Attributes");
        let cases = [
            ("/user", true),
            ("/typedefinition/17/Attributes", true),
            ("/defect", false),
            ("/portfolioitem/feature", false),
        ];
        for (path, without) in cases {
            assert_eq!(has_no_project(&kind(path)), without, "{path}");
        }
    }

    #[test]
    fn what_could_not_be_part_of_an_address_is_no_ref() {
        let long = format!("/defect/{}", "1".repeat(MAX_REF));
        for text in [
            "",
            "/",
            "17",
            "/defect/../user/1",
            "/defect/1?x=y",
            "/defect/1#",
            "/a b/1",
            "//h/1\n",
            "/defect//1",
            &long,
        ] {
            assert_eq!(relative(text), None, "{text}");
        }
    }
}
