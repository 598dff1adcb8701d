//! What a repository's queue forwards to the ledger, where there is one, and what it keeps of that.
//!
//! What the ledger has taken in leaves the queue, but is kept for some days: the database may lose the last of what it had
//! committed, in a failover or a restore. The ledger counts the parcels of each queue, and so do we; if its count is behind
//! ours, what it lacks is sent again. It takes in each revision once.

use std::time::Duration;

use rusqlite::{Connection, Row, Transaction, params};
use serde::{Deserialize, Serialize};

use super::delivery::parse;
use super::{Error, Queue, Walked, count, meta, set_meta};
use crate::commit::Tip;
use crate::time::{CommitTime, Time};

/// After this time a state change that was forwarded counts as made, where the ledger's word for it is lost: made twice, it
/// would undo what a person has done since.
const STATES_MADE: Duration = Duration::from_secs(3600);
/// How long what was forwarded is kept.
const KEPT: Duration = Duration::from_secs(14 * 24 * 3600);
/// How many changesets, and how many of other things, one transaction of the ledger takes in.
const LARGEST: i64 = 500;
/// And about how much text, in bytes: a message and a list of paths may have megabytes.
const MAX_BYTES: usize = 8 * 1024 * 1024;

/// The position of what is to be forwarded again.
const AGAIN: i64 = 0;
const POSITION: &str = "ledger position";
/// Up to which revision receipts were forwarded, in their order.
const RECEIPTS_TO: &str = "receipts forwarded to";
/// Follows all revisions.
const ALL: &str = "~";

/// What was forwarded: a changeset, a request for state changes, or that a commit is not to be posted any more.
const CHANGESET: &str = "changeset";
const STATE: &str = "state";
const WITHDRAWN: &str = "withdrawn";

/// A changeset as it is forwarded: with all that the queue knows of it. Times are those of this host's clock.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Waiting {
    pub revision: String,
    /// What is to be posted, as JSON; `None` if the commit cannot be read.
    pub facts: Option<String>,
    pub recorded_at: Time,
    pub is_dead: bool,
    pub attempts: u32,
    pub first_attempt: Option<Time>,
    pub next_attempt: Time,
    pub last_error: Option<String>,
    pub rally_ref: Option<String>,
    pub existed: bool,
    pub settles_at: Option<Time>,
    pub made: String,
}

/// A request for state changes as it is forwarded.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct WaitingState {
    pub revision: String,
    pub json: String,
    pub attempts: u32,
    pub first_attempt: Option<Time>,
    pub next_attempt: Time,
    pub is_done: bool,
}

/// What is done with.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct Receipt {
    pub revision: String,
    pub outcome: String,
    pub rally_ref: Option<String>,
    pub at: Time,
}

/// A tip up to which everything has been recorded.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct SeenTip {
    pub walked: Walked,
    pub tip: Tip,
    pub is_covered: bool,
}

/// What one transaction of the ledger takes in.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Parcel {
    pub changesets: Vec<Waiting>,
    /// The revisions of commits that are not to be posted any more.
    pub withdrawn: Vec<String>,
    pub states: Vec<WaitingState>,
    pub receipts: Vec<Receipt>,
    /// Only once all changesets up to them are forwarded.
    pub tips: Vec<SeenTip>,
    /// What tips have been marked as seen for.
    pub scopes: Vec<(Walked, String)>,
    receipts_to: Option<String>,
    /// Whether all of it is forwarded again, from what was kept.
    is_again: bool,
}

impl Parcel {
    fn is_empty(&self) -> bool {
        self.changesets.is_empty()
            && self.withdrawn.is_empty()
            && self.states.is_empty()
            && self.receipts.is_empty()
            && self.tips.is_empty()
    }
}

impl Queue {
    /// Returns how many parcels the ledger has taken in, as far as is known here.
    pub(crate) fn position(&self) -> Result<i64, Error> {
        self.read(|db| Ok(meta(db, POSITION)?.unwrap_or(0)))
    }

    /// Notes that there is a ledger: from now on, what is withdrawn is noted for it.
    pub(crate) fn begin_forwarding(&mut self) -> Result<(), Error> {
        self.write(|tx| tx.execute("INSERT OR IGNORE INTO meta VALUES (?1, '0')", [POSITION]).map(drop))
    }

