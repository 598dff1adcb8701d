//! A range that a person names.

use crate::support::{Server, expected};

#[test]
fn a_backfill_posts_history_and_a_second_one_nothing() {
    let server = Server::without_hook();
    let clone = server.new_clone();
    let first = clone.commit("US1", &[("a", Some("1"))]);
    clone.commit("DE2", &[("a", Some("2"))]);
    clone.push(&["origin", "main"]);
    server.run(&["install"]).succeeds();
    assert!(server.changesets().is_empty());
    server.run(&["backfill", &format!("{first}..main")]).succeeds();
    server.assert_rally_holds(&expected(&server.git_dir, &[&format!("{first}..main")]));
    server.run(&["backfill", "--all"]).succeeds();
    server.assert_rally_holds(&expected(&server.git_dir, &["main"]));
    let before = server.rally.requests().len();
    server.run(&["backfill", "main"]).succeeds();
    assert_eq!(server.rally.requests().len(), before, "nothing is left to ask");
}
