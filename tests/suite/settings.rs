//! What the configuration decides about commits, authors, links, the queue and the log.

use std::fs;

use rally_simulator::{Action, Fault, Match};

use crate::support::{Clone, Server, expected};

/// Pushes one commit of US1 by this author to main, delivers it, and returns its revision.
fn deliver_by(server: &Server, clone: &Clone, name: &str, email: &str) -> String {
    let mut command = clone.command();
    command.args(["commit", "--quiet", "--allow-empty", "-m", "US1"]);
    command.env("GIT_AUTHOR_NAME", name).env("GIT_AUTHOR_EMAIL", email);
    assert!(crate::support::ran(command).success);
    clone.push(&["origin", "main"]);
    server.deliver_all();
    clone.head()
}

#[test]
fn authors_are_looked_for_in_the_configured_order() {
    let server = Server::delivering_later("");
    server.rally.world(|world| {
        world.add_user("login.one", "one@acme.example", "One");
        world.add_user("two@acme.example", "other.address@acme.example", "Two");
        world.add_user("three@acme.example", "three@home.example", "Three Name");
    });
    let clone = server.new_clone();
    let author = |name: &str, email: &str| server.changeset(&deliver_by(&server, &clone, name, email)).author;
    assert_eq!(author("x", "one@acme.example").as_deref(), Some("login.one"), "by address");
    assert_eq!(author("x", "two@acme.example").as_deref(), Some("two@acme.example"), "by user name");
    assert_eq!(author("Three Name", "x@x").as_deref(), Some("three@acme.example"), "by display name");
    assert_eq!(author("Three Name", "one@acme.example").as_deref(), Some("login.one"), "the address goes first");
    assert_eq!(author("nobody", "three@laptop"), None);

    let map =
        server.write_private("authors.toml", "\"three@laptop\" = \"login.one\"\n\"Zed\" = \"gone@acme.example\"\n");
    let authors = format!("[authors]\nmap_file = \"{}\"\nmatch = [\"display-name\", \"email\"]\n", map.display());
    server.configure_later(&authors);
    assert_eq!(author("Three Name", "three@laptop").as_deref(), Some("login.one"), "the map goes first");
    assert_eq!(author("Two", "one@acme.example").as_deref(), Some("two@acme.example"), "then in the order of match");
    assert_eq!(author("x", "two@acme.example"), None, "user names are not compared now");
    server.configure_later(&format!("{authors}domain = \"acme.example\"\n"));
    assert_eq!(author("x", "three@elsewhere").as_deref(), Some("three@acme.example"));
    assert_eq!(author("Zed", "four@elsewhere"), None, "a map may name somebody whom Rally has not");
    server.configure_later(&format!("{authors}default = \"connector@acme.example\"\n"));
    assert_eq!(author("Zed", "four@elsewhere").as_deref(), Some("connector@acme.example"));

    fs::remove_file(&map).expect("it was there");
    clone.commit_staged("US1");
    clone.push(&["origin", "main"]);
    let ran = server.run(&["deliver"]).fails_with(1);
    assert!(ran.stderr.contains("authors.map_file") && ran.stderr.contains("authors.toml"), "{ran:?}");
}

#[test]
fn links_lead_to_the_pages_of_each_host() {
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
    server.configure_later("");
    let revision = clone.commit("US1", &[("a b", Some("no host"))]);
    clone.push(&["origin", "main"]);
    server.deliver_all();
    assert_eq!((server.changeset(&revision).uri, &server.changeset(&revision).changes[0].uri), (None, &None));
}