    /// Returns the next of what is to be forwarded, if there is anything. Receipts are those of this destination.
    pub(crate) fn parcel(&self, destination: &str, now: Time) -> Result<Option<Parcel>, Error> {
        self.read(|db| {
            // One moment of the database: a tip stands for changesets that are read here too.
            let snapshot = db.unchecked_transaction()?;
            let parcel = read_parcel(&snapshot, destination, now)?;
            Ok((!parcel.is_empty()).then_some(parcel))
        })
    }

    /// Notes that the ledger has taken in a parcel. What was changed since it was read stays to be forwarded.
    pub(crate) fn note_forwarded(&mut self, parcel: &Parcel, position: i64, now: Time) -> Result<(), Error> {
        self.write(|tx| {
            for waiting in &parcel.changesets {
                match parcel.is_again {
                    true => confirm(tx, CHANGESET, &waiting.revision, position)?,
                    false => move_changeset(tx, waiting, position, now)?,
                }
            }
            for revision in &parcel.withdrawn {
                // What the parcel puts after its withdrawal, and is kept no more, was withdrawn once more since.
                let is_put = parcel.changesets.iter().any(|waiting| waiting.revision == *revision);
                let is_kept = "SELECT 1 FROM forwarded WHERE kind = ?1 AND revision = ?2";
                if !is_put || tx.prepare_cached(is_kept)?.exists(params![CHANGESET, revision])? {
                    confirm(tx, WITHDRAWN, revision, position)?;
                }
            }
            for waiting in &parcel.states {
                if parcel.is_again {
                    confirm(tx, STATE, &waiting.revision, position)?;
                    continue;
                }
                let json = serde_json::to_string(waiting).expect("plain data becomes JSON");
                keep(tx, STATE, &waiting.revision, &json, position, now)?;
                tx.prepare_cached("DELETE FROM state_request WHERE revision = ?1")?.execute([&waiting.revision])?;
            }
            for SeenTip { walked, tip, is_covered } in &parcel.tips {
                tx.prepare_cached("UPDATE seen_tip SET forwarded = 1 WHERE walked = ?1 AND id = ?2 AND covered = ?3")?
                    .execute(params![walked.name(), tip.id, is_covered])?;
            }
            if let Some(to) = &parcel.receipts_to {
                set_meta(tx, RECEIPTS_TO, to)?;
            }
            set_meta(tx, POSITION, &position.to_string())
        })
    }

    /// Has all forwarded again that the ledger took in after its parcel of this number.
    pub(crate) fn forward_again(&mut self, after: i64) -> Result<(), Error> {
        self.write(|tx| {
            tx.execute("UPDATE forwarded SET position = 0 WHERE position > ?1", [after])?;
            tx.execute("UPDATE seen_tip SET forwarded = 0", [])?;
            tx.execute("DELETE FROM meta WHERE key = ?1", [RECEIPTS_TO])?;
            set_meta(tx, POSITION, &after.to_string())
        })
    }

    /// Takes back what was forwarded: there is no ledger any more. Rally has most of it, and is asked before anything is
    /// posted. Returns how many changesets that are.
    pub(crate) fn take_back(&mut self, now: Time) -> Result<usize, Error> {
        let is_any = "SELECT EXISTS (SELECT 1 FROM forwarded) OR EXISTS (SELECT 1 FROM meta WHERE key = ?1)";
        if !self.read(|db| db.prepare_cached(is_any)?.query_row([POSITION], |row| row.get(0)))? {
            return Ok(0);
        }
        self.write(|tx| {
            let changesets = tx.execute(
                "INSERT OR IGNORE INTO changeset (revision, recorded_at, dead, attempts, first_attempt, next_attempt, \
                 last_error, rally_ref, existed, settles_at, made) \
                 SELECT revision, json->>'recorded_at', json->>'is_dead', json->>'attempts', json->>'first_attempt', \
                 json->>'next_attempt', json->>'last_error', json->>'rally_ref', json->>'existed', \
                 json->>'settles_at', json->>'made' FROM forwarded WHERE kind = 'changeset' AND json_valid(json) \
                 AND revision NOT IN (SELECT revision FROM receipt) ORDER BY rowid",
                [],
            )?;
            tx.execute(
                "INSERT OR IGNORE INTO facts SELECT id, json->>'facts' FROM forwarded JOIN changeset USING (revision) \
                 WHERE kind = 'changeset' AND json_valid(json) AND json->>'facts' IS NOT NULL",
                [],
            )?;
            tx.execute(
                "INSERT OR IGNORE INTO state_request (revision, json, attempts, first_attempt, next_attempt, done) \
                 SELECT revision, json->>'json', json->>'attempts', json->>'first_attempt', json->>'next_attempt', \
                 json->>'is_done' OR at < ?1 FROM forwarded WHERE kind = 'state' AND json_valid(json) ORDER BY rowid",
                [now - STATES_MADE],
            )?;
            count(tx, "recorded", changesets as i64)?;
            clear(tx)?;
            Ok(changesets)
        })
    }

