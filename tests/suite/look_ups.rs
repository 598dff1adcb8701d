//! Look-ups that Rally refuses or takes in one form only: each is asked in another way, at a known cost.

use rally_simulator::{Action, Fault, Match, Request};

use crate::support::fault::{errors, status};
use crate::support::{Server, expected};

/// Sets up a server with so many queued commits, of one author.
fn with_queued_commits(count: usize) -> Server {
    let server = Server::delivering_later("");
    let messages: Vec<String> = (0..count).map(|number| format!("US{}: {number}", 1 + number % 9)).collect();
    server.receive(&messages.iter().map(String::as_str).collect::<Vec<_>>());
    server
}

fn assert_delivered(server: &Server) {
    server.run(&["deliver"]).succeeds();
    server.assert_rally_holds(&expected(&server.git_dir, &["main"]));
}

/// Counts the requests that this is true of.
fn count(server: &Server, is_counted: impl Fn(&Request) -> bool) -> usize {
    server.rally.requests().iter().filter(|request| is_counted(request)).count()
}

fn is_form(request: &Request) -> bool {
    request.method == "POST" && request.body.contains("_method=GET")
}

fn asks_without_project(request: &Request) -> bool {
    request.query.contains_key("start") && !request.query.contains_key("project")
}

/// Refuses queries of this type that name `project=null`.
fn refuse_null_project(server: &Server, path: &'static str, action: Action) {
    let on = Match { method: Some("GET"), path: Some(path), body: Some("null".into()), ..Match::default() };
    server.rally.fault(Fault { on, times: usize::MAX, action });
}

#[test]
fn long_queries_are_sent_as_a_form() {
    // The repository exists already, so Rally is asked for each revision.
    let server = with_queued_commits(1);
    assert_delivered(&server);
    server.receive(&["US1: a"; 60]);
    assert_delivered(&server);
    assert_eq!(count(&server, is_form), 1);
}

#[test]
fn a_server_that_takes_no_form_is_asked_in_small_queries_after_one_refusal() {
    for code in [404, 405, 501] {
        let server = with_queued_commits(1);
        assert_delivered(&server);
        let on = Match { body: Some("_method=GET".into()), ..Match::default() };
        server.rally.fault(Fault { on, times: usize::MAX, action: status(code) });
        server.receive(&["US1: a"; 60]);
        server.receive(&["US2: b"; 60]);
        assert_delivered(&server);
        assert_eq!(count(&server, is_form), 1, "it is remembered");
        let longest = server.rally.requests().iter().map(|request| request.url_length).max();
        assert!(longest < Some(2000), "{longest:?}");
    }
}

#[test]
fn a_type_that_refuses_the_null_project_is_asked_without_it_at_the_cost_of_one_request() {
    for action in [status(400), errors("Could not parse: project"), errors("Cannot find object to read")] {
        for path in ["/workspace", "/typedefinition", "/scmrepository", "/user", "/changeset"] {
            let server = with_queued_commits(1);
            if path == "/changeset" {
                assert_delivered(&server);
                server.receive(&["US2: another"]);
            }
            server.rally.clear_requests();
            refuse_null_project(&server, path, action.clone());
            assert_delivered(&server);
            let of_type = |request: &Request| request.method == "GET" && request.path == path;
            let refused = count(&server, |request| of_type(request) && !asks_without_project(request));
            let answered = count(&server, |request| of_type(request) && asks_without_project(request));
            assert!(refused == 1 && answered >= 1, "{path}: {refused} and {answered}");
        }
    }
}

#[test]
fn artifacts_are_never_looked_for_in_the_default_project_alone() {
    let server = with_queued_commits(1);
    refuse_null_project(&server, "/hierarchicalrequirement", status(400));
    server.run(&["deliver"]).fails_with(1);
    assert_eq!(
        count(&server, |request| request.path == "/hierarchicalrequirement" && asks_without_project(request)),
        0
    );
    assert_eq!(server.count("pending"), 1);
}

#[test]
fn a_refusal_to_look_for_users_costs_the_authors_and_is_logged_once() {
    for action in
        [status(403), status(400), errors("Not authorized to perform action: read"), errors("Could not parse")]
    {
        let server = Server::delivering_later("[authors]\nmatch = [\"email\"]\n");
        server.fail_all_at("GET", "/user", action.clone());
        server.receive(&["US1: a", "US2: b"]);
        server.run(&["deliver"]).succeeds();
        let held = server.changesets();
        assert!(held.len() == 2 && held.iter().all(|changeset| changeset.author.is_none()), "{action:?}: {held:?}");
        let log = server.log();
        let lines: Vec<_> = log.lines().filter(|line| line.contains("posted without authors")).collect();
        assert!(lines.len() == 1 && lines[0].contains("GET /user"), "{action:?}: {log}");
    }
}

#[test]
fn who_may_not_look_for_users_is_asked_for_once() {
    let server = Server::delivering_later("");
    server.fail_all_at("GET", "/user", status(403));
    server.receive(&["US1: a", "US2: b"]);
    server.run(&["deliver"]).succeeds();
    assert_eq!(count(&server, |request| request.path == "/user"), 1);
    assert_eq!(server.count("unknown_authors"), 0, "nobody told that they are unknown");
    server.rally.clear_faults();
    server.receive(&["US3: c"]);
    assert_eq!(server.run(&["deliver"]).succeeds().code, Some(0));
    let authors: Vec<Option<String>> = server.changesets().into_iter().map(|changeset| changeset.author).collect();
    assert_eq!(authors, [None, None, Some("john.doe@acme.example".to_owned())]);
}
