//! Faults, latency, and many requests at once.

use crate::client::{KEY, changeset, connect, create, create_repository, get, post, send, write};
use rally_simulator::{Action, Fault, Match, Simulator};
use serde_json::json;
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

/// Plants a fault for the next creation of a repository.
fn plant(simulator: &Simulator, action: Action) {
    let on = Match { path: Some("/scmrepository/create"), ..Match::default() };
    simulator.fault(Fault { on, times: 1, action });
}

/// Creates a repository; returns the code and the body, and how many there are afterwards.
fn attempt(simulator: &Simulator) -> (Option<(u16, String)>, usize) {
    let body = json!({"SCMRepository": {"Name": "core", "SCMType": "Git"}}).to_string();
    let answer = send(simulator, "POST", "/scmrepository/create", &[KEY], &body);
    let made = simulator.world(|world| world.repositories().len());
    (answer.map(|answer| (answer.code, answer.body)), made)
}

#[test]
fn each_fault_comes_once_before_or_after_the_effect() {
    let text = "Concurrency conflict: x".to_owned();
    let page = || "<html>bad gateway</html>".to_owned();
    for (action, code, part, made) in [
        (
            Action::Status { code: 503, headers: vec![("Retry-After".into(), "1".into())], body: page() },
            Some(503),
            "bad",
            0,
        ),
        (Action::StatusAfter { code: 502, body: page() }, Some(502), "bad", 1),
        (Action::Errors(vec![text.clone()]), Some(200), "{\"CreateResult\":{\"Errors\":[\"Conc", 0),
        (Action::ErrorsAfter(vec![text]), Some(200), "{\"CreateResult\":{\"Errors\":[\"Conc", 1),
        (Action::Garbage, Some(200), "maintenance", 0),
        (Action::GarbageAfter, Some(200), "maintenance", 1),
        (Action::CutBefore, None, "", 0),
        (Action::CutAfter, None, "", 1),
        (Action::CutMidBody, None, "", 1),
        (Action::SlowBody(Duration::from_millis(40)), Some(200), "_ref", 1),
        (Action::Delay(Duration::from_millis(20)), Some(200), "_ref", 1),
        (Action::ExpireToken, Some(200), "Invalid key", 0),
    ] {
        let simulator = Simulator::start();
        let shown = format!("{action:?}");
        plant(&simulator, action);
        let (answer, count) = attempt(&simulator);
        assert_eq!((answer.as_ref().map(|(code, _)| *code), count), (code, made), "{shown}");
        assert!(answer.unwrap_or_default().1.contains(part), "{shown}");
        assert_eq!(attempt(&simulator).1, made + 1, "{shown} comes once");
    }
}

#[test]
fn a_hanging_request_is_released_when_the_simulator_stops() {
    for (action, made) in [(Action::Hang, 0), (Action::HangAfter, 1)] {
        let simulator = Simulator::start();
        plant(&simulator, action);
        let mut stream = connect(&simulator);
        let body = json!({"SCMRepository": {"Name": "core", "SCMType": "Git"}}).to_string();
        write(&mut stream, "POST", "/scmrepository/create", &[KEY], &body);
        simulator.wait_for_requests("the request", |requests| requests.len() == 1);
        simulator.wait_until("its effect", |world| world.repositories().len() == made);
        let (done, is_done) = mpsc::channel();
        thread::spawn(move || {
            let mut rest = Vec::new();
            let _ = std::io::Read::read_to_end(&mut stream, &mut rest);
            done.send(rest.len()).expect("somebody waits");
        });
        assert!(is_done.recv_timeout(Duration::from_millis(50)).is_err());
        drop(simulator);
        assert_eq!(is_done.recv_timeout(Duration::from_secs(10)), Ok(0));
    }
}

#[test]
fn entry_errors_fail_every_second_entry_of_a_batch() {
    let simulator = Simulator::start();
    let repository = create_repository(&simulator, "core");
    let reference = create(&simulator, "changeset", changeset(&repository, "1"));
    let entries: Vec<_> = (0..5)
        .map(|number| {
            json!({"Entry": {"Path": "/change/create", "Method": "POST", "Body": {
            "change": {"Changeset": reference, "PathAndFilename": number.to_string()}}}})
        })
        .collect();
    let action = Action::EntryErrors { every: 2, errors: vec!["no".into()] };
    simulator.fault(Fault { on: Match::default(), times: usize::MAX, action });
    let results = post(&simulator, "/batch", &json!({"Batch": entries})).inside("BatchResult")["Results"].clone();
    let failed: Vec<_> = (0..5).map(|at| results[at]["Errors"] == json!(["no"])).collect();
    assert_eq!(failed, [false, true, false, true, false]);
    assert_eq!(simulator.world(|world| world.changesets()[0].changes.len()), 3);
}

