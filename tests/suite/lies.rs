//! A server that answers with nonsense or without end: each answer is bounded, and an odd one is an error.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::thread;

use rally_simulator::Action;

use crate::support::process::limit_memory;
use crate::support::{Ran, Server, ran};

/// More memory than a delivery ever needs, in bytes: one that asks for more fails.
const MEMORY: u64 = 512 * 1024 * 1024;

fn with_queued_commit() -> Server {
    let server = Server::delivering_later("");
    server.new_clone().push_commits(&["US1: one"]);
    server
}

/// Delivers with a limit on its memory.
fn deliver(server: &Server) -> Ran {
    let mut command = server.command(&["deliver"]);
    limit_memory(&mut command, MEMORY);
    ran(command)
}

/// Asserts that a delivery failed without a panic and said little, that the commit waits, and that it is delivered once
/// the server tells the truth.
fn assert_survived(server: &Server, ran: &Ran) {
    assert_eq!(ran.code, Some(1), "{ran:?}");
    assert!(!ran.stderr.contains("panicked") && !ran.stderr.contains("bug"), "{ran:?}");
    assert!(ran.stderr.len() < 10_000 && server.log().len() < 20_000, "{} bytes", ran.stderr.len());
    let status = server.run(&["status"]);
    assert!(status.stdout.len() < 10_000, "{} bytes", status.stdout.len());
    assert_eq!(server.count("pending"), 1);
    server.rally.clear_faults();
    server.let_time_pass();
    server.deliver_all();
    assert_eq!(server.changesets().len(), 1);
}

fn answer(body: &str) -> Action {
    Action::Status { code: 200, headers: Vec::new(), body: body.to_owned() }
}

#[test]
fn an_answer_of_the_wrong_shape_is_an_error() {
    let deep = "[".repeat(100_000);
    for body in [
        "{\"QueryResult\": []}",
        "5",
        "\"x\"",
        "true",
        "null",
        "[]",
        "{}",
        "{\"QueryResult\": {\"Results\": 5}}",
        "",
        &deep,
    ] {
        let server = with_queued_commit();
        server.fail_all(answer(body));
        assert_survived(&server, &deliver(&server));
    }
}

#[test]
fn rows_of_the_wrong_shape_are_an_error() {
    for row in ["5", "{}", "null", "{\"Name\": \"Acme\", \"_ref\": 5}", "{\"Name\": \"Acme\", \"_ref\": \"/../x\"}"] {
        let server = with_queued_commit();
        let body = format!("{{\"QueryResult\": {{\"Errors\": [], \"TotalResultCount\": 1, \"Results\": [{row}]}}}}");
        server.fail_all_at("GET", "/workspace", answer(&body));
        assert_survived(&server, &deliver(&server));
    }
}

#[test]
fn the_answer_to_a_batch_may_be_nonsense() {
    for results in ["5", "[]", "[5, 5, 5]", "[[]]", "[{\"Errors\": 5, \"Object\": []}]"] {
        let server = with_queued_commit();
        server.fail_all_at(
            "POST",
            "/batch",
            answer(&format!("{{\"BatchResult\": {{\"Errors\": [], \"Results\": {results}}}}}")),
        );
        server.fail_all_at("POST", "/changeset", answer("{\"CreateResult\": {\"Errors\": [], \"Object\": 5}}"));
        let ran = deliver(&server);
        assert!(!ran.stderr.contains("bug"), "{ran:?}");
        assert_eq!(server.count("delivered"), 0);
    }
}

#[test]
fn an_object_of_another_type_does_not_count_as_delivered() {
    for rally_ref in
        ["http://127.0.0.1/slm/webservice/v2.0/defect/1", "http://elsewhere.example/slm/webservice/v2.0/changeset/1"]
    {
        let server = with_queued_commit();
        let created = format!("{{\"Errors\": [], \"Warnings\": [], \"Object\": {{\"_ref\": \"{rally_ref}\"}}}}");
        server.fail_all_at(
            "POST",
            "/batch",
            answer(&format!("{{\"BatchResult\": {{\"Errors\": [], \"Results\": [{created}]}}}}")),
        );
        server.fail_all_at("POST", "/changeset", answer(&format!("{{\"CreateResult\": {created}}}")));
        assert_survived(&server, &deliver(&server));
    }
}

#[test]
fn a_long_error_text_is_cut_everywhere() {
    let server = with_queued_commit();
    server.fail_all(Action::Errors(vec!["x".repeat(10_000_000); 3]));
    let ran = deliver(&server);
    assert!(ran.stderr.len() < 10_000 && server.log().len() < 20_000, "{} bytes", ran.stderr.len());
    assert!(server.run(&["status", "--json"]).stdout.len() < 10_000);
    server.fail_all(Action::Status { code: 500, headers: Vec::new(), body: "y".repeat(7_000_000) });
    let ran = deliver(&server);
    assert!(ran.stderr.len() < 10_000 && server.log().len() < 20_000, "{} bytes", ran.stderr.len());
}

