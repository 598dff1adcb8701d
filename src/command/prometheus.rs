//! `rally-hook status --prometheus`: the figures as Prometheus reads them, for the textfile collector of its node exporter
//! (<https://prometheus.io/docs/instrumenting/exposition_formats/>).

use std::collections::BTreeMap;
use std::fmt::Write;

use super::status::Facts;
use super::status_table::{Row, trouble};
use crate::clock::now;
use crate::time::Time;
use crate::wsapi::Client;

/// A figure of a repository.
struct Metric {
    name: &'static str,
    kind: &'static str,
    help: &'static str,
    /// `None` where there is nothing to tell.
    value: fn(&Facts) -> Option<f64>,
}

const METRICS: [Metric; 14] = [
    metric("pending", "gauge", "Commits that are queued.", |facts| number(facts.status.pending)),
    metric("unread_pushes", "gauge", "Pushes whose commits are not recorded yet.", |facts| number(facts.status.pushes)),
    metric("oldest_age_seconds", "gauge", "How long the oldest queued commit has waited; 0 if none is.", |facts| {
        Some(facts.status.oldest_pending.map_or(0.0, |oldest| now().since(oldest).as_secs_f64()))
    }),
    metric("failed", "gauge", "Dead letters: commits that wait for a person.", |facts| number(facts.status.failed)),
    metric("recorded_total", "counter", "Commits that were queued so far.", |facts| number(facts.status.recorded)),
    metric("delivered_total", "counter", "Commits that were posted.", |facts| number(facts.status.delivered)),
    metric("existed_total", "counter", "Commits that Rally had already.", |facts| number(facts.status.existed)),
    metric("unlinked_total", "counter", "Commits that name no artifact that Rally has.", |facts| {
        number(facts.status.unlinked)
    }),
    metric("requests_total", "counter", "Requests that deliveries have sent to Rally.", |facts| {
        number(facts.status.requests)
    }),
    metric("last_delivery_timestamp_seconds", "gauge", "When a commit was posted last.", |facts| {
        facts.status.last_delivery.map(seconds)
    }),
    metric("refs_behind", "gauge", "Watched refs with commits that no hook recorded.", |facts| {
        facts.behind.as_ref().ok().map(|refs| refs.len() as f64)
    }),
    metric("paused", "gauge", "1 if delivery pauses after a failure.", |facts| truth(facts.status.pause.is_some())),
    metric("worker", "gauge", "1 if a process delivers, or waits to.", |facts| truth(facts.has_worker())),
    metric("needs_person", "gauge", "1 if a person must act.", |facts| truth(facts.trouble().is_some())),
];

const fn metric(
    name: &'static str,
    kind: &'static str,
    help: &'static str,
    value: fn(&Facts) -> Option<f64>,
) -> Metric {
    Metric { name, kind, help, value }
}

fn number(count: i64) -> Option<f64> {
    Some(count as f64)
}

fn truth(is_true: bool) -> Option<f64> {
    Some(f64::from(u8::from(is_true)))
}

fn seconds(time: Time) -> f64 {
    time.millis() as f64 / 1000.0
}

/// Returns the figures of these repositories. Of one that cannot be looked at it is known that a person must act.
pub(super) fn text(rows: &[Row]) -> String {
    let mut text = String::new();
    for Metric { name, kind, help, value } in &METRICS {
        let known = |(repo_dir, facts): &Row| {
            let value = match facts {
                Ok(facts) => value(facts),
                Err(_) if *name == "needs_person" => truth(trouble(facts).is_some()),
                Err(_) => None,
            };
            Some((label(&repo_dir.to_string_lossy()), value?))
        };
        let _ = writeln!(text, "# HELP rally_hook_{name} {help}\n# TYPE rally_hook_{name} {kind}");
        for (repository, value) in rows.iter().filter_map(known) {
            let _ = writeln!(text, "rally_hook_{name}{{repository=\"{repository}\"}} {value}");
        }
    }
    text + &permits(rows)
}

/// Returns how many requests are under way at this moment, by account: repositories share them.
fn permits(rows: &[Row]) -> String {
    let settings = rows.iter().filter_map(|(_, facts)| facts.as_ref().ok()?.rally.as_ref());
    let in_use = settings.filter_map(|rally| Client::new(rally, rally.access().ok()?).permits().in_use());
    let in_use: BTreeMap<String, usize> = in_use.collect();
    let mut text =
        "# HELP rally_hook_permits_in_use Requests to Rally at this moment, of all processes of this host.\n\
                    # TYPE rally_hook_permits_in_use gauge\n"
            .to_owned();
    for (account, count) in in_use {
        let _ = writeln!(text, "rally_hook_permits_in_use{{account=\"{account}\"}} {count}");
    }
    text
}

/// Returns the value of a label, escaped as the format asks.
pub(super) fn label(text: &str) -> String {
    text.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_repository_that_cannot_be_looked_at_needs_a_person() {
        let rows = [("/srv/a \"b\".git".into(), Err("gone".to_owned()))];
        let text = text(&rows);
        let samples: Vec<&str> = text.lines().filter(|line| !line.starts_with('#')).collect();
        assert_eq!(samples, [r#"rally_hook_needs_person{repository="/srv/a \"b\".git"} 1"#]);
    }
}
