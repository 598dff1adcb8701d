//! What the configuration decides about commits, authors, links, the queue and the log.

use std::fs;

use rally_simulator::{Fault, Match};

use crate::support::fault::errors;
use crate::support::{Clone, Server, expected, ran};

/// Pushes one commit of US1 by this author to main, delivers it, and returns its revision.
fn deliver_by(server: &Server, clone: &Clone, name: &str, email: &str) -> String {
    let mut command = clone.command();
    command.args(["commit", "--quiet", "--allow-empty", "-m", "US1"]);
    command.env("GIT_AUTHOR_NAME", name).env("GIT_AUTHOR_EMAIL", email);
    ran(command).succeeds();
    clone.push(&["origin", "main"]);
    server.deliver_all();
    clone.head()
}

/// Sets up a server with three more users and these lines after `[authors]`. Its author map stands in authors.toml.
fn with_users(authors: &str) -> (Server, Clone) {
    let server = Server::delivering_later(authors);
    server.rally.world(|world| {
        world.add_user("login.one", "one@acme.example", "One");
        world.add_user("two@acme.example", "other.address@acme.example", "Two");
        world.add_user("three@acme.example", "three@home.example", "Three Name");
    });
    server.write_private("authors.toml", "\"three@laptop\" = \"login.one\"\n\"Zed\" = \"gone@acme.example\"\n");
    let clone = server.new_clone();
    (server, clone)
}

/// Asserts that commits by these names and addresses get these authors.
fn assert_authors(authors: &str, cases: &[(&str, &str, Option<&str>, &str)]) {
    let (server, clone) = with_users(authors);
    for (name, email, author, why) in cases {
        let revision = deliver_by(&server, &clone, name, email);
        assert_eq!(server.changeset(&revision).author.as_deref(), *author, "{why}");
    }
}

const MAP: &str = "[authors]\nmap_file = \"authors.toml\"\nmatch = [\"display-name\", \"email\"]\n";

#[test]
fn an_author_is_found_by_address_user_name_or_display_name() {
    let cases = [
        ("x", "one@acme.example", Some("login.one"), "by address"),
        ("x", "two@acme.example", Some("two@acme.example"), "by user name"),
        ("Three Name", "x@x", Some("three@acme.example"), "by display name"),
        ("Three Name", "one@acme.example", Some("login.one"), "the address goes first"),
        ("nobody", "three@laptop", None, "not found"),
    ];
    assert_authors("", &cases);
}

#[test]
fn an_author_is_looked_up_in_the_map_and_then_in_the_order_of_match() {
    let cases = [
        ("Three Name", "three@laptop", Some("login.one"), "the map goes first"),
        ("Two", "one@acme.example", Some("two@acme.example"), "then in the order of match"),
        ("x", "two@acme.example", None, "user names are not compared now"),
    ];
    assert_authors(MAP, &cases);
}

#[test]
fn an_author_outside_the_domain_is_looked_up_by_the_same_name_in_it() {
    let cases = [
        ("x", "three@elsewhere", Some("three@acme.example"), "the domain is replaced"),
        ("Zed", "four@elsewhere", None, "the map names a user whom Rally does not have"),
    ];
    assert_authors(&format!("{MAP}domain = \"acme.example\"\n"), &cases);
}

#[test]
fn an_author_who_is_not_found_is_replaced_by_the_default() {
    let cases = [("Zed", "four@elsewhere", Some("connector@acme.example"), "the default")];
    assert_authors(&format!("{MAP}default = \"connector@acme.example\"\n"), &cases);
}

#[test]
fn commits_whose_author_is_no_user_of_rally_are_counted_and_logged() {
    let (server, clone) = with_users("");
    deliver_by(&server, &clone, "One", "one@acme.example");
    assert!(!server.run(&["status"]).stdout.contains("authors"), "the author is known");
    let first = deliver_by(&server, &clone, "No\u{1b}body", "nobody@x");
    deliver_by(&server, &clone, "No\u{1b}body", "nobody@x");
    assert_eq!(server.count("unknown_authors"), 2);
    assert!(server.run(&["status"]).stdout.contains("authors    2 commits posted without one"));
    let text = format!("commit {first} is posted without its author: Rally has no user for No?body <nobody@x>");
    let is_it = |line: &str| line.contains("level=info") && line.ends_with(&format!("message=\"{text}\""));
    assert!(server.log().lines().any(is_it), "{}", server.log());
}

#[test]
fn an_author_for_whom_nobody_is_looked_for_is_not_counted() {
    let (server, clone) = with_users("[authors]\nmatch = []\n");
    deliver_by(&server, &clone, "Nobody", "nobody@x");
    assert_eq!(server.count("unknown_authors"), 0);
}

#[test]
fn a_missing_author_map_stops_the_delivery_and_is_named() {
    let (server, clone) = with_users(MAP);
    fs::remove_file(server.git_dir.join("authors.toml")).expect("it was there");
    clone.commit_staged("US1");
    clone.push(&["origin", "main"]);
    let ran = server.run(&["deliver"]).fails_with(1);
    assert!(ran.stderr.contains("authors.map_file") && ran.stderr.contains("authors.toml"), "{ran:?}");
}

