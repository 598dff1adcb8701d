//! How the simulated server behaves, as far as nobody knows for sure or a test wants it otherwise.

use std::time::Duration;

/// The switches of the server. The default is the faithful one.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Time before every answer.
    pub latency: Duration,
    pub batch: Batch,
    /// A batch of more entries answers HTTP 413.
    pub batch_max: Option<usize>,
    /// FormattedID compares by its number alone on type endpoints too; on `/artifact` it always does.
    pub number_only_match: bool,
    /// New objects stay invisible to reads for that long.
    pub read_lag: Duration,
    /// Changeset has the field Branch; without it the field is ignored with a warning.
    pub knows_branch: bool,
    pub max_page_size: usize,
    /// Chance of a concurrency conflict for each write that touches an artifact.
    pub conflict_percent: u8,
    /// Where the sequence of such conflicts begins.
    pub conflict_seed: u64,
    /// Of two writes in work at one moment that name the same artifact, the second conflicts.
    pub detect_parallel_artifact_writes: bool,
    /// So does the second of two that make Changes of one Changeset. Nobody knows whether Rally does this.
    pub detect_parallel_changes: bool,
    /// A security token is good for that many writes.
    pub token_lifetime: Option<usize>,
    /// `/changeset/OID/Changes/add` creates new objects.
    pub changes_add: bool,
    /// A longer URL answers HTTP 413.
    pub max_url: usize,
    /// Requests above that many at once wait for their turn.
    pub per_user_limit: usize,
    /// Time that each created object costs.
    pub service_time: Duration,
    /// How far its clock is ahead of this machine's.
    pub clock_ahead: Duration,
}

/// What `/batch` does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Batch {
    Normal,
    /// There is no such path: HTTP 404 with a page.
    Missing,
    /// There is no such type.
    Unknown,
    /// One failed entry undoes the others.
    AllOrNothing,
    /// An answer that is JSON, but no answer to this.
    Garbage,
}

impl Default for Settings {
    fn default() -> Settings {
        Settings {
            latency: Duration::ZERO,
            batch: Batch::Normal,
            batch_max: None,
            number_only_match: false,
            read_lag: Duration::ZERO,
            knows_branch: true,
            max_page_size: 2000,
            conflict_percent: 0,
            conflict_seed: 1,
            detect_parallel_artifact_writes: true,
            detect_parallel_changes: false,
            token_lifetime: None,
            changes_add: true,
            max_url: 8192,
            per_user_limit: 12,
            service_time: Duration::ZERO,
            clock_ahead: Duration::ZERO,
        }
    }
}
