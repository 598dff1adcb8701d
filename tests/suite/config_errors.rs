//! A configuration that is wrong: the error leads to the line, and no push suffers.

use std::fs;

use crate::support::{Server, expected, hermetic, program, ran};

#[test]
fn an_error_names_file_line_key_and_the_nearest_key() {
    let server = Server::new();
    let file = server.git_dir.join("rally-hook.toml").display().to_string();
    let good = server.configuration().without_credentials().to_string();
    let wrong = [
        (format!("{good}tiemout = \"1s\"\n"), ", line 5: unknown key `tiemout`; the nearest known one is `timeout`"),
        (format!("{good}[comits]\n"), ", line 5: unknown key `comits`; the nearest known one is `commits`"),
        (format!("{good}[log]\nlevel = \"loud\"\n"), ", line 6: `level`:"),
        (format!("{good}[commits]\nmax_changes = -1\n"), ", line 6: `max_changes`:"),
        (format!("{good}[queue]\nretry_for = \"a while\"\n"), ", line 6: `retry_for`: \"a while\" is no duration"),
        (good.replace("http://127.0.0.1", "http://rally.example"), ", line 2: `rally.server`: http://rally.example"),
        (
            format!("{good}[repository]\nlinks = \"custom\"\n"),
            ", line 6: `repository.links`: \"custom\" needs commit_link",
        ),
        (format!("{good}api_key = \"_canary\" oops\n"), ", line 5: "),
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
fn a_push_with_a_broken_configuration_waits_until_it_is_put_right() {
    let server = Server::new();
    let clone = server.new_clone();
    let good = server.read_configuration();
    server.write_configuration("[rally\n");
    clone.commit("US1", &[("a", Some("1"))]);
    let seen = clone.push(&["origin", "main"]);
    assert!(seen.contains("rally: this push waits until the configuration is put right: "), "{seen}");
    fs::remove_file(server.git_dir.join("rally-hook.toml")).expect("it was there");
    clone.commit("US2", &[("a", Some("2"))]);
    let seen = clone.push(&["origin", "main"]);
    assert!(seen.contains("no configuration"), "{seen}");
    server.write_configuration(&good);
    server.deliver_all();
    server.assert_rally_holds(&expected(&server.git_dir, &["main"]));
    assert_eq!(server.changesets().len(), 2);
}

#[test]
fn a_file_that_is_named_is_the_only_one_that_is_read() {
    let server = Server::new();
    let own = server.git_dir.join("rally-hook.toml");
    let elsewhere = server.path().join("elsewhere.toml");
    fs::rename(&own, &elsewhere).expect("both are in one directory");
    server.write_configuration("broken");
    let named = elsewhere.display().to_string();
    server.run(&["status"]).fails_with(2);
    server.run(&["status", "--config", &named]).succeeds();
    let mut by_variable = server.command(&["status"]);
    by_variable.env("RALLY_HOOK_CONFIG", &elsewhere);
    ran(by_variable).succeeds();
    let missing = server.run(&["--config", "/nonexistent/x.toml", "status"]).fails_with(2);
    assert!(missing.stderr.contains("/nonexistent/x.toml does not exist"), "{missing:?}");

    // Given to `install`, it is what the hook and the delivery in the background read.
    let mut install = server.command(&["install", "--config", "../elsewhere.toml"]);
    install.current_dir(&server.git_dir);
    ran(install).succeeds();
    // And what the other commands read, and another `install`.
    server.run(&["status"]).succeeds();
    server.run(&["install"]).succeeds();
    assert!(server.run(&["doctor"]).succeeds().stdout.contains("elsewhere.toml: every key is known"));
    let mut for_all = server.command(&["deliver", "--all-repos", "."]);
    for_all.current_dir(server.path());
    ran(for_all).succeeds();
    let clone = server.new_clone();
    clone.commit("US1", &[("a", Some("1"))]);
    let seen = clone.push(&["origin", "main"]);
    assert!(seen.contains("1 commit queued for US1"), "{seen}");
    server.rally.wait_until("the commit", |world| world.changesets().iter().any(|held| held.changes.len() == 1));
}

#[test]
fn the_systems_file_is_read_first_and_the_repositorys_wins_key_by_key() {
    let server = Server::new();
    let system = format!("{}[repository]\nname = \"of the system\"\ncreate = true\n", server.configuration());
    fs::write(server.path().join("system.toml"), system).expect("it is new");
    server.write_configuration("[repository]\nname = \"of the repository\"\n");
    server.import("refs/heads/main", &["US1: one"]);
    // In a mount namespace of its own, so that this machine's configuration is out of sight.
    let script = "mount -t tmpfs none /etc && mkdir /etc/rally-hook && cp system.toml /etc/rally-hook/config.toml && \
                  exec \"$@\"";
    let with_system = |arguments: &[&str]| {
        let mut command = hermetic("unshare");
        command.args(["--mount", "sh", "-c", script, "sh"]).arg(program()).args(arguments);
        command.args(["--repo", "payments.git"]).current_dir(server.path());
        ran(command)
    };
    if !with_system(&["--version"]).success {
        eprintln!("skipped: this user may not mount over /etc");
        return;
    }
    with_system(&["backfill", "main"]).succeeds();
    let names: Vec<String> = server.changesets().iter().map(|held| held.repository.clone()).collect();
    assert_eq!(names, ["of the repository"]);
    // Who says who we are says all of it; and what is wrong is said of the file in which it stands.
    server.write_configuration(
        "[rally]\nusername = \"connector@acme.example\"\npassword = \"secret-password\"\n[repository]\nname = \"another\"\n",
    );
    with_system(&["backfill", "main"]).succeeds();
    assert!(server.changesets().iter().any(|held| held.repository == "another"));
    let broken = server.path().join("system.toml");
    fs::write(&broken, "[rally]\n\nserver = \"http://rally.example\"\n").expect("it can be written");
    let ran = with_system(&["status"]).fails_with(2);
    assert!(ran.stderr.contains("/etc/rally-hook/config.toml, line 3: `rally.server`"), "{ran:?}");
    fs::write(broken, "[rally]\nserver = 1\n").expect("it can be written");
    let ran = with_system(&["status"]).fails_with(2);
    assert!(ran.stderr.contains("/etc/rally-hook/config.toml, line 2: `server`"), "{ran:?}");
}

#[test]
fn no_error_repeats_a_secret() {
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
