//! The name under which a repository is posted: it is kept when the directory is renamed, and hosts may tell another one.

use std::fs;
use std::path::{Path, PathBuf};

use crate::support::{Clone, Ran, Server, copy, hermetic, name_of, output_of, program, ran};

/// Sets up a server whose configuration names no directory, with these lines after it.
fn with_lines(lines: &str) -> (Server, Clone) {
    let server = Server::without_hook();
    configure(&server, lines);
    server.run(&["install"]).succeeds();
    let clone = server.new_clone();
    (server, clone)
}

fn configure(server: &Server, lines: &str) {
    server.configure_later(lines);
    let key = format!("{:?}", server.git_dir.join("api-key"));
    server.write_configuration(server.read_configuration().replace(&key, "\"api-key\""));
}

fn run_in(git_dir: &Path, arguments: &[&str]) -> Ran {
    let mut command = hermetic(program());
    command.args(arguments).current_dir(git_dir);
    ran(command)
}

fn renamed(server: &Server, name: &str) -> PathBuf {
    let path = server.path().canonicalize().expect("it is there").join(name);
    fs::create_dir_all(path.parent().expect("a directory")).expect("it can be made");
    fs::rename(&server.git_dir, &path).expect("it can be moved");
    path
}

fn push_to(clone: &Clone, git_dir: &Path, message: &str) -> String {
    clone.commit(message, &[("a", Some(message))]);
    clone.push(&[&git_dir.display().to_string(), "main"])
}

/// Returns the names of the SCMRepositories that have changesets, in the order of these.
fn names(server: &Server) -> Vec<String> {
    server.changesets().into_iter().map(|held| held.repository).collect()
}

#[test]
fn a_renamed_repository_is_posted_under_the_name_that_it_had_when_it_was_installed() {
    let (server, clone) = with_lines("");
    let renamed = renamed(&server, "invoices.git");
    let seen = push_to(&clone, &renamed, "US1");
    assert!(seen.contains("(repository payments)"), "{seen}");
    run_in(&renamed, &["deliver", "--wait"]).succeeds();
    assert_eq!(names(&server), ["payments"]);
}

#[test]
fn without_install_the_first_push_keeps_the_name() {
    let server = Server::without_hook();
    configure(&server, "");
    std::os::unix::fs::symlink(program(), server.hook()).expect("a link");
    let clone = server.new_clone();
    push_to(&clone, &server.git_dir, "US1");
    let seen = push_to(&clone, &renamed(&server, "invoices.git"), "US2");
    assert!(seen.contains("(repository payments)"), "{seen}");
}

#[test]
fn the_name_that_counts_is_told_by_all_that_show_it() {
    let (server, clone) = with_lines("");
    let renamed = renamed(&server, "invoices.git");
    push_to(&clone, &renamed, "US1");
    push_to(&clone, &renamed, "US2");
    let told = "posts to \"payments\", its name when it was installed (now it would be \"invoices\")";
    assert!(run_in(&renamed, &["status"]).stdout.contains(&format!("name       {told}")));
    assert!(run_in(&renamed, &["doctor"]).stdout.contains(&format!("note  name           {told}")));
    assert!(run_in(&renamed, &["install"]).stderr.contains(&format!("this repository {told}")));
    let log = fs::read_to_string(renamed.join("rally-hook/log")).expect("a log");
    assert_eq!(log.matches("its name when it was installed").count(), 1, "{log}");
    let status: serde_json::Value =
        serde_json::from_str(&run_in(&renamed, &["status", "--json"]).stdout).expect("JSON");
    assert_eq!(status["name"], "payments");
}

#[test]
fn config_shows_the_name_that_is_kept_and_why() {
    let (server, _) = with_lines("");
    let renamed = renamed(&server, "invoices.git");
    let shown = run_in(&renamed, &["config"]).succeeds().stdout;
    let line =
        "repository.name = \"payments\"  # kept in the queue since it was installed; default now gives \"invoices\"";
    assert!(shown.lines().any(|shown| shown == line), "{shown}");
    let json: serde_json::Value =
        serde_json::from_str(&run_in(&renamed, &["config", "--json"]).succeeds().stdout).expect("JSON");
    assert_eq!(
        (&json["repository.name"]["value"], &json["repository.name"]["replaced"]),
        (&"payments".into(), &"invoices".into())
    );
}

#[test]
fn another_template_in_the_configuration_counts_and_is_kept() {
    let (server, clone) = with_lines("");
    configure(&server, "[repository]\nname = \"shop/{name}\"\n");
    let seen = push_to(&clone, &server.git_dir, "US1");
    assert!(seen.contains("(repository shop/payments)"), "{seen}");
    let renamed = renamed(&server, "invoices.git");
    assert!(push_to(&clone, &renamed, "US2").contains("(repository shop/payments)"));
}

