//! Team Foundation Version Control, which is polled: against a double that answers as recorded answers do.

use rally_simulator::{Action, Fault as RallyFault, Match};
use tfvc_double::{Change, Fault};

use crate::support::process::{Service, kill, spawn, wait_for};
use crate::support::{DELIVER_LATER, Tfvc, hermetic, program};

const POST_ALL: &str = "[commits]\npost = \"all\"\n";
const QUICKLY: &str = "every = \"100ms\"";

/// Starts a worker that serves all directories beside this one.
fn worker(tfvc: &Tfvc) -> Service {
    let mut command = hermetic(program());
    command.args(["worker", "--all-repos"]).arg(tfvc.server.path()).current_dir("/");
    Service::start(command)
}

fn lists(tfvc: &Tfvc) -> usize {
    tfvc.double.requests().iter().filter(|request| request.path.contains("/changesets?")).count()
}

#[test]
fn a_changeset_is_posted_with_all_that_rally_shows() {
    let tfvc = Tfvc::new();
    let changes = [("add, edit, encoding", "$/Payments/main/new é.cs"), ("delete", "$/Payments/main/old")];
    let number = tfvc.check_in("US2: pay by card\n\nand more", &changes);
    assert_eq!(tfvc.posted(), [number.to_string()], "what was there at install is not posted");
    let changeset = tfvc.server.changeset(&number.to_string());
    assert_eq!(changeset.message, "US2: pay by card\n\nand more");
    assert_eq!(changeset.artifacts, ["US2"]);
    assert_eq!(changeset.branch.as_deref(), Some("main"));
    assert_eq!(changeset.commit_timestamp, "2026-01-01T10:02:00.000Z");
    let changes: Vec<(&str, &str)> =
        changeset.changes.iter().map(|change| (change.action.as_str(), change.path.as_str())).collect();
    assert_eq!(changes, [("A", "$/Payments/main/new é.cs"), ("D", "$/Payments/main/old")]);
    let repositories = tfvc.server.rally.world(|world| world.repositories());
    assert_eq!((repositories[0].name.as_str(), repositories[0].scm_type.as_str()), ("payments", "TFS"));
}

#[test]
fn the_author_is_who_made_the_change_also_where_a_build_checks_in() {
    let tfvc = Tfvc::new();
    tfvc.configure("", &format!("{DELIVER_LATER}[authors]\nmatch = [\"username\"]\ndomain = \"acme.example\"\n"));
    tfvc.server.rally.world(|world| world.add_user("jroe@acme.example", "jane@acme.example", "Jane Roe"));
    let number = tfvc.check_in_one("US2");
    tfvc.posted();
    assert_eq!(tfvc.server.changeset(&number.to_string()).author.as_deref(), Some("jroe@acme.example"));
}

#[test]
fn the_worker_polls_and_delivers() {
    let tfvc = Tfvc::new();
    tfvc.configure(QUICKLY, "");
    let worker = worker(&tfvc);
    for number in 2..=4 {
        tfvc.check_in_one("US2");
        tfvc.server.rally.wait_until("the changeset", |world| world.changesets().len() == number - 1);
    }
    assert_eq!(tfvc.server.status()["vcs"], "tfvc");
    worker.end();
}

#[test]
fn the_worker_asks_no_more_often_than_it_is_told() {
    let tfvc = Tfvc::new();
    tfvc.configure("every = \"1h\"", DELIVER_LATER);
    let before = lists(&tfvc);
    let worker = worker(&tfvc);
    wait_for("the worker", || tfvc.server.status()["worker"] == true);
    tfvc.check_in_one("US2");
    worker.end();
    assert_eq!(lists(&tfvc), before, "install has asked");
}

#[test]
fn a_worker_whose_server_is_down_delivers_what_is_queued() {
    let tfvc = Tfvc::new();
    tfvc.configure(QUICKLY, DELIVER_LATER);
    tfvc.check_in_one("US2");
    tfvc.catch_up().succeeds();
    tfvc.world(|world| world.fault("", Fault::Hang));
    let worker = worker(&tfvc);
    tfvc.server.rally.wait_until("the changeset", |world| world.changesets().len() == 1);
    drop(worker);
}

