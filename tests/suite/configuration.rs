//! The configuration files: which are read, and errors in them.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

use crate::support::{Server, expected, ran};

#[test]
fn a_configuration_error_names_file_line_key_and_the_nearest_known_key() {
    let server = Server::new();
    let file = server.git_dir.join("rally-hook.toml").display().to_string();
    let good = server.configuration().without_credentials().to_string();
    let wrong = [
        (format!("{good}tiemout = \"1s\"\n"), ", line 6: unknown key `tiemout`; did you mean `timeout`?"),
        (format!("{good}[comits]\n"), ", line 6: unknown key `comits`; did you mean `commits`?"),
        (format!("{good}[log]\nlevel = \"loud\"\n"), ", line 7: `level`:"),
        (format!("{good}[commits]\nmax_changes = -1\n"), ", line 7: `max_changes`:"),
        (format!("{good}[queue]\nretry_for = \"a while\"\n"), ", line 7: `retry_for`: \"a while\" is not a duration"),
        (good.replace("http://127.0.0.1", "http://rally.example"), ", line 2: `rally.server`: http://rally.example"),
        (
            format!("{good}[repository]\nlinks = \"custom\"\n"),
            ", line 7: `repository.links`: \"custom\" needs commit_link",
        ),
        (format!("{good}api_key = \"_canary\" oops\n"), ", line 6: "),
    ];
    for (text, problem) in &wrong {
        server.write_configuration(text);
        for command in [&["deliver"][..], &["status"], &["catch-up"], &["backfill", "--all"], &["retry", "--all"]] {
            let ran = server.run(command).fails_with(2);
            assert!(ran.stderr.starts_with(&format!("rally-hook: {file}{problem}")), "{text} {ran:?}");
            assert!(!ran.stderr.contains("_canary"), "{ran:?}");
        }
        assert!(server.run(&["doctor"]).fails_with(1).stdout.contains(problem));
    }
}

#[test]
fn pushes_with_a_broken_or_missing_configuration_wait_until_it_is_there() {
    let server = Server::new();
    let clone = server.new_clone();
    let good = server.read_configuration();
    server.write_configuration("[rally\n");
    clone.commit("US1", &[("a", Some("1"))]);
    let seen = clone.push(&["origin", "main"]);
    assert!(seen.contains("rally: this push is kept until the configuration is fixed: "), "{seen}");
    fs::remove_file(server.git_dir.join("rally-hook.toml")).expect("it was there");
    clone.commit("US2", &[("a", Some("2"))]);
    let seen = clone.push(&["origin", "main"]);
    assert!(seen.contains("no configuration"), "{seen}");
    server.write_configuration(&good);
    server.deliver_all();
    server.assert_rally_holds(&expected(&server.git_dir, &["main"]));
    assert_eq!(server.changesets().len(), 2);
}

/// Sets up a server whose configuration is valid elsewhere and broken in its usual place; returns the valid file.
fn with_configuration_elsewhere() -> (Server, PathBuf) {
    let server = Server::new();
    let own = server.git_dir.join("rally-hook.toml");
    let elsewhere = server.path().join("elsewhere.toml");
    fs::rename(&own, &elsewhere).expect("both are in one directory");
    server.write_configuration("broken");
    (server, elsewhere)
}

#[test]
fn a_file_named_by_option_or_variable_is_read_instead_of_the_usual_one() {
    let (server, elsewhere) = with_configuration_elsewhere();
    let named = elsewhere.display().to_string();
    server.run(&["status"]).fails_with(2);
    server.run(&["status", "--config", &named]).succeeds();
    let mut by_variable = server.command(&["status"]);
    by_variable.env("RALLY_HOOK_CONFIG", &elsewhere);
    ran(by_variable).succeeds();
}

#[test]
fn a_named_file_that_does_not_exist_is_an_error() {
    let server = Server::new();
    let missing = server.run(&["--config", "/nonexistent/x.toml", "status"]).fails_with(2);
    assert!(missing.stderr.contains("/nonexistent/x.toml does not exist"), "{missing:?}");
}

#[test]
fn install_refuses_a_named_file_with_an_error_and_changes_nothing() {
    let server = Server::without_hook();
    let broken = server.write_private("broken.toml", "no TOML");
    for (file, cause) in [("/nonexistent/x.toml", "does not exist"), (&broken.display().to_string(), "line 1")] {
        let refused = server.run(&["install", "--config", file]).fails_with(2);
        assert!(refused.stderr.contains(file) && refused.stderr.contains(cause), "{refused:?}");
    }
    assert!(!server.hook().exists() && !server.git_dir.join("rally-hook").exists());
}

#[test]
fn status_shows_the_queue_although_the_configuration_is_broken() {
    let server = Server::delivering_later("");
    server.new_clone().push_commits(&["US1"]);
    server.write_configuration("[rally\n");
    let ran = server.run(&["status"]).fails_with(2);
    assert!(ran.stdout.contains("queued     1") && ran.stderr.contains("rally-hook.toml, line 1"), "{ran:?}");
}

