//! How Rally is reached: credentials, which stay secret, and the keys of `[rally]`.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::thread;

use rally_simulator::Action;

use crate::support::process::deliverers;
use crate::support::{Clone, Configuration, DELIVER_LATER, Server, expected, ran, tls};

/// Sets up a server with one pushed commit that waits, and this `[rally]` section, whose end is the given lines.
fn waiting(more: &str) -> (Server, Clone) {
    let server = Server::delivering_later("");
    let clone = server.new_clone();
    clone.commit("US1", &[("a", Some("1"))]);
    clone.push(&["origin", "main"]);
    configure(&server, more);
    (server, clone)
}

fn configure(server: &Server, more: &str) {
    server.write_configuration(server.configuration().credentials(more).sections(DELIVER_LATER));
}

/// Puts TLS before the simulator. Returns the address, the `[rally]` section for it, and the authority's certificate.
fn by_tls(server: &Server) -> (String, Configuration, PathBuf) {
    let (port, authority) = tls::in_front_of(server.rally.port());
    let url = format!("https://127.0.0.1:{port}");
    let configuration = server.configuration().rally(&format!("server = {url:?}"));
    (url, configuration, server.write_private("authority.pem", &authority))
}

fn assert_delivered(server: &Server) {
    server.assert_rally_holds(&expected(&server.git_dir, &["main"]));
    assert_eq!(server.count("pending"), 0);
}

#[test]
fn an_api_key_may_come_from_the_environment_or_the_configuration() {
    let (server, _) = waiting("");
    let ran_without = server.run(&["deliver"]).fails_with(1);
    assert!(ran_without.stderr.contains("[rally] names no credentials; set api_key_file"), "{ran_without:?}");
    let mut command = server.command(&["deliver"]);
    command.env("RALLY_API_KEY", "_full-access-key");
    ran(command).succeeds();
    assert_delivered(&server);
    assert!(server.rally.requests().iter().all(|request| request.header("zsessionid") == Some("_full-access-key")));
    let (server, _) = waiting("api_key = \"_full-access-key\"");
    server.run(&["deliver"]).succeeds();
    assert_delivered(&server);
}

#[test]
fn relative_paths_start_from_the_file_that_holds_them() {
    let (server, _) = waiting("api_key_file = \"api-key\"");
    let mut command = server.command(&["deliver", "--repo"]);
    command.arg(&server.git_dir).current_dir("/");
    ran(command).succeeds();
    assert_delivered(&server);
}

#[test]
fn requests_name_the_integration_and_follow_no_redirect() {
    let (server, _) = waiting("api_key = \"_full-access-key\"");
    let elsewhere = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let location = format!("http://{}/", elsewhere.local_addr().expect("it is bound"));
    let headers = vec![("Location".to_owned(), location)];
    for code in [302, 307, 308] {
        let action = Action::Status { code, headers: headers.clone(), body: String::new() };
        server.fail_next(action);
        let ran = server.run(&["deliver"]).fails_with(1);
        assert!(ran.stderr.contains(&format!("HTTP {code}")), "{ran:?}");
    }
    elsewhere.set_nonblocking(true).expect("it can be set");
    assert!(elsewhere.accept().is_err(), "nobody went there, and no key");
    server.deliver_all();
    assert_delivered(&server);
    for request in server.rally.requests() {
        assert_eq!(request.header("x-rallyintegrationname"), Some("rally-hook"));
        assert_eq!(request.header("x-rallyintegrationvendor"), Some("rally-hook"));
        assert_eq!(request.header("x-rallyintegrationversion"), Some(env!("CARGO_PKG_VERSION")));
        assert_eq!(request.header("accept-encoding"), Some("gzip"));
    }
}