#[test]
fn nothing_is_posted_twice_or_lost_if_a_poll_is_killed() {
    let tfvc = Tfvc::new();
    tfvc.check_in_some(5);
    for target in ["/changesets?", "/4/changes"] {
        tfvc.world(|world| world.fault(target, Fault::Hang));
        let before = tfvc.double.requests().len();
        let poll = spawn(tfvc.server.command(&["catch-up"]));
        tfvc.double.wait_for_requests("the one that hangs", |requests| {
            requests[before..].iter().any(|request| request.path.contains(target))
        });
        kill(poll);
        tfvc.world(tfvc_double::World::clear_faults);
    }
    assert_eq!(tfvc.posted(), ["2", "3", "4", "5", "6"]);
}

#[test]
fn nothing_is_posted_twice_if_the_worker_is_killed_between_poll_and_delivery() {
    let tfvc = Tfvc::new();
    tfvc.configure(QUICKLY, "");
    let on = Match { path: Some("/changeset/create"), ..Match::default() };
    tfvc.server.rally.fault(RallyFault { on, times: 1, action: Action::HangAfter });
    let first = worker(&tfvc);
    tfvc.check_in_one("US2");
    tfvc.server
        .rally
        .wait_for_requests("the create", |requests| requests.iter().any(|request| request.path == "/changeset/create"));
    drop(first);
    tfvc.check_in_one("US3");
    let second = worker(&tfvc);
    tfvc.server.rally.wait_until("both", |world| world.changesets().len() == 2);
    wait_for("an empty queue", || tfvc.server.count("pending") == 0);
    second.end();
    assert_eq!(tfvc.posted().len(), 2);
}

#[test]
fn a_comment_is_whole_whatever_a_list_cuts() {
    let tfvc = Tfvc::new();
    let long = format!("{}\nUS2", "long ".repeat(600));
    let short = format!("{} US3", "é".repeat(90));
    for ignores in [false, true] {
        tfvc.world(|world| world.settings.ignores_comment_length = ignores);
        for comment in [&long, &short] {
            let number = tfvc.check_in_one(comment).to_string();
            assert_eq!(tfvc.posted().last(), Some(&number), "{ignores}");
        }
    }
    let messages: Vec<String> = tfvc.server.changesets().into_iter().map(|changeset| changeset.message).collect();
    assert_eq!(messages, [&*long, &*short, &*long, &*short]);
}

#[test]
fn a_changeset_without_a_comment_is_posted_with_all_others() {
    let tfvc = Tfvc::new();
    tfvc.configure("", &format!("{DELIVER_LATER}{POST_ALL}"));
    let number = tfvc.check_in_one("");
    assert_eq!(tfvc.posted(), [number.to_string()]);
}

#[test]
fn what_lies_beside_the_path_is_not_posted_whether_the_server_heeds_the_path_or_not() {
    for ignores in [false, true] {
        let tfvc = Tfvc::new();
        tfvc.world(|world| world.settings.ignores_criteria = ignores);
        tfvc.check_in("US2: another project", &[("edit", "$/Other/main/a")]);
        tfvc.check_in("US2: a name that begins alike", &[("edit", "$/Payments/maintenance/a")]);
        let both = [("edit", "$/Payments/main/a"), ("edit", "$/Payments/dev/a")];
        let number = tfvc.check_in("US2: both", &both).to_string();
        tfvc.check_in("US2: another branch", &[("edit", "$/Payments/dev/a")]);
        assert_eq!(tfvc.posted().len(), 1, "{ignores}");
        assert_eq!(tfvc.server.changeset(&number).changes.len(), 1);
    }
}

