//! Who sees what, who may write, and which paths there are.

use crate::client::{Answer, KEY, connect, get, send};
use rally_simulator::Simulator;
use serde_json::json;

/// Names the account that may log in without a key.
const PASSWORD: &str = "Authorization: Basic Y29ubmVjdG9yQGFjbWUuZXhhbXBsZTpzZWNyZXQtcGFzc3dvcmQ=";

#[test]
fn credentials_decide_who_reads_and_who_writes() {
    let simulator = Simulator::start();
    let body = json!({"SCMRepository": {"Name": "core", "SCMType": "Git"}}).to_string();
    let create = |headers: &[&str], key: &str| {
        send(&simulator, "POST", &format!("/scmrepository/create{key}"), headers, &body).expect("an answer")
    };
    assert_eq!(create(&[], "").code, 401);
    assert_eq!(create(&["ZSESSIONID: _nobody"], "").code, 401);
    let invalid = json!(["Not authorized to perform action: Invalid key"]);
    let errors = |answer: Answer| answer.inside("CreateResult")["Errors"].clone();
    assert_eq!(errors(create(&["zsessionid: _read-only-key"], "")), invalid);
    assert_eq!(errors(create(&["Authorization: Bearer _full-access-key"], "")), json!([]));
    assert_eq!(errors(create(&[PASSWORD], "")), invalid);

    let begun = send(&simulator, "GET", "/security/authorize", &[PASSWORD], "").expect("an answer");
    let token = begun.inside("OperationResult")["SecurityToken"].clone();
    let key = format!("?key={}", token.as_str().expect("a token"));
    let session = begun.header("Set-Cookie").and_then(|cookie| cookie.split(';').next()).expect("a session");
    assert_eq!(errors(create(&[PASSWORD, &format!("Cookie: {session}")], &key)), json!([]));
    assert_eq!(errors(create(&[PASSWORD], &key)), invalid);
    let me = send(&simulator, "GET", "/user", &[PASSWORD], "").expect("an answer").inside("User");
    assert_eq!(me["UserName"], "connector@acme.example");
}

#[test]
fn workspaces_and_projects_limit_what_is_found() {
    let simulator = Simulator::start();
    simulator.world(|world| {
        world.add_artifact("US1", "here");
        world.add_artifact_in("Other", "US2", "there");
        world.add_artifact("US3", "in another project");
        let project = world.add_project("Mobile");
        world.set_field("US3", "Project", json!(project));
    });
    let other = get(&simulator, "/workspace?query=(Name = Other)").inside("QueryResult")["Results"][0]["_ref"].clone();
    let other = other.as_str().expect("a reference");
    let names = |target: &str| {
        let result = get(&simulator, target).inside("QueryResult");
        let rows = result["Results"].as_array().expect("rows").clone();
        rows.iter().map(|row| row["_refObjectName"].clone()).collect::<Vec<_>>()
    };
    assert_eq!(names("/hierarchicalrequirement"), ["here"]);
    assert_eq!(names("/hierarchicalrequirement?project=null"), ["here", "in another project"]);
    assert_eq!(names(&format!("/hierarchicalrequirement?workspace={other}")), ["there"]);
    let hers = send(&simulator, "GET", "/hierarchicalrequirement", &["ZSESSIONID: _outsider-key"], "");
    assert_eq!(hers.expect("an answer").inside("QueryResult")["Results"][0]["_refObjectName"], "there");
}

#[test]
fn paths_are_read_as_leniently_as_rally_does() {
    let simulator = Simulator::start();
    let target = "/slm/webservice/v2.x/Workspace.js?fetch=Name&query=(Name%20=%20Acme)";
    let answer = send_raw(&simulator, target);
    assert!(answer.contains("\"Name\":\"Acme\""), "{answer}");
    assert!(send_raw(&simulator, "/slm/webservice/v1.43/workspace").starts_with("HTTP/1.1 404"));
    assert!(send_raw(&simulator, "/").contains("<title>Rally simulator</title>"));
}

fn send_raw(simulator: &Simulator, target: &str) -> String {
    use std::io::{Read, Write};
    let mut stream = connect(simulator);
    let request = format!("GET {target} HTTP/1.1\r\nHost: h\r\n{KEY}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).expect("it reads");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("text");
    answer
}