#[test]
fn links_have_the_form_of_each_host() {
    let server = Server::delivering_later("");
    let clone = server.new_clone();
    let web = "https://git.example/p";
    let hosts = [
        ("github", "/commit/{}", "/blob/{}/a%20b"),
        ("gitlab", "/-/commit/{}", "/-/blob/{}/a%20b"),
        ("gitea", "/commit/{}", "/src/commit/{}/a%20b"),
        ("bitbucket-server", "/commits/{}", "/browse/a%20b?at={}"),
        ("bitbucket-cloud", "/commits/{}", "/src/{}/a%20b"),
        ("azure", "/commit/{}", "?path=/a%20b&version=GC{}"),
        ("gitweb", ";a=commit;h={}", ";a=blob;f=a%20b;hb={}"),
        ("cgit", "/commit/?id={}", "/tree/a%20b?id={}"),
        ("custom", "/own/{}", "/own/{}:a%20b"),
    ];
    for (host, commit, file) in hosts {
        let mut section = format!("[repository]\nweb = \"{web}\"\nlinks = \"{host}\"\n");
        if host == "custom" {
            section +=
                &format!("commit_link = \"{web}/own/{{revision}}\"\nfile_link = \"{web}/own/{{revision}}:{{path}}\"\n");
        }
        server.configure_later(&section);
        let revision = clone.commit("US1", &[("a b", Some(host))]);
        clone.push(&["origin", "main"]);
        server.deliver_all();
        let held = server.changeset(&revision);
        assert_eq!(held.uri, Some(format!("{web}{}", commit.replace("{}", &revision))), "{host}");
        assert_eq!(held.changes[0].uri, Some(format!("{web}{}", file.replace("{}", &revision))), "{host}");
    }
}

#[test]
fn without_a_web_address_there_are_no_links() {
    let server = Server::delivering_later("");
    let clone = server.new_clone();
    let revision = clone.commit("US1", &[("a b", Some("no host"))]);
    clone.push(&["origin", "main"]);
    server.deliver_all();
    assert_eq!((server.changeset(&revision).uri, &server.changeset(&revision).changes[0].uri), (None, &None));
}

/// Sets up a server with this section and one queued commit.
fn with_queued_commit(section: &str) -> (Server, Clone) {
    let server = Server::delivering_later(section);
    let clone = server.new_clone();
    clone.commit("US1", &[("a", Some("1"))]);
    clone.push(&["origin", "main"]);
    (server, clone)
}

#[test]
fn a_missing_scm_repository_is_not_created_if_that_is_switched_off() {
    let (server, _) = with_queued_commit("[repository]\ncreate = false\nname = \"core\"\nprojects = [\"Payments\"]\n");
    let ran = server.run(&["deliver"]).fails_with(1);
    assert!(ran.stderr.contains("core") && ran.stderr.contains("repository.create is off"), "{ran:?}");
    assert_eq!(server.count("pending"), 1);
    assert!(server.rally.world(|world| world.repositories()).is_empty());
}

#[test]
fn an_scm_repository_is_not_created_if_one_of_its_projects_is_unknown() {
    let (server, _) = with_queued_commit("[repository]\nname = \"core\"\nprojects = [\"Payments\", \"Gone\"]\n");
    let ran = server.run(&["deliver"]).fails_with(1);
    assert!(ran.stderr.contains("\"Gone\"") && ran.stderr.contains("repository.projects"), "{ran:?}");
    assert!(server.rally.world(|world| world.repositories()).is_empty());
}

#[test]
fn the_scm_repository_is_created_once_with_the_configured_fields() {
    let web = "web = \"https://git.example/core\"";
    let (server, clone) =
        with_queued_commit(&format!("[repository]\nname = \"core\"\nprojects = [\"Payments\"]\n{web}\n"));
    server.deliver_all();
    clone.commit("US2", &[("a", Some("2"))]);
    clone.push(&["origin", "main"]);
    server.deliver_all();
    let made = server.rally.world(|world| world.repositories());
    assert_eq!(made.len(), 1);
    assert_eq!((made[0].name.as_str(), made[0].scm_type.to_lowercase().as_str()), ("core", "git"));
    assert_eq!(
        (made[0].projects.join(" "), made[0].uri.as_deref()),
        ("Payments".into(), Some("https://git.example/core"))
    );
    assert_eq!(made[0].workspace, "Acme");
    server.assert_rally_holds(&expected(&server.git_dir, &["main"]));
}

#[test]
fn artifacts_are_found_by_the_configured_prefixes_in_any_case() {
    let server = Server::delivering_later("[commits]\nprefixes = [\"DE\", \"S\"]\nignore_case = true\n");
    server.rally.world(|world| {
        world.set_prefix("HierarchicalRequirement", "S");
        world.add_artifact("S7", "A story");
    });
    let clone = server.new_clone();
    let revision = clone.commit("US1, s7 and De2; not S07", &[("a", Some("1"))]);
    clone.commit("TA1", &[("a", Some("2"))]);
    clone.push(&["origin", "main"]);
    server.deliver_all();
    assert_eq!(server.changeset(&revision).artifacts, ["S7", "DE2"]);
    assert_eq!(server.changesets().len(), 1);
}

