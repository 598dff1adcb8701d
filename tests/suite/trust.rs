//! Whose files count, and what a repository's own file may decide: who can write into a Git directory is not the
//! administrator of the server.

use std::fs::{self, Permissions};
use std::net::TcpListener;
use std::os::unix::fs::{PermissionsExt, chown, symlink};
use std::path::Path;
use std::process::{Command, Stdio};

use rally_simulator::Action;

use crate::support::mercurial::Mercurial;
use crate::support::process::{deliverers, wait_for};
use crate::support::subversion::Subversion;
use crate::support::users::{GROUP, USERS};
use crate::support::{DELIVER_LATER, Ran, Server, hermetic, ran, skipped};

/// A file with a word that must not be seen anywhere.
const CANARY: &str = "canary-of-another-file";

fn set_mode(path: &Path, mode: u32) {
    fs::set_permissions(path, Permissions::from_mode(mode)).expect("modes can be set");
}

fn make_fifo(path: &Path) {
    let mut command = Command::new("mkfifo");
    command.arg(path);
    ran(command).succeeds();
}

/// Returns a listener that nobody is to connect to, and its address.
fn listen() -> (TcpListener, String) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    listener.set_nonblocking(true).expect("it can be set");
    let url = format!("http://{}", listener.local_addr().expect("it is bound"));
    (listener, url)
}

/// A server with a queued commit whose repository's file says this, below a system's file with credentials in it, and a
/// delivery with these variables. Returns how the delivery ended.
fn deliver_with(repository_file: &str, credentials: &str, variables: &[(&str, &str)]) -> Option<(Server, Ran)> {
    let server = Server::delivering_later("");
    server.new_clone().push_commits(&["US1: one"]);
    let system = server.configuration().credentials(credentials).sections(DELIVER_LATER).to_string();
    server.write_configuration(repository_file);
    let ran = server.run_with_system_file_and(&system, &["deliver"], variables)?;
    Some((server, ran))
}

#[test]
fn the_systems_key_does_not_go_where_a_repositorys_file_leads() {
    for key in ["server", "proxy"] {
        let (listener, url) = listen();
        let own = format!("[rally]\n{key} = {url:?}\n");
        let Some((_, ran)) = deliver_with(&own, "api_key = \"_full-access-key\"", &[]) else { return };
        let ran = ran.fails_with(1);
        assert!(ran.stderr.contains(&format!("rally-hook.toml sets {key}, so credentials")), "{ran:?}");
        assert!(listener.accept().is_err(), "nobody connects");
    }
}

#[test]
fn the_systems_key_is_not_sent_to_a_server_that_a_repositorys_certificates_vouch_for() {
    let own = "[rally]\nca_file = \"ca.pem\"\n";
    let Some((server, ran)) = deliver_with(own, "api_key = \"_full-access-key\"", &[]) else { return };
    let ran = ran.fails_with(1);
    assert!(ran.stderr.contains("sets ca_file, so credentials"), "{ran:?}");
    assert!(server.rally.requests().is_empty());
}

#[test]
fn the_environments_key_does_not_go_where_a_repositorys_file_leads() {
    let (listener, url) = listen();
    let variables = [("RALLY_API_KEY", "_full-access-key"), ("RALLY_PASSWORD", "secret-password")];
    for login in ["", "username = \"connector@acme.example\"\n"] {
        let own = format!("[rally]\nserver = {url:?}\n{login}");
        let Some((_, ran)) = deliver_with(&own, "batch = \"auto\"", &variables) else { return };
        ran.fails_with(1);
        assert!(listener.accept().is_err(), "nobody connects");
    }
}

#[test]
fn a_repositorys_file_may_lead_elsewhere_with_credentials_of_its_own() {
    let server = Server::delivering_later("");
    server.new_clone().push_commits(&["US1: one"]);
    let system = "[rally]\nserver = \"https://rally.invalid\"\napi_key = \"_another\"\n";
    let Some(ran) = server.run_with_system_file(system, &["deliver"]) else { return };
    ran.succeeds();
    assert_eq!(server.changesets().len(), 1);
}

