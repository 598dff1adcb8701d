//! The operations that we need: query, create, update, and a batch of writes.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::{Value, json};

use super::error::is_invalid_key;
use super::repair::repair;
use super::session::{Session, errors};
use super::{Error, Query};
use crate::config::{Access, Credentials, Rally};

/// Rows asked for at once; a page of 200 works everywhere (docs/wsapi.md, 4.1).
const PAGE_SIZE: usize = 200;
/// Addresses longer than this may be refused (docs/wsapi.md, 4.3); the query goes into the body then.
const MAX_URL: usize = 2000;
/// How long to wait before a write that was refused with "Invalid key" under an API key is sent once more: the text
/// is also seen during conflicts (docs/wsapi.md, 3.2).
const INVALID_KEY_PAUSE: Duration = Duration::from_millis(500);

/// A client for one workspace's server. It may be used by several threads at once.
pub(crate) struct Client {
    rally: Rally,
    access: Arc<Access>,
    session: Mutex<Option<Arc<Session>>>,
    /// Goes with every request once it is known; without it Rally takes the user's default workspace.
    workspace: Option<String>,
}

/// One write: a path such as `/changeset/create` and its body, `{"Changeset": {…}}`.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Write {
    pub path: String,
    pub body: Value,
}

/// What a write left in Rally.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Created {
    pub rally_ref: String,
    pub warnings: Vec<String>,
}

impl Client {
    /// Makes a client; no connection is made before the first request.
    pub(crate) fn new(rally: &Rally, access: Access) -> Self {
        Client { rally: rally.clone(), access: Arc::new(access), session: Mutex::new(None), workspace: None }
    }

    /// Sets the workspace that all further requests are about.
    pub(crate) fn set_workspace(&mut self, rally_ref: &str) {
        self.workspace = Some(rally_ref.to_owned());
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
        let mut rows: Vec<Value> = Vec::new();
        loop {
            let start = (rows.len() + 1).to_string();
            // Without the last, only the user's default project is searched (docs/wsapi.md, 4.1).
            let mut parameters =
                vec![("fetch", fetch), ("start", start.as_str()), ("pagesize", &page_size), ("project", "null")];
            parameters.extend(own);
            let parameters = self.parameters(&parameters);
            let session = self.session()?;
            // Percent-encoding makes three characters of one at the worst.
            let length: usize = parameters.iter().map(|(key, value)| key.len() + 3 * value.len() + 2).sum();
            let mut page = match length {
                0..MAX_URL => session.get(path, &parameters)?,
                _ => session.get_by_post(path, &parameters)?,
            };
            let Value::Array(results) = page["Results"].take() else {
                return Err(Error::NotWsapi {
                    url: path.to_owned(),
                    excerpt: "a query's answer without Results".into(),
                });
            };
            let last = results.is_empty();
            rows.extend(results);
            if last || rows.len() as u64 >= page["TotalResultCount"].as_u64().unwrap_or(0) {
                return Ok(rows);
            }
        }
    }

    /// Sends one write; if a value of it is refused that can be repaired, once more.
    pub(crate) fn write(&self, write: &Write) -> Result<Created, Error> {
        let result = self.post(&write.path, &write.body, 1).and_then(|answer| created(&answer));
        self.repaired(write, result)
    }

    fn repaired(&self, write: &Write, result: Result<Created, Error>) -> Result<Created, Error> {
        let repaired = match &result {
            Err(Error::Rejected(texts)) => repair(write, texts),
            _ => None,
        };
        match repaired {
            Some(write) => created(&self.post(&write.path, &write.body, 1)?),
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
        let answer = self.post("/batch", &json!({"Batch": entries}), writes.len())?;
        match answer["Results"].as_array() {
            Some(results) if results.len() == writes.len() => {
                Ok(writes.iter().zip(results).map(|(write, result)| self.repaired(write, created(result))).collect())
            }
            _ => Err(Error::OddBatch(Error::excerpt(&answer.to_string()))),
        }
    }

    /// Posts; if the token (or the key) is refused, once more with a new one.
    fn post(&self, path: &str, body: &Value, entries: usize) -> Result<Value, Error> {
        let session = self.session()?;
        match session.post(path, &self.parameters(&[]), body, entries) {
            Err(Error::Rejected(texts)) if is_invalid_key(&texts) => {}
            other => return other,
        }
        if matches!(self.access.credentials, Credentials::ApiKey(_)) {
            std::thread::sleep(INVALID_KEY_PAUSE);
        }
        self.renew(&session);
        self.session()?.post(path, &self.parameters(&[]), body, entries).map_err(|error| match error {
            Error::Rejected(texts) if is_invalid_key(&texts) => Error::KeyRefused(texts),
            error => error,
        })
    }

    fn parameters<'p>(&'p self, own: &[(&'p str, &'p str)]) -> Vec<(&'p str, &'p str)> {
        let workspace = self.workspace.as_deref().map(|workspace| ("workspace", workspace));
        own.iter().copied().chain(workspace).collect()
    }

    /// Returns the session, started if it is the first time.
    fn session(&self) -> Result<Arc<Session>, Error> {
        let mut session = self.session.lock().expect("no holder panics");
        if session.is_none() {
            *session = Some(Arc::new(Session::start(&self.rally, &self.access)?));
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

fn created(answer: &Value) -> Result<Created, Error> {
    let texts = errors(answer);
    if !texts.is_empty() {
        return Err(Error::Rejected(texts));
    }
    let warnings = answer["Warnings"].as_array().into_iter().flatten();
    let warnings = warnings.filter_map(|text| text.as_str().map(str::to_owned)).collect();
    match answer["Object"]["_ref"].as_str() {
        Some(rally_ref) => Ok(Created { rally_ref: relative(rally_ref), warnings }),
        None => Err(Error::NotWsapi { url: "a write".into(), excerpt: Error::excerpt(&answer.to_string()) }),
    }
}

/// Shortens `https://host/slm/webservice/v2.0/defect/17` to `/defect/17`, which Rally takes as well: what we keep
/// must not depend on the server's address.
pub(crate) fn relative(rally_ref: &str) -> String {
    let after_version = rally_ref.split_once("/webservice/").and_then(|(_, rest)| rest.split_once('/'));
    let path = after_version.map_or(rally_ref, |(_, path)| path);
    format!("/{}", path.trim_start_matches('/').trim_end_matches(".js"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refs_are_kept_without_the_server() {
        assert_eq!(relative("https://h/slm/webservice/v2.0/portfolioitem/feature/17"), "/portfolioitem/feature/17");
        assert_eq!(relative("/defect/17"), "/defect/17");
    }

    #[test]
    fn a_result_is_an_object_or_the_reasons() {
        let ok = json!({"Errors": [], "Warnings": ["w"], "Object": {"_ref": "https://h/slm/webservice/v2.0/change/1"}});
        assert_eq!(created(&ok).expect("made"), Created { rally_ref: "/change/1".into(), warnings: vec!["w".into()] });
        assert!(
            matches!(created(&json!({"Errors": ["no"], "Object": {}})), Err(Error::Rejected(texts)) if texts == ["no"])
        );
        assert!(matches!(created(&json!({"Errors": [], "Object": {}})), Err(Error::NotWsapi { .. })));
    }
}
