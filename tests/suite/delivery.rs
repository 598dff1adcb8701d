//! What reaches Rally, whatever goes wrong between.

use rally_simulator::{Action, Fault, Match};

use crate::support::{Server, expected};

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