#[test]
fn a_repositorys_file_that_others_may_write_is_refused_with_the_command_to_run() {
    let server = Server::new();
    let path = server.git_dir.join("rally-hook.toml");
    for mode in [0o620, 0o602] {
        set_mode(&path, mode);
        let seen = server.new_clone().push_commits(&["US1: one"]);
        assert!(!seen.is_empty());
        let ran = server.run(&["status"]).fails_with(2);
        assert!(ran.stderr.contains(&format!("run: chmod go-w {}", path.display())), "{ran:?}");
    }
    assert!(server.changesets().is_empty());
}

#[test]
fn a_repositorys_file_of_another_user_is_refused_and_the_push_is_kept() {
    let server = Server::new();
    let path = server.git_dir.join("rally-hook.toml");
    if chown(&path, Some(USERS[0]), None).is_err() {
        skipped("this user may not give files away");
        return;
    }
    let clone = server.new_clone();
    clone.commit("US1: one", &[("a", Some("1"))]);
    let seen = clone.push(&["origin", "main"]);
    assert!(seen.contains("this push is kept") && seen.contains("belongs to another user"), "{seen}");
    chown(&path, Some(0), None).expect("root may do that");
    server.run(&["deliver", "--wait"]).succeeds();
    assert_eq!(server.changesets().len(), 1);
}

#[test]
fn in_a_shared_repository_the_file_of_its_owner_counts_for_the_group() {
    let server = Server::with_repository(&["--shared=group"]);
    server.configure(DELIVER_LATER);
    let update = server.import("refs/heads/main", &["US1: one"]);
    if !server.give_to(USERS[0]) {
        return;
    }
    set_mode(&server.git_dir.join("rally-hook.toml"), 0o640);
    fs::write(server.path().join(".gitconfig"), "[safe]\n\tdirectory = *\n").expect("it can be written");
    let hook = server.run_as(USERS[1], &format!("printf '%s' '{update}' | $0 post-receive"));
    assert!(hook.stderr.contains("1 commit queued"), "{hook:?}");
    // Not so the file of any other member.
    chown(server.git_dir.join("rally-hook.toml"), Some(61_009), Some(GROUP)).expect("root may do that");
    let hook = server.run_as(USERS[1], &format!("printf '%s' '{update}' | $0 post-receive"));
    assert!(hook.stderr.contains("belongs to another user (number 61009)"), "{hook:?}");
}

#[test]
fn a_repository_that_git_refuses_is_refused() {
    let server = Server::with_repository(&["--shared=group"]);
    if !server.give_to(USERS[0]) {
        return;
    }
    set_mode(&server.git_dir.join("rally-hook.toml"), 0o640);
    let path = server.git_dir.display();
    for arguments in ["status", "deliver", "doctor", "backfill --all", "install"] {
        let ran = ran(server.command_as(USERS[1], &format!("$0 {arguments}")));
        assert!(ran.stderr.contains(&format!("belongs to user {}", USERS[0])), "{ran:?}");
    }
    ran(server.command_as(USERS[0], "$0 catch-up")).succeeds();
    let all = ran(server.command_as(USERS[1], "$0 deliver --all-repos .."));
    assert!(all.stderr.contains(&format!("belongs to user {}", USERS[0])), "{all:?}");
    assert!(server.rally.requests().is_empty());
    fs::write(server.path().join(".gitconfig"), format!("[safe]\n\tdirectory = {path}\n")).expect("it can be written");
    ran(server.command_as(USERS[1], "$0 install")).succeeds();
}

#[test]
fn a_kept_hook_of_another_user_is_not_run() {
    let server = Server::without_hook();
    fs::write(server.hook(), format!("#!/bin/sh\ntouch {}/ran\n", server.path().display())).expect("a hook");
    set_mode(&server.hook(), 0o755);
    server.run(&["install"]).succeeds();
    let kept = server.git_dir.join("hooks/post-receive.before-rally-hook");
    set_mode(&kept, 0o777);
    let clone = server.new_clone();
    clone.commit("US1: one", &[("a", Some("1"))]);
    let seen = clone.push(&["origin", "main"]);
    assert!(seen.contains("the other hook is not run") && seen.contains("chmod go-w"), "{seen}");
    assert!(!server.path().join("ran").exists());
}

