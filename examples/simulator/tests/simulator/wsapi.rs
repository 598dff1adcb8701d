//! The answers of the simulator without faults.

use crate::client::{Answer, KEY, changeset, create, create_repository, get, post, send};
use rally_simulator::{Batch, Simulator};
use serde_json::{Value, json};

#[test]
fn a_changeset_is_created_linked_and_read_back() {
    let simulator = Simulator::start();
    let story = simulator.world(|world| world.add_artifact("US1", "Log in"));
    let repository = create_repository(&simulator, "core");
    let mut fields = changeset(&repository, "9f2c");
    fields["Message"] = json!("US1 log in\n\nmore");
    fields["Branch"] = json!("main");
    fields["Artifacts"] = json!([{"_ref": format!("/hierarchicalrequirement/{story}")}]);
    let reference = create(&simulator, "changeset", fields);
    for (action, path) in [("A", "a.c"), ("M", "b.c")] {
        let change = json!({"Changeset": reference, "Action": action, "PathAndFilename": path});
        create(&simulator, "Change", change);
    }
    let found = simulator.world(|world| world.changesets());
    assert_eq!(found.len(), 1);
    assert_eq!((found[0].revision.as_str(), found[0].branch.as_deref()), ("9f2c", Some("main")));
    assert_eq!(found[0].commit_timestamp, "2026-02-03T04:05:06.000Z");
    assert_eq!((&found[0].repository[..], &found[0].workspace[..]), ("core", "Acme"));
    assert_eq!(found[0].artifacts, ["US1"]);
    let paths: Vec<_> = found[0].changes.iter().map(|change| change.path.as_str()).collect();
    assert_eq!(paths, ["a.c", "b.c"]);
    let row = get(&simulator, &reference).inside("Changeset");
    assert_eq!((&row["Changes"]["Count"], &row["Errors"]), (&json!(2), &json!([])));
    assert_eq!((&row["_refObjectName"], &row["Name"]), (&json!("core:9f2c"), &json!("core:9f2c")));
    let linked = get(&simulator, &format!("/hierarchicalrequirement/{story}/Changesets?fetch=Revision"));
    assert_eq!(linked.inside("QueryResult")["Results"][0]["Revision"], "9f2c");
}

#[test]
fn a_create_without_fetch_answers_with_the_whole_object() {
    let simulator = Simulator::start();
    let repository = create_repository(&simulator, "core");
    let body = json!({"Changeset": changeset(&repository, "9f2c")});
    let object = |target: &str| post(&simulator, target, &body).inside("CreateResult")["Object"].clone();
    let whole = object("/changeset/create");
    assert_eq!((&whole["Name"], &whole["Changes"]["Count"]), (&json!("core:9f2c"), &json!(0)));
    assert_eq!(whole["SCMRepository"]["_refObjectName"], "core");
    let named = object("/changeset/create?fetch=Revision");
    assert_eq!((&named["Revision"], named.get("Name")), (&json!("9f2c"), None));
}

#[test]
fn pages_begin_at_one_and_have_a_maximum_size() {
    let simulator = Simulator::start();
    simulator.settings(|settings| settings.max_page_size = 30);
    simulator.world(|world| {
        (1..=45).for_each(|number| {
            world.add_artifact(&format!("US{number}"), &format!("story {number:02}"));
        })
    });
    for (parameters, start, size, first, rows) in [
        ("", 1, 20, "US1", 20),
        ("&start=0&pagesize=1", 1, 1, "US1", 1),
        ("&start=41&pagesize=20", 41, 20, "US41", 5),
        ("&pagesize=5000", 1, 30, "US1", 30),
        ("&order=Name DESC&pagesize=2", 1, 2, "US45", 2),
        ("&order=Rank DESC&pagesize=2", 1, 2, "US45", 2),
    ] {
        let target = format!("/hierarchicalrequirement?fetch=FormattedID{parameters}");
        let result = get(&simulator, &target).inside("QueryResult");
        assert_eq!(result["TotalResultCount"], 45);
        assert_eq!((&result["StartIndex"], &result["PageSize"]), (&json!(start), &json!(size)));
        assert_eq!(result["Results"].as_array().map(Vec::len), Some(rows), "{parameters}");
        assert_eq!(result["Results"][0]["FormattedID"], first, "{parameters}");
    }
    let past = get(&simulator, "/hierarchicalrequirement?start=46").inside("QueryResult");
    assert_eq!((&past["Results"], &past["Errors"]), (&json!([]), &json!([])));
}

