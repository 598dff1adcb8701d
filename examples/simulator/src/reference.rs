//! References to objects, in every form that WSAPI accepts.

use crate::schema::{self, Type};
use serde_json::Value;

/// An object that a client named: `"/user/42"`, `"user/42"`, a full URL, or `{"_ref": …}`.
#[derive(Clone, Copy, Debug)]
pub struct Reference {
    pub kind: &'static Type,
    pub id: u64,
}

impl Reference {
    /// Reads a reference from text.
    pub fn parse(text: &str) -> Option<Reference> {
        let path = match text.split_once("/slm/webservice/") {
            Some((_, rest)) => rest.split_once('/')?.1,
            None => text.strip_prefix('/').unwrap_or(text),
        };
        let (kind, id) = path.rsplit_once('/')?;
        Some(Reference { kind: schema::by_path(kind)?, id: object_id(id.strip_suffix(".js").unwrap_or(id))? })
    }

    /// Reads a reference from a field of a request, or says why that is impossible.
    pub fn from_value(value: &Value) -> Result<Reference, String> {
        let text = match value {
            Value::Object(fields) => fields.get("_ref").unwrap_or(value),
            other => other,
        };
        text.as_str().and_then(Reference::parse).ok_or_else(|| {
            let shown = text.as_str().map_or_else(|| text.to_string(), str::to_owned);
            format!("Cannot parse object reference from \"{shown}\"")
        })
    }
}

/// Returns the ObjectUUID of an object.
pub fn uuid(id: u64) -> String {
    // The identifier is part of it, so that it can be found again without a second index.
    format!("5a1e7f0c-0000-4000-8000-{id:012x}")
}

/// Reads an ObjectID or an ObjectUUID, the latter with dashes or without.
pub fn object_id(text: &str) -> Option<u64> {
    if !text.is_empty() && text.len() < 20 && text.bytes().all(|byte| byte.is_ascii_digit()) {
        return text.parse().ok();
    }
    let digits: String = text.chars().filter(|&c| c != '-').collect();
    let id = u64::from_str_radix(digits.strip_prefix("5a1e7f0c000040008000")?, 16).ok()?;
    (digits.len() == 32).then_some(id)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn every_accepted_form_is_read() {
        let dashed = format!("/user/{}", uuid(42));
        let plain = dashed.replace('-', "");
        for text in [
            "/user/42",
            "user/42",
            "User/42",
            "https://rally.example/slm/webservice/v2.0/user/42",
            "https://rally.example/slm/webservice/v2.x/user/42.js",
            &dashed,
            &plain,
        ] {
            let found = Reference::parse(text).expect(text);
            assert_eq!((found.kind.path, found.id), ("User", 42), "{text}");
        }
        let feature = Reference::parse("/portfolioitem/feature/7").expect("two segments");
        assert_eq!(feature.kind.path, "PortfolioItem/Feature");
    }

    #[test]
    fn what_is_no_reference_is_named_in_the_error() {
        for value in [json!("US1"), json!("/defect/DE17"), json!(42), json!("/nothing/1"), json!("")] {
            let error = Reference::from_value(&value).expect_err("no reference");
            assert!(error.starts_with("Cannot parse object reference from \""), "{error}");
        }
        assert!(Reference::from_value(&json!({"_ref": "/user/42"})).is_ok());
        assert!(Reference::from_value(&json!({"Name": "x"})).is_err());
    }
}