    /// Returns how many changesets are kept that were forwarded.
    pub(crate) fn count_forwarded(&self) -> Result<i64, Error> {
        self.read(|db| db.query_row("SELECT count(*) FROM forwarded WHERE kind = 'changeset'", [], |row| row.get(0)))
    }

    /// Drops what was forwarded so long ago that no database has lost it unnoticed.
    pub(crate) fn tidy_outbox(&mut self, now: Time) -> Result<(), Error> {
        self.write(|tx| tx.execute("DELETE FROM forwarded WHERE position > 0 AND at < ?1", [now - KEPT]).map(drop))
    }

    /// Has a commit that was forwarded taken out of the ledger again, unless something of it was sent.
    pub(super) fn withdraw_forwarded(tx: &Transaction, revision: &str, now: Time) -> rusqlite::Result<()> {
        tx.execute("DELETE FROM forwarded WHERE kind = ?1 AND revision = ?2", [CHANGESET, revision])?;
        // It may be under way: then the ledger has it, and nothing is kept of it yet.
        let is_forwarding = meta::<i64>(tx, POSITION)?.is_some();
        if is_forwarding { keep(tx, WITHDRAWN, revision, "", AGAIN, now) } else { Ok(()) }
    }
}

/// Returns to where nothing was ever forwarded.
pub(super) fn clear(tx: &Transaction) -> rusqlite::Result<()> {
    tx.execute("DELETE FROM forwarded", [])?;
    tx.execute("UPDATE seen_tip SET forwarded = 0", [])?;
    tx.execute("DELETE FROM meta WHERE key IN (?1, ?2)", [RECEIPTS_TO, POSITION]).map(drop)
}

fn keep(tx: &Transaction, kind: &str, revision: &str, json: &str, position: i64, now: Time) -> rusqlite::Result<()> {
    tx.prepare_cached("INSERT OR REPLACE INTO forwarded VALUES (?1, ?2, ?3, ?4, ?5)")?
        .execute(params![kind, revision, json, position, now])
        .map(drop)
}

/// Moves a changeset from the queue to what is kept. One that was changed since it was read stays queued, and one that was
/// withdrawn since stays noted as such.
fn move_changeset(tx: &Transaction, waiting: &Waiting, position: i64, now: Time) -> rusqlite::Result<()> {
    let is_withdrawn = "SELECT 1 FROM forwarded WHERE kind = ?1 AND revision = ?2 AND position = ?3";
    if tx.prepare_cached(is_withdrawn)?.exists(params![WITHDRAWN, waiting.revision, AGAIN])? {
        return Ok(());
    }
    let json = serde_json::to_string(waiting).expect("plain data becomes JSON");
    keep(tx, CHANGESET, &waiting.revision, &json, position, now)?;
    let moved = tx
        .prepare_cached(
            "DELETE FROM changeset WHERE revision = ?1 AND NOT EXISTS \
             (SELECT 1 FROM facts WHERE changeset = id AND json <> coalesce(?2, ''))",
        )?
        .execute(params![waiting.revision, waiting.facts])?;
    count(tx, "recorded", -(moved as i64))
}

/// Notes that what was kept was forwarded again.
fn confirm(tx: &Transaction, kind: &str, revision: &str, position: i64) -> rusqlite::Result<()> {
    tx.prepare_cached("UPDATE forwarded SET position = ?3 WHERE kind = ?1 AND revision = ?2")?
        .execute(params![kind, revision, position])
        .map(drop)
}