#[test]
fn a_state_directory_that_others_may_write_is_refused() {
    let server = Server::new();
    set_mode(&server.git_dir.join("rally-hook"), 0o777);
    let ran = server.run(&["deliver"]).fails_with(1);
    assert!(ran.stderr.contains("run: chmod go-w"), "{ran:?}");
}

#[test]
fn a_repositorys_file_names_no_files_outside_its_directory() {
    let server = Server::new();
    let outside = server.path().join("outside");
    fs::write(&outside, CANARY).expect("a file");
    set_mode(&outside, 0o600);
    for (section, key) in
        [("rally", "api_key_file"), ("rally", "password_file"), ("rally", "ca_file"), ("authors", "map_file")]
    {
        for path in [outside.to_str().expect("UTF-8"), "../outside", "objects/../../outside"] {
            server.write_configuration(format!("[{section}]\n{key} = {path:?}\n"));
            let ran = server.run(&["status"]).fails_with(2);
            assert!(ran.stderr.contains(&format!("line 2: `{section}.{key}`")), "{ran:?}");
        }
    }
}

#[test]
fn a_link_does_not_lead_a_repositorys_file_out_of_its_directory() {
    let server = Server::delivering_later("");
    server.new_clone().push_commits(&["US1: one"]);
    let (outside, within) = (server.path().join("outside"), server.git_dir.join("within"));
    fs::create_dir(&outside).expect("a directory");
    fs::write(outside.join("key"), format!("_{CANARY}")).expect("a file");
    set_mode(&outside.join("key"), 0o600);
    symlink(&outside, &within).expect("a link");
    symlink(outside.join("key"), server.git_dir.join("link")).expect("a link");
    for name in ["within/key", "link"] {
        let configuration = server.configuration().credentials(&format!("api_key_file = {name:?}"));
        server.write_configuration(configuration.sections(DELIVER_LATER));
        let ran = server.run(&["deliver"]);
        assert!(
            !ran.success && (ran.stderr.contains("link") || ran.stderr.contains("in the repository's directory")),
            "{ran:?}"
        );
    }
    assert!(server.rally.requests().is_empty());
}

#[test]
fn a_repositorys_file_writes_no_log_outside_its_state() {
    let server = Server::new();
    for path in ["../log", "/tmp/log", "config", "rally-hook/../config"] {
        server.write_configuration(format!("[log]\nfile = {path:?}\n"));
        let ran = server.run(&["status"]).fails_with(2);
        assert!(ran.stderr.contains("line 2: `log.file`"), "{ran:?}");
    }
}

#[test]
fn a_secret_of_several_lines_is_refused_and_not_shown() {
    let server = Server::delivering_later("");
    server.new_clone().push_commits(&["US1: one"]);
    server.write_private("password", &format!("{CANARY}\nsecond\n"));
    let basic = "username = \"connector@acme.example\"\npassword_file = \"password\"";
    server.write_configuration(server.configuration().credentials(basic).sections(DELIVER_LATER));
    let ran = server.run(&["deliver"]).fails_with(1);
    assert!(ran.stderr.contains("must hold the secret alone, on one line"), "{ran:?}");
    assert!(!ran.stderr.contains(CANARY) && server.rally.requests().is_empty());
}

#[test]
fn an_author_map_that_is_none_is_not_shown() {
    let server = Server::delivering_later("[authors]\nmap_file = \"map\"\n");
    server.write_private("map", &format!("\"a\" = \"b\"\n{CANARY}\n"));
    let ran = server.run(&["doctor"]).fails_with(1);
    assert!(ran.stdout.contains("line 2 is not of the form"), "{ran:?}");
    assert!(!ran.stdout.contains(CANARY) && !ran.stderr.contains(CANARY));
}

