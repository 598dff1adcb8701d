//! Outages of Rally: delivery pauses, says so, and goes on by itself or when a person asks for it.

use std::net::TcpListener;

use crate::support::fault::status;
use crate::support::process::wait_for;
use crate::support::{DELIVER_LATER, Server, expected};

const MESSAGES: [&str; 4] = ["US1: first", "DE2: second", "TA3: third", "US4, DE2: fourth"];

/// Pushes to a Rally at a wrong address, asserts that all of it waits, corrects the address and delivers.
fn assert_unreachable_then_delivered(server: &Server, address: &str) {
    let clone = server.new_clone();
    clone.push_commits(&MESSAGES);
    server.run(&["deliver"]).fails_with(1);
    let status = server.status();
    assert_eq!((status["pending"].as_i64(), status["failed"].as_i64()), (Some(4), Some(0)), "{status}");
    assert!(status["last_error"].as_str().is_some_and(|text| text.contains(address)), "{status}");
    assert_eq!(status["paused"]["needs_person"], false, "{status}");
    server.assert_counts_add_up();
    let seen = clone.push_commits(&["US7: told"]);
    assert!(seen.contains("nothing has been posted since"), "{seen}");
    assert!(server.rally.requests().is_empty());
    server.configure(DELIVER_LATER);
    server.deliver_all();
    server.assert_rally_holds(&expected(&server.git_dir, &["main"]));
}

#[test]
fn delivery_to_a_server_that_cannot_be_reached_is_retried() {
    let refusing = TcpListener::bind("127.0.0.1:0").expect("a free port").local_addr().expect("it has one").port();
    let addresses = [format!("http://127.0.0.1:{refusing}"), "https://rally.invalid".to_owned()];
    for address in addresses {
        let server = Server::delivering_later("");
        server.write_configuration(
            server.configuration().rally(&format!("server = {address:?}")).sections(DELIVER_LATER),
        );
        assert_unreachable_then_delivered(&server, &address);
    }
}

#[test]
fn delivery_to_a_server_without_tls_is_retried() {
    let server = Server::delivering_later("");
    let address = server.rally.url().replace("http://", "https://");
    server.write_configuration(server.configuration().rally(&format!("server = {address:?}")).sections(DELIVER_LATER));
    assert_unreachable_then_delivered(&server, &address);
}

#[test]
fn a_manual_attempt_does_not_extend_the_pause() {
    let server = Server::delivering_later("");
    server.configure("[queue]\ndeliver = \"later\"\nretry_delay = \"10m\"\n");
    server.new_clone().push_commits(&MESSAGES);
    server.fail_all(status(503));
    let until = || {
        server.run(&["deliver"]).fails_with(1);
        server.status()["paused"]["until"].clone()
    };
    let first = until();
    assert!(first.is_string() && first == until() && first == until());
    server.rally.clear_faults();
    server.run(&["deliver"]).succeeds();
}

#[test]
fn a_manual_attempt_says_that_delivery_pauses() {
    let server = Server::delivering_later("");
    server.configure("[queue]\ndeliver = \"later\"\nretry_delay = \"10m\"\n");
    server.new_clone().push_commits(&MESSAGES);
    server.fail_next(status(503));
    let first = server.run(&["deliver"]).fails_with(1);
    assert!(!first.stderr.contains("pauses until"), "{first:?}");
    let second = server.run(&["deliver"]).succeeds();
    assert!(second.stderr.contains("delivery pauses until ") && second.stderr.contains("HTTP 503"), "{second:?}");
    assert!(second.stderr.contains("this attempt does not extend the pause"), "{second:?}");
}

#[test]
fn deliver_wait_says_what_it_waits_for() {
    let server = Server::delivering_later("");
    server.configure(&DELIVER_LATER.replace("20ms", "4s"));
    server.new_clone().push_commits(&MESSAGES);
    server.fail_next(status(503));
    let ran = server.run(&["deliver", "--wait"]).succeeds();
    assert!(ran.stderr.contains("for the next attempt: ") && ran.stderr.contains("HTTP 503"), "{ran:?}");
}

#[test]
fn a_background_delivery_in_a_pause_reads_a_corrected_configuration() {
    let server = Server::new();
    let good = server.read_configuration();
    let wrong = good.replace(&server.rally.url(), "http://127.0.0.1:9");
    server.write_configuration(wrong.replace("retry_delay = \"20ms\"", "retry_delay = \"10m\""));
    let clone = server.new_clone();
    clone.push_commits(&["US1: to the wrong address"]);
    wait_for("the first failure", || server.status()["paused"].is_object());
    server.write_configuration(&good);
    // The process of the first push is still the one that delivers in the background.
    clone.push_commits(&["US2: to the right one"]);
    wait_for("both", || server.count("delivered") == 2);
    server.assert_rally_holds(&expected(&server.git_dir, &["main"]));
}

#[test]
fn a_delivery_by_a_person_says_whether_anybody_makes_the_next_attempt() {
    let server = Server::delivering_later("");
    server.new_clone().push_commits(&["US1"]);
    server.fail_all(status(503));
    let ran = server.run(&["deliver"]).fails_with(1);
    assert!(ran.stderr.contains("no process is waiting to make it; `rally-hook deliver --now`"), "{ran:?}");
}

#[test]
fn the_background_process_outlives_an_error_in_the_configuration() {
    let server = Server::new();
    server.write_configuration(server.configuration().sections("[queue]\nretry_delay = \"100ms\"\n"));
    server.fail_all(status(503));
    server.new_clone().push_commits(&["US1"]);
    server.rally.wait_for_requests("the first attempt", |requests| !requests.is_empty());
    server.write_configuration("rally = 1\n");
    wait_for("the error to be told", || server.log().contains("so the one before still counts: "));
    server.rally.clear_faults();
    wait_for("the delivery", || server.changesets().len() == 1);
}
