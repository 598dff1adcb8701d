//! Timing, medians, and the table.

use std::fmt;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use super::common::Result;

/// One comparison.
struct Row {
    what: String,
    ours: String,
    other: String,
    ratio: f64,
    bound: f64,
}

#[derive(Default)]
pub struct Table(Vec<Row>);

impl Table {
    /// Adds a comparison: `ratio` must not exceed `bound`.
    pub fn add(
        &mut self,
        what: impl Into<String>,
        ours: impl Into<String>,
        other: impl Into<String>,
        ratio: f64,
        bound: f64,
    ) {
        let row = Row { what: what.into(), ours: ours.into(), other: other.into(), ratio, bound };
        eprintln!("{}: {} against {}, ratio {:.2} (bound {})", row.what, row.ours, row.other, row.ratio, row.bound);
        self.0.push(row);
    }

    /// Adds a comparison of two times.
    pub fn add_times(&mut self, what: impl Into<String>, ours: Duration, other: (&str, Duration), bound: f64) {
        let ratio = ours.as_secs_f64() / other.1.as_secs_f64();
        self.add(what, time(ours), format!("{} {}", other.0, time(other.1)), ratio, bound);
    }

    pub fn is_far_off(&self) -> bool {
        self.0.iter().any(|row| row.ratio > 3.0 * row.bound)
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "| what | rally-hook | compared with | ratio | at most |\n|---|---|---|---|---|")?;
        for Row { what, ours, other, ratio, bound } in &self.0 {
            writeln!(f, "| {what} | {ours} | {other} | {ratio:.2} | {bound} |")?;
        }
        Ok(())
    }
}

pub fn time(duration: Duration) -> String {
    match duration.as_secs_f64() {
        seconds if seconds < 1.0 => format!("{:.1} ms", seconds * 1e3),
        seconds => format!("{seconds:.2} s"),
    }
}

pub fn median(mut times: Vec<Duration>) -> Duration {
    times.sort();
    times[times.len() / 2]
}

/// How a run went.
pub struct Usage {
    pub time: Duration,
    /// The most memory that it held, in MB, mapped files included.
    pub peak_mb: f64,
}

/// Runs a command with its output thrown away.
pub fn timed(command: &mut Command) -> Result<Usage> {
    command.stdout(Stdio::null()).stderr(Stdio::null()).env("NO_PROXY", "127.0.0.1");
    let start = Instant::now();
    let child = command.spawn()?;
    // SAFETY: the pid is that of a child that nobody has waited for, and both places are ours.
    let (status, usage) = unsafe {
        let mut status = 0;
        let mut usage = std::mem::zeroed::<libc::rusage>();
        libc::wait4(child.id() as libc::pid_t, &mut status, 0, &mut usage);
        (status, usage)
    };
    let time = start.elapsed();
    match status {
        0 => Ok(Usage { time, peak_mb: usage.ru_maxrss as f64 / 1e3 }),
        status => Err(format!("{command:?} ended with wait status {status}").into()),
    }
}

/// Times of the same work in a repository with our hook and in one without.
#[derive(Default)]
pub struct Hooked {
    with: Vec<Duration>,
    without: Vec<Duration>,
}

impl Hooked {
    /// Does the work in both. They take turns to be the first: the second finds in memory what both read.
    pub fn measure(&mut self, mut work: impl FnMut(bool) -> Result<()>) -> Result<()> {
        let is_first = self.with.len().is_multiple_of(2);
        for is_hooked in [is_first, !is_first] {
            let start = Instant::now();
            work(is_hooked)?;
            let times = if is_hooked { &mut self.with } else { &mut self.without };
            times.push(start.elapsed());
        }
        Ok(())
    }

    /// Adds the comparison to the table.
    pub fn add_to(self, table: &mut Table, what: &str, bound: f64) {
        let (with, without) = (median(self.with), median(self.without));
        eprintln!("  hook {} plain {}", time(with), time(without));
        table.add_times(what, with, ("without a hook", without), bound);
    }
}

/// Tells whether a program can be run.
pub fn is_installed(program: &str) -> bool {
    Command::new(program).arg("--version").output().is_ok()
}
