//! `rally-hook config`: the settings of a repository, and where each comes from.

use std::fs;

use serde_json::{Value, json};

use crate::support::{Server, git};

/// Returns what `config --json` prints for a repository with this file.
fn config_with(server: &Server, file: &str, repository: &str) -> Value {
    let ran = server.run(&["config", "--json", "--config", file, "--repo", repository]).succeeds();
    serde_json::from_str(&ran.stdout).unwrap_or_else(|error| panic!("{error}: {ran:?}"))
}

#[test]
fn each_setting_is_one_line_with_its_file_and_line() {
    let server = Server::new();
    let repositorys = "[rally]\nworkspace = \"Acme\"\n\n[commits]\nprefixes = [\n  \"US\",\n  \"DE\",\n]\n";
    server.write_configuration(repositorys);
    let shown = server.run(&["config"]).succeeds().stdout;
    let file = server.git_dir.join("rally-hook.toml");
    let from = |line: u32| format!("{}, line {line}", file.display());
    for line in [
        format!("rally.workspace = \"Acme\"  # {}", from(2)),
        format!("commits.prefixes = [\"US\", \"DE\"]  # {}", from(5)),
        "rally.timeout = \"30s\"  # default".to_owned(),
        "repository.name = \"payments\"  # default".to_owned(),
        "# rally.proxy is not set (default)".to_owned(),
    ] {
        assert!(shown.lines().any(|shown| shown == line), "{line} in {shown}");
    }
}

#[test]
fn the_place_is_that_of_the_value_that_counts() {
    let server = Server::new();
    server.write_configuration("log.level = \"debug\"\n");
    let system = "[rally]\nworkspace = \"Acme\"\n[log]\nlevel = \"warn\"\npush = \"quiet\"\n\
                  [[match]]\npath = \"/**\"\nrally.workspace = \"Other\"\n";
    let Some(ran) = server.run_with_system_file(system, &["config", "--json"]) else { return };
    let shown: Value = serde_json::from_str(&ran.succeeds().stdout).expect("JSON");
    let system = "/etc/rally-hook/config.toml";
    assert_eq!(shown["rally.workspace"], json!({"value": "Other", "file": system, "line": 8}));
    assert_eq!(shown["log.push"], json!({"value": "quiet", "file": system, "line": 5}));
    let own = server.git_dir.join("rally-hook.toml");
    assert_eq!(shown["log.level"], json!({"value": "debug", "file": own, "line": 1}));
    assert_eq!(shown["rally.proxy"], json!({"value": null, "file": null, "line": null}));
}

#[test]
fn secrets_are_hidden() {
    let server = Server::new();
    for credentials in ["api_key = \"_canary\"", "username = \"u\"\npassword = \"canary\""] {
        let rally = server.configuration().credentials(credentials).rally("proxy = \"http://user:canary@127.0.0.1:1\"");
        server.write_configuration(rally);
        for arguments in [&["config"][..], &["config", "--json"]] {
            let shown = server.run(arguments).succeeds().stdout;
            assert!(shown.contains("http://user:***@127.0.0.1:1") && !shown.contains("canary"), "{shown}");
        }
    }
}

#[test]
fn nothing_is_created() {
    let server = Server::without_hook();
    server.run(&["config"]).succeeds();
    assert!(!server.git_dir.join("rally-hook").exists());
}

#[test]
fn the_example_for_many_repositories_configures_each_team() {
    let server = Server::without_hook();
    let example = include_str!("../../examples/many-repositories.toml");
    let root = server.path().canonicalize().expect("it is there");
    let file = server.write_private("many.toml", &example.replace("/srv/git", &root.display().to_string()));
    let file = file.display().to_string();
    let of = |repository: &str| {
        let path = root.join(repository);
        fs::create_dir_all(&path).expect("a directory");
        git(&path, &["init", "--quiet", "--bare"]);
        let shown = config_with(&server, &file, &path.display().to_string());
        let keys = ["repository.name", "rally.workspace", "rally.api_key_file", "commits.refs", "state.update"];
        Value::from(keys.map(|key| shown[key]["value"].clone()).to_vec())
    };
    let (refs, key) = (json!(["refs/heads/*", "refs/tags/*"]), "/etc/rally-hook/api-key");
    assert_eq!(of("team-a/api.git"), json!(["team-a/api", "Team A", format!("{key}-team-a"), refs, false]));
    assert_eq!(of("team-b/api.git"), json!(["team-b/api", "Acme", key, refs, true]));
    assert_eq!(of("team-b/sandbox-1.git"), json!(["team-b/sandbox-1", "Acme", key, refs, false]));
    assert_eq!(of("team-c/libs/api.git"), json!(["team-c/libs/api", "Acme", key, ["main", "release/*"], false]));
    assert_eq!(of("other.git"), json!(["other", "Acme", key, refs, false]));
}

#[test]
fn the_readme_shows_the_example_for_many_repositories() {
    let example = include_str!("../../examples/many-repositories.toml");
    let indented: String =
        example.lines().map(|line| if line.is_empty() { "\n".to_owned() } else { format!("    {line}\n") }).collect();
    assert!(include_str!("../../README.md").contains(&indented), "{indented}");
}