/// Answers each request by writing this after its headers. Returns the server's address.
fn liar(
    headers: &'static str,
    write: impl Fn(&mut TcpStream) -> std::io::Result<()> + Send + Sync + Copy + 'static,
) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let url = format!("http://{}", listener.local_addr().expect("it is bound"));
    thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            thread::spawn(move || {
                let mut lines = BufReader::new(&stream).lines();
                while lines.next().is_some_and(|line| line.is_ok_and(|line| !line.is_empty())) {}
                drop(lines);
                // The client leaves at some time, and then it is over.
                let _ = write!(stream, "HTTP/1.1 200 OK\r\n{headers}Connection: close\r\n\r\n")
                    .and_then(|()| write(&mut stream));
            });
        }
    });
    url
}

fn assert_survives_liar(url: &str) {
    let server = with_queued_commit();
    let honest = server.read_configuration();
    let lying = server.configuration().rally(&format!("server = {url:?}")).sections(crate::support::DELIVER_LATER);
    server.write_configuration(lying);
    let ran = deliver(&server);
    server.write_configuration(honest);
    assert_survived(&server, &ran);
}

#[test]
fn an_endless_body_is_not_read_to_its_end() {
    let url = liar("", |stream| {
        loop {
            stream.write_all(&[b' '; 1 << 16])?;
        }
    });
    assert_survives_liar(&url);
}

#[test]
fn a_body_that_drips_is_given_up_after_the_timeout() {
    let url = liar("", |stream| {
        loop {
            stream.write_all(b" ")?;
            thread::sleep(std::time::Duration::from_millis(50));
        }
    });
    assert_survives_liar(&url);
}

#[test]
fn a_body_that_grows_when_it_is_decompressed_is_not_read_to_its_end() {
    let url = liar("Content-Encoding: gzip\r\n", |stream| {
        let mut bomb = flate2::read::GzEncoder::new(std::io::repeat(b' ').take(4 << 30), flate2::Compression::best());
        std::io::copy(&mut bomb, stream).map(drop)
    });
    assert_survives_liar(&url);
}

#[test]
fn endless_headers_are_not_read_to_their_end() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let url = format!("http://{}", listener.local_addr().expect("it is bound"));
    thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            thread::spawn(move || {
                let _ = stream.write_all(b"HTTP/1.1 200 OK\r\n");
                while stream.write_all(b"X-More: and more and more\r\n").is_ok() {}
            });
        }
    });
    assert_survives_liar(&url);
}

#[test]
fn endless_pages_are_not_read_to_their_end() {
    let url = liar("", |stream| {
        let row = "{\"_ref\": \"/workspace/1\", \"Name\": \"Acme\"}";
        let rows = vec![row; 200].join(",");
        write!(
            stream,
            "{{\"QueryResult\": {{\"Errors\": [], \"TotalResultCount\": 4000000000, \"Results\": [{rows}]}}}}"
        )
    });
    assert_survives_liar(&url);
}

#[test]
fn a_million_rows_are_not_kept() {
    let url = liar("", |stream| {
        write!(stream, "{{\"QueryResult\": {{\"Errors\": [], \"TotalResultCount\": 1000000, \"Results\": [")?;
        (0..1_000_000).try_for_each(|_| stream.write_all(b"{},"))
    });
    assert_survives_liar(&url);
}

#[test]
fn a_panic_in_one_repository_stops_no_other() {
    // What a lying server does to one repository of several.
    let server = with_queued_commit();
    let liar = liar("", |stream| stream.write_all(b"5"));
    let other = server.path().join("a-liar.git");
    crate::support::twin(&server.git_dir, &other);
    let text = server.configuration().rally(&format!("server = {liar:?}\napi_key_file = \"api-key\""));
    std::fs::write(other.join("rally-hook.toml"), text.sections(crate::support::DELIVER_LATER).to_string())
        .expect("it can be written");
    let mut command = server.command(&["deliver", "--all-repos", "."]);
    command.current_dir(server.path());
    ran(command).fails_with(1);
    assert_eq!(server.changesets().len(), 1);
}

#[test]
fn large_rows_are_not_kept() {
    let url = liar("", |stream| {
        let row = format!("{{\"_ref\": \"/workspace/1\", \"Name\": \"{}\"}}", "x".repeat(38_000));
        let rows = vec![row.as_str(); 200].join(",");
        write!(
            stream,
            "{{\"QueryResult\": {{\"Errors\": [], \"TotalResultCount\": 1000000000, \"Results\": [{rows}]}}}}"
        )
    });
    assert_survives_liar(&url);
}

#[test]
fn small_pages_are_not_read_for_ever() {
    let url = liar("", |stream| {
        thread::sleep(std::time::Duration::from_millis(200));
        let row = "{\"_ref\": \"/workspace/1\", \"Name\": \"Acme\"}";
        write!(
            stream,
            "{{\"QueryResult\": {{\"Errors\": [], \"TotalResultCount\": 1000000000, \"Results\": [{row}]}}}}"
        )
    });
    assert_survives_liar(&url);
}
