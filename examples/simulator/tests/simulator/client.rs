//! A small HTTP client, so that tests see what goes over the wire.

use rally_simulator::Simulator;
use serde_json::Value;
use std::io::{Read, Write};
use std::net::TcpStream;

/// The header of an API key with full access.
pub const KEY: &str = "ZSESSIONID: _full-access-key";

/// An HTTP answer.
pub struct Answer {
    pub code: u16,
    pub head: String,
    pub body: String,
}

impl Answer {
    /// Returns the value of the only key of the body.
    pub fn inside(&self, key: &str) -> Value {
        let json: Value = serde_json::from_str(&self.body).unwrap_or_else(|_| panic!("{}", self.body));
        let object = json.as_object().expect("an object");
        assert_eq!(object.keys().collect::<Vec<_>>(), [key], "{json}");
        object[key].clone()
    }

    /// Returns the value of a header.
    pub fn header(&self, name: &str) -> Option<&str> {
        let lines = self.head.lines().filter_map(|line| line.split_once(": "));
        lines.into_iter().find(|(key, _)| *key == name).map(|(_, value)| value)
    }
}

/// Sends a request on a connection of its own; returns `None` if no whole answer came.
pub fn send(simulator: &Simulator, method: &str, target: &str, headers: &[&str], body: &str) -> Option<Answer> {
    let mut stream = connect(simulator);
    write(&mut stream, method, target, headers, body);
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes).ok()?;
    let text = String::from_utf8(bytes).expect("text");
    let (head, body) = text.split_once("\r\n\r\n")?;
    let code = head.split(' ').nth(1)?.parse().ok()?;
    let answer = Answer { code, head: head.to_owned(), body: body.to_owned() };
    let length: usize = answer.header("Content-Length")?.parse().ok()?;
    (length == body.len()).then_some(answer)
}

/// Connects to the simulator.
pub fn connect(simulator: &Simulator) -> TcpStream {
    TcpStream::connect(("127.0.0.1", simulator.port())).expect("it listens")
}

/// Writes a request that asks to close the connection.
pub fn write(stream: &mut TcpStream, method: &str, target: &str, headers: &[&str], body: &str) {
    let mut request = format!("{method} /slm/webservice/v2.0{target} HTTP/1.1\r\nHost: h\r\nConnection: close\r\n");
    for header in headers {
        request += &format!("{header}\r\n");
    }
    request += &format!("Content-Length: {}\r\n\r\n{body}", body.len());
    stream.write_all(request.as_bytes()).expect("it reads");
}

/// Gets a target with full access.
pub fn get(simulator: &Simulator, target: &str) -> Answer {
    send(simulator, "GET", &target.replace(' ', "%20"), &[KEY], "").expect("an answer")
}

/// Posts a body with full access.
pub fn post(simulator: &Simulator, target: &str, body: &Value) -> Answer {
    send(simulator, "POST", target, &[KEY], &body.to_string()).expect("an answer")
}

/// Creates an object and returns its reference without the base.
pub fn create(simulator: &Simulator, kind: &str, fields: Value) -> String {
    let answer = post(simulator, &format!("/{kind}/create"), &serde_json::json!({ kind: fields }));
    let result = answer.inside("CreateResult");
    assert_eq!(result["Errors"], serde_json::json!([]), "{result}");
    let reference = result["Object"]["_ref"].as_str().expect("a reference");
    reference.split_once("/v2.0").expect("a base").1.to_owned()
}

/// Creates a repository of this name.
pub fn create_repository(simulator: &Simulator, name: &str) -> String {
    create(simulator, "scmrepository", serde_json::json!({"Name": name, "SCMType": "Git"}))
}

/// Returns the required fields of a changeset.
pub fn changeset(repository: &str, revision: &str) -> Value {
    serde_json::json!({
        "SCMRepository": repository,
        "Revision": revision,
        "CommitTimestamp": "2026-02-03T04:05:06Z",
    })
}