#[test]
fn a_fifo_in_the_place_of_a_file_holds_up_nothing() {
    let server = Server::new();
    let update = server.import("refs/heads/main", &["US1: one"]);
    let configuration = server.git_dir.join("rally-hook.toml");
    let text = fs::read_to_string(&configuration).expect("it is there");
    fs::remove_file(&configuration).expect("it is there");
    make_fifo(&configuration);
    let hook = server.run_hook(update.as_bytes());
    assert!(hook.success && hook.stderr.contains("it is not a regular file"), "{hook:?}");
    fs::remove_file(&configuration).expect("it is there");
    server.write_configuration(text);
    make_fifo(&server.git_dir.join("rally-hook/push-1"));
    symlink("/etc/passwd", server.git_dir.join("rally-hook/push-2")).expect("a link");
    server.run(&["deliver", "--wait"]).succeeds();
    assert_eq!(server.changesets().len(), 1);
    let doctor = server.run(&["doctor"]).fails_with(1);
    assert!(doctor.stdout.contains("push-1 is not a push that rally-hook kept; remove it"), "{doctor:?}");
}

#[test]
fn a_repositorys_file_is_not_read_through_a_link() {
    let server = Server::new();
    let path = server.git_dir.join("rally-hook.toml");
    fs::rename(&path, server.git_dir.join("elsewhere")).expect("it is there");
    symlink("elsewhere", &path).expect("a link");
    let ran = server.run(&["status"]).fails_with(2);
    assert!(ran.stderr.contains("it is a symbolic link"), "{ran:?}");
}

#[test]
fn for_all_repositories_links_are_not_followed() {
    let server = Server::delivering_later("");
    server.new_clone().push_commits(&["US1: one"]);
    let below = server.path().join("below");
    fs::create_dir(&below).expect("a directory");
    symlink(&server.git_dir, below.join("link.git")).expect("a link");
    let mut command = server.command(&["deliver", "--all-repos", "below"]);
    command.current_dir(server.path());
    ran(command);
    assert!(server.rally.requests().is_empty());
}

#[test]
fn reading_a_repository_runs_none_of_its_programs() {
    let server = Server::without_hook();
    server.import("refs/heads/main", &["US1: one", "US2: two"]);
    let trap = server.path().join("trap");
    fs::write(&trap, format!("#!/bin/sh\ntouch {}/sprung\nexit 1\n", server.path().display())).expect("a script");
    set_mode(&trap, 0o755);
    let trap = trap.to_str().expect("UTF-8");
    for (key, value) in [
        ("extensions.partialClone", "origin"),
        ("core.repositoryFormatVersion", "1"),
        ("remote.origin.url", "."),
        ("remote.origin.promisor", "true"),
        ("remote.origin.uploadpack", trap),
        ("core.fsmonitor", trap),
        ("core.pager", trap),
        ("core.sshCommand", trap),
        ("core.alternateRefsCommand", trap),
        ("diff.external", trap),
    ] {
        server.git(&["config", key, value]);
    }
    // What is missing would be fetched.
    let missing = server.git(&["rev-parse", "main~1"]);
    let object = server.git_dir.join(format!("objects/{}/{}", &missing[..2], &missing[2..]));
    if fs::remove_file(&object).is_err() {
        let mut unpack = hermetic("sh");
        unpack
            .current_dir(&server.git_dir)
            .args(["-c", "mv objects/pack/* . && for p in *.pack; do git unpack-objects -q <$p; done"]);
        ran(unpack).succeeds();
        fs::remove_file(&object).expect("it is loose now");
    }
    for arguments in
        [&["backfill", "--dry-run", "main"][..], &["backfill", "--dry-run", "--all"], &["status"], &["install"]]
    {
        server.run(arguments);
    }
    assert!(!server.path().join("sprung").exists());
}

#[test]
fn git_is_not_taken_from_the_current_directory() {
    let server = Server::new();
    let trap = server.git_dir.join("git");
    fs::write(&trap, format!("#!/bin/sh\ntouch {}/sprung\n", server.path().display())).expect("a script");
    set_mode(&trap, 0o755);
    let path = std::env::var("PATH").unwrap_or_default();
    for before in [".", ""] {
        let mut command = server.command(&["doctor"]);
        command.env("PATH", format!("{before}:{path}"));
        ran(command).succeeds();
    }
    assert!(!server.path().join("sprung").exists());
}

