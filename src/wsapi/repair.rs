//! Second chances for values that a server refuses although the known limits allow them: the lengths that we know
//! are ten years old, and some servers do not take markup in text (docs/wsapi.md, 6.2 and 8.2).

use serde_json::Value;

use super::Write;
use crate::text::cut;

/// Returns the write with the refused field made acceptable; `None` if the refusal is about something else.
pub(super) fn repair(write: &Write, refusal: &[String]) -> Option<Write> {
    let mut repaired = write.clone();
    let fields = repaired.body.as_object_mut()?.values_mut().next()?;
    for text in refusal {
        let named =
            text.split([' ', ':']).find_map(|word| word.split_once('.').map(|(_, field)| field)).unwrap_or_default();
        let Some(Value::String(value)) = fields.get_mut(named) else { continue };
        if let Some((_, limit)) = text.split_once("length is greater than the maximum length of ") {
            let limit = limit.trim_end_matches('.').trim().parse().ok()?;
            *value = cut(value, limit).to_owned();
        } else if text.contains("HTML Whitelist") {
            *value = value.replace('&', "&amp;").replace('<', "&lt;");
        }
    }
    (repaired != *write).then_some(repaired)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn repaired(refusal: &str) -> Option<Value> {
        let body = json!({"Changeset": {"Message": "a<b> & c", "Revision": "abc"}});
        let write = Write { path: "/changeset/create".into(), body };
        repair(&write, &[refusal.to_owned()]).map(|write| write.body["Changeset"]["Message"].clone())
    }

    #[test]
    fn the_named_field_is_cut_or_escaped() {
        let too_long = "Validation error: Changeset.Message length is greater than the maximum length of 3";
        assert_eq!(repaired(too_long), Some(json!("a<b")));
        let markup =
            "Validation error: Changeset.Message contained invalid input. Search 'HTML Whitelist' at help.rallydev.com";
        assert_eq!(repaired(markup), Some(json!("a&lt;b> &amp; c")));
    }

    #[test]
    fn other_refusals_stand() {
        assert_eq!(repaired("Validation error: Changeset.Revision should not be null"), None);
        assert_eq!(repaired("Concurrency conflict: [Object has been modified]"), None);
    }
}
