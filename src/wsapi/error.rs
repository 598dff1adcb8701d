//! What can go wrong between this program and Rally's API, and what follows from it.
//!
//! [`Error::verdict`] is the one table that classifies failures; the README explains it to administrators.
//! The texts are those of docs/wsapi.md, 8.

use std::time::Duration;

/// Stands before the type and the ObjectID of an artifact.
const NOT_AUTHORIZED: &str = "Not authorized to update: ";

/// A failure. `request` names the method and path, such as `POST /changeset/create`, and where the server matters also
/// the server; never the query, which may hold a token.
#[derive(Debug, Clone, thiserror::Error)]
pub(crate) enum Error {
    #[error("cannot prepare the connection to Rally: {0}")]
    Setup(String),
    #[error("cannot reach {server} for {request}: {reason}")]
    Connect { server: String, request: String, reason: String },
    #[error("{request} was not sent: {reason}")]
    NotSent { request: String, reason: String },
    #[error("{request} was not answered within {}", humantime::format_duration(*.after))]
    Timeout { request: String, after: Duration },
    #[error("the connection broke during {request}: {reason}")]
    Broken { request: String, reason: String },
    #[error("{request} was answered with HTTP {code}{}", hint(*code, excerpt))]
    Status { request: String, code: u16, retry_after: Option<Duration>, excerpt: String },
    #[error("{request} was answered with something that is not WSAPI's JSON: {excerpt}")]
    NotWsapi { request: String, excerpt: String },
    #[error("Rally refused {request}: {}", texts.join("; "))]
    Rejected { request: String, texts: Vec<String> },
    #[error(
        "Rally refused {request}: {}; the API key may be read-only, or its user may not write; replace it",
        texts.join("; ")
    )]
    KeyRefused { request: String, texts: Vec<String> },
    #[error("{request} asks for too much at once: its query is too long for an address, and the server takes no form")]
    LongQuery { request: String },
    #[error("Rally's batch endpoint gave no result for each entry: {0}")]
    OddBatch(String),
}

/// What a failure means for what was to be written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// Rally cannot be used at the moment: everything waits.
    Unavailable,
    /// This write may succeed another time.
    Retry,
    /// This was too much for one request; less of it may succeed.
    TooLarge,
    /// An object that the write names is not there any more.
    Missing,
    /// This write will never succeed: a dead letter.
    Reject,
    /// The user may not do this. That is the fault of what the write names, unless every other write fails so too.
    Refused,
    /// No write will succeed until a person has done something: everything stops.
    Stop,
}

impl Error {
    pub(crate) fn verdict(&self) -> Verdict {
        match self {
            Error::KeyRefused { .. } => Verdict::Refused,
            // A lack of files or memory passes.
            Error::Setup(_) | Error::Connect { .. } | Error::NotSent { .. } | Error::NotWsapi { .. } => {
                Verdict::Unavailable
            }
            Error::Timeout { .. } | Error::LongQuery { .. } => Verdict::TooLarge,
            Error::Broken { .. } | Error::OddBatch(_) => Verdict::Retry,
            Error::Status { code, .. } => status_verdict(*code),
            Error::Rejected { texts, .. } => rejected_verdict(&texts.join("; ")),
        }
    }

    /// Returns how long the server asked us to wait.
    pub(crate) fn retry_after(&self) -> Option<Duration> {
        match self {
            Error::Status { retry_after, .. } => *retry_after,
            _ => None,
        }
    }

    /// Tells whether the write certainly did not take place.
    pub(crate) fn is_without_effect(&self) -> bool {
        match self {
            Error::Setup(_) | Error::Connect { .. } | Error::NotSent { .. } | Error::LongQuery { .. } => true,
            Error::Status { code, .. } => matches!(code, 300..=399 | 401 | 403 | 404 | 405 | 407 | 413 | 429),
            Error::Rejected { .. } => self.is_about_batch_itself(),
            _ => false,
        }
    }

    /// Tells whether the server has no batch endpoint, or none that works as known.
    pub(crate) fn is_about_batch_itself(&self) -> bool {
        match self {
            Error::OddBatch(_) => true,
            Error::Status { code, .. } => matches!(code, 404 | 405 | 501),
            Error::Rejected { texts, .. } => {
                texts.iter().any(|text| text.contains("type name") && text.contains("batch"))
            }
            _ => false,
        }
    }

    /// Tells whether Rally may still be at work on the request, because it did not answer itself.
    pub(crate) fn may_be_at_work(&self) -> bool {
        match self {
            Error::Timeout { .. } | Error::Broken { .. } => true,
            // What stands in front of Rally has given up.
            Error::Status { code, .. } => matches!(code, 408 | 502 | 504 | 524),
            _ => false,
        }
    }

    /// Tells whether Rally did not find the object that was to be read or updated.
    pub(crate) fn is_about_missing_object(&self) -> bool {
        let Error::Rejected { texts, .. } = self else { return false };
        texts.iter().any(|text| {
            text.contains("Cannot find object") || text.contains("Could not read") && text.contains("to update")
        })
    }

    /// Returns the ObjectID of the artifact that this user may not write to, if that is what Rally says (docs/wsapi.md, 8).
    pub(crate) fn unwritable(&self) -> Option<&str> {
        let Error::Rejected { texts, .. } = self else { return None };
        let named = |text: &'_ String| text.find(NOT_AUTHORIZED).map(|at| at + NOT_AUTHORIZED.len());
        let text = texts.iter().find_map(|text| Some(&text[named(text)?..]))?;
        text.split_whitespace().nth(1).filter(|id| id.bytes().all(|byte| byte.is_ascii_digit()))
    }
}