fn read_parcel(db: &Connection, destination: &str, now: Time) -> rusqlite::Result<Parcel> {
    let mut parcel = Parcel { scopes: scopes(db)?, ..Parcel::default() };
    read_receipts(db, destination, &mut parcel)?;
    read_again(db, &mut parcel, now)?;
    if parcel.is_again {
        return Ok(parcel);
    }
    let all_changesets = read_changesets(db, &mut parcel)?;
    let mut states = db.prepare("SELECT * FROM state_request ORDER BY id LIMIT ?1")?;
    let rows = states.query_map([LARGEST], |row| {
        Ok(WaitingState {
            revision: row.get("revision")?,
            json: row.get("json")?,
            attempts: row.get("attempts")?,
            first_attempt: row.get("first_attempt")?,
            next_attempt: row.get("next_attempt")?,
            is_done: row.get("done")?,
        })
    })?;
    parcel.states = rows.collect::<rusqlite::Result<_>>()?;
    if all_changesets && parcel.states.len() < LARGEST as usize {
        parcel.tips = tips(db)?;
    }
    Ok(parcel)
}

fn scopes(db: &Connection) -> rusqlite::Result<Vec<(Walked, String)>> {
    let scope = |walked: Walked| Ok(meta::<String>(db, &walked.scope_key())?.map(|scope| (walked, scope)));
    let scopes: rusqlite::Result<Vec<Option<_>>> = [Walked::Commits, Walked::States].into_iter().map(scope).collect();
    Ok(scopes?.into_iter().flatten().collect())
}

fn read_receipts(db: &Connection, destination: &str, parcel: &mut Parcel) -> rusqlite::Result<()> {
    let from: String = meta(db, RECEIPTS_TO)?.unwrap_or_default();
    if from == ALL {
        return Ok(());
    }
    let mut select =
        db.prepare("SELECT * FROM receipt WHERE revision > ?1 AND destination IN (?2, '') ORDER BY revision LIMIT ?3")?;
    let rows = select.query_map(params![from, destination, LARGEST], |row| {
        Ok(Receipt {
            revision: row.get("revision")?,
            outcome: row.get("outcome")?,
            rally_ref: row.get("rally_ref")?,
            at: row.get("at")?,
        })
    })?;
    parcel.receipts = rows.collect::<rusqlite::Result<_>>()?;
    let last = parcel.receipts.last().filter(|_| parcel.receipts.len() == LARGEST as usize);
    parcel.receipts_to = Some(last.map_or_else(|| ALL.to_owned(), |receipt| receipt.revision.clone()));
    Ok(())
}

/// Reads what is to be forwarded again. That goes before queued changesets and states, never with them: a revision may be
/// among these too.
fn read_again(db: &Connection, parcel: &mut Parcel, now: Time) -> rusqlite::Result<()> {
    let mut select = db.prepare("SELECT * FROM forwarded WHERE position = ?1 ORDER BY rowid LIMIT ?2")?;
    let mut rows = select.query([AGAIN, LARGEST])?;
    let mut bytes = 0;
    while bytes < MAX_BYTES
        && let Some(row) = rows.next()?
    {
        let (kind, json): (String, String) = (row.get("kind")?, row.get("json")?);
        bytes += json.len();
        parcel.is_again = true;
        match kind.as_str() {
            STATE => parcel.states.push(as_made(parse(&json)?, row.get("at")?, now)),
            WITHDRAWN => parcel.withdrawn.push(row.get("revision")?),
            _ => parcel.changesets.push(parse(&json)?),
        }
    }
    Ok(())
}

fn as_made(waiting: WaitingState, forwarded_at: Time, now: Time) -> WaitingState {
    WaitingState { is_done: waiting.is_done || now.since(forwarded_at) > STATES_MADE, ..waiting }
}

/// Returns whether these are all that there are.
fn read_changesets(db: &Connection, parcel: &mut Parcel) -> rusqlite::Result<bool> {
    let mut select = db.prepare("SELECT * FROM changeset LEFT JOIN facts ON changeset = id ORDER BY id LIMIT ?1")?;
    let mut rows = select.query([LARGEST])?;
    let (mut number, mut bytes) = (0, 0);
    while let Some(row) = rows.next()? {
        let waiting = waiting(row)?;
        (number, bytes) = (number + 1, bytes + waiting.facts.as_ref().map_or(0, String::len));
        parcel.changesets.push(waiting);
        if bytes > MAX_BYTES {
            return Ok(false);
        }
    }
    Ok(number < LARGEST)
}

