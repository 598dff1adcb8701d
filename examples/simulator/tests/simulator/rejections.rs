//! Rejections: HTTP 200 with the error text of Rally in the result of the operation.

use crate::client::{KEY, create_repository, send};
use rally_simulator::Simulator;
use serde_json::{Value, json};

/// Asserts that a request is refused with an error that begins like this.
fn assert_refused(simulator: &Simulator, method: &str, target: &str, body: &Value, key: &str, error: &str) {
    let target = target.replace(' ', "%20");
    let answer = send(simulator, method, &target, &[KEY], &body.to_string()).expect("an answer");
    assert_eq!(answer.code, 200, "{method} {target}");
    let errors = answer.inside(key)["Errors"].clone();
    let text = errors[0].as_str().unwrap_or_default();
    assert!(text.starts_with(error), "{method} {target} {body}: {errors}");
}

#[test]
fn a_wrong_read_or_delete_is_refused() {
    let simulator = Simulator::start();
    for (method, target, key, error) in [
        ("GET", "/defect/1", "OperationResult", "Cannot find object to read"),
        ("GET", "/defect/DE17", "OperationResult", "Cannot parse object reference from \"/defect/de17\""),
        ("GET", "/changeset/1/Changes", "QueryResult", "Cannot find object to read"),
        ("GET", "/defect?query=((Name = a))", "QueryResult", "Could not parse: Error parsing expression"),
        ("GET", "/defect?query=(Name like a)", "QueryResult", "Could not parse: Unknown operator \"like\""),
        ("GET", "/defect?order=Nope", "QueryResult", "Cannot sort using unknown attribute Nope"),
        ("GET", "/artifact?types=defect,nope", "QueryResult", "Requested type name \"nope\" is unknown."),
        (
            "GET",
            "/artifact?query=(State = Open)",
            "QueryResult",
            "Could not read: could not read all instances of class",
        ),
        ("GET", "/widget", "OperationResult", "Requested type name \"widget\" is unknown."),
        ("DELETE", "/changeset/1", "OperationResult", "Object to delete cannot be null"),
    ] {
        assert_refused(&simulator, method, target, &Value::Null, key, error);
    }
}

#[test]
fn a_wrong_create_is_refused() {
    let simulator = Simulator::start();
    let defect = simulator.world(|world| world.add_artifact("DE1", "x"));
    let defect = format!("/defect/{defect}");
    let too_long = "Validation error: Changeset.Message length is greater than the maximum length of 4000";
    for (kind, fields, error) in [
        ("Changeset", json!({}), "Validation error: Changeset.CommitTimestamp should not be null"),
        ("Changeset", json!({"Message": "ü".repeat(4001)}), too_long),
        (
            "Changeset",
            json!({"CommitTimestamp": "2026-02-03 04:05"}),
            "Could not parse: Cannot convert \"2026-02-03 04:05\" into a date.",
        ),
        ("Changeset", json!({"Author": "jane"}), "Cannot parse object reference from \"jane\""),
        ("Changeset", json!({"SCMRepository": defect}), "Could not read: Could not read referenced object"),
        ("Changeset", json!({"Artifacts": defect}), "Could not read: Artifacts of Changeset is not a list"),
        ("Change", json!({"Changeset": "/changeset/1"}), "Could not read: Could not read referenced object 1"),
        ("SCMRepository", json!({"Name": "<b>x"}), "Validation error: SCMRepository.Name contained invalid input."),
        ("Workspace", json!({"Name": "x"}), "Not authorized to create: Workspace"),
    ] {
        let target = format!("/{}/create", kind.to_lowercase());
        assert_refused(&simulator, "POST", &target, &json!({ kind: fields }), "CreateResult", error);
    }
}

#[test]
fn a_body_that_is_not_json_is_refused() {
    let simulator = Simulator::start();
    let bad = send(&simulator, "POST", "/changeset/create", &[KEY], "{\"Changeset\":").expect("an answer");
    let errors = bad.inside("CreateResult")["Errors"].to_string();
    assert!(errors.contains("Cannot parse input stream due to I/O error as JSON document"), "{errors}");
}

#[test]
fn a_wrong_update_is_refused_and_changes_nothing() {
    let simulator = Simulator::start();
    let defect = simulator.world(|world| world.add_artifact("DE1", "x"));
    let defect = format!("/defect/{defect}");
    let projects = create_repository(&simulator, "core") + "/Projects/add";
    let many: Vec<_> = (0..26).map(|_| json!({"_ref": defect})).collect();
    for (target, body, key, error) in [
        ("/defect/1", json!({"Defect": {}}), "OperationResult", "Could not read: Could not read Defect 1 to update."),
        (&defect, json!({"Defect": {"State": "Frozen"}}), "OperationResult", "Frozen is an invalid value"),
        (
            &defect,
            json!({"Defect": {"State": null}}),
            "OperationResult",
            "Validation error: Defect.State should not be null",
        ),
        (&defect, json!({"Task": {}}), "OperationResult", "Could not parse: expected \"Defect\" but saw \"Task\""),
        (
            &projects,
            json!({"CollectionItems": many}),
            "OperationResult",
            "Could not update: more than 25 collection items",
        ),
        ("/batch", json!({"Nope": 1}), "BatchResult", "Could not parse: expected \"Batch\""),
    ] {
        assert_refused(&simulator, "POST", target, &body, key, error);
    }
    assert_eq!(simulator.world(|world| world.updates()), []);
}