#[test]
fn parallel_writes_to_one_artifact_conflict() {
    let simulator = Simulator::start();
    let ids = simulator.world(|world| [world.add_artifact("DE1", "x"), world.add_artifact("DE2", "y")]);
    simulator.settings(|settings| settings.latency = Duration::from_millis(200));
    let update = |id: u64| {
        let answer = post(&simulator, &format!("/defect/{id}"), &json!({"Defect": {"State": "Open"}}));
        answer.inside("OperationResult")["Errors"].clone()
    };
    let errors: Vec<_> = thread::scope(|scope| {
        let threads = [ids[0], ids[0], ids[1]].map(|id| scope.spawn(move || update(id)));
        threads.map(|thread| thread.join().expect("no panic")).into()
    });
    let conflicts = errors.iter().filter(|errors| errors.to_string().contains("ConcurrencyConflictException"));
    assert_eq!(conflicts.count(), 1, "{errors:?}");
    assert_eq!(errors[2], json!([]));
    assert_eq!(simulator.world(|world| world.updates().len()), 2);
    assert_eq!(simulator.max_concurrent(), 3);
    assert_eq!(update(ids[0]), json!([]), "alone it passes");
}

#[test]
fn parallel_creates_of_changes_of_one_changeset_conflict_if_told_so() {
    for (detect, expected) in [(false, 0), (true, 1)] {
        let simulator = Simulator::start();
        let repository = create_repository(&simulator, "core");
        let [first, other] =
            ["1", "2"].map(|revision| create(&simulator, "changeset", changeset(&repository, revision)));
        simulator.settings(|settings| {
            settings.detect_parallel_changes = detect;
            settings.latency = Duration::from_millis(200);
        });
        let add = |parent: &str| {
            let change = json!({"Change": {"Changeset": parent, "PathAndFilename": "a"}});
            post(&simulator, "/change/create", &change).inside("CreateResult")["Errors"].clone()
        };
        let errors: Vec<_> = thread::scope(|scope| {
            let threads = [&first, &first, &other].map(|parent| scope.spawn(|| add(parent)));
            threads.map(|thread| thread.join().expect("no panic")).into()
        });
        let conflicts = errors.iter().filter(|errors| errors.to_string().contains("Concurrency conflict: "));
        assert_eq!(conflicts.count(), expected, "{errors:?}");
        assert_eq!(errors[2], json!([]), "of another changeset");
    }
}

#[test]
fn a_request_can_take_effect_after_its_client_has_left() {
    let simulator = Simulator::start();
    plant(&simulator, Action::EffectAfterLeave(Duration::from_millis(20)));
    let mut stream = connect(&simulator);
    let body = json!({"SCMRepository": {"Name": "core", "SCMType": "Git"}}).to_string();
    write(&mut stream, "POST", "/scmrepository/create", &[KEY], &body);
    simulator.wait_for_requests("the request", |requests| requests.len() == 1);
    assert_eq!(simulator.world(|world| world.repositories().len()), 0);
    drop(stream);
    simulator.wait_until("its effect", |world| world.repositories().len() == 1);
}

#[test]
fn conflicts_come_in_the_same_order_in_every_run() {
    let run = || {
        let simulator = Simulator::start();
        let id = simulator.world(|world| world.add_artifact("DE1", "x"));
        simulator.settings(|settings| settings.conflict_percent = 50);
        let conflicts = (0..20).map(|_| {
            let answer = post(&simulator, &format!("/defect/{id}"), &json!({"Defect": {"Ready": true}}));
            answer.body.contains("Concurrency conflict")
        });
        conflicts.collect::<Vec<_>>()
    };
    let first = run();
    assert!(first.contains(&true) && first.contains(&false));
    assert_eq!(run(), first);
}

#[test]
fn more_requests_than_allowed_wait_for_their_turn() {
    let simulator = Simulator::start();
    simulator.settings(|settings| {
        settings.per_user_limit = 2;
        settings.latency = Duration::from_millis(60);
    });
    let begun = Instant::now();
    thread::scope(|scope| {
        for _ in 0..6 {
            scope.spawn(|| assert_eq!(get(&simulator, "/defect").code, 200));
        }
    });
    assert!(begun.elapsed() >= Duration::from_millis(180));
}

#[test]
fn reads_lag_behind_writes() {
    let simulator = Simulator::start();
    simulator.settings(|settings| settings.read_lag = Duration::from_millis(300));
    let reference = create_repository(&simulator, "core");
    let count = || get(&simulator, "/scmrepository").inside("QueryResult")["TotalResultCount"].clone();
    assert_eq!(count(), 0);
    assert!(get(&simulator, &reference).body.contains("Cannot find object to read"));
    create(&simulator, "changeset", changeset(&reference, "1"));
    thread::sleep(Duration::from_millis(350));
    assert_eq!(count(), 1);
}

#[test]
fn requests_are_logged() {
    let simulator = Simulator::start();
    get(&simulator, "/Defect?query=(Name = \"a b\")&fetch=Name");
    let log = simulator.requests();
    assert_eq!((log[0].method.as_str(), log[0].path.as_str(), log[0].entries), ("GET", "/defect", 1));
    assert_eq!(log[0].query["query"], "(Name = \"a b\")");
    assert!(log[0].url_length > "/slm/webservice/v2.0/Defect".len());
    simulator.clear_requests();
    assert!(simulator.requests().is_empty());
}