#[test]
fn long_queries_may_be_posted() {
    let simulator = Simulator::start();
    simulator.world(|world| world.add_artifact("DE7", "x"));
    let long = format!("/defect?query=(Name%20=%20\"{}\")", "x".repeat(9000));
    assert_eq!(get(&simulator, &long).code, 413);
    let form =
        format!("_method=GET&fetch=FormattedID&query=((Name+%3D+%22{}%22)+OR+(FormattedID+=+DE7))", "x".repeat(9000));
    let headers = [KEY, "Content-Type: application/x-www-form-urlencoded"];
    let answer = send(&simulator, "POST", "/defect", &headers, &form).expect("an answer");
    assert_eq!(answer.inside("QueryResult")["Results"][0]["FormattedID"], "DE7");
}

#[test]
fn a_formatted_id_matches_by_number_alone_on_artifact() {
    let simulator = Simulator::start();
    simulator.world(|world| ["US11", "DE11", "TA11"].map(|id| world.add_artifact(id, id)));
    let count = |target: &str| get(&simulator, target).inside("QueryResult")["TotalResultCount"].clone();
    assert_eq!(count("/artifact?query=(FormattedID = US11)"), 3);
    assert_eq!(count("/artifact?types=defect,task&query=(FormattedID = US11)"), 2);
    assert_eq!(count("/defect?query=(FormattedID = US11)"), 0);
    simulator.settings(|settings| settings.number_only_match = true);
    assert_eq!(count("/defect?query=(FormattedID = US11)"), 1);
}

#[test]
fn new_objects_can_be_added_to_a_collection() {
    let simulator = Simulator::start();
    let repository = create_repository(&simulator, "core");
    let reference = create(&simulator, "changeset", changeset(&repository, "1"));
    let changes = json!({"CollectionItems": [
        {"PathAndFilename": "a", "Action": "A"}, {"PathAndFilename": "b", "Action": "D"}]});
    let added = post(&simulator, &format!("{reference}/Changes/add"), &changes).inside("OperationResult");
    assert_eq!(added["Results"].as_array().map(Vec::len), Some(2), "{added}");
    let bad = json!({"CollectionItems": [{"PathAndFilename": "c"}, {"Action": "A"}]});
    let refused = post(&simulator, &format!("{reference}/Changes/add"), &bad).inside("OperationResult");
    assert_eq!(refused["Errors"][0], "Validation error: Change.PathAndFilename should not be null");
    simulator.settings(|settings| settings.changes_add = false);
    let refused = post(&simulator, &format!("{reference}/Changes/add"), &changes).inside("OperationResult");
    assert_eq!(refused["Errors"].as_array().map(Vec::len), Some(1));
    let view = || simulator.world(|world| world.changesets().remove(0));
    assert_eq!(view().changes.len(), 2);
}

#[test]
fn references_can_be_added_to_a_collection_and_removed_from_it() {
    let simulator = Simulator::start();
    let defect = simulator.world(|world| world.add_artifact("DE1", "x"));
    let repository = create_repository(&simulator, "core");
    let reference = create(&simulator, "changeset", changeset(&repository, "1"));
    let view = || simulator.world(|world| world.changesets().remove(0));
    let items = json!({"CollectionItems": [{"_ref": format!("/defect/{defect}")}]});
    post(&simulator, &format!("{reference}/Artifacts/add"), &items);
    assert_eq!(view().artifacts, ["DE1"]);
    let back = json!({"CollectionItems": [{"_ref": reference}]});
    post(&simulator, &format!("/defect/{defect}/Changesets/remove"), &back);
    assert_eq!(view().artifacts, [""; 0]);
    post(&simulator, &format!("/defect/{defect}/Changesets/add"), &back);
    assert_eq!(view().artifacts, ["DE1"]);
}

/// Returns a simulator and a batch of five entries, of which it refuses the third and the fifth.
fn with_batch() -> (Simulator, Value) {
    let simulator = Simulator::start();
    let defect = simulator.world(|world| world.add_artifact("DE1", "x"));
    let repository = create_repository(&simulator, "core");
    let reference = create(&simulator, "changeset", changeset(&repository, "1"));
    let id: u64 = reference.rsplit('/').next().expect("an id").parse().expect("a number");
    let entry = |path: &str, body: Value| json!({"Entry": {"Path": path, "Method": "POST", "Body": body}});
    let change = |of: &str, path: &str| json!({"change": {"Changeset": of, "PathAndFilename": path}});
    let body = json!({"Batch": [
        entry("/change/create", change(&reference, "a")),
        entry("/changeset/create", json!({"changeset": changeset(&repository, "2")})),
        entry("/change/create", change(&format!("/changeset/{}", id + 2), "b")),
        entry(&format!("/defect/{defect}"), json!({"defect": {"State": "Fixed"}})),
        {"Path": "/change/create", "Method": "POST", "Body": change(&reference, "c")},
    ]});
    (simulator, body)
}