fn waiting(row: &Row) -> rusqlite::Result<Waiting> {
    Ok(Waiting {
        revision: row.get("revision")?,
        facts: row.get("json")?,
        recorded_at: row.get("recorded_at")?,
        is_dead: row.get("dead")?,
        attempts: row.get("attempts")?,
        first_attempt: row.get("first_attempt")?,
        next_attempt: row.get("next_attempt")?,
        last_error: row.get("last_error")?,
        rally_ref: row.get("rally_ref")?,
        existed: row.get("existed")?,
        settles_at: row.get("settles_at")?,
        made: row.get("made")?,
    })
}

fn tips(db: &Connection) -> rusqlite::Result<Vec<SeenTip>> {
    let mut select = db.prepare("SELECT * FROM seen_tip WHERE forwarded = 0")?;
    let rows = select.query_map([], |row| {
        let walked: String = row.get("walked")?;
        let walked = if walked == Walked::States.name() { Walked::States } else { Walked::Commits };
        let tip = Tip { id: row.get("id")?, time: row.get::<_, CommitTime>("time")? };
        Ok(SeenTip { walked, tip, is_covered: row.get("covered")? })
    })?;
    rows.collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::changeset::{Changeset, StateRequest};
    use crate::commit::MovedTips;
    use crate::queue::{Settled, Sharing, StateDir};

    const PLACE: &str = "place";

    fn at(seconds: i64) -> Time {
        Time::from_millis(seconds * 1000)
    }

    struct Scene {
        queue: Queue,
        _dir: tempfile::TempDir,
    }

    impl Scene {
        fn new() -> Self {
            let dir = tempfile::tempdir().expect("a directory");
            let state = StateDir::open(dir.path(), Sharing::Owner, None).expect("a state directory");
            let mut queue = Queue::open(&state, Duration::ZERO).expect("a queue");
            queue.add_seen_tips(Walked::Commits, &[], "all").expect("noted");
            Scene { queue, _dir: dir }
        }

        /// Records commits with this message, and the tip that they lead to.
        fn record(&mut self, revisions: &[&str], message: &str) {
            let changesets: Vec<Changeset> = revisions.iter().map(|revision| changeset(revision, message)).collect();
            let tip = Tip { id: revisions.concat().into_bytes(), time: CommitTime::from_seconds(1) };
            let commit_tips = MovedTips { new: vec![tip], covered: Vec::new() };
            let settled = Settled { commit_tips, ..Settled::default() };
            self.queue.record(&changesets, Some(&settled), PLACE, at(1)).expect("recorded");
        }

        fn parcel(&self) -> Option<Parcel> {
            self.queue.parcel(PLACE, at(10)).expect("readable")
        }

        /// Forwards one parcel, and returns the revisions in it, with `-` before those that are withdrawn.
        fn forward(&mut self, position: i64) -> Vec<String> {
            let parcel = self.parcel().expect("something waits");
            self.queue.note_forwarded(&parcel, position, at(10)).expect("noted");
            let withdrawn = parcel.withdrawn.iter().map(|revision| format!("-{revision}"));
            withdrawn.chain(parcel.changesets.iter().map(|waiting| waiting.revision.clone())).collect()
        }
    }

    fn changeset(revision: &str, message: &str) -> Changeset {
        Changeset {
            revision: revision.into(),
            committed_at: CommitTime::from_seconds(1),
            author_name: "Jane".into(),
            author_email: String::new(),
            branch: None,
            message: message.into(),
            artifacts: Vec::new(),
            more_artifacts: 0,
            changes: Vec::new(),
            omitted: 0,
        }
    }

    #[test]
    fn a_queue_is_forwarded_once_and_its_tips_with_the_last_of_it() {
        let mut scene = Scene::new();
        scene.record(&["a", "b"], "US1");
        let parcel = scene.parcel().expect("two wait");
        assert_eq!((parcel.changesets.len(), parcel.tips.len()), (2, 1));
        assert_eq!(scene.forward(1), ["a", "b"]);
        assert_eq!(scene.parcel(), None);
        assert_eq!(scene.queue.position().expect("readable"), 1);
        assert_eq!(scene.queue.status(at(10)).expect("readable").pending, 0);
    }

    #[test]
    fn tips_wait_for_all_changesets_that_they_stand_for() {
        let mut scene = Scene::new();
        let large = "x".repeat(MAX_BYTES / 2);
        scene.record(&["a", "b", "c", "d"], &large);
        let (mut forwarded, mut tips, mut position) = (0, 0, 0);
        while let Some(parcel) = scene.parcel() {
            forwarded += parcel.changesets.len();
            tips += parcel.tips.len();
            assert!(parcel.tips.is_empty() || forwarded == 4, "of 4, {forwarded} are forwarded");
            position += 1;
            scene.queue.note_forwarded(&parcel, position, at(10)).expect("noted");
        }
        assert!(forwarded == 4 && tips == 1 && position > 1, "{position} parcels, {tips} tips");
    }

    #[test]
    fn what_the_ledger_lost_is_forwarded_again_alone_and_then_what_is_new() {
        let mut scene = Scene::new();
        scene.record(&["a"], "US1");
        scene.forward(1);
        scene.record(&["b"], "US1");
        scene.forward(2);
        scene.queue.forward_again(1).expect("noted");
        // A backfill queues it once more.
        scene.record(&["b", "c"], "US1");
        assert_eq!(scene.forward(2), ["b"]);
        assert_eq!(scene.forward(3), ["b", "c"]);
        assert_eq!(scene.parcel(), None);
    }

    #[test]
    fn what_changes_while_a_parcel_is_under_way_is_forwarded_as_it_is_then() {
        let mut scene = Scene::new();
        scene.record(&["1", "2"], "US1");
        scene.queue.begin_forwarding().expect("noted");
        let parcel = scene.parcel().expect("two wait");
        scene.queue.renew("1", Some(&changeset("1", "US2")), PLACE, at(2)).expect("renewed");
        scene.queue.renew("2", None, PLACE, at(2)).expect("withdrawn");
        scene.queue.note_forwarded(&parcel, 1, at(10)).expect("noted");
        assert_eq!(scene.forward(2), ["-2"]);
        let again = scene.parcel().expect("one was edited");
        assert!(again.changesets[0].facts.as_deref().is_some_and(|facts| facts.contains("US2")), "{again:?}");
    }

    #[test]
    fn a_commit_that_is_posted_after_all_is_forwarded_again_after_its_withdrawal() {
        let mut scene = Scene::new();
        scene.record(&["a"], "US1");
        scene.forward(1);
        scene.queue.renew("a", None, PLACE, at(2)).expect("withdrawn");
        assert_eq!(scene.forward(2), ["-a"]);
        scene.queue.renew("a", Some(&changeset("a", "US1")), PLACE, at(3)).expect("recorded");
        assert_eq!(scene.forward(3), ["a"]);
        scene.queue.forward_again(0).expect("noted");
        assert_eq!(scene.forward(1), ["-a", "a"]);
        assert_eq!(scene.queue.take_back(at(10)).expect("taken back"), 1);
    }

    #[test]
    fn a_withdrawal_while_an_earlier_one_is_forwarded_again_is_forwarded_too() {
        let mut scene = Scene::new();
        scene.record(&["a"], "US1");
        scene.forward(1);
        scene.queue.renew("a", None, PLACE, at(2)).expect("withdrawn");
        scene.forward(2);
        scene.queue.renew("a", Some(&changeset("a", "US1")), PLACE, at(3)).expect("recorded");
        scene.forward(3);
        scene.queue.forward_again(0).expect("noted");
        let under_way = scene.parcel().expect("both");
        assert_eq!((under_way.withdrawn.len(), under_way.changesets.len()), (1, 1));
        scene.queue.renew("a", None, PLACE, at(4)).expect("withdrawn");
        scene.queue.note_forwarded(&under_way, 1, at(10)).expect("noted");
        assert_eq!(scene.forward(2), ["-a"]);
    }

    #[test]
    fn without_a_ledger_what_was_forwarded_is_queued_again_and_a_state_that_was_made_is_not() {
        let mut scene = Scene::new();
        let request = StateRequest { revision: "a".into(), message: "Fixed DE1".into(), ..Default::default() };
        let settled = Settled { state_requests: vec![request], ..Settled::default() };
        scene.queue.record(&[changeset("a", "US1")], Some(&settled), PLACE, at(1)).expect("recorded");
        scene.forward(1);
        assert_eq!(scene.queue.take_back(at(10) + STATES_MADE * 2).expect("taken back"), 1);
        let status = scene.queue.status(at(10)).expect("readable");
        assert_eq!((status.pending, status.state_requests, status.recorded), (1, 0, 1));
        assert_eq!(scene.queue.take_back(at(10)).expect("nothing is left"), 0);
    }
}
