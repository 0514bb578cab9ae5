-- The inbox: events, their dispatches, and every attempt. Times are Unix seconds.
-- `{schema}` is the schema, and `{name}` its name in a text.
--
-- There are no foreign keys: each would lock the event's row for every dispatch and every attempt.
-- Whatever writes is a function below, and these leave nothing half done.

CREATE TABLE {schema}.migration (
  number     INTEGER PRIMARY KEY,
  applied_at TIMESTAMPTZ NOT NULL DEFAULT now()
);

CREATE TABLE {schema}.event (
  seq         BIGINT PRIMARY KEY,           -- order of arrival
  id          TEXT COLLATE "C" NOT NULL,    -- the deduplication key
  source      TEXT NOT NULL,
  type        TEXT NOT NULL,
  subject     TEXT,
  model       TEXT,
  context     TEXT,                         -- JSON; NULL where there is none or it was purged
  body        BYTEA,                        -- NULL once it was purged
  origin      TEXT NOT NULL,
  webhook_id  TEXT,
  occurred_at DOUBLE PRECISION NOT NULL,
  received_at DOUBLE PRECISION NOT NULL
);

CREATE UNIQUE INDEX event_id ON {schema}.event (id);

CREATE TABLE {schema}.dispatch (
  event      BIGINT NOT NULL,
  handler    TEXT COLLATE "C" NOT NULL,
  state      TEXT NOT NULL DEFAULT 'pending'
             CHECK (state IN ('pending', 'leased', 'done', 'dead')),
  attempt    INTEGER NOT NULL DEFAULT 0,
  tries      INTEGER NOT NULL DEFAULT 0,
  due_at     DOUBLE PRECISION NOT NULL,     -- when it may run, or when its lease ends
  after      TEXT NOT NULL DEFAULT '[]',    -- JSON: handlers that must be done or dead first
  waiting    BOOLEAN NOT NULL DEFAULT false, -- true while one of them is not
  owner      TEXT,
  error      TEXT,
  result     TEXT,                          -- JSON
  settled_at DOUBLE PRECISION,
  PRIMARY KEY (event, handler)
) WITH (autovacuum_vacuum_scale_factor = 0.02, autovacuum_analyze_scale_factor = 0.05);

-- A claim reads the front of this index, however many events are stored.
CREATE INDEX dispatch_due ON {schema}.dispatch (handler, due_at, event)
  WHERE state IN ('pending', 'leased') AND NOT waiting;

-- Few rows: what waits for a predecessor, and what waits for a person.
CREATE INDEX dispatch_waiting ON {schema}.dispatch (event) WHERE waiting;
CREATE INDEX dispatch_dead ON {schema}.dispatch (settled_at, event) WHERE state = 'dead';

CREATE TABLE {schema}.attempt (
  event      BIGINT NOT NULL,
  handler    TEXT COLLATE "C" NOT NULL,
  number     INTEGER NOT NULL,
  owner      TEXT NOT NULL,
  started_at DOUBLE PRECISION NOT NULL,
  ended_at   DOUBLE PRECISION,
  outcome    TEXT,
  error      TEXT,
  PRIMARY KEY (event, handler, number)
);

CREATE TABLE {schema}.pause (
  handler TEXT COLLATE "C" PRIMARY KEY,
  until   DOUBLE PRECISION NOT NULL
);

-- One row that is written to find out whether writing works.
CREATE TABLE {schema}.ping (
  one INTEGER PRIMARY KEY CHECK (one = 1),
  n   INTEGER NOT NULL
);