#[test]
fn the_scm_repository_is_made_once_as_configured_or_not_at_all() {
    let server = Server::delivering_later("[repository]\ncreate = false\nname = \"core\"\nprojects = [\"Payments\"]\n");
    let clone = server.new_clone();
    clone.commit("US1", &[("a", Some("1"))]);
    clone.push(&["origin", "main"]);
    let ran = server.run(&["deliver"]).fails_with(1);
    assert!(ran.stderr.contains("core") && ran.stderr.contains("repository.create is off"), "{ran:?}");
    assert_eq!(server.count("pending"), 1);
    server.configure_later("[repository]\nname = \"core\"\nprojects = [\"Payments\", \"Gone\"]\n");
    let ran = server.run(&["deliver"]).fails_with(1);
    assert!(ran.stderr.contains("\"Gone\"") && ran.stderr.contains("repository.projects"), "{ran:?}");
    assert!(server.rally.world(|world| world.repositories()).is_empty());
    server.configure_later(
        "[repository]\nname = \"core\"\nprojects = [\"Payments\"]\nweb = \"https://git.example/core\"\n",
    );
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
fn prefixes_and_their_case_are_as_configured() {
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
fn delivery_happens_when_the_configuration_says() {
    let server = Server::new();
    server.configure("[queue]\ndeliver = \"inline\"\n");
    let clone = server.new_clone();
    clone.commit("US1", &[("a", Some("1"))]);
    clone.push(&["origin", "main"]);
    server.assert_rally_holds(&expected(&server.git_dir, &["main"]));
    let before = server.rally.requests().len();
    server.configure_later("");
    clone.commit("US2", &[("a", Some("2"))]);
    clone.push(&["origin", "main"]);
    assert_eq!((server.rally.requests().len(), server.count("pending")), (before, 1));
    let root = server.path().display().to_string();
    server.run(&["deliver", "--all-repos", &root]).succeeds();
    server.assert_rally_holds(&expected(&server.git_dir, &["main"]));
}

#[test]
fn a_commit_is_tried_for_as_long_as_configured_and_no_more_often() {
    let conflict = || Fault {
        on: Match { body: Some("CommitTimestamp".into()), ..Match::default() },
        times: usize::MAX,
        action: Action::Errors(vec!["Concurrency conflict: try again".into()]),
    };
    let deliver = |queue: &str, command: &[&str]| {
        let server = Server::new();
        server.configure(&format!("[queue]\ndeliver = \"later\"\n{queue}"));
        server.rally.fault(conflict());
        let clone = server.new_clone();
        clone.commit("US1", &[("a", Some("1"))]);
        clone.push(&["origin", "main"]);
        server.run(command).fails_with(1);
        server
    };
    let server = deliver("retry_delay = \"1h\"\n", &["deliver"]);
    let tried = server.rally.requests().len();
    server.run(&["deliver"]).fails_with(1);
    assert_eq!(server.rally.requests().len(), tried, "it is not due for an hour");
    assert!(server.status()["next_attempt"].is_string());

    let server = deliver("retry_delay = \"5ms\"\nretry_for = \"1ms\"\n", &["deliver", "--wait"]);
    assert_eq!((server.count("failed"), server.count("pending")), (1, 0));
    let letter = &server.status()["dead_letters"][0];
    assert!(letter["reason"].as_str().is_some_and(|reason| reason.contains("Concurrency conflict")), "{letter}");
    server.rally.clear_faults();
    server.run(&["retry", "--all"]).succeeds();
    server.deliver_all();
    server.assert_rally_holds(&expected(&server.git_dir, &["main"]));
}

#[test]
fn the_log_is_where_and_as_long_as_configured_and_the_pusher_hears_what_is_configured() {
    let server = Server::delivering_later("[log]\npush = \"quiet\"\nfile = \"logs-of-rally\"\nlevel = \"info\"\n");
    let clone = server.new_clone();
    clone.commit("US1 US99", &[("a", Some("1"))]);
    assert_eq!(clone.push(&["origin", "main"]), "");
    server.deliver_all();
    let log = fs::read_to_string(server.git_dir.join("logs-of-rally")).expect("the configured file");
    assert!(log.contains("1 new commits") && log.contains("US99") && log.contains("delivered commit"), "{log}");
    assert!(!server.log().contains("1 new commits"));
    server.configure_later("[log]\nfile = \"errors-only\"\nlevel = \"error\"\n[commits]\nmax_changes = 0\n");
    clone.commit("US2", &[("a", Some("2"))]);
    let seen = clone.push(&["origin", "main"]);
    assert!(seen.contains("rally: 1 commit queued for US2 (repository payments)"), "{seen}");
    server.deliver_all();
    assert_eq!(fs::read_to_string(server.git_dir.join("errors-only")).unwrap_or_default(), "");
}