fn results(answer: Answer) -> Vec<Value> {
    answer.inside("BatchResult")["Results"].as_array().expect("results").clone()
}

#[test]
fn a_batch_answers_each_entry_in_order() {
    let (simulator, body) = with_batch();
    let first = results(post(&simulator, "/batch?fetch=PathAndFilename", &body));
    let failed: Vec<_> = first.iter().map(|result| result["Errors"] != json!([])).collect();
    assert_eq!(failed, [false, false, true, false, true]);
    assert_eq!(first[0]["Object"]["PathAndFilename"], "a");
    assert_eq!(simulator.world(|world| world.field("DE1", "State")), "Fixed");
    assert_eq!(simulator.requests().last().map(|request| request.entries), Some(5));
}

#[test]
fn a_batch_may_be_all_or_nothing() {
    let (simulator, body) = with_batch();
    simulator.settings(|settings| settings.batch = Batch::AllOrNothing);
    let before = simulator.world(|world| (world.changesets(), world.updates()));
    let second = results(post(&simulator, "/batch", &body));
    assert!(second.iter().all(|result| result["Errors"] != json!([])));
    assert_eq!(simulator.world(|world| (world.changesets(), world.updates())), before);
}

#[test]
fn a_batch_may_be_limited_or_missing() {
    let (simulator, body) = with_batch();
    simulator.settings(|settings| settings.batch_max = Some(4));
    assert_eq!(post(&simulator, "/batch", &body).code, 413);
    simulator.settings(|settings| settings.batch = Batch::Missing);
    assert_eq!(post(&simulator, "/batch", &body).code, 404);
}

/// Changes the state of a defect and returns the errors.
fn update(simulator: &Simulator, defect: u64) -> Value {
    let answer = post(simulator, &format!("/defect/{defect}"), &json!({"Defect": {"State": "Open"}}));
    answer.inside("OperationResult")["Errors"].clone()
}

fn count(simulator: &Simulator, target: &str) -> Value {
    get(simulator, target).inside("QueryResult")["TotalResultCount"].clone()
}

#[test]
fn a_work_rule_refuses_updates() {
    let simulator = Simulator::start();
    let defect = simulator.world(|world| world.add_artifact("DE1", "x"));
    assert_eq!(update(&simulator, defect), json!([]));
    simulator.world(|world| world.set_work_rule("DE1", "Only QA may do this"));
    assert_eq!(update(&simulator, defect), json!(["Only QA may do this"]));
}

#[test]
fn an_unknown_branch_field_is_ignored_with_a_warning() {
    let simulator = Simulator::start();
    let repository = create_repository(&simulator, "core");
    simulator.settings(|settings| settings.knows_branch = false);
    let mut fields = changeset(&repository, "1");
    fields["Branch"] = json!("main");
    let answer = post(&simulator, "/changeset/create", &json!({"Changeset": fields})).inside("CreateResult");
    let warning = "Ignored JSON element Changeset.Branch during processing of this request.";
    assert_eq!(answer["Warnings"], json!([warning]));
}

#[test]
fn a_disabled_user_is_found_only_if_the_query_asks_for_it() {
    let simulator = Simulator::start();
    simulator.world(|world| world.disable_user("jane.roe@acme.example"));
    assert_eq!(count(&simulator, "/user?query=(UserName = jane.roe@acme.example)"), 0);
    let all = "((UserName = jane.roe@acme.example) AND ((Disabled = true) OR (Disabled = false)))";
    assert_eq!(count(&simulator, &format!("/user?query={all}")), 1);
}

#[test]
fn the_prefix_of_a_type_can_be_changed() {
    let simulator = Simulator::start();
    simulator.world(|world| world.set_prefix("Defect", "BUG"));
    simulator.world(|world| world.add_artifact("BUG2", "y"));
    assert_eq!(count(&simulator, "/defect?query=(FormattedID = BUG2)"), 1);
    let configuration = get(&simulator, "/workspaceconfiguration?fetch=DefectPrefix").inside("QueryResult");
    assert_eq!(configuration["Results"][0]["DefectPrefix"], "BUG");
}

#[test]
fn a_closed_workspace_refuses_updates() {
    let simulator = Simulator::start();
    let defect = simulator.world(|world| world.add_artifact("DE1", "x"));
    simulator.world(|world| world.set_closed("Acme"));
    let errors = update(&simulator, defect);
    assert!(errors[0].as_str().is_some_and(|text| text.starts_with("Not authorized to update: Defect")), "{errors}");
}
