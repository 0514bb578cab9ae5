-- The ledger: submissions, and where files were uploaded to. Times are Unix seconds.

CREATE TABLE ledger_schema (
  one     INTEGER PRIMARY KEY CHECK (one = 1),
  version INTEGER NOT NULL
) STRICT;

CREATE TABLE ledger_entry (
  seq         INTEGER PRIMARY KEY,  -- order of arrival
  key         TEXT NOT NULL,
  model       TEXT NOT NULL,
  input       TEXT NOT NULL,        -- JSON
  digest      TEXT NOT NULL,
  until       REAL NOT NULL,
  state       TEXT NOT NULL
              CHECK (state IN ('intended', 'unknown', 'accepted', 'rejected', 'finished')),
  tries       INTEGER NOT NULL,
  sent_at     REAL NOT NULL,
  context     TEXT NOT NULL,        -- JSON
  webhook     INTEGER NOT NULL,
  cost        REAL,
  task_id     TEXT,
  guessed     INTEGER NOT NULL,
  accepted_at REAL,
  expected_at REAL,
  ask_at      REAL,
  asks        INTEGER NOT NULL,
  reason      TEXT,
  status      TEXT,
  ended_at    REAL,                 -- when it was finished or rejected
  place       INTEGER NOT NULL,
  prediction  TEXT,                 -- JSON, as the API gave it
  delivered   INTEGER NOT NULL
) STRICT;

CREATE UNIQUE INDEX ledger_entry_key ON ledger_entry (key);

-- Not unique: a guess may have given a task to one that it does not belong to.
CREATE INDEX ledger_entry_task ON ledger_entry (task_id) WHERE task_id IS NOT NULL;

-- The last minute is the end of this index.
CREATE INDEX ledger_entry_sent ON ledger_entry (sent_at);

-- Few rows each, however many entries are stored.
CREATE INDEX ledger_entry_open ON ledger_entry (sent_at)
  WHERE state IN ('intended', 'unknown', 'accepted');
CREATE INDEX ledger_entry_due ON ledger_entry (ask_at)
  WHERE state IN ('intended', 'unknown', 'accepted');
CREATE INDEX ledger_entry_expected ON ledger_entry (expected_at)
  WHERE state IN ('intended', 'unknown', 'accepted') AND expected_at IS NOT NULL;
CREATE INDEX ledger_entry_undelivered ON ledger_entry (ended_at)
  WHERE state = 'finished' AND webhook = 1 AND delivered = 0;

CREATE UNIQUE INDEX ledger_entry_place ON ledger_entry (place) WHERE state = 'finished';
CREATE INDEX ledger_entry_completed ON ledger_entry (model, place, accepted_at, ended_at)
  WHERE state = 'finished' AND status = 'completed' AND accepted_at IS NOT NULL;
CREATE INDEX ledger_entry_ended ON ledger_entry (ended_at)
  WHERE state IN ('rejected', 'finished');

-- One row about the whole.
CREATE TABLE ledger_head (
  one     INTEGER PRIMARY KEY CHECK (one = 1),
  changes INTEGER NOT NULL,  -- grows with every change that somebody may wait for
  place   INTEGER NOT NULL,  -- the last that was given
  paused  REAL NOT NULL      -- until when nobody intends
) STRICT;

INSERT INTO ledger_head (one, changes, place, paused) VALUES (1, 0, 0, 0);

CREATE TABLE ledger_upload (
  digest      TEXT PRIMARY KEY,
  url         TEXT NOT NULL,
  uploaded_at REAL NOT NULL
) STRICT, WITHOUT ROWID;

CREATE INDEX ledger_upload_time ON ledger_upload (uploaded_at);