#[test]
fn every_kind_of_change_is_posted_as_one_letter() {
    let tfvc = Tfvc::new();
    let path = |name: &str| format!("$/Payments/main/{name}");
    let number = tfvc.check_in_one("US2");
    let change = |types: &str, name: &str, source: Option<&str>| Change {
        types: types.into(),
        path: path(name),
        source: source.map(path),
    };
    tfvc.world(|world| {
        world.change_last(|changeset| {
            changeset.changes = vec![
                change("add, edit, encoding", "added", None),
                change("edit", "edited", None),
                change("delete", "deleted", None),
                change("edit, rename", "new name", Some("old name")),
                change("rename", "new pair", Some("old pair")),
                change("delete, sourceRename", "old pair", None),
                change("branch", "branched", None),
                change("merge, edit", "merged", Some("elsewhere")),
                change("undelete", "back", None),
                change("rollback, edit", "rolled back", None),
                change("lock", "locked", None),
            ];
        });
    });
    tfvc.posted();
    let mut changes: Vec<String> = tfvc
        .server
        .changeset(&number.to_string())
        .changes
        .iter()
        .map(|change| format!("{} {}", change.action, change.path.trim_start_matches("$/Payments/main/")))
        .collect();
    changes.sort();
    let expected = [
        "A added",
        "A back",
        "A branched",
        "A new name",
        "A new pair",
        "D deleted",
        "D old name",
        "D old pair",
        "M edited",
        "M merged",
        "M rolled back",
    ];
    assert_eq!(changes, expected);
}

#[test]
fn lists_are_read_page_by_page_whatever_the_size_of_a_page() {
    for (page, least_page) in [(100, 1), (256, 256), (1000, 1)] {
        let tfvc = Tfvc::new();
        tfvc.world(|world| (world.settings.page, world.settings.least_page) = (page, least_page));
        let numbers: Vec<String> = (0..300).map(|_| tfvc.check_in_one("US2").to_string()).collect();
        tfvc.catch_up().succeeds();
        let dry = tfvc.server.run(&["backfill", "--dry-run", "--json", "2..301"]).succeeds();
        assert_eq!(dry.stdout.lines().count(), 300, "{page}");
        assert_eq!(tfvc.server.count("pending"), numbers.len() as i64, "{page}");
    }
}

#[test]
fn the_paths_of_a_large_changeset_are_read_page_by_page() {
    let paths: Vec<String> = (0..1234).map(|number| format!("$/Payments/main/{number}")).collect();
    let changes: Vec<(&str, &str)> = paths.iter().map(|path| ("add", path.as_str())).collect();
    for (page, continuation_tokens) in [(100, false), (256, true), (1000, false)] {
        let tfvc = Tfvc::new();
        tfvc.world(|world| {
            world.settings.page = page;
            world.settings.continuation_tokens = continuation_tokens;
            world.check_in("US2", &changes);
        });
        let dry = tfvc.server.run(&["backfill", "--dry-run", "--json", "2"]).succeeds();
        let line: serde_json::Value = serde_json::from_str(&dry.stdout).expect("one line");
        assert_eq!((line["changes"].as_array().map(Vec::len), &line["omitted_changes"]), (Some(1000), &234.into()));
        assert_eq!(line["changes"][999]["path"], "$/Payments/main/999");
    }
}

#[test]
fn gaps_between_the_numbers_are_normal() {
    let tfvc = Tfvc::new();
    for number in [5, 9, 1000] {
        tfvc.world(|world| {
            world.check_in("US2", &[("edit", "$/Payments/main/a")]);
            world.change_last(|changeset| changeset.number = number);
        });
    }
    assert_eq!(tfvc.posted(), ["5", "9", "1000"]);
    assert_eq!(tfvc.posted().len(), 3);
}

#[test]
fn a_byte_order_mark_and_any_digits_of_a_date_are_understood() {
    let tfvc = Tfvc::new();
    tfvc.world(|world| world.settings.byte_order_mark = true);
    for date in ["2026-02-03T04:05:06Z", "2026-02-03T04:05:06.7Z", "2026-02-03T04:05:06.7891234Z"] {
        let number = tfvc.check_in_one("US2").to_string();
        tfvc.world(|world| world.change_last(|changeset| changeset.date = date.into()));
        assert_eq!(tfvc.posted().last(), Some(&number));
        assert_eq!(tfvc.server.changeset(&number).commit_timestamp, "2026-02-03T04:05:06.000Z");
    }
}

