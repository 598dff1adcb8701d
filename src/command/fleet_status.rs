//! `rally-hook status --fleet`: what all servers have forwarded to the ledger, who delivers it, and what is wrong.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use std::time::Duration;

use serde_json::json;

use super::prometheus::{labels, seconds, write_metric};
use super::status::pause_object;
use super::status_table::{HEADINGS, age, laid_out};
use super::store::common;
use super::{Ended, Error, whole_seconds, write_out};
use crate::cli::{self, Place};
use crate::messages::tell;
use crate::process;
use crate::queue::{Destination, DestinationStatus, FleetStatus, OriginStatus, WorkerStatus};
use crate::text::{json_line, plural, printable};
use crate::time::Time;
use crate::worker::Ledgers;

/// The version of the JSON object.
const SCHEMA: u32 = 1;

pub(super) fn run(place: &Place, arguments: &cli::Status) -> Result<Ended, Error> {
    let (_, access) = common(place)?;
    let ledgers = Ledgers::default();
    let fleet = ledgers.with(&access, |session| session.fleet(None))?;
    let ledger = ledgers.place(&access);
    let shown = Shown { fleet, ledger, max_age: arguments.max_age };
    let text = match arguments {
        cli::Status { json: true, .. } => shown.json(),
        cli::Status { prometheus: true, .. } => shown.figures(),
        _ => shown.text(),
    };
    write_out(text.as_bytes())?;
    let trouble = shown.trouble();
    if !arguments.json && !arguments.prometheus {
        trouble.iter().for_each(|trouble| tell(trouble));
    }
    Ok(Ended::done_if(trouble.is_empty()))
}

/// The name of a figure of a destination, what it means, and its value.
type Metric = (&'static str, &'static str, fn(&DestinationStatus, Time) -> f64);

const METRICS: [Metric; 8] = [
    ("fleet_pending", "Commits that wait in the ledger.", |status, _| status.queue.pending as f64),
    ("fleet_oldest_age_seconds", "How long the oldest of them has waited; 0 if none does.", |status, now| {
        status.queue.oldest_pending.map_or(0.0, |oldest| now.since(oldest).as_secs_f64())
    }),
    ("fleet_failed", "Dead letters: commits that wait for a person.", |status, _| status.queue.failed as f64),
    ("fleet_delivered_total", "Commits that were posted.", |status, _| status.queue.delivered as f64),
    ("fleet_unlinked_total", "Commits that name no artifact that Rally has.", |status, _| status.queue.unlinked as f64),
    ("fleet_requests_total", "Requests that deliveries have sent to Rally.", |status, _| status.queue.requests as f64),
    ("fleet_checked_total", "Commits that were looked up again after a takeover.", |status, _| status.checked as f64),
    ("fleet_doubles_total", "Of these, commits that Rally has twice.", |status, _| status.doubles as f64),
];

struct Shown {
    fleet: FleetStatus,
    ledger: String,
    max_age: Option<Duration>,
}

/// A host from which repositories forward.
#[derive(Default)]
struct Server<'s> {
    repositories: usize,
    forwarded_at: Option<Time>,
    worker: Option<&'s WorkerStatus>,
}