#[test]
fn addresses_follow_the_directory() {
    let (server, clone) = with_lines("[repository]\nweb = \"https://git.acme.example/{dir}\"\n");
    let renamed = renamed(&server, "invoices.git");
    push_to(&clone, &renamed, "US1");
    run_in(&renamed, &["deliver", "--wait"]).succeeds();
    let held = &server.changesets()[0];
    assert!(held.uri.as_ref().is_some_and(|uri| uri.starts_with("https://git.acme.example/invoices/")), "{held:?}");
    assert_eq!(held.repository, "payments");
}

#[test]
fn a_copy_has_the_name_of_its_own_directory_and_says_what_it_is_a_copy_of() {
    let (server, clone) = with_lines("");
    let copied = server.path().join("invoices.git");
    copy(&server.git_dir, &copied);
    let seen = push_to(&clone, &copied, "US1");
    assert!(seen.contains("(repository invoices)"), "{seen}");
    let original = server.git_dir.canonicalize().expect("it is there");
    let told = format!("posts to \"invoices\"; it is a copy of {}, which posts to \"payments\"", original.display());
    assert!(run_in(&copied, &["doctor"]).stdout.contains(&format!("note  name           {told}")));
    assert!(run_in(&copied, &["install"]).stderr.contains(&told));
    assert!(run_in(&copied, &["status"]).stdout.contains(&told));
}

#[test]
fn a_copy_that_is_posted_under_the_name_of_its_original_is_wrong() {
    let (server, clone) = with_lines("[repository]\nname = \"shop\"\n");
    let copied = server.path().join("invoices.git");
    copy(&server.git_dir, &copied);
    push_to(&clone, &copied, "US1");
    let told = "posts to \"shop\", as does ";
    let doctor = run_in(&copied, &["doctor"]).fails_with(1).stdout;
    assert!(
        doctor.contains(&format!("WRONG name           {told}")) && doctor.contains("another repository.name"),
        "{doctor}"
    );
    assert!(run_in(&copied, &["install"]).stderr.contains(told));
}

/// Runs the hook for a new branch as a host does, with these variables.
fn pushed_by_host(server: &Server, git_dir: &Path, variables: &[(&str, &str)]) -> String {
    let new = server.new_clone().head();
    let mut hook = hermetic(program());
    hook.arg("post-receive").current_dir(git_dir).env("GIT_DIR", ".").envs(variables.iter().copied());
    output_of(hook, format!("{} {new} refs/heads/main\n", name_of('0')).as_bytes())
}

/// Sets up a server with a commit that was pushed before there was a hook, in a directory that GitLab might have made.
fn with_hashed_directory(lines: &str) -> (Server, PathBuf) {
    let server = Server::without_hook();
    configure(&server, lines);
    server.new_clone().push_commits(&["US1"]);
    let path = server.path().join("@hashed/ab/cd/abcd.git");
    copy_into_place(&server.git_dir, &path);
    (server, path)
}

fn copy_into_place(from: &Path, to: &Path) {
    fs::create_dir_all(to.parent().expect("a directory")).expect("it can be made");
    copy(from, to);
}

const GITLAB: [(&str, &str); 2] = [("GL_PROJECT_PATH", "team/api"), ("GL_REPOSITORY", "project-12")];

#[test]
fn the_name_that_a_host_tells_its_hook_counts() {
    let (server, git_dir) = with_hashed_directory("");
    let seen = pushed_by_host(&server, &git_dir, &GITLAB);
    assert!(seen.contains("(repository api)"), "{seen}");
}

#[test]
fn commands_without_a_hosts_environment_know_what_it_told() {
    let lines = "[repository]\nname = \"{dir}\"\nweb = \"https://git.acme.example/{dir}\"\n";
    let (server, git_dir) = with_hashed_directory(lines);
    pushed_by_host(&server, &git_dir, &GITLAB);
    run_in(&git_dir, &["deliver", "--wait"]).succeeds();
    let held = &server.changesets()[0];
    assert_eq!(held.repository, "team/api");
    assert!(held.uri.as_ref().is_some_and(|uri| uri.starts_with("https://git.acme.example/team/api/")), "{held:?}");
}

#[test]
fn a_project_that_its_host_renames_keeps_its_name_in_rally_and_its_links_follow() {
    let lines = "[repository]\nname = \"{dir}\"\nweb = \"https://git.acme.example/{dir}\"\n";
    let (server, git_dir) = with_hashed_directory(lines);
    pushed_by_host(&server, &git_dir, &GITLAB);
    let renamed = [("GL_PROJECT_PATH", "team/shop"), GITLAB[1]];
    assert_eq!(pushed_by_host(&server, &git_dir, &renamed), "");
    run_in(&git_dir, &["deliver", "--wait"]).succeeds();
    let held = &server.changesets()[0];
    assert_eq!(held.repository, "team/api");
    assert!(held.uri.as_ref().is_some_and(|uri| uri.starts_with("https://git.acme.example/team/shop/")), "{held:?}");
}

#[test]
fn a_path_of_a_host_that_leads_elsewhere_is_ignored() {
    let (server, git_dir) = with_hashed_directory("");
    let seen = pushed_by_host(&server, &git_dir, &[("GL_PROJECT_PATH", "../../etc")]);
    assert!(seen.contains("(repository abcd)"), "{seen}");
}
