//! Subversion repositories: what a commit becomes in Rally.

use std::fs;
use std::path::Path;

use crate::support::subversion::{Subversion, url_of};
use crate::support::{DELIVER_LATER, git, hermetic, output_bytes, program, ran};

#[test]
fn a_commit_becomes_a_changeset_with_its_changes() {
    let Some(server) = Subversion::new() else { return };
    server.configure("[authors]\ndomain = \"acme.example\"\n");
    let words = ["mkdir", "trunk/dir", "put", "/dev/null", "trunk/dir/a b"];
    let revision = server.commit("US1, DE2: Ä <b>\n\nBody", &words).to_string();
    server.deliver_all();
    let changeset = server.changeset(&revision);
    assert_eq!(changeset.message, "US1, DE2: Ä <b>\n\nBody");
    assert_eq!(changeset.author.as_deref(), Some("jane.roe@acme.example"));
    assert_eq!(changeset.branch.as_deref(), Some("trunk"));
    assert_eq!(changeset.repository, "payments");
    let date = server.look(&["date"]);
    assert_eq!(changeset.commit_timestamp.get(..19), date.get(..19).map(|date| date.replace(' ', "T")).as_deref());
    let changes: Vec<String> =
        changeset.changes.iter().map(|change| format!("{} {}", change.action, change.path)).collect();
    assert_eq!(changes, ["A trunk/dir/", "A trunk/dir/a b"]);
    let kind = server.rally.world(|world| world.repositories()[0].scm_type.clone());
    assert_eq!(kind, "Subversion");
}

#[test]
fn an_author_whom_rally_does_not_know_is_told_by_the_name_alone() {
    let Some(server) = Subversion::delivering_later("[authors]\ndomain = \"acme.example\"\n") else { return };
    assert!(server.commit_as("zed", "US1", &["put", "/dev/null", "trunk/a"]).success);
    server.deliver_all();
    let told = "commit 2 is posted without its author: Rally has no user for zed\"";
    assert!(server.log().lines().any(|line| line.ends_with(told)), "{}", server.log());
}

#[test]
fn a_commit_is_delivered_in_the_background_and_the_client_sees_nothing() {
    let Some(server) = Subversion::new() else { return };
    let committed = server.commit_as("jane", "US1", &["put", "/dev/null", "trunk/a"]);
    assert!(!committed.stderr.contains("rally") && !committed.stdout.contains("arning"), "{committed:?}");
    server.rally.wait_until("the commit and its file", |world| {
        world.changesets().iter().any(|held| held.revision == "2" && held.changes.len() == 1)
    });
}

#[test]
fn each_kind_of_change_is_what_svnlook_says() {
    let Some(server) = Subversion::delivering_later("") else { return };
    server.commit("DE1: files", &["put", "/dev/null", "trunk/a", "put", "/dev/null", "trunk/b", "mkdir", "trunk/dir"]);
    let content = program().to_str().expect("UTF-8");
    server.commit("US1: a new content", &["put", content, "trunk/a"]);
    server.commit("US2: a property of a file", &["propset", "svn:eol-style", "native", "trunk/b"]);
    server.commit("US3: a property of a directory", &["propset", "svn:ignore", "x", "trunk/dir"]);
    server.commit("US4: a copy is one change", &["cp", "HEAD", "trunk", "branches/x"]);
    server
        .commit("US5: a copy that was changed", &["cp", "HEAD", "trunk", "tags/1.0", "put", "/dev/null", "tags/1.0/a"]);
    server.commit("US6: a move", &["mv", "trunk/a", "trunk/c"]);
    server.commit("US8: a directory goes", &["rm", "branches/x"]);
    server.assert_delivers(1..=server.youngest());
}

#[test]
fn what_is_replaced_is_one_change() {
    let Some(server) = Subversion::delivering_later("") else { return };
    server.commit("US1", &["put", "/dev/null", "trunk/a", "put", "/dev/null", "trunk/b"]);
    let revision = server.commit("US2", &["rm", "trunk/b", "cp", "HEAD", "trunk/a", "trunk/b"]).to_string();
    server.deliver_all();
    let changes = server.changeset(&revision).changes;
    assert_eq!(changes.iter().map(|change| (&*change.action, &*change.path)).collect::<Vec<_>>(), [("M", "trunk/b")]);
}

#[test]
fn properties_of_directories_can_be_left_out() {
    let Some(server) = Subversion::delivering_later("[svn]\ndirectory_properties = false\n") else { return };
    let words = ["propset", "svn:mergeinfo", "/branches/x:2", "trunk", "put", "/dev/null", "trunk/a"];
    let revision = server.commit("US1: a merge", &words).to_string();
    server.deliver_all();
    let paths: Vec<String> = server.changeset(&revision).changes.into_iter().map(|change| change.path).collect();
    assert_eq!(paths, ["trunk/a"]);
}

