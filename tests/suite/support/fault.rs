//! Faults of the simulated Rally: which requests meet one, and what it is.

use rally_simulator::{Action, Fault, Match};

use super::Server;

impl Server {
    /// Plants a fault for the next request.
    pub fn fail_next(&self, action: Action) {
        self.rally.fault(Fault { on: Match::default(), times: 1, action });
    }

    /// Plants a fault for every request.
    pub fn fail_all(&self, action: Action) {
        self.rally.fault(Fault { on: Match::default(), times: usize::MAX, action });
    }

    /// Plants a fault for the next request to this path or below it.
    pub fn fail_next_at(&self, method: &'static str, path: &'static str, action: Action) {
        self.rally.fault(Fault { on: at(method, path), times: 1, action });
    }

    /// Plants a fault for every request to this path or below it.
    pub fn fail_all_at(&self, method: &'static str, path: &'static str, action: Action) {
        self.rally.fault(Fault { on: at(method, path), times: usize::MAX, action });
    }

    /// Plants a fault for every request to this path whose query or body holds the text.
    pub fn fail_all_with(&self, path: &'static str, text: &str, action: Action) {
        let on = Match { path: Some(path), body: Some(text.to_owned()), ..Match::default() };
        self.rally.fault(Fault { on, times: usize::MAX, action });
    }

    /// Returns whether Rally was sent a request to this path or below it.
    pub fn was_asked(&self, method: &str, path: &str) -> bool {
        self.rally.requests().iter().any(|request| request.method == method && request.path.starts_with(path))
    }
}

fn at(method: &'static str, path: &'static str) -> Match {
    Match { method: Some(method), path: Some(path), ..Match::default() }
}

/// Answers with this HTTP status and a page, as a proxy does.
pub fn status(code: u16) -> Action {
    Action::Status { code, headers: Vec::new(), body: "<html><body>no</body></html>".into() }
}

/// Answers with this HTTP status and a `Retry-After` header.
pub fn retry_after(code: u16, seconds: u32) -> Action {
    let headers = vec![("Retry-After".to_owned(), seconds.to_string())];
    Action::Status { code, headers, body: String::new() }
}

/// Answers with this HTTP status and a redirect.
pub fn redirect(code: u16, location: &str) -> Action {
    Action::Status { code, headers: vec![("Location".to_owned(), location.to_owned())], body: String::new() }
}

/// Answers with HTTP 200 and one error of Rally.
pub fn errors(text: &str) -> Action {
    Action::Errors(vec![text.to_owned()])
}