#[test]
fn inline_delivery_is_done_when_the_push_returns() {
    let server = Server::new();
    server.configure("[queue]\ndeliver = \"inline\"\n");
    let clone = server.new_clone();
    clone.commit("US1", &[("a", Some("1"))]);
    clone.push(&["origin", "main"]);
    server.assert_rally_holds(&expected(&server.git_dir, &["main"]));
}

#[test]
fn later_delivery_waits_for_deliver_all_repos() {
    let (server, _) = with_queued_commit("");
    assert_eq!((server.rally.requests().len(), server.count("pending")), (0, 1));
    let root = server.path().display().to_string();
    server.run(&["deliver", "--all-repos", &root]).succeeds();
    server.assert_rally_holds(&expected(&server.git_dir, &["main"]));
}

/// Pushes a commit with these lines of `[queue]`, and delivers with this command while Rally reports conflicts.
fn deliver_during_conflicts(queue: &str, command: &[&str]) -> Server {
    let server = Server::new();
    // The simulated Rally's reads do not lag, so the outcome of a refused write is known at once.
    let configuration = server.configuration().rally("read_lag = \"0s\"");
    server.write_configuration(configuration.sections(&format!("[queue]\ndeliver = \"later\"\n{queue}")));
    server.rally.fault(Fault {
        on: Match { body: Some("CommitTimestamp".into()), ..Match::default() },
        times: usize::MAX,
        action: errors("Concurrency conflict: try again"),
    });
    let clone = server.new_clone();
    clone.commit("US1", &[("a", Some("1"))]);
    clone.push(&["origin", "main"]);
    server.run(command).fails_with(1);
    server
}

#[test]
fn a_commit_is_not_retried_before_the_retry_delay_is_over() {
    let server = deliver_during_conflicts("retry_delay = \"1h\"\n", &["deliver"]);
    let tried = server.rally.requests().len();
    let ran = server.run(&["deliver"]).fails_with(1);
    assert_eq!(server.rally.requests().len(), tried, "it is not due for an hour");
    assert!(server.status()["next_attempt"].is_string());
    assert!(ran.stderr.contains("; `rally-hook deliver --now` tries at once"), "{ran:?}");
}

#[test]
fn deliver_now_does_not_wait_for_the_end_of_the_retry_delay() {
    for all in [&["deliver", "--now"][..], &["deliver", "--now", "--all-repos", ".."]] {
        let server = deliver_during_conflicts("retry_delay = \"1h\"\nretry_for = \"2h\"\n", &["deliver"]);
        server.rally.clear_faults();
        server.run(all).succeeds();
        server.assert_rally_holds(&expected(&server.git_dir, &["main"]));
    }
}

#[test]
fn a_commit_that_fails_for_longer_than_retry_for_becomes_a_dead_letter() {
    let server = deliver_during_conflicts("retry_delay = \"5ms\"\nretry_for = \"1ms\"\n", &["deliver", "--wait"]);
    assert_eq!((server.count("failed"), server.count("pending")), (1, 0));
    let letter = &server.status()["dead_letters"][0];
    assert!(letter["reason"].as_str().is_some_and(|reason| reason.contains("Concurrency conflict")), "{letter}");
    server.rally.clear_faults();
    server.run(&["retry", "--all"]).succeeds();
    server.deliver_all();
    server.assert_rally_holds(&expected(&server.git_dir, &["main"]));
}

#[test]
fn a_quiet_push_prints_nothing() {
    let server = Server::delivering_later("[log]\npush = \"quiet\"\n");
    let clone = server.new_clone();
    clone.commit("US1 US99", &[("a", Some("1"))]);
    assert_eq!(clone.push(&["origin", "main"]), "");
}

#[test]
fn the_log_goes_to_the_configured_file() {
    let server = Server::delivering_later("[log]\nfile = \"rally-hook/logs-of-rally\"\nlevel = \"info\"\n");
    server.new_clone().push_commits(&["US1 US99"]);
    server.deliver_all();
    let log = fs::read_to_string(server.git_dir.join("rally-hook/logs-of-rally")).expect("the configured file");
    assert!(log.contains("1 new commit,") && log.contains("US99") && log.contains("delivered commit"), "{log}");
    assert!(!server.log().contains("1 new commit,"));
}

#[test]
fn the_log_holds_errors_only_if_so_configured() {
    let log = "[log]\nfile = \"rally-hook/errors-only\"\nlevel = \"error\"\n[commits]\nmax_changes = 0\n";
    let server = Server::delivering_later(log);
    let seen = server.new_clone().push_commits(&["US2"]);
    assert!(seen.contains("rally: 1 commit queued for US2 (repository payments)"), "{seen}");
    server.deliver_all();
    assert_eq!(fs::read_to_string(server.git_dir.join("rally-hook/errors-only")).unwrap_or_default(), "");
}
