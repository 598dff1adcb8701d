-- The queue's tables. A change here raises VERSION in mod.rs and adds a migration there.

-- A push whose commits are not recorded yet, as Git told it.
CREATE TABLE push (
    id          INTEGER PRIMARY KEY,
    received_at INTEGER NOT NULL,
    pusher      TEXT NOT NULL,
    updates     BLOB NOT NULL
) STRICT;

-- Commits up to which everything has been recorded: as changesets, or as requests for state changes. Those that another
-- one reaches are kept for a time when that one has been pruned.
CREATE TABLE seen_tip (
    walked  TEXT NOT NULL,                      -- commits, states
    id      BLOB NOT NULL,
    time    INTEGER NOT NULL,                   -- the committer's, in seconds
    covered INTEGER NOT NULL DEFAULT 0,         -- another one reaches it
    forwarded INTEGER NOT NULL DEFAULT 0,       -- the ledger of many servers has it
    PRIMARY KEY (walked, id)
) STRICT, WITHOUT ROWID;
CREATE INDEX seen_tip_by_time ON seen_tip (walked, time);

-- What is still to be delivered, in the order in which it was recorded. Times are milliseconds since 1970.
CREATE TABLE changeset (
    id            INTEGER PRIMARY KEY,
    revision      TEXT NOT NULL UNIQUE,
    recorded_at   INTEGER NOT NULL,
    dead          INTEGER NOT NULL DEFAULT 0,   -- a dead letter: waits for a person
    attempts      INTEGER NOT NULL DEFAULT 0,   -- that failed
    first_attempt INTEGER,
    next_attempt  INTEGER NOT NULL,
    last_error    TEXT,
    rally_ref     TEXT,                         -- the Changeset, once it is known to be there
    existed       INTEGER NOT NULL DEFAULT 0,   -- it was there before we made one
    settles_at    INTEGER,                      -- a write of unknown outcome was sent, and Rally can tell from then on;
                                                -- 0: found in Rally; null: all outcomes are known
    made          TEXT NOT NULL DEFAULT '[]'    -- which of its Changes are known to be there, by place
) STRICT;
CREATE INDEX changeset_due ON changeset (dead, next_attempt);

-- The facts to post, apart because they are large and never change.
CREATE TABLE facts (
    changeset INTEGER PRIMARY KEY REFERENCES changeset (id) ON DELETE CASCADE,
    json      TEXT NOT NULL
) STRICT;

-- Commits that have reached a branch on which their messages change states.
CREATE TABLE state_request (
    id            INTEGER PRIMARY KEY,
    revision      TEXT NOT NULL UNIQUE,
    json          TEXT NOT NULL,
    attempts      INTEGER NOT NULL DEFAULT 0,
    first_attempt INTEGER,
    next_attempt  INTEGER NOT NULL,
    done          INTEGER NOT NULL DEFAULT 0    -- settled, and kept so that it is not asked for again
) STRICT;
CREATE INDEX state_request_due ON state_request (next_attempt) WHERE done = 0;

-- What is done with: never to be posted again.
CREATE TABLE receipt (
    revision  TEXT PRIMARY KEY,
    outcome   TEXT NOT NULL,                    -- delivered, existed, unlinked
    rally_ref TEXT,
    at        INTEGER NOT NULL,
    destination TEXT NOT NULL DEFAULT ''        -- server, workspace and SCMRepository; empty where that is not known
) STRICT, WITHOUT ROWID;
CREATE INDEX receipt_at ON receipt (at);

-- What the ledger of many servers has taken in, kept in case it loses that.
CREATE TABLE forwarded (
    kind     TEXT NOT NULL,                     -- changeset, state, withdrawn
    revision TEXT NOT NULL,
    json     TEXT NOT NULL,
    position INTEGER NOT NULL,                  -- the number of the parcel; 0: to be forwarded again
    at       INTEGER NOT NULL,
    PRIMARY KEY (kind, revision)
) STRICT;
CREATE INDEX forwarded_position ON forwarded (position);

-- What Rally answered to look-ups.
CREATE TABLE cache (
    kind  TEXT NOT NULL,
    key   TEXT NOT NULL,
    value TEXT NOT NULL,
    at    INTEGER NOT NULL,
    PRIMARY KEY (kind, key)
) STRICT, WITHOUT ROWID;

-- Counters and single values.
CREATE TABLE meta (
    key   TEXT PRIMARY KEY,
    value TEXT NOT NULL
) STRICT, WITHOUT ROWID;