#[test]
fn branches_are_told_by_paths_and_by_the_configured_layout() {
    let Some(server) = Subversion::delivering_later("[svn]\nbranches = \"lines\"\n") else { return };
    let branch = |revision: u64| server.changeset(&revision.to_string()).branch;
    let trunk = server.commit("US1", &["put", "/dev/null", "trunk/a"]);
    let line = server.commit("US1", &["mkdir", "lines", "cp", "HEAD", "trunk", "lines/x"]);
    let tag = server.commit("US1", &["cp", "HEAD", "trunk", "tags/1.0"]);
    let both = server.commit("US1", &["put", "/dev/null", "trunk/b", "put", "/dev/null", "tags/1.0/b"]);
    let project = server.commit("US1", &["mkdir", "app", "mkdir", "app/trunk"]);
    let inside = server.commit("US1", &["put", "/dev/null", "app/trunk/a"]);
    server.deliver_all();
    assert_eq!(branch(trunk).as_deref(), Some("trunk"));
    // The directory "lines" itself lies in no branch.
    assert_eq!(branch(line), None);
    assert_eq!(branch(tag).as_deref(), Some("tags/1.0"));
    assert_eq!((branch(both), branch(project)), (None, None));
    assert_eq!(branch(inside).as_deref(), Some("app/trunk"));
}

#[test]
fn only_watched_branches_are_posted() {
    let Some(server) = Subversion::delivering_later("[commits]\nrefs = [\"trunk\", \"refs/tags/*\"]\n") else { return };
    let trunk = server.commit("US1", &["put", "/dev/null", "trunk/a"]);
    server.commit("US2", &["cp", "HEAD", "trunk", "branches/x"]);
    let tag = server.commit("US3", &["cp", "HEAD", "trunk", "tags/1.0"]);
    server.deliver_all();
    let revisions: Vec<String> = server.changesets().into_iter().map(|changeset| changeset.revision).collect();
    assert_eq!(revisions, [trunk.to_string(), tag.to_string()]);
}

#[test]
fn a_state_changes_by_a_commit_to_trunk_and_by_no_other() {
    let Some(server) = Subversion::delivering_later("[state]\nupdate = true\n") else { return };
    server.commit("nothing", &["cp", "HEAD", "trunk", "branches/x"]);
    server.deliver_all();
    server.commit("Fixed DE1", &["put", "/dev/null", "branches/x/a"]);
    server.commit("Fixed DE2", &["put", "/dev/null", "trunk/a"]);
    server.deliver_all();
    let state = |id: &str| server.rally.world(|world| world.field(id, "State"));
    assert_eq!((state("DE2") == "Fixed", state("DE1") == "Fixed"), (true, false));
}

#[test]
fn a_log_message_that_is_not_utf8_is_posted() {
    let Some(server) = Subversion::delivering_later("") else { return };
    let properties = b"K 7\nsvn:log\nV 9\nUS1 caf\xe9\n\nPROPS-END\n";
    let length = properties.len();
    let header = format!(
        "SVN-fs-dump-format-version: 2\n\nRevision-number: 1\nProp-content-length: {length}\nContent-length: {length}\n\n"
    );
    let mut load = hermetic("svnadmin");
    load.args(["load", "--quiet", "--bypass-prop-validation"]).arg(&server.git_dir);
    output_bytes(load, &[header.as_bytes(), properties, b"\n"].concat());
    server.run(&["catch-up"]).succeeds();
    server.deliver_all();
    assert_eq!(server.changeset("2").message.trim_end(), r"US1 caf\xE9");
}

#[test]
fn an_scm_repository_of_another_kind_is_left_alone() {
    let Some(server) = Subversion::delivering_later("") else { return };
    git(server.path(), &["init", "--quiet", "--bare", "other.git"]);
    let config = server.configuration().sections(&format!("{DELIVER_LATER}[repository]\nname = \"payments\"\n"));
    let file = server.write_private("named.toml", &config.to_string());
    let named = ["--config", file.to_str().expect("UTF-8")];
    let other = server.path().join("other.git");
    let of_other = ["--repo", other.to_str().expect("UTF-8")];
    server.commit_each(&["US1"]);
    server.deliver_all();
    let doctor = server.run(&[&["doctor"][..], &named, &of_other].concat());
    assert!(doctor.stdout.contains("is one of Subversion, and this repository is one of Git"), "{doctor:?}");
}

#[test]
fn a_repository_with_an_odd_name_is_served() {
    let Some(server) = Subversion::without_hooks("odd @ 100% répo") else { return };
    server.configure(DELIVER_LATER);
    server.run(&["install"]).succeeds();
    let revision = server.commit("US1: é", &["put", "/dev/null", "trunk/é @2 %20"]);
    server.assert_delivers(revision..=revision);
    assert_eq!(server.changesets()[0].repository, "odd @ 100% répo");
}

#[test]
fn a_revision_of_thousands_of_paths_is_posted_up_to_the_limit() {
    let Some(server) = Subversion::delivering_later("[commits]\nmax_changes = 10\n") else { return };
    let tree = server.path().join("tree");
    for number in 0..2_000 {
        let dir = tree.join((number / 100).to_string());
        fs::create_dir_all(&dir).expect("a directory");
        fs::write(dir.join(number.to_string()), "").expect("a file");
    }
    let mut import = server.svn("svn");
    import.args(["import", "--quiet", "--message", "US1: many"]).arg(&tree).arg(format!("{}/trunk/tree", server.url()));
    ran(import).succeeds();
    server.deliver_all();
    assert_eq!(server.changeset("2").changes.len(), 10);
    assert_eq!(server.count("omitted_changes"), 2_021 - 10);
}

#[test]
fn the_address_of_a_repository_is_escaped() {
    assert_eq!(url_of(Path::new("/a b/é@%")), "file:///a%20b/%C3%A9%40%25");
}