#[test]
fn the_file_that_install_got_is_read_by_all_commands() {
    let (server, _) = with_configuration_elsewhere();
    server.run(&["install", "--config", "../elsewhere.toml"]).succeeds();
    server.run(&["status"]).succeeds();
    server.run(&["install"]).succeeds();
    assert!(server.run(&["doctor"]).succeeds().stdout.contains("elsewhere.toml: no errors"));
    let mut for_all = server.command(&["deliver", "--all-repos", "."]);
    for_all.current_dir(server.path());
    ran(for_all).succeeds();
}

#[test]
fn the_file_that_install_got_is_read_by_the_hook_and_the_background_delivery() {
    let (server, _) = with_configuration_elsewhere();
    server.run(&["install", "--config", "../elsewhere.toml"]).succeeds();
    let clone = server.new_clone();
    clone.commit("US1", &[("a", Some("1"))]);
    let seen = clone.push(&["origin", "main"]);
    assert!(seen.contains("1 commit queued for US1"), "{seen}");
    server.rally.wait_until("the commit", |world| world.changesets().iter().any(|held| held.changes.len() == 1));
}

/// Returns the text of a system's configuration file with all that delivery needs.
fn system_file(server: &Server) -> String {
    let repository = "[repository]\nname = \"of the system\"\ncreate = true\n";
    server.configuration().sections(repository).to_string()
}

#[test]
fn the_repositorys_file_overrides_the_systems_file_key_by_key() {
    let server = Server::new();
    server.write_configuration("[repository]\nname = \"of the repository\"\n");
    server.import("refs/heads/main", &["US1: one"]);
    let Some(ran) = server.run_with_system_file(&system_file(&server), &["backfill", "main"]) else { return };
    ran.succeeds();
    let names: Vec<String> = server.changesets().iter().map(|held| held.repository.clone()).collect();
    assert_eq!(names, ["of the repository"]);
}

#[test]
fn credentials_of_the_repositorys_file_replace_all_credentials_of_the_systems_file() {
    let server = Server::new();
    let rally = "[rally]\nusername = \"connector@acme.example\"\npassword = \"secret-password\"\n";
    server.write_configuration(format!("{rally}[repository]\nname = \"another\"\n"));
    server.import("refs/heads/main", &["US1: one"]);
    let Some(ran) = server.run_with_system_file(&system_file(&server), &["backfill", "main"]) else { return };
    ran.succeeds();
    assert!(server.changesets().iter().any(|held| held.repository == "another"));
}

#[test]
fn an_error_in_the_systems_file_names_that_file() {
    let server = Server::new();
    for (text, problem) in [
        ("[rally]\n\nserver = \"http://rally.example\"\n", "line 3: `rally.server`"),
        ("[rally]\nserver = 1\n", "line 2: `server`"),
    ] {
        server.write_configuration("");
        let Some(ran) = server.run_with_system_file(text, &["status"]) else { return };
        let ran = ran.fails_with(2);
        assert!(ran.stderr.contains(&format!("/etc/rally-hook/config.toml, {problem}")), "{ran:?}");
    }
}

/// Returns a `[[match]]` block for a place below the directory of the server's repositories.
fn block(server: &Server, place: &str, keys: &str) -> String {
    format!("[[match]]\npath = \"{}/{place}\"\n{keys}\n", server.path().display())
}

#[test]
fn a_block_of_the_systems_file_counts_for_the_repositories_at_its_path() {
    let server = Server::new();
    server.write_configuration("");
    server.import("refs/heads/main", &["US1: one"]);
    let blocks = block(&server, "*.git", "repository.name = \"of the block\"")
        + &block(&server, "other/**", "[match.repository]\nname = \"of another block\"");
    let system = system_file(&server) + &blocks;
    let Some(ran) = server.run_with_system_file(&system, &["backfill", "main"]) else { return };
    ran.succeeds();
    let names: Vec<String> = server.changesets().iter().map(|held| held.repository.clone()).collect();
    assert_eq!(names, ["of the block"]);
}

#[test]
fn a_block_of_a_named_file_counts_too() {
    let server = Server::new();
    let named = system_file(&server) + &block(&server, "**", "repository.name = \"of the block\"");
    let named = server.write_private("named.toml", &named);
    server.import("refs/heads/main", &["US1: one"]);
    server.run(&["--config", &named.display().to_string(), "backfill", "main"]).succeeds();
    let names: Vec<String> = server.changesets().iter().map(|held| held.repository.clone()).collect();
    assert_eq!(names, ["of the block"]);
}

#[test]
fn a_block_may_send_the_credentials_of_its_file_to_another_server() {
    let server = Server::new();
    server.write_configuration("");
    server.import("refs/heads/main", &["US1: one"]);
    let system = server.configuration().rally("server = \"https://rally.invalid\"").to_string();
    let system = system + &block(&server, "*.git", &format!("rally.server = {:?}", server.rally.url()));
    let Some(ran) = server.run_with_system_file(&system, &["backfill", "main"]) else { return };
    ran.succeeds();
    assert_eq!(server.changesets().len(), 1);
}