#[test]
fn a_password_works_with_its_token_which_is_renewed() {
    let (server, clone) = waiting("username = \"connector@acme.example\"\npassword = \"secret-password\"");
    server.rally.settings(|settings| settings.token_lifetime = Some(2));
    for file in ["b", "c", "d"] {
        clone.commit("DE1", &[(file, Some("1"))]);
    }
    clone.push(&["origin", "main"]);
    server.run(&["deliver", "--wait"]).succeeds();
    assert_delivered(&server);
    let tokens = server.rally.requests().iter().filter(|request| request.path == "/security/authorize").count();
    assert!(tokens > 1, "a token is good for two writes here");

    let file = server.write_private("password", "secret-password\n");
    configure(&server, &format!("username = \"connector@acme.example\"\npassword_file = \"{}\"", file.display()));
    clone.commit("US2", &[("a", Some("2"))]);
    clone.push(&["origin", "main"]);
    server.run(&["deliver", "--wait"]).succeeds();
    configure(&server, "username = \"connector@acme.example\"");
    clone.commit("US3", &[("a", Some("3"))]);
    clone.push(&["origin", "main"]);
    let mut command = server.command(&["deliver", "--wait"]);
    command.env("RALLY_PASSWORD", "secret-password");
    ran(command).succeeds();
    assert_delivered(&server);
}

#[test]
fn refused_credentials_stop_delivery_and_the_next_pusher_hears_of_it() {
    let (server, clone) = waiting("api_key = \"_wrong-key\"");
    server.run(&["deliver"]).fails_with(1);
    let asked = server.rally.requests().len();
    clone.commit("US2", &[("a", Some("2"))]);
    let seen = clone.push(&["origin", "main"]);
    assert!(seen.contains("nothing can be posted since"), "{seen}");
    let status = server.status();
    assert_eq!((&status["pending"], &status["paused"]["needs_person"]), (&2.into(), &true.into()), "{status}");
    server.run(&["status"]).fails_with(1);
    assert!(asked < 4, "{asked} requests for one wrong key");
    configure(&server, "api_key = \"_full-access-key\"");
    server.run(&["deliver", "--wait"]).succeeds();
    assert_delivered(&server);
}

#[test]
fn an_unknown_workspace_is_answered_with_those_that_the_user_sees() {
    let (server, _) = waiting("api_key = \"_full-access-key\"");
    server.write_configuration(server.configuration().rally("workspace = \"Amce\"").sections(DELIVER_LATER));
    let ran = server.run(&["deliver"]).fails_with(1);
    assert!(ran.stderr.contains("Amce") && ran.stderr.contains("Acme") && ran.stderr.contains("Other"), "{ran:?}");
    assert!(server.changesets().is_empty());
}

#[test]
fn all_goes_to_the_named_workspace_although_another_is_the_users_own() {
    let server = Server::delivering_later("");
    server.rally.world(|world| world.add_artifact_in("Other", "US77", "There alone"));
    server.write_configuration(server.configuration().rally("workspace = \"Other\"").sections(DELIVER_LATER));
    server.new_clone().push_commits(&["US77: there", "US2: in the user's own"]);
    server.run(&["deliver"]).succeeds();
    let held = server.changesets();
    assert_eq!(held.len(), 1, "US2 is of another workspace");
    assert_eq!((held[0].workspace.as_str(), held[0].artifacts.as_slice()), ("Other", &["US77".to_owned()][..]));
    let repositories = server.rally.world(|world| world.repositories());
    assert!(repositories.iter().all(|repository| repository.workspace == "Other"), "{repositories:?}");
}

#[test]
fn a_secret_that_others_may_read_is_refused_with_the_cure() {
    let server = Server::delivering_later("");
    let clone = server.new_clone();
    let key = server.git_dir.join("api-key");
    let mode = |path: &Path, mode| fs::set_permissions(path, fs::Permissions::from_mode(mode)).expect("a mode");
    mode(&key, 0o644);
    clone.commit("US1", &[("a", Some("1"))]);
    let seen = clone.push(&["origin", "main"]);
    assert!(seen.contains("1 commit queued"), "{seen}");
    let cure = format!("run: chmod 600 {}", key.display());
    assert!(server.run(&["deliver"]).fails_with(1).stderr.contains(&cure));
    assert!(server.run(&["doctor"]).fails_with(1).stdout.contains(&cure));
    assert!(server.rally.requests().is_empty());
    mode(&key, 0o600);
    server.deliver_all();
    assert_delivered(&server);

    let config = server.git_dir.join("rally-hook.toml");
    configure(&server, "api_key = \"_full-access-key\"");
    mode(&config, 0o640);
    clone.commit("US2", &[("a", Some("2"))]);
    let seen = clone.push(&["origin", "main"]);
    assert!(seen.contains("this push waits until the configuration is put right"), "{seen}");
    let cure = format!("run: chmod 600 {}", config.display());
    assert!(server.run(&["deliver"]).fails_with(2).stderr.contains(&cure));
    mode(&config, 0o600);
    server.deliver_all();
    assert_delivered(&server);
    // So is the password of a proxy.
    configure(&server, &format!("api_key_file = {key:?}\nproxy = \"http://user:secret@127.0.0.1:9\""));
    mode(&config, 0o644);
    let ran = server.run(&["deliver"]).fails_with(2);
    assert!(ran.stderr.contains(&cure) && !ran.stderr.contains("user:secret"), "{ran:?}");
}

