-- The inbox: events, their dispatches, and every attempt. Times are Unix seconds.

CREATE TABLE event (
  seq         INTEGER PRIMARY KEY,  -- order of arrival
  id          TEXT NOT NULL,        -- the deduplication key
  source      TEXT NOT NULL,
  type        TEXT NOT NULL,
  subject     TEXT,
  model       TEXT,
  context     TEXT,                 -- JSON; NULL where there is none or it was purged
  body        BLOB,                 -- NULL once it was purged
  origin      TEXT NOT NULL,
  webhook_id  TEXT,
  occurred_at REAL NOT NULL,
  received_at REAL NOT NULL
) STRICT;

CREATE UNIQUE INDEX event_id ON event (id);

CREATE TABLE dispatch (
  event      INTEGER NOT NULL REFERENCES event (seq) ON DELETE CASCADE,
  handler    TEXT NOT NULL,
  state      TEXT NOT NULL DEFAULT 'pending'
             CHECK (state IN ('pending', 'leased', 'done', 'dead')),
  attempt    INTEGER NOT NULL DEFAULT 0,
  tries      INTEGER NOT NULL DEFAULT 0,
  due_at     REAL NOT NULL,               -- when it may run, or when its lease ends
  after      TEXT NOT NULL DEFAULT '[]',  -- JSON: handlers that must be done or dead first
  waiting    INTEGER NOT NULL DEFAULT 0,  -- 1 while one of them is not
  owner      TEXT,
  error      TEXT,
  result     TEXT,                        -- JSON
  settled_at REAL,
  PRIMARY KEY (event, handler)
) STRICT, WITHOUT ROWID;

-- A claim reads the front of this index, however many events are stored.
CREATE INDEX dispatch_due ON dispatch (handler, due_at)
  WHERE state IN ('pending', 'leased') AND waiting = 0;

-- Few rows: what waits for a predecessor, and what waits for a person.
CREATE INDEX dispatch_waiting ON dispatch (event) WHERE waiting = 1;
CREATE INDEX dispatch_dead ON dispatch (settled_at) WHERE state = 'dead';

CREATE TABLE attempt (
  event      INTEGER NOT NULL REFERENCES event (seq) ON DELETE CASCADE,
  handler    TEXT NOT NULL,
  number     INTEGER NOT NULL,
  owner      TEXT NOT NULL,
  started_at REAL NOT NULL,
  ended_at   REAL,
  outcome    TEXT,
  error      TEXT,
  PRIMARY KEY (event, handler, number)
) STRICT, WITHOUT ROWID;

CREATE TABLE pause (
  handler TEXT PRIMARY KEY,
  until   REAL NOT NULL
) STRICT, WITHOUT ROWID;

-- One row that is written to find out whether writing works.
CREATE TABLE ping (
  one INTEGER PRIMARY KEY CHECK (one = 1),
  n   INTEGER NOT NULL
) STRICT;
