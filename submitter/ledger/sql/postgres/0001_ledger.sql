-- The ledger: submissions, and where files were uploaded to. Times are Unix seconds.

CREATE TABLE {schema}.ledger_schema (
  one     integer PRIMARY KEY CHECK (one = 1),
  version integer NOT NULL
);

CREATE TABLE {schema}.ledger_entry (
  seq         bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,  -- order of arrival
  key         text NOT NULL,
  model       text NOT NULL,
  input       text NOT NULL,     -- JSON; as text it may hold what jsonb may not
  digest      text NOT NULL,
  until       double precision NOT NULL,
  state       text NOT NULL
              CHECK (state IN ('intended', 'unknown', 'accepted', 'rejected', 'finished')),
  tries       integer NOT NULL,
  sent_at     double precision NOT NULL,
  context     text NOT NULL,     -- JSON
  webhook     boolean NOT NULL,
  cost        double precision,
  task_id     text,
  guessed     boolean NOT NULL,
  accepted_at double precision,
  expected_at double precision,
  ask_at      double precision,
  asks        integer NOT NULL,
  reason      text,
  status      text,
  ended_at    double precision,  -- when it was finished or rejected
  place       bigint NOT NULL,
  prediction  text,              -- JSON, as the API gave it
  delivered   boolean NOT NULL
);

CREATE UNIQUE INDEX ledger_entry_key ON {schema}.ledger_entry (key);

-- Not unique: a guess may have given a task to one that it does not belong to.
CREATE INDEX ledger_entry_task ON {schema}.ledger_entry (task_id);

-- The last minute is the end of this index.
CREATE INDEX ledger_entry_sent ON {schema}.ledger_entry (sent_at);

-- Few rows each, however many entries are stored.
CREATE INDEX ledger_entry_open ON {schema}.ledger_entry (sent_at, seq)
  WHERE state IN ('intended', 'unknown', 'accepted');
CREATE INDEX ledger_entry_due ON {schema}.ledger_entry (ask_at, seq)
  WHERE state IN ('intended', 'unknown', 'accepted');
CREATE INDEX ledger_entry_expected ON {schema}.ledger_entry (expected_at)
  WHERE state IN ('intended', 'unknown', 'accepted') AND expected_at IS NOT NULL;
CREATE INDEX ledger_entry_undelivered ON {schema}.ledger_entry (ended_at, seq)
  WHERE state = 'finished' AND webhook AND NOT delivered;

CREATE UNIQUE INDEX ledger_entry_place ON {schema}.ledger_entry (place) WHERE state = 'finished';
CREATE INDEX ledger_entry_completed ON {schema}.ledger_entry (model, place)
  INCLUDE (accepted_at, ended_at)
  WHERE place > 0 AND status = 'completed' AND accepted_at IS NOT NULL;
CREATE INDEX ledger_entry_ended ON {schema}.ledger_entry (ended_at)
  WHERE state IN ('rejected', 'finished');

-- One row about the whole; whoever changes an entry holds its lock until the commit. It is written
-- often, so its page has room for what is written next.
CREATE TABLE {schema}.ledger_head (
  one     integer PRIMARY KEY CHECK (one = 1),
  changes bigint NOT NULL,           -- grows with every change that somebody may wait for
  place   bigint NOT NULL,           -- the last that was given
  paused  double precision NOT NULL  -- until when nobody intends
) WITH (fillfactor = 10);

INSERT INTO {schema}.ledger_head (one, changes, place, paused) VALUES (1, 0, 0, 0);

CREATE TABLE {schema}.ledger_upload (
  digest      text PRIMARY KEY,
  url         text NOT NULL,
  uploaded_at double precision NOT NULL
);

CREATE INDEX ledger_upload_time ON {schema}.ledger_upload (uploaded_at);
