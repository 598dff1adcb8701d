//! Faults that a test plants: which request they meet and what happens to it.

use crate::http::Request;
use std::time::Duration;

/// A fault for the first requests that match.
#[derive(Clone, Debug)]
pub struct Fault {
    pub on: Match,
    /// How many requests it meets; `usize::MAX` for all.
    pub times: usize,
    pub action: Action,
}

/// Which requests a fault meets. The default meets every one.
#[derive(Clone, Debug, Default)]
pub struct Match {
    pub method: Option<&'static str>,
    /// Beginning of the path in lower case, without the base.
    pub path: Option<&'static str>,
    /// Part of the body, or of a value in the query string.
    pub body: Option<String>,
    /// Lets that many matching requests pass first.
    pub skip: usize,
}

/// What happens to the request.
#[derive(Clone, Debug)]
pub enum Action {
    /// The answer is late.
    Delay(Duration),
    /// No effect and no answer until the client leaves.
    Hang,
    /// No answer; the effect comes so long after the client has left, as where Rally works on.
    EffectAfterLeave(Duration),
    /// The effect, but no answer until the client leaves.
    HangAfter,
    /// This answer, without the effect.
    Status { code: u16, headers: Vec<(String, String)>, body: String },
    /// This answer, after the effect.
    StatusAfter { code: u16, body: String },
    /// HTTP 200 with these errors, without the effect.
    Errors(Vec<String>),
    /// HTTP 200 with these errors, though the effect took place.
    ErrorsAfter(Vec<String>),
    /// Every n-th entry of a batch fails with these errors; the others take effect.
    EntryErrors { every: usize, errors: Vec<String> },
    /// The connection is closed, without the effect.
    CutBefore,
    /// The connection is closed after the effect, without an answer.
    CutAfter,
    /// The effect, then headers and half of the body.
    CutMidBody,
    /// The effect, then a body that takes that long to arrive.
    SlowBody(Duration),
    /// HTTP 200 with a maintenance page, without the effect.
    Garbage,
    /// HTTP 200 with a maintenance page, after the effect.
    GarbageAfter,
    /// The security token in use is worth nothing from now on.
    ExpireToken,
}

/// The page that stands in for an answer during maintenance.
pub const MAINTENANCE_PAGE: &str =
    "<html><head><title>Rally</title></head><body><h1>Down for maintenance</h1></body></html>";

impl Match {
    fn meets(&self, request: &Request) -> bool {
        let in_text =
            |part: &String| request.body.contains(part) || request.query.values().any(|value| value.contains(part));
        self.method.is_none_or(|method| method == request.method)
            && self.path.is_none_or(|path| request.path.starts_with(path))
            && self.body.as_ref().is_none_or(in_text)
    }
}

/// Takes the action of the first fault that meets this request, and counts it.
pub fn take(faults: &mut [Fault], request: &Request) -> Option<Action> {
    for fault in faults.iter_mut().filter(|fault| fault.times > 0) {
        if !fault.on.meets(request) {
            continue;
        }
        if fault.on.skip > 0 {
            fault.on.skip -= 1;
            continue;
        }
        if fault.times != usize::MAX {
            fault.times -= 1;
        }
        return Some(fault.action.clone());
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fault_meets_its_requests_so_many_times_after_the_skipped() {
        let request = Request {
            method: "POST".into(),
            path: "/changeset/create".into(),
            body: "abc".into(),
            ..Request::default()
        };
        let on = Match { method: Some("POST"), path: Some("/changeset"), body: Some("b".into()), skip: 1 };
        let mut faults = [
            Fault { on: Match { method: Some("GET"), ..Match::default() }, times: 9, action: Action::CutAfter },
            Fault { on, times: 1, action: Action::Hang },
        ];
        assert!(take(&mut faults, &request).is_none());
        assert!(matches!(take(&mut faults, &request), Some(Action::Hang)));
        assert!(take(&mut faults, &request).is_none());
    }
}
