//! Repositories of one host that would post to the same SCMRepository because their directories have the same name.

use std::fs;
use std::path::{Path, PathBuf};

use crate::support::host::{delivering, queue_a_commit, repository, sharing};
use crate::support::{DELIVER_LATER, Ran, Server, hermetic, program, ran};

/// Sets up `teama/api.git` and `teamb/api.git`, with these sections in the configuration of the second.
fn two_of_one_name(server: &Server, sections: &str) -> [PathBuf; 2] {
    ["teama", "teamb"].map(|team| {
        fs::create_dir(server.path().join(team)).expect("it is new");
        let sections = if team == "teamb" { sections } else { "" };
        repository(server, &format!("{team}/api"), "timeout = \"30s\"", &format!("{DELIVER_LATER}{sections}"))
    })
}

fn run(server: &Server, command: &str, git_dir: &Path) -> Ran {
    let mut command_line = hermetic(program());
    command_line.args([command, "--repo"]).arg(git_dir);
    ran(sharing(server, command_line))
}

/// Returns what `doctor` says of the name, and whether all is well.
fn name(server: &Server, git_dir: &Path) -> (String, bool) {
    let ran = run(server, "doctor", git_dir);
    let line = ran.stdout.lines().find(|line| line[6..].starts_with("name"));
    (line.unwrap_or_else(|| panic!("no line: {ran:?}")).to_owned(), ran.success)
}

fn sentence(git_dirs: &[PathBuf; 2]) -> String {
    let [one, other] = git_dirs.each_ref().map(|git_dir| git_dir.display());
    format!(
        "{one} and {other} both post to the SCMRepository \"api\"; set repository.name (for example \"{{dir}}\") for"
    )
}

#[test]
fn install_and_doctor_name_another_repository_of_the_same_name() {
    let server = Server::new();
    let git_dirs = two_of_one_name(&server, "");
    assert!(!run(&server, "install", &git_dirs[0]).succeeds().stderr.contains("both post"));
    let told = run(&server, "install", &git_dirs[1]).succeeds().stderr;
    assert!(told.contains(&sentence(&git_dirs)), "{told}");
    for git_dir in &git_dirs {
        let (line, is_well) = name(&server, git_dir);
        assert!(line.starts_with("WRONG name") && line.contains(&sentence(&git_dirs)) && !is_well, "{line}");
    }
}

#[test]
fn a_delivery_is_enough_to_be_known() {
    let server = Server::new();
    let git_dirs = two_of_one_name(&server, "");
    queue_a_commit(&server, &git_dirs[1]);
    ran(delivering(&server, &git_dirs[1])).succeeds();
    assert!(name(&server, &git_dirs[0]).0.contains(&sentence(&git_dirs)));
}

#[test]
fn a_name_that_both_configurations_set_is_meant() {
    let server = Server::new();
    let git_dirs = two_of_one_name(&server, "[repository]\nname = \"api\"\n");
    run(&server, "install", &git_dirs[1]).succeeds();
    assert!(name(&server, &git_dirs[0]).0.starts_with("WRONG"), "one of them is not told to");
    fs::copy(git_dirs[1].join("rally-hook.toml"), git_dirs[0].join("rally-hook.toml")).expect("a file");
    for git_dir in &git_dirs {
        let (line, is_well) = name(&server, git_dir);
        assert!(line.starts_with("ok ") && is_well, "{line}");
    }
}

#[test]
fn all_is_well_as_soon_as_the_other_configuration_names_another_one() {
    let server = Server::new();
    let git_dirs = two_of_one_name(&server, "");
    run(&server, "install", &git_dirs[1]).succeeds();
    assert!(!name(&server, &git_dirs[0]).1);
    let configuration = git_dirs[1].join("rally-hook.toml");
    let text = fs::read_to_string(&configuration).expect("a file");
    fs::write(&configuration, text + "[repository]\nname = \"{name}-b\"\n").expect("it can be written");
    assert!(name(&server, &git_dirs[0]).1);
}

#[test]
fn a_repository_that_is_gone_is_not_named() {
    let server = Server::new();
    let git_dirs = two_of_one_name(&server, "");
    run(&server, "install", &git_dirs[1]).succeeds();
    fs::remove_dir_all(&git_dirs[1]).expect("it was there");
    assert!(name(&server, &git_dirs[0]).1);
}