#[test]
fn secrets_of_the_environment_reach_no_other_program() {
    let server = Server::without_hook();
    fs::write(server.hook(), format!("#!/bin/sh\nenv >{}/seen\n", server.path().display())).expect("a hook");
    set_mode(&server.hook(), 0o755);
    server.run(&["install"]).succeeds();
    let configuration = server.configuration().without_credentials();
    server.write_configuration(configuration);
    server.fail_all(Action::Hang);
    let update = server.import("refs/heads/main", &["US1: one"]);
    server.write_private("updates", &update);
    let mut hook = hermetic("sh");
    hook.current_dir(&server.git_dir).env("GIT_DIR", ".").env("RALLY_API_KEY", "_full-access-key");
    hook.args(["-c", "hooks/post-receive <updates"]).stdin(Stdio::null());
    ran(hook).succeeds();
    let seen = fs::read_to_string(server.path().join("seen")).expect("the kept hook ran");
    assert!(seen.contains("GIT_DIR") && !seen.contains("RALLY_API_KEY"), "{seen}");
    wait_for("the delivery", || !deliverers(&server.git_dir).is_empty());
    for pid in deliverers(&server.git_dir) {
        // Root may look; for the user himself the process is closed.
        if let Ok(environment) = fs::read(format!("/proc/{pid}/environ")) {
            assert!(!String::from_utf8_lossy(&environment).contains("_full-access-key"));
        }
        let status = fs::metadata(format!("/proc/{pid}/environ")).expect("it is there");
        assert_eq!(std::os::unix::fs::MetadataExt::uid(&status), 0, "the process is not dumpable");
    }
}

#[test]
fn a_section_that_is_a_list_is_refused() {
    let server = Server::new();
    for text in [
        "rally = [\"http://127.0.0.1:1\", \"Acme\"]",
        "log = [\"summary\", \"/tmp/pwned\", \"info\"]",
        "authors = []",
        "svn = [\"main\"]",
        "rally = 1",
    ] {
        server.write_configuration(text);
        let ran = server.run(&["status"]).fails_with(2);
        assert!(ran.stderr.contains("is a section"), "{ran:?}");
    }
}

#[test]
fn a_hook_of_another_user_names_no_configuration_of_that_user() {
    let server = Server::with_repository(&["--shared=group"]);
    let (listener, url) = listen();
    let evil = server.configuration().rally(&format!("server = {url:?}"));
    server.write_private("evil.toml", &evil.to_string());
    server.run(&["install", "--config", "evil.toml"]).succeeds();
    server.run(&["backfill", "--all"]);
    if !server.give_to(USERS[0]) {
        return;
    }
    set_mode(&server.git_dir.join("rally-hook.toml"), 0o640);
    set_mode(&server.git_dir.join("evil.toml"), 0o640);
    fs::write(server.path().join(".gitconfig"), "[safe]\n\tdirectory = *\n").expect("it can be written");
    for arguments in ["deliver", "doctor", "status", "deliver --all-repos .."] {
        let ran = ran(server.command_as(USERS[1], &format!("$0 {arguments}")));
        assert!(!ran.success && (ran.stderr.clone() + &ran.stdout).contains("belongs to another user"), "{ran:?}");
    }
    assert!(listener.accept().is_err(), "nobody connects");
}

#[test]
fn a_subversion_repository_of_another_user_is_refused_whatever_its_modes_are() {
    let Some(server) = Subversion::new() else { return };
    server.commit_each(&["US1"]);
    if !server.give_to(USERS[0]) {
        return;
    }
    let mut open = hermetic("chmod");
    open.args(["-R", "g+w", "db"]).current_dir(&server.git_dir);
    ran(open).succeeds();
    for arguments in [&["status"][..], &["backfill", "--dry-run", "--all"], &["install"]] {
        let refused = server.run(arguments);
        assert!(!refused.success && refused.stderr.contains("belongs to user 61001"), "{refused:?}");
    }
}

#[test]
fn the_hook_of_mercurial_runs_no_program_that_lies_beside_its_file() {
    let Some(server) = Mercurial::delivering_later("") else { return };
    let dir = server.git_dir.join("rally-hook");
    let kept = dir.join("hgrc.before-rally-hook");
    fs::write(&kept, format!("#!/bin/sh\ntouch '{}'\n", dir.join("ran").display())).expect("a file");
    set_mode(&kept, 0o755);
    server.new_clone().push_each(&["US1"]);
    server.assert_delivers("all()");
    assert!(!dir.join("ran").exists());
}