fn dry_run(tfvc: &Tfvc, arguments: &[&str]) -> Vec<String> {
    let ran = tfvc.server.run(&[&["backfill", "--dry-run", "--json"], arguments].concat()).succeeds();
    let revision = |line: &str| {
        let line: serde_json::Value = serde_json::from_str(line).expect("JSON");
        line["revision"].as_str().expect("text").to_owned()
    };
    ran.stdout.lines().map(revision).collect()
}

#[test]
fn a_backfill_takes_numbers_ranges_all_and_dates() {
    let tfvc = Tfvc::without_install();
    tfvc.check_in_some(9);
    tfvc.world(|world| {
        for (changeset, day) in world.changesets.iter_mut().zip(10..) {
            changeset.date = format!("2026-01-{day}T10:00:00Z");
        }
    });
    assert_eq!(dry_run(&tfvc, &["3..5"]), ["5", "4", "3"]);
    assert_eq!(dry_run(&tfvc, &["5"]), ["5"]);
    assert_eq!(dry_run(&tfvc, &["5", "8..9"]), ["5", "9", "8"]);
    assert_eq!(dry_run(&tfvc, &["--all"]).len(), 10);
    assert_eq!(dry_run(&tfvc, &["--since", "2026-01-18T00:00:00Z"]), ["10", "9"]);
    assert_eq!(dry_run(&tfvc, &["1..5", "--since", "2026-01-13T00:00:00Z"]), ["5", "4"]);
    assert!(!tfvc.server.git_dir.join("rally-hook").exists());
}

#[test]
fn a_backfill_of_nonsense_or_beyond_the_newest_is_wrong_usage() {
    let tfvc = Tfvc::new();
    for range in ["2", "1..2", "abc", "0", "3..1", "main", "1..", "$/Payments"] {
        let ran = tfvc.server.run(&["backfill", "--dry-run", range]).fails_with(2);
        assert!(ran.stderr.contains(range), "{ran:?}");
    }
}

#[test]
fn a_backfill_posts_what_was_there_before_and_nothing_twice() {
    let tfvc = Tfvc::without_install();
    tfvc.check_in_some(3);
    tfvc.server.run(&["install"]).succeeds();
    for _ in 0..2 {
        tfvc.server.run(&["backfill", "--all"]).succeeds();
    }
    assert_eq!(tfvc.delivered().len(), 4);
    assert_eq!(tfvc.posted().len(), 4);
}

#[test]
fn a_message_changes_states_once_on_the_branch_of_the_path() {
    let tfvc = Tfvc::new();
    tfvc.configure("", &format!("{DELIVER_LATER}[state]\nupdate = true\n"));
    tfvc.catch_up().succeeds();
    tfvc.check_in_one("Fixed DE1");
    tfvc.check_in("Fixed DE2", &[("edit", "$/Payments/dev/a")]);
    tfvc.catch_up().succeeds();
    tfvc.catch_up().succeeds();
    assert_eq!(tfvc.server.count("pending_state_changes"), 1);
}

#[test]
fn links_lead_to_the_pages_of_the_changeset() {
    let tfvc = Tfvc::new();
    let links = "[repository]\nweb = \"https://tfs.acme.example/tfs/C/Payments\"\nlinks = \"azure-tfvc\"\n";
    tfvc.configure("", &format!("{DELIVER_LATER}{links}"));
    tfvc.check_in_one("US2");
    tfvc.posted();
    let changeset = tfvc.server.changeset("2");
    let web = "https://tfs.acme.example/tfs/C/Payments";
    assert_eq!(changeset.uri.as_deref(), Some(&*format!("{web}/_versionControl/changeset/2")));
    let file = format!("{web}/_versionControl?path=%24/Payments/main/a&version=C2");
    assert_eq!(changeset.changes[0].uri.as_deref(), Some(&*file));
}
