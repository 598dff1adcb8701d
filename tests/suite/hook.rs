//! A push becomes what Rally holds.

use crate::support::{Server, expected};

#[test]
fn a_push_becomes_changesets_with_their_changes() {
    let server = Server::new();
    server.configure("[repository]\nweb = \"https://git.example/payments\"\n");
    let clone = server.new_clone();
    clone.commit("Start without an ID", &[("a", Some("1")), ("dir/b", Some("1"))]);
    let both = clone.commit("US1, DE2: change both\n\nBody", &[("a", Some("2")), ("dir/b", Some("2"))]);
    clone.commit("DE2: rename", &[("a", None), ("c", Some("2"))]);
    let seen = clone.push(&["origin", "main"]);
    assert!(seen.contains("rally: 2 commits queued for US1, DE2 (repository payments)"), "{seen}");
    server.deliver_all();
    server.assert_rally_holds(&expected(&server.git_dir, &["main"]));

    let changeset = server.changeset(&both);
    assert_eq!(changeset.message, "US1, DE2: change both\n\nBody");
    assert_eq!(changeset.author.as_deref(), Some("jane.roe@acme.example"));
    assert_eq!(changeset.branch.as_deref(), Some("main"));
    assert_eq!((changeset.repository.as_str(), changeset.workspace.as_str()), ("payments", "Acme"));
    assert_eq!(changeset.uri, Some(format!("https://git.example/payments/commit/{both}")));
    let change = changeset.changes.iter().find(|change| change.path == "dir/b").expect("both files are there");
    assert_eq!(change.uri, Some(format!("https://git.example/payments/blob/{both}/dir/b")));
    let committed = clone.git(&["log", "-1", "--format=%cd", "--date=format-local:%Y-%m-%dT%H:%M:%S", &both]);
    assert!(changeset.commit_timestamp.starts_with(&committed), "{} {committed}", changeset.commit_timestamp);
}

#[test]
fn the_background_delivery_needs_no_help() {
    let server = Server::new();
    let clone = server.new_clone();
    let revision = clone.commit("US1", &[("a", Some("1"))]);
    clone.push(&["origin", "main"]);
    server.rally.wait_until("the commit and its file", |world| {
        world.changesets().iter().any(|held| held.revision == revision && held.changes.len() == 1)
    });
}