/// Tells whether Rally refused the security token (or the key: the text is the same).
pub(super) fn is_invalid_key(refusal: &[String]) -> bool {
    refusal.iter().any(|text| text.contains("Invalid key"))
}

fn status_verdict(code: u16) -> Verdict {
    match code {
        // A redirect is not followed: the credentials are for the configured server only.
        300..=399 | 401 | 404 | 405 | 407 => Verdict::Stop,
        403 => Verdict::Refused,
        408 | 429 | 503 => Verdict::Unavailable,
        409 => Verdict::Retry,
        // Rally ends a request after some minutes with one of the last three.
        413 | 502 | 504 | 524 => Verdict::TooLarge,
        400..=499 => Verdict::Reject,
        _ => Verdict::Retry,
    }
}

/// Tells whether an error's text is about a conflict with another write (docs/wsapi.md, 8).
pub(crate) fn is_conflict(text: &str) -> bool {
    let text = text.to_ascii_lowercase();
    let conflict = ["concurrency conflict", "concurrencyconflictexception", "modified since", "unit of work"];
    conflict.iter().any(|part| text.contains(part))
}

fn rejected_verdict(text: &str) -> Verdict {
    let says = |part: &str| text.to_ascii_lowercase().contains(part);
    if is_conflict(text) {
        Verdict::Retry
    } else if says("invalid key") || says("not authorized to create") || says("not authorized to perform") {
        Verdict::Refused
    } else if says("could not read referenced object") || says("cannot find object to read") {
        Verdict::Missing
    } else {
        Verdict::Reject
    }
}

/// Says what the server says, and what to do about a status that an administrator can do something about. Maintenance
/// looks like some of them (docs/wsapi.md, 8.1).
fn hint(code: u16, excerpt: &str) -> String {
    let advice = match code {
        300..=399 => {
            "if Rally has moved, set rally.server to its new address; if not, this may be a log-in page or maintenance"
        }
        401 => {
            "the API key or password may be wrong, locked or switched off, and must be replaced then; or it is Rally's \
             maintenance, which passes"
        }
        403 => {
            "the user may have no access, the address may not be allowed, or a proxy refuses: ask a Rally administrator; \
             or it is Rally's maintenance, which passes"
        }
        404 => "there is no WSAPI at that address; check rally.server",
        407 => "the proxy wants credentials; put them into rally.proxy",
        _ => "",
    };
    [excerpt, advice].iter().filter(|text| !text.is_empty()).map(|text| format!(": {text}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(code: u16) -> Error {
        Error::Status { request: "GET /x".into(), code, retry_after: None, excerpt: String::new() }
    }

    fn rejected(text: &str) -> Error {
        Error::Rejected { request: String::new(), texts: vec![text.to_owned()] }
    }

    #[test]
    fn each_failure_has_its_verdict() {
        let request = String::new;
        let cases = [
            (Error::Connect { server: String::new(), request: request(), reason: String::new() }, Verdict::Unavailable),
            (Error::Timeout { request: request(), after: Duration::from_secs(1) }, Verdict::TooLarge),
            (Error::Broken { request: request(), reason: String::new() }, Verdict::Retry),
            (Error::NotWsapi { request: request(), excerpt: String::new() }, Verdict::Unavailable),
            (status(302), Verdict::Stop),
            (status(400), Verdict::Reject),
            (status(401), Verdict::Stop),
            (status(403), Verdict::Refused),
            (status(404), Verdict::Stop),
            (status(408), Verdict::Unavailable),
            (status(409), Verdict::Retry),
            (status(413), Verdict::TooLarge),
            (status(429), Verdict::Unavailable),
            (status(500), Verdict::Retry),
            (status(502), Verdict::TooLarge),
            (status(503), Verdict::Unavailable),
            (status(524), Verdict::TooLarge),
            (rejected("Concurrency conflict: [Object has been modified since being read]"), Verdict::Retry),
            (rejected("Could not update: Could not write changes in Unit Of Work"), Verdict::Retry),
            (rejected("Not authorized to perform action: Invalid key"), Verdict::Refused),
            (rejected("Not authorized to create: Changeset"), Verdict::Refused),
            (Error::KeyRefused { request: request(), texts: vec!["Invalid key".into()] }, Verdict::Refused),
            (rejected("Not authorized to update: Defect 700017"), Verdict::Reject),
            (rejected("Could not read: Could not read referenced object 42"), Verdict::Missing),
            (rejected("Cannot find object to read"), Verdict::Missing),
            (rejected("Validation error: Changeset.Revision should not be null"), Verdict::Reject),
        ];
        for (error, verdict) in cases {
            assert_eq!(error.verdict(), verdict, "{error}");
        }
    }

    #[test]
    fn the_artifact_that_may_not_be_written_is_named() {
        let unwritable = |text: &str| rejected(text).unwritable().map(str::to_owned);
        assert_eq!(unwritable("Not authorized to update: Defect 700017").as_deref(), Some("700017"));
        for other in [
            "Not authorized to update: Defect",
            "Not authorized to update: Defect x1",
            "Not authorized to create: Change 1",
        ] {
            assert_eq!(unwritable(other), None, "{other}");
        }
    }

    #[test]
    fn only_an_answer_that_precedes_the_work_is_without_effect() {
        assert!(status(401).is_without_effect() && status(429).is_without_effect());
        assert!(!status(500).is_without_effect() && !status(503).is_without_effect());
        assert!(!rejected("x").is_without_effect());
    }

    #[test]
    fn what_may_be_maintenance_says_so() {
        for (code, is_said) in [(302, true), (401, true), (403, true), (404, false), (500, false)] {
            assert_eq!(status(code).to_string().contains("maintenance"), is_said, "{code}");
        }
    }
}
