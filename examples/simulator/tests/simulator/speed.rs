//! Queries over as many changesets as a benchmark makes.

use crate::client::{KEY, create_repository, get, send};
use rally_simulator::Simulator;
use std::time::{Duration, Instant};

const CHANGESETS: usize = 100_000;
const TERMS: usize = 500;
/// Generous: it tells a pass over everything for each term from a single one.
const MAX_TIME: Duration = Duration::from_secs(2);

#[test]
#[ignore = "fills the memory; run it with --release when queries change"]
fn queries_stay_fast_over_many_changesets() {
    let simulator = Simulator::start();
    create_repository(&simulator, "core");
    simulator.world(|world| {
        world.add_artifact("US1", "x");
        for number in 0..CHANGESETS {
            let artifacts: &[&str] = if number % 10 == 0 { &["US1"] } else { &[] };
            let changes = [("A", "a.c"), ("M", "b.c"), ("D", "c.c")];
            world.add_changeset("core", &format!("r{number}"), &format!("m{number}"), artifacts, &changes);
        }
    });
    let chain = |attribute: &str, prefix: &str| {
        let first = format!("({attribute} = \"{prefix}0\")");
        (1..TERMS).fold(first, |chain, number| format!("({chain} OR ({attribute} = \"{prefix}{number}\"))"))
    };
    for (kind, query, count) in [
        ("changeset", chain("Revision", "r"), TERMS),
        ("changeset", format!("((SCMRepository.Name = core) AND {})", chain("Revision", "r")), TERMS),
        ("changeset", chain("Message", "m"), TERMS),
        ("change", chain("Changeset.Revision", "r"), 3 * TERMS),
        ("change", "(PathAndFilename = b.c)".to_owned(), CHANGESETS),
        ("changeset", "(Artifacts.FormattedID = US1)".to_owned(), CHANGESETS / 10),
    ] {
        let begun = Instant::now();
        let form = format!("_method=GET&fetch=true&pagesize=200&query={}", query.replace(' ', "+"));
        let headers = [KEY, "Content-Type: application/x-www-form-urlencoded"];
        let answer = send(&simulator, "POST", &format!("/{kind}"), &headers, &form).expect("an answer");
        let took = begun.elapsed();
        println!("{took:>10.1?}  {}", query.chars().take(60).collect::<String>());
        assert_eq!(answer.inside("QueryResult")["TotalResultCount"], count);
        assert!(took < MAX_TIME, "{took:?}: {query:.80}");
    }
    assert_eq!(get(&simulator, "/changeset?pagesize=2000&start=99001").code, 200);
}
