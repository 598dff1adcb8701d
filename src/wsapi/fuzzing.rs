//! What must hold for any answer of a server, see [`crate::fuzzing`].

use serde_json::json;

use super::client::{MAX_REF, rows};
use super::repair::repair;
use super::session::{MAX_TEXT, MAX_TEXTS, envelope, errors, parse_retry_after, texts};
use super::write::created;
use super::{Write, relative};
use crate::backoff::Retry;
use crate::http::{EXCERPT, excerpt, said};
use crate::text::printable;
use crate::time::Time;

/// What is taken from an answer is short; a ref can be a part of an address and is what was asked for.
pub fn answer(body: &[u8]) {
    let body = String::from_utf8_lossy(body);
    for shown in [excerpt(&body), said(&body)] {
        assert!(shown.len() <= EXCERPT && printable(&shown) == shown);
    }
    if let Some(wait) = parse_retry_after(&body, Time::from_millis(0)) {
        let retry = Retry { delay: wait, patience: wait };
        retry.is_over(Time::from_millis(0), Time::from_millis(0) + retry.wait(3, 0.5, Some(wait)));
    }
    if let Some(rally_ref) = relative(&body) {
        assert_ref(&rally_ref);
    }
    let Some(mut answer) = envelope(&body) else { return };

    let texts = [errors(&answer), texts(&answer, "Warnings")].concat();
    assert!(texts.len() <= 2 * MAX_TEXTS && texts.iter().all(|text| text.len() <= MAX_TEXT));
    let body = json!({"Changeset": {"Message": "a<b> & é", "Revision": "0123"}});
    let create = Write { path: "/changeset/create".into(), body };
    if let Some(repaired) = repair(&create, &texts) {
        let [before, after] = [&create, &repaired].map(|write| write.body["Changeset"].as_object().expect("an object"));
        assert!(before != after && before.keys().eq(after.keys()));
    }
    match created("https://rally.example", &create, &answer) {
        Ok(created) => {
            assert_ref(&created.rally_ref);
            assert!(created.rally_ref.to_lowercase().starts_with("/changeset/") && errors(&answer).is_empty());
        }
        Err(error) => {
            error.verdict();
            assert!(error.unwritable().is_none_or(|id| id.bytes().all(|byte| byte.is_ascii_digit())));
            assert!(error.to_string().len() <= EXCERPT + 100 + texts.len() * (MAX_TEXT + 2));
        }
    }
    let update = Write { path: "/defect/1".into(), ..create };
    match created("https://rally.example", &update, &answer) {
        Ok(made) => assert_eq!(made.rally_ref, update.path),
        Err(_) => assert!(!errors(&answer).is_empty() || answer.get("Errors").is_none()),
    }
    let listed = answer["Results"].as_array().cloned();
    assert_eq!(rows(&mut answer, "/defect").ok(), listed);
}

fn assert_ref(rally_ref: &str) {
    assert!(rally_ref.len() <= MAX_REF + 1 && rally_ref.starts_with('/') && !rally_ref.contains("//"), "{rally_ref}");
    assert!(rally_ref.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"/-_".contains(&byte)), "{rally_ref}");
    assert_eq!(relative(rally_ref).as_deref(), Some(rally_ref));
}