#[test]
fn placeholders_stand_for_the_place_of_the_repository_in_names_and_links() {
    let server = Server::new();
    let root = format!("repository.root = {:?}\n", server.path().parent().expect("a parent"));
    let own = server.path().file_name().expect("a name").to_str().expect("UTF-8").to_owned();
    let keys = "repository.name = \"{dir}\"\nrepository.web = \"https://git.example/{dir}?n={name}\"\n";
    let named = root + &server.configuration().to_string() + &block(&server, "**", keys);
    let named = server.write_private("named.toml", &named);
    server.import("refs/heads/main", &["US1: one"]);
    server.run(&["--config", &named.display().to_string(), "backfill", "main"]).succeeds();
    let held = &server.changesets()[0];
    assert_eq!(held.repository, format!("{own}/payments"));
    let link = format!("https://git.example/{own}/payments?n=payments/commit/{}", held.revision);
    assert_eq!(held.uri, Some(link));
}

#[test]
fn a_placeholder_that_is_not_known_is_refused_with_those_that_are() {
    let server = Server::new();
    server.write_configuration(server.configuration().sections("[repository]\nweb = \"https://git.example/{path}\"\n"));
    let ran = server.run(&["status"]).fails_with(2);
    assert!(
        ran.stderr.contains("line 8: `repository.web`: unknown placeholder {path}; known: {name}, {dir}"),
        "{ran:?}"
    );
}

#[test]
fn a_wrong_value_in_a_block_is_an_error_although_the_block_is_for_other_repositories() {
    let server = Server::new();
    server.write_configuration("");
    let text = system_file(&server);
    let line = text.lines().count() + 3;
    let text = text + &block(&server, "other/**", "commits.prefixes = [\"U S\"]");
    let Some(ran) = server.run_with_system_file(&text, &["status"]) else { return };
    let ran = ran.fails_with(2);
    assert!(ran.stderr.contains(&format!("config.toml, line {line}: `commits.prefixes`: \"U S\"")), "{ran:?}");
}

#[test]
fn a_block_in_the_file_of_a_repository_is_refused() {
    let server = Server::new();
    server.write_configuration(server.configuration().sections(&block(&server, "**", "rally.workspace = \"Other\"")));
    let ran = server.run(&["status"]).fails_with(2);
    assert!(
        ran.stderr.contains("rally-hook.toml, line 7: the configuration of a repository has no [[match]]"),
        "{ran:?}"
    );
}

#[test]
fn a_secret_in_a_block_makes_the_file_private() {
    let server = Server::new();
    let text = system_file(&server) + &block(&server, "other/**", "rally.api_key = \"_full-access-key\"");
    let named = server.write_private("named.toml", &text);
    fs::set_permissions(&named, fs::Permissions::from_mode(0o644)).expect("it is ours");
    let ran = server.run(&["--config", &named.display().to_string(), "status"]).fails_with(2);
    assert!(ran.stderr.contains("holds a secret") && !ran.stderr.contains("_full-access-key"), "{ran:?}");
}

#[test]
fn an_error_in_a_key_that_both_files_hold_names_the_file_that_counts() {
    let server = Server::new();
    let system = "[rally]\nworkspace = \"Acme\"\n\n[queue]\nretry_for = \"1d\"\n";
    for (text, problem) in [
        ("[queue]\nretry_for = \"a while\"\n", "line 2: `retry_for`"),
        ("\n[rally]\nworkspace = 5\n", "line 3: `workspace`"),
    ] {
        server.write_configuration(text);
        let Some(ran) = server.run_with_system_file(system, &["status"]) else { return };
        let ran = ran.fails_with(2);
        assert!(ran.stderr.contains(&format!("payments.git/rally-hook.toml, {problem}")), "{ran:?}");
        assert!(!ran.stderr.contains("/etc/rally-hook"), "{ran:?}");
    }
}

#[test]
fn no_configuration_error_repeats_a_secret() {
    let server = Server::new();
    let rally = "[rally]\nworkspace = \"Acme\"\n";
    let url = server.rally.url();
    let wrong = [
        format!("{rally}password = 98765432101\n"),
        format!("{rally}api_key = 98765432101\n"),
        "rally = { workspace = \"Acme\", api_key = 98765432101 }\n".to_owned(),
        format!("{rally}_98765432101\n"),
        format!("{rally}_98765432101 = \"x\"\n"),
        format!("{rally}server = \"{}\"\n", url.replace("http://", "http://me:98765432101@")),
        format!("{rally}server = \"https://me:98765432101@[\"\n"),
    ];
    let clone = server.new_clone();
    for (number, text) in wrong.iter().enumerate() {
        server.write_configuration(text);
        let mut said = clone.push_commits(&[&format!("US1: {number}")]);
        for command in [&["deliver"][..], &["status"], &["doctor"]] {
            let ran = server.run(command);
            assert!(!ran.success, "{text}");
            said += &(ran.stdout + &ran.stderr);
        }
        assert!(!said.contains("9876543"), "{text}: {said}");
    }
}