#[test]
fn a_request_is_given_up_after_the_configured_time() {
    let (server, _) = waiting("api_key = \"_full-access-key\"");
    server.write_configuration(server.configuration().rally("timeout = \"100ms\"").sections(DELIVER_LATER));
    server.fail_next(Action::Hang);
    let ran = server.run(&["deliver"]).fails_with(1);
    assert!(ran.stderr.contains("100ms"), "{ran:?}");
    assert_eq!(server.count("pending"), 1);
}

/// Answers one request with 502 and returns its first line.
fn one_request(listener: &TcpListener) -> String {
    let (stream, _) = listener.accept().expect("somebody connects");
    let mut lines = BufReader::new(&stream).lines().map(|line| line.expect("HTTP is text"));
    let first = lines.next().expect("a request line");
    lines.find(String::is_empty).expect("headers end");
    (&stream)
        .write_all(b"HTTP/1.1 502 Bad Gateway\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
        .expect("it listens");
    first
}

#[test]
fn requests_go_through_the_proxy_of_the_configuration_or_the_environment() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let proxy = format!("http://{}", listener.local_addr().expect("it is bound"));
    let (server, _) = waiting(&format!("api_key = \"_full-access-key\"\nproxy = \"{proxy}\""));
    let first = thread::scope(|scope| {
        let seen = scope.spawn(|| one_request(&listener));
        server.run(&["deliver"]).fails_with(1);
        seen.join().expect("the proxy saw a request")
    });
    assert!(first.contains(&server.rally.url()), "{first}");
    assert!(server.rally.requests().is_empty());

    let text = "[rally]\nserver = \"https://rally.invalid\"\nworkspace = \"Acme\"\napi_key = \"_full-access-key\"\n";
    server.write_configuration(text);
    let mut command = server.command(&["doctor"]);
    command.env("HTTPS_PROXY", &proxy);
    let first = thread::scope(|scope| {
        let seen = scope.spawn(|| one_request(&listener));
        let ran = ran(command).fails_with(1);
        assert!(ran.stdout.contains("the environment's HTTPS_PROXY is used"), "{ran:?}");
        seen.join().expect("the proxy saw a request")
    });
    assert!(first.starts_with("CONNECT rally.invalid:443"), "{first}");

    // A server that NO_PROXY names is reached directly, and so is one on this machine without TLS: the credentials
    // would leave it unencrypted.
    listener.set_nonblocking(true).expect("it can be set");
    let (url, section, authority) = by_tls(&server);
    server.write_configuration(section.rally(&format!("ca_file = {authority:?}")));
    let mut command = server.command(&["doctor"]);
    command.env("HTTPS_PROXY", &proxy).env("NO_PROXY", "localhost,127.0.0.1");
    assert!(ran(command).stdout.contains(&format!("ok    server         {url}")));
    configure(&server, "api_key = \"_full-access-key\"");
    let mut command = server.command(&["deliver"]);
    command.env("HTTP_PROXY", &proxy).env("ALL_PROXY", &proxy);
    ran(command).succeeds();
    assert_delivered(&server);
    assert!(listener.accept().is_err(), "nobody went to the proxy");
}

