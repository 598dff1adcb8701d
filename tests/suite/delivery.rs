//! What reaches Rally, whatever goes wrong between.

use rally_simulator::{Action, Fault, Match, Request};

use crate::support::{Server, expected, ran};

fn on(path: &'static str, action: Action) -> Fault {
    Fault { on: Match { path: Some(path), ..Match::default() }, times: 1, action }
}

#[test]
fn an_answer_that_is_lost_makes_no_second_changeset() {
    for action in [Action::CutAfter, Action::CutBefore, Action::CutMidBody] {
        let server = Server::new();
        server.rally.fault(on("/changeset/create", action));
        let clone = server.new_clone();
        clone.commit("US1", &[("a", Some("1"))]);
        clone.push(&["origin", "main"]);
        server.deliver_all();
        server.assert_rally_holds(&expected(&server.git_dir, &["main"]));
    }
}

#[test]
fn text_that_looks_like_a_query_stays_one_literal() {
    let server = Server::delivering_later("[authors]\nmatch = [\"email\", \"username\", \"display-name\"]\n");
    let clone = server.new_clone();
    let name = r#"x") OR (Name contains "a"#;
    let mut commit = clone.command();
    commit.env("GIT_AUTHOR_NAME", name).env("GIT_AUTHOR_EMAIL", r#"\") OR (ObjectID > "0"#);
    let message = "US1\") OR (ObjectID > \"0";
    ran_commit(commit, message);
    clone.push(&["origin", "main"]);
    server.deliver_all();
    let held = server.changesets();
    assert_eq!((held.len(), held[0].author.as_deref(), held[0].message.trim_end()), (1, None, message));
    assert_eq!(held[0].artifacts, ["US1"]);
    let asked: Vec<String> =
        server.rally.requests().into_iter().filter(|request| request.path == "/user").map(query).collect();
    assert!(asked.iter().any(|query| query.contains(r#"(DisplayName = "x\") OR (Name contains \"a")"#)), "{asked:?}");
    assert!(asked.iter().all(|query| !query.contains(r#" = "x") OR"#)), "{asked:?}");
}

fn ran_commit(mut command: std::process::Command, message: &str) {
    command.args(["commit", "--quiet", "--allow-empty", "-m", message]);
    ran(command).succeeds();
}

/// Returns the query that a request asked.
fn query(request: Request) -> String {
    request.query.get("query").cloned().unwrap_or_default()
}