impl Shown {
    fn servers(&self) -> BTreeMap<&str, Server<'_>> {
        let mut servers: BTreeMap<&str, Server> = BTreeMap::new();
        for origin in self.fleet.destinations.values().flat_map(|status| &status.origins) {
            let server = servers.entry(&origin.host).or_default();
            server.repositories += 1;
            server.forwarded_at = server.forwarded_at.max(Some(origin.forwarded_at));
        }
        for worker in &self.fleet.workers {
            let server = servers.entry(&worker.host).or_default();
            let is_later = server.worker.is_none_or(|known| known.seen_at < worker.seen_at);
            server.worker = if is_later { Some(worker) } else { server.worker };
        }
        servers
    }

    /// Says what a person has to act on.
    fn trouble(&self) -> Vec<String> {
        let FleetStatus { now, destinations, workers, blocked_until, .. } = &self.fleet;
        let mut trouble = Vec::new();
        let sum = |number: fn(&DestinationStatus) -> i64| destinations.values().map(number).sum::<i64>();
        if sum(|status| status.queue.failed) > 0 {
            let letters = plural(sum(|status| status.queue.failed), "dead letter");
            trouble
                .push(format!("{letters}: `rally-hook status --repo DIR` says why, on a server with the repository"));
        }
        let pauses =
            destinations.values().filter_map(|status| status.queue.pause.as_ref()).filter(|pause| pause.needs_person);
        let errors: BTreeSet<&str> = pauses.map(|pause| pause.error.as_str()).collect();
        trouble.extend(errors.into_iter().map(|error| format!("delivery needs a person: {error}")));
        if sum(|status| status.doubles) > 0 {
            let doubles = plural(sum(|status| status.doubles), "commit");
            trouble.push(format!("Rally has {doubles} twice; the workers' logs name them (event=doubled)"));
        }
        for worker in workers.iter().filter(|worker| worker.is_gone(*now)) {
            let silent = whole_seconds(now.since(worker.seen_at));
            trouble.push(format!("the worker on {} has not been heard of for {silent}", worker.host));
        }
        let waits = sum(|status| status.queue.pending + status.queue.state_requests) > 0;
        let unattended: BTreeSet<&str> = destinations
            .iter()
            .filter(|(_, status)| status.queue.pending + status.queue.state_requests > 0 && !status.has_worker)
            .map(|(destination, _)| destination.server.as_str())
            .collect();
        trouble.extend(unattended.iter().map(|server| {
            format!("no worker delivers what is queued for {server}; start `rally-hook worker` with credentials for it")
        }));
        let oldest = destinations.values().filter_map(|status| status.queue.oldest_pending).min();
        let too_old =
            oldest.map(|oldest| now.since(oldest)).filter(|age| self.max_age.is_some_and(|limit| *age > limit));
        trouble.extend(too_old.map(|age| format!("something has waited for {}", whole_seconds(age))));
        if let (Some(until), true) = (blocked_until, waits) {
            trouble.push(format!(
                "nothing is delivered until {until}, because the ledger was restored or has failed over"
            ));
        }
        trouble
    }

    fn text(&self) -> String {
        let FleetStatus { now, destinations, permits_in_use, .. } = &self.fleet;
        let mut text = format!("ledger     {}, {} under way\n", self.ledger, plural(*permits_in_use, "request"));
        for (host, server) in self.servers() {
            let worker = match server.worker {
                None => "no worker".to_owned(),
                Some(worker) if worker.is_gone(*now) => {
                    format!("its worker was last heard of {} ago", self.ago(worker.seen_at))
                }
                Some(worker) if worker.server.is_none() => {
                    format!("a worker of version {} that only forwards: it has no credentials", worker.version)
                }
                Some(worker) => format!("a worker of version {}", worker.version),
            };
            let last =
                server.forwarded_at.map_or(String::new(), |at| format!(", the last forwarded {} ago", self.ago(at)));
            let repositories = plural(server.repositories, "repository");
            let _ = writeln!(text, "server     {}: {repositories}{last}; {worker}", printable(host));
        }
        let checked: i64 = destinations.values().map(|status| status.checked).sum();
        let doubles: i64 = destinations.values().map(|status| status.doubles).sum();
        if checked > 0 {
            let _ = writeln!(
                text,
                "takeovers  {} looked up again, {doubles} of them twice in Rally",
                plural(checked, "commit")
            );
        }
        let mut lines = vec![HEADINGS.map(str::to_owned)];
        lines.extend(destinations.iter().map(|(destination, status)| self.line(destination, status)));
        text + "\n" + &laid_out(&lines, process::terminal_width())
    }

    fn ago(&self, time: Time) -> String {
        age(time, self.fleet.now)
    }

    fn line(&self, destination: &Destination, status: &DestinationStatus) -> [String; 7] {
        let Destination { workspace, repository, server } = destination;
        let is_one = self.fleet.destinations.keys().all(|other| other.server == *server);
        let place: Vec<&str> = [workspace.as_str()].into_iter().chain((!is_one).then_some(server.as_str())).collect();
        let since = |time: Option<Time>| time.map(|time| self.ago(time)).unwrap_or_default();
        let note = match &status.queue.pause {
            Some(pause) => printable(&pause.error).into_owned(),
            None => status.queue.last_error.as_deref().map(|error| printable(error).into_owned()).unwrap_or_default(),
        };
        [
            printable(&format!("{repository} ({})", place.join(", "))).into_owned(),
            status.queue.pending.to_string(),
            since(status.queue.oldest_pending),
            status.queue.failed.to_string(),
            (status.queue.delivered + status.queue.existed).to_string(),
            since(status.queue.last_delivery),
            note,
        ]
    }

    fn json(&self) -> String {
        let FleetStatus { now, destinations, workers, permits_in_use, blocked_until } = &self.fleet;
        let date = |time: Option<Time>| time.map(|time| time.to_string());
        let origin = |from: &OriginStatus| {
            json!({
                "host": from.host, "repository": from.repository, "web": from.web,
                "forwarded_at": from.forwarded_at.to_string(),
            })
        };
        let repository = |(destination, status): (&Destination, &DestinationStatus)| {
            json!({
                "server": destination.server, "workspace": destination.workspace, "name": destination.repository,
                "pending": status.queue.pending, "failed": status.queue.failed, "delivered": status.queue.delivered,
                "existed": status.queue.existed, "unlinked": status.queue.unlinked, "pending_state_changes": status.queue.state_requests,
                "oldest_pending": date(status.queue.oldest_pending), "last_delivery": date(status.queue.last_delivery),
                "last_error": status.queue.last_error, "worker": status.is_held, "requests": status.queue.requests,
                "paused": status.queue.pause.as_ref().map(pause_object),
                "dead_letters": status.queue.dead_letters, "checked": status.checked, "doubles": status.doubles,
                "origins": status.origins.iter().map(origin).collect::<Vec<_>>(),
            })
        };
        let worker = |worker: &WorkerStatus| {
            json!({
                "id": worker.id, "host": worker.host, "version": worker.version, "server": worker.server,
                "started_at": worker.started_at.to_string(), "seen_at": worker.seen_at.to_string(),
                "gone": worker.is_gone(*now),
            })
        };
        let server = |(host, server): (&str, Server)| {
            json!({
                "host": host, "repositories": server.repositories, "forwarded_at": date(server.forwarded_at),
                "worker_seen_at": date(server.worker.map(|worker| worker.seen_at)),
                // What is queued there may not be forwarded.
                "lags": server.worker.is_some_and(|worker| worker.is_gone(*now)),
            })
        };
        let total = |number: fn(&DestinationStatus) -> i64| destinations.values().map(number).sum::<i64>();
        json_line(&json!({
            "schema": SCHEMA,
            "ledger": self.ledger,
            "pending": total(|status| status.queue.pending),
            "failed": total(|status| status.queue.failed),
            "delivered": total(|status| status.queue.delivered),
            "existed": total(|status| status.queue.existed),
            "unlinked": total(|status| status.queue.unlinked),
            "checked": total(|status| status.checked),
            "doubles": total(|status| status.doubles),
            "permits_in_use": permits_in_use,
            "blocked_until": date(*blocked_until),
            "servers": self.servers().into_iter().map(server).collect::<Vec<_>>(),
            "workers": workers.iter().map(worker).collect::<Vec<_>>(),
            "repositories": destinations.iter().map(repository).collect::<Vec<_>>(),
            "trouble": self.trouble(),
        }))
    }

    fn figures(&self) -> String {
        let FleetStatus { now, destinations, workers, permits_in_use, .. } = &self.fleet;
        let mut text = String::new();
        for (name, help, value) in METRICS {
            let samples = destinations.iter().map(|(destination, status)| {
                let Destination { repository, workspace, server } = destination;
                (
                    labels(&[("repository", repository), ("workspace", workspace), ("server", server)]),
                    value(status, *now),
                )
            });
            write_metric(&mut text, name, help, samples);
        }
        let gone = workers.iter().filter(|worker| worker.is_gone(*now)).count();
        let all = [
            ("fleet_permits_in_use", "Requests to Rally at this moment, of all workers.", *permits_in_use as f64),
            ("fleet_workers", "Workers that were heard of in the last half minute.", (workers.len() - gone) as f64),
            ("fleet_workers_gone", "Workers that were not, and have not ended.", gone as f64),
        ];
        for (name, help, value) in all {
            write_metric(&mut text, name, help, [(String::new(), value)]);
        }
        let forwarded = self.servers();
        let forwarded = forwarded
            .iter()
            .filter_map(|(host, server)| Some((labels(&[("host", host)]), seconds(server.forwarded_at?))));
        let help = "When a server last forwarded something.";
        write_metric(&mut text, "fleet_forwarded_timestamp_seconds", help, forwarded);
        text
    }
}
