//! Credentials, workspaces and projects, and the paths of the server.

use crate::client::{Answer, KEY, connect, get, send};
use rally_simulator::Simulator;
use serde_json::{Value, json};

/// Logs in with the password of the account that has one.
const PASSWORD: &str = "Authorization: Basic Y29ubmVjdG9yQGFjbWUuZXhhbXBsZTpzZWNyZXQtcGFzc3dvcmQ=";

/// Creates a repository with these headers, and this at the end of the URL.
fn create_with(simulator: &Simulator, headers: &[&str], key: &str) -> Answer {
    let body = json!({"SCMRepository": {"Name": "core", "SCMType": "Git"}}).to_string();
    send(simulator, "POST", &format!("/scmrepository/create{key}"), headers, &body).expect("an answer")
}

fn errors(answer: Answer) -> Value {
    answer.inside("CreateResult")["Errors"].clone()
}

fn invalid_key() -> Value {
    json!(["Not authorized to perform action: Invalid key"])
}

#[test]
fn requests_without_valid_credentials_get_401() {
    let simulator = Simulator::start();
    assert_eq!(create_with(&simulator, &[], "").code, 401);
    assert_eq!(create_with(&simulator, &["ZSESSIONID: _nobody"], "").code, 401);
}

#[test]
fn a_write_needs_a_key_with_full_access() {
    let simulator = Simulator::start();
    assert_eq!(errors(create_with(&simulator, &["zsessionid: _read-only-key"], "")), invalid_key());
    assert_eq!(errors(create_with(&simulator, &["Authorization: Bearer _full-access-key"], "")), json!([]));
}

#[test]
fn a_write_with_a_password_needs_the_security_token_of_the_session() {
    let simulator = Simulator::start();
    assert_eq!(errors(create_with(&simulator, &[PASSWORD], "")), invalid_key());
    let begun = send(&simulator, "GET", "/security/authorize", &[PASSWORD], "").expect("an answer");
    let token = begun.inside("OperationResult")["SecurityToken"].clone();
    let key = format!("?key={}", token.as_str().expect("a token"));
    let session = begun.header("Set-Cookie").and_then(|cookie| cookie.split(';').next()).expect("a session");
    assert_eq!(errors(create_with(&simulator, &[PASSWORD, &format!("Cookie: {session}")], &key)), json!([]));
    assert_eq!(errors(create_with(&simulator, &[PASSWORD], &key)), invalid_key());
}

#[test]
fn a_read_with_a_password_needs_no_token() {
    let simulator = Simulator::start();
    let me = send(&simulator, "GET", "/user", &[PASSWORD], "").expect("an answer").inside("User");
    assert_eq!(me["UserName"], "connector@acme.example");
}

#[test]
fn a_query_finds_objects_of_its_workspace_and_project_only() {
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
    let outsider = send(&simulator, "GET", "/hierarchicalrequirement", &["ZSESSIONID: _outsider-key"], "");
    assert_eq!(outsider.expect("an answer").inside("QueryResult")["Results"][0]["_refObjectName"], "there");
}

#[test]
fn paths_are_read_as_leniently_as_by_rally() {
    let simulator = Simulator::start();
    let target = "/slm/webservice/v2.x/Workspace.js?fetch=Name&query=(Name%20=%20Acme)";
    let answer = send_raw(&simulator, target);
    assert!(answer.contains("\"Name\":\"Acme\""), "{answer}");
    assert!(send_raw(&simulator, "/slm/webservice/v1.43/workspace").starts_with("HTTP/1.1 404"));
    assert!(send_raw(&simulator, "/").contains("<title>Rally simulator</title>"));
}

/// Sends a request for this target as it stands, and returns the whole answer.
fn send_raw(simulator: &Simulator, target: &str) -> String {
    use std::io::{Read, Write};
    let mut stream = connect(simulator);
    let request = format!("GET {target} HTTP/1.1\r\nHost: h\r\n{KEY}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).expect("it reads");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("text");
    answer
}