#[test]
fn certificates_that_are_none_are_named() {
    let (server, _) = waiting("api_key = \"_full-access-key\"");
    let file = server.write_private("ca.pem", "no certificate");
    for path in [file, server.git_dir.join("not-there.pem")] {
        configure(&server, &format!("api_key = \"_full-access-key\"\nca_file = \"{}\"", path.display()));
        let ran = server.run(&["deliver"]).fails_with(1);
        assert!(ran.stderr.contains(&path.display().to_string()) && ran.stderr.contains("ca_file"), "{ran:?}");
    }
    assert_eq!(server.count("pending"), 1);
}

#[test]
fn a_certificate_of_the_companys_own_authority_is_trusted_where_the_configuration_names_that() {
    let (server, _) = waiting("");
    let (url, section, authority) = by_tls(&server);
    let section = section.sections(DELIVER_LATER);
    server.write_configuration(&section);
    let ran = server.run(&["deliver"]).fails_with(1);
    assert!(ran.stderr.contains(&url) && ran.stderr.contains("certificate"), "{ran:?}");
    server.write_configuration(section.rally(&format!("ca_file = {authority:?}")));
    server.run(&["deliver"]).succeeds();
    assert_delivered(&server);
}

#[test]
fn no_more_requests_at_once_than_configured_and_batches_only_where_they_are_wished() {
    for (batch, limit) in [("auto", 8), ("off", 3), ("off", 1)] {
        let (server, clone) =
            waiting(&format!("api_key = \"_full-access-key\"\nbatch = \"{batch}\"\nmax_concurrent_requests = {limit}"));
        for number in 0..12 {
            let name = format!("file{number}");
            clone.commit(&format!("US{}", 1 + number % 9), &[(name.as_str(), Some("1"))]);
        }
        clone.push(&["origin", "main"]);
        server.rally.settings(|settings| settings.latency = std::time::Duration::from_millis(5));
        server.run(&["deliver", "--wait"]).succeeds();
        assert_delivered(&server);
        let requests = server.rally.requests();
        assert_eq!(requests.iter().any(|request| request.path.starts_with("/batch")), batch == "auto");
        let most = server.rally.max_concurrent();
        assert!(most <= limit && (batch == "auto" || most == limit), "{most} at once, {limit} allowed");
    }
}

#[test]
fn a_secret_appears_nowhere_but_in_its_header() {
    let key = "_canary-5f3a9d";
    for section in
        [format!("api_key = \"{key}\""), format!("username = \"connector@acme.example\"\npassword = \"{key}\"")]
    {
        let server = Server::new();
        server.write_configuration(server.configuration().credentials(&section).sections("[log]\nlevel = \"debug\"\n"));
        server.fail_next(Action::Hang);
        let clone = server.new_clone();
        clone.commit("US1", &[("a", Some("1"))]);
        let mut shown = clone.push(&["origin", "main"]);
        server.rally.wait_for_requests("the delivery in the background", |requests| !requests.is_empty());
        let running = deliverers(&server.git_dir);
        assert_eq!(running.len(), 1);
        for file in ["cmdline", "environ"] {
            shown += &String::from_utf8_lossy(&fs::read(format!("/proc/{}/{file}", running[0])).expect("it lives"));
        }
        // The server says back what it was sent, as some do.
        let body = format!("{{\"OperationResult\":{{\"Errors\":[\"refused\"]}}}} {key}");
        server.fail_all(Action::Status { code: 401, headers: Vec::new(), body });
        for arguments in
            [&["deliver", "--wait"][..], &["status"], &["status", "--json"], &["doctor"], &["backfill", "main"]]
        {
            let ran = server.run(arguments);
            shown += &format!("{}{}", ran.stdout, ran.stderr);
        }
        shown += &clone.push(&["origin", "main:again"]);
        assert!(!shown.contains("canary"), "{shown}");
        let state = fs::read_dir(server.git_dir.join("rally-hook")).expect("the state").flatten();
        for file in state {
            let bytes = fs::read(file.path()).unwrap_or_default();
            assert!(!String::from_utf8_lossy(&bytes).contains("canary"), "{:?}", file.path());
        }
    }
}
