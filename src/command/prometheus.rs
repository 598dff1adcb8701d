//! `rally-hook status --prometheus`: the figures as Prometheus reads them, for the textfile collector of its node exporter
//! (<https://prometheus.io/docs/instrumenting/exposition_formats/>).

use std::collections::BTreeMap;

use super::status::Facts;
use super::status_table::Row;
use crate::clock::now;
use crate::time::Time;
use crate::wsapi::Client;

/// The name of a figure of a repository, what it means, and its value, unless there is nothing to tell.
type Metric = (&'static str, &'static str, fn(&Facts) -> Option<f64>);

const METRICS: [Metric; 14] = [
    ("pending", "Commits that are queued.", |facts| number(facts.status.pending)),
    ("unread_pushes", "Pushes whose commits are not recorded yet.", |facts| number(facts.status.pushes)),
    ("oldest_age_seconds", "How long the oldest queued commit has waited; 0 if none is.", |facts| {
        Some(facts.status.oldest_pending.map_or(0.0, |oldest| now().since(oldest).as_secs_f64()))
    }),
    ("failed", "Dead letters: commits that wait for a person.", |facts| number(facts.status.failed)),
    ("recorded_total", "Commits that were queued so far.", |facts| number(facts.status.recorded)),
    ("delivered_total", "Commits that were posted.", |facts| number(facts.status.delivered)),
    ("existed_total", "Commits that Rally had already.", |facts| number(facts.status.existed)),
    ("unlinked_total", "Commits that name no artifact that Rally has.", |facts| number(facts.status.unlinked)),
    ("requests_total", "Requests that deliveries have sent to Rally.", |facts| number(facts.status.requests)),
    ("last_delivery_timestamp_seconds", "When a commit was posted last.", |facts| {
        facts.status.last_delivery.map(seconds)
    }),
    ("refs_behind", "Watched refs with commits that no hook recorded.", |facts| {
        facts.behind.as_ref().ok().map(|refs| refs.len() as f64)
    }),
    ("paused", "1 if delivery pauses after a failure.", |facts| truth(facts.status.pause.is_some())),
    ("worker", "1 if a process delivers, or waits to.", |facts| truth(facts.has_worker())),
    ("needs_person", "1 if a person must act.", |facts| truth(facts.trouble().is_some())),
];

fn number(count: i64) -> Option<f64> {
    Some(count as f64)
}

fn truth(is_true: bool) -> Option<f64> {
    Some(f64::from(u8::from(is_true)))
}

/// Returns a moment in the unit of Prometheus.
pub(super) fn seconds(time: Time) -> f64 {
    time.millis() as f64 / 1000.0
}

/// Returns the figures of these repositories. Of one that cannot be looked at it is known that a person must act.
pub(super) fn text(rows: &[Row]) -> String {
    let mut text = String::new();
    for (name, help, value) in METRICS {
        let sample = |(repo_dir, facts): &Row| {
            let value = match facts {
                Ok(facts) => value(facts),
                Err(_) => (name == "needs_person").then_some(1.0),
            };
            Some((labels(&[("repository", &repo_dir.to_string_lossy())]), value?))
        };
        write_metric(&mut text, name, help, rows.iter().filter_map(sample));
    }
    // Requests that are under way at this moment, by account: repositories share them.
    let settings = rows.iter().filter_map(|(_, facts)| facts.as_ref().ok()?.rally.as_ref());
    let in_use = settings.filter_map(|rally| Client::new(rally, rally.access().ok()?, None).permits().in_use());
    let in_use: BTreeMap<String, usize> = in_use.collect();
    let samples = in_use.iter().map(|(account, count)| (labels(&[("account", account)]), *count as f64));
    let help = "Requests to Rally at this moment, of all processes of this host.";
    write_metric(&mut text, "permits_in_use", help, samples);
    text
}

/// Writes a figure with its samples, each of them labels and a value. The name of a counter ends in `_total`.
pub(super) fn write_metric(
    text: &mut String,
    name: &str,
    help: &str,
    samples: impl IntoIterator<Item = (String, f64)>,
) {
    let kind = if name.ends_with("_total") { "counter" } else { "gauge" };
    *text += &format!("# HELP rally_hook_{name} {help}\n# TYPE rally_hook_{name} {kind}\n");
    text.extend(samples.into_iter().map(|(labels, value)| format!("rally_hook_{name}{labels} {value}\n")));
}

/// Returns the labels of a sample, escaped as the format asks.
pub(super) fn labels(labels: &[(&str, &str)]) -> String {
    let escaped = |text: &str| text.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
    let labels: Vec<String> = labels.iter().map(|(name, value)| format!("{name}=\"{}\"", escaped(value))).collect();
    format!("{{{}}}", labels.join(","))
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
