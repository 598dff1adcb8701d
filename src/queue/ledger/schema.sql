-- The ledger's tables in PostgreSQL (docs/many-servers.md). A change here raises VERSION in mod.rs and adds a step in migrate.rs.
-- Times are milliseconds since 1970 by the database's clock, unless noted otherwise.

-- `version` of these tables; `identity` of the database, which a failover or a restore changes; `blocked`: until when nothing is
-- claimed after one; `at work`: how long Rally may be at work on a request, for the worker with the longest
-- time limit; `alive SERVER`, `resumed SERVER`: when a worker that delivers there was seen last, and since when without a gap.
CREATE TABLE meta (
    key   text PRIMARY KEY,
    value text NOT NULL
);

-- Where changesets go: each is one SCMRepository, and at most one worker at a time delivers to it.
CREATE TABLE destination (
    id              bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    server          text   NOT NULL,
    workspace       text   NOT NULL,
    repository      text   NOT NULL,            -- the SCMRepository's name
    settings        text   NOT NULL,            -- how its changesets are posted, as JSON, without secrets
    due_at          bigint,                     -- null: nothing waits
    holder          text,                       -- the worker that delivers; null: it has finished
    token           bigint NOT NULL DEFAULT 0,  -- of the claim, by chance: a note with another one is refused
    lease_until     bigint NOT NULL DEFAULT 0,
    pause           text,                       -- why nothing is delivered here, as JSON
    scopes          text   NOT NULL DEFAULT '{}',   -- what tips have been marked as seen for, as JSON
    requests        bigint NOT NULL DEFAULT 0,
    unknown_authors bigint NOT NULL DEFAULT 0,
    checked         bigint NOT NULL DEFAULT 0,  -- changesets looked up again after another worker took over
    doubles         bigint NOT NULL DEFAULT 0,  -- and of these, those that Rally has twice
    UNIQUE (server, workspace, repository)
) WITH (fillfactor = 50);
CREATE INDEX destination_due ON destination (server, due_at) WHERE due_at IS NOT NULL;

-- Every changeset, also when it is done: that is what makes one of the same commit on two servers.
CREATE TABLE changeset (
    id            bigint  GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    destination   bigint  NOT NULL REFERENCES destination,
    revision      text    NOT NULL,
    state         text    NOT NULL,             -- pending, dead; delivered, existed, unlinked
    recorded_at   bigint  NOT NULL,
    entered_at    bigint  NOT NULL,             -- into the ledger
    attempts      integer NOT NULL DEFAULT 0,   -- that failed
    first_attempt bigint,
    next_attempt  bigint  NOT NULL,
    last_error    text,
    rally_ref     text,                         -- the Changeset, once it is known to be there
    existed       boolean NOT NULL DEFAULT false,   -- it was there before we made one
    settles_at    bigint,                       -- of a write of unknown outcome: when Rally can tell; 0: found in Rally
    made          text,                         -- which of its Changes are known to be there, by place, as JSON
    done_at       bigint,
    check_at      bigint,                       -- when to look whether Rally has it twice
    UNIQUE (destination, revision)
);
CREATE INDEX changeset_left ON changeset (destination, id) WHERE state IN ('pending', 'dead');
CREATE INDEX changeset_check ON changeset (destination, check_at) WHERE check_at IS NOT NULL;

-- The facts to post, as JSON. They go when the changeset is done.
CREATE TABLE facts (
    changeset bigint PRIMARY KEY REFERENCES changeset ON DELETE CASCADE,
    json      text NOT NULL
);

CREATE TABLE state_request (
    id            bigint  GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    destination   bigint  NOT NULL REFERENCES destination,
    revision      text    NOT NULL,
    json          text    NOT NULL,
    attempts      integer NOT NULL DEFAULT 0,
    first_attempt bigint,
    next_attempt  bigint  NOT NULL,
    done          boolean NOT NULL DEFAULT false,
    UNIQUE (destination, revision)
);
CREATE INDEX state_request_left ON state_request (destination, id) WHERE NOT done;

-- Rally's answers about a destination.
CREATE TABLE cache (
    destination bigint NOT NULL REFERENCES destination,
    kind        text   NOT NULL,
    key         text   NOT NULL,
    value       text   NOT NULL,
    at          bigint NOT NULL,
    PRIMARY KEY (destination, kind, key)
);

-- A server that is down, for all who use an account: one worker finds out when it is back.
CREATE TABLE pause (
    account     text PRIMARY KEY,
    json        text   NOT NULL,
    until       bigint NOT NULL,
    probe_until bigint NOT NULL DEFAULT 0
);

-- How many requests may be under way: a row each. A request that is not given back is over when its lease is.
CREATE TABLE permit (
    account     text    NOT NULL,
    slot        integer NOT NULL,
    holder      text,
    lease_until bigint  NOT NULL DEFAULT 0,
    PRIMARY KEY (account, slot)
) WITH (fillfactor = 20);

-- Artifacts that are written to: two writes at once would conflict.
CREATE TABLE artifact_lock (
    account     text   NOT NULL,
    artifact    text   NOT NULL,
    holder      text   NOT NULL,
    lease_until bigint NOT NULL,
    PRIMARY KEY (account, artifact)
);

-- The queues that forward to this ledger.
CREATE TABLE origin (
    id           text   PRIMARY KEY,            -- of the queue
    destination  bigint NOT NULL REFERENCES destination,
    host         text   NOT NULL,
    git_dir      text   NOT NULL,
    web          text,
    position     bigint NOT NULL,               -- counts its transactions: a restore sets it back
    forwarded_at bigint NOT NULL
);
CREATE INDEX origin_destination ON origin (destination);

-- Commits up to which everything has been recorded, by any server.
CREATE TABLE seen_tip (
    destination bigint  NOT NULL REFERENCES destination,
    walked      text    NOT NULL,
    id          bytea   NOT NULL,
    time        bigint  NOT NULL,               -- the committer's, in seconds
    covered     boolean NOT NULL,               -- another one reaches it
    PRIMARY KEY (destination, walked, id)
);

CREATE TABLE worker (
    id         text PRIMARY KEY,
    host       text   NOT NULL,
    version    text   NOT NULL,
    server     text,                            -- that it delivers to; null: it has no credentials, and only forwards
    account    text,                            -- under which it sends requests
    started_at bigint NOT NULL,
    seen_at    bigint NOT NULL
);

CREATE FUNCTION now_ms() RETURNS bigint LANGUAGE sql STABLE
    AS 'SELECT (extract(epoch FROM statement_timestamp()) * 1000)::bigint';
