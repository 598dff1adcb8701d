//! The program is killed anywhere and started again: still each commit is in Rally once, with all its changes.
//!
//! `RALLY_HOOK_SEED` repeats a run and `RALLY_HOOK_ROUNDS` makes it longer.

use std::io::Write;
use std::os::unix::process::CommandExt;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use rally_simulator::Action;

use crate::support::process::{kill, kill_after, spawn};
use crate::support::{DELIVER_LATER, Random, Server, expected, rounds, seed};

/// Number of repositories that go through their rounds side by side.
const LANES: usize = 4;
/// By then a request of a killed process has taken effect, also on a busy machine.
const READ_LAG: &str = "read_lag = \"150ms\"";
const MESSAGES: [&str; 6] = ["US1: one", "DE2, US3: two", "no artifact", "TA4: four", "US1: five", "DE2: six"];

/// Runs the rounds in several lanes, each with a generator of its own.
fn in_lanes(usual: usize, lane: impl Fn(usize, Random) + Sync) {
    let (seed, rounds) = (seed(), rounds(usual));
    std::thread::scope(|scope| {
        for number in 0..LANES {
            let lane = &lane;
            scope.spawn(move || lane(rounds.div_ceil(LANES), Random::part(seed, number as u64)));
        }
    });
}

fn start_hook(server: &Server, input: &str) -> Child {
    let mut command = server.hook_command();
    // It leads a process group, so that what it has started is killed with it.
    command.process_group(0);
    command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
    let mut child = command.spawn().expect("the program can be run");
    // It may be killed before it has read.
    let _ = child.stdin.take().expect("a pipe").write_all(input.as_bytes());
    child
}

fn some_messages(random: &mut Random) -> Vec<&'static str> {
    (0..=random.below(5)).map(|_| *random.pick(&MESSAGES)).collect()
}

/// Returns a delay between zero and a bit more than `whole`.
fn some_delay(random: &mut Random, whole: Duration) -> Duration {
    whole.mul_f64(random.below(1200) as f64 / 1000.0)
}

/// Delivers the rest, and asserts that Rally holds each commit once.
fn assert_all_there(server: &Server) {
    server.run(&["deliver", "--wait"]).succeeds();
    server.assert_rally_holds(&expected(&server.git_dir, &["main"]));
    assert_eq!(server.rally.world(|world| world.repositories().len()), 1);
}

#[test]
fn the_next_push_or_catch_up_records_what_a_hook_killed_anywhere_missed() {
    in_lanes(120, |rounds, mut random| {
        let server = Server::new();
        server.write_configuration(server.configuration().rally(READ_LAG).sections(DELIVER_LATER));
        let begun = Instant::now();
        server.receive(&MESSAGES);
        let whole = begun.elapsed();
        for round in 0..rounds {
            let update = server.import("refs/heads/main", &some_messages(&mut random));
            kill_after(start_hook(&server, &update), some_delay(&mut random, whole / 2));
            server.assert_counts_add_up();
            match random.happens(50) {
                true => drop(server.run(&["catch-up"]).succeeds()),
                false => drop(server.receive(&["US5: the next push"])),
            }
            assert_eq!(server.status()["refs_behind"].as_array().map(Vec::len), Some(0), "round {round}");
        }
        assert_all_there(&server);
    });
}

#[test]
fn the_next_delivery_completes_one_killed_anywhere() {
    in_lanes(120, |rounds, mut random| {
        let server = Server::new();
        server.write_configuration(server.configuration().rally(READ_LAG).sections(DELIVER_LATER));
        if random.happens(50) {
            server.write_configuration(
                server.configuration().rally(READ_LAG).rally("batch = \"off\"").sections(DELIVER_LATER),
            );
        }
        server.receive(&MESSAGES);
        let begun = Instant::now();
        server.run(&["deliver"]);
        let whole = begun.elapsed();
        for _ in 0..rounds {
            server.receive(&some_messages(&mut random));
            let command = server.command(&["deliver", "--wait"]);
            kill_after(spawn(command), some_delay(&mut random, whole));
            server.assert_counts_add_up();
        }
        server.let_time_pass();
        assert_all_there(&server);
    });
}

#[test]
fn the_next_delivery_completes_one_killed_during_any_request() {
    for action in [Action::Hang, Action::HangAfter] {
        for batch in ["auto", "off"] {
            kill_at_each_request(&action, batch);
        }
    }
}

/// Kills at the first request, then at the second one of a new repository, and so on until there is none.
fn kill_at_each_request(action: &Action, batch: &str) {
    for point in 0.. {
        let server = Server::new();
        let rally = format!("{READ_LAG}\ntimeout = \"60s\"\nbatch = \"{batch}\"\nmax_concurrent_requests = 1");
        server.write_configuration(server.configuration().rally(&rally).sections(DELIVER_LATER));
        server.receive(&MESSAGES[..3]);
        let on = rally_simulator::Match { skip: point, ..Default::default() };
        server.rally.fault(rally_simulator::Fault { on, times: 1, action: action.clone() });
        let mut child = spawn(server.command(&["deliver"]));
        let mut ended = false;
        crate::support::process::wait_for("the request at which it is killed, or the end", || {
            ended = child.try_wait().expect("it was ours").is_some();
            ended || server.rally.requests().len() > point
        });
        if ended && server.rally.requests().len() <= point {
            assert!(point > 5, "a delivery takes more than {point} requests");
            return;
        }
        if matches!(action, Action::HangAfter) {
            wait_for_effect(&server);
        }
        kill(child);
        server.assert_counts_add_up();
        server.let_time_pass();
        assert_all_there(&server);
    }
}

/// Waits until the request that hangs has taken effect.
fn wait_for_effect(server: &Server) {
    let holds = || server.changesets().iter().map(|held| 1 + held.changes.len()).sum::<usize>();
    let last = server.rally.requests().last().expect("it was asked").clone();
    if last.path == "/changeset/create" || last.path == "/change/create" {
        let creates = server.rally.requests().iter().filter(|one| one.path.starts_with("/change")).count();
        let looked_up =
            server.rally.requests().iter().filter(|one| one.method == "GET" && one.path.starts_with("/change")).count();
        crate::support::process::wait_for("the effect", || holds() >= creates - looked_up);
    }
}
