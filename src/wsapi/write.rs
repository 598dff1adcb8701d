//! What is written to Rally, and the answers to it.

use serde_json::Value;

use super::Error;
use super::client::relative;
use super::session::{errors, texts};
use crate::http::excerpt;

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

impl Write {
    /// Returns the method and path.
    pub(super) fn request(&self) -> String {
        format!("POST {}", self.path)
    }

    /// Returns the refs of the objects that it changes besides the one that it creates: the one that it updates, and the
    /// artifacts that a Changeset is linked to.
    pub(super) fn changed(&self) -> impl Iterator<Item = &str> {
        let updated = (!self.path.ends_with("/create")).then_some(self.path.as_str());
        let artifacts = self.body["Changeset"]["Artifacts"].as_array().into_iter().flatten();
        artifacts.filter_map(|artifact| artifact["_ref"].as_str()).chain(updated)
    }
}

/// Reads the answer to a write, from the server at this address.
pub(super) fn created(server: &str, write: &Write, answer: &Value) -> Result<Created, Error> {
    let refused = errors(answer);
    if !refused.is_empty() {
        return Err(Error::Rejected { request: write.request(), texts: refused });
    }
    let rally_ref = match write.path.strip_suffix("/create") {
        Some(kind) => {
            // Anything else than an object of this type on this server is not what was asked for.
            let is_of_kind = |path: &String| path.rsplit_once('/').is_some_and(|(of, _)| of.eq_ignore_ascii_case(kind));
            let rally_ref = answer["Object"]["_ref"].as_str().filter(|rally_ref| is_on(server, rally_ref));
            rally_ref.and_then(relative).filter(is_of_kind)
        }
        // The answer to an update need not hold the object (docs/wsapi.md, 5).
        None => answer.get("Errors").map(|_| write.path.clone()),
    };
    let not_a_result = || Error::NotWsapi { request: write.request(), excerpt: excerpt(&answer.to_string()) };
    Ok(Created { rally_ref: rally_ref.ok_or_else(not_a_result)?, warnings: texts(answer, "Warnings") })
}

/// Tells whether a ref names an object on this server. One without a host does.
fn is_on(server: &str, rally_ref: &str) -> bool {
    let host = |address: &str| reqwest::Url::parse(address).ok().and_then(|url| url.host_str().map(str::to_owned));
    rally_ref.starts_with('/') || host(rally_ref) == host(server)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_write_changes_what_it_updates_or_links_to() {
        let changed = |path: &str, body: Value| {
            Write { path: path.into(), body }.changed().map(str::to_owned).collect::<Vec<_>>()
        };
        let linked = json!({"Changeset": {"Artifacts": [{"_ref": "/defect/1"}, {"_ref": "/task/2"}]}});
        assert_eq!(changed("/changeset/create", linked), ["/defect/1", "/task/2"]);
        assert_eq!(changed("/defect/1", json!({"defect": {"State": "Fixed"}})), ["/defect/1"]);
        assert_eq!(changed("/change/create", json!({"Change": {"Changeset": "/changeset/3"}})), [""; 0]);
    }

    #[test]
    fn only_an_object_of_the_type_on_this_server_counts_as_created() {
        let write = Write { path: "/changeset/create".into(), body: json!({}) };
        let is_created = |rally_ref: Value| {
            created("https://h:8443", &write, &json!({"Errors": [], "Object": {"_ref": rally_ref}})).is_ok()
        };
        for rally_ref in
            ["https://h/slm/webservice/v2.0/changeset/1", "/changeset/1", "https://h/slm/webservice/v2.0/Changeset/1"]
        {
            assert!(is_created(json!(rally_ref)), "{rally_ref}");
        }
        for rally_ref in ["https://g/slm/webservice/v2.0/changeset/1", "/defect/1", "/changeset/x/1", "changeset", ""] {
            assert!(!is_created(json!(rally_ref)), "{rally_ref}");
        }
        assert!([json!(1), json!(null), json!([])].into_iter().all(|odd| !is_created(odd)));
    }

    #[test]
    fn an_update_needs_no_object_in_its_answer() {
        let write = Write { path: "/defect/1".into(), body: json!({}) };
        assert!(created("https://h", &write, &json!({"Errors": [], "Warnings": []})).is_ok());
        for odd in [json!({}), json!(5), json!("x"), json!([]), json!(null)] {
            assert!(created("https://h", &write, &odd).is_err(), "{odd}");
        }
    }

    #[test]
    fn a_result_is_an_object_or_the_reasons() {
        let ok = json!({"Errors": [], "Warnings": ["w"], "Object": {"_ref": "https://h/slm/webservice/v2.0/change/1"}});
        let write = Write { path: "/change/create".into(), body: json!({}) };
        let created = |answer: &Value| created("https://h", &write, answer);
        assert_eq!(created(&ok).expect("made"), Created { rally_ref: "/change/1".into(), warnings: vec!["w".into()] });
        assert!(
            matches!(created(&json!({"Errors": ["no"], "Object": {}})), Err(Error::Rejected { request, texts }) if request == "POST /change/create" && texts == ["no"])
        );
        assert!(matches!(created(&json!({"Errors": [], "Object": {}})), Err(Error::NotWsapi { .. })));
    }
}
