-- Named statements; `-- name:` begins each. `{schema}` and `{columns}` are filled in.

-- name: begin
-- Independent of the server's settings, but not of `default_transaction_read_only`: a server that a
-- failover left behind is often fenced by it alone. A client that vanishes holds the lock briefly.
BEGIN ISOLATION LEVEL READ COMMITTED;
SET LOCAL lock_timeout = '{busy}';
SET LOCAL statement_timeout = '{limit}';
SET LOCAL idle_in_transaction_session_timeout = '{limit}';
SELECT set_config('synchronous_commit', 'on', true)
 WHERE current_setting('synchronous_commit') = 'off';

-- name: lock_head
-- The lock of all writers: limits hold, and places are given in the order of commits.
SELECT changes, place, paused FROM {schema}.ledger_head FOR UPDATE;

-- name: load
-- The entries that a batch of operations needs.
SELECT {columns} FROM {schema}.ledger_entry
 WHERE key = ANY ($1::text[]) OR task_id = ANY ($2::text[])
 ORDER BY seq;

-- name: room
-- The number of open entries, counted up to $1; and when the latest but $2 was sent in the window
-- from $3 to $4: later ones were sent before the clock was set back.
SELECT (SELECT count(*)
          FROM (SELECT FROM {schema}.ledger_entry
                 WHERE state IN ('intended', 'unknown', 'accepted') LIMIT $1::bigint) AS open),
       (SELECT sent_at FROM {schema}.ledger_entry
         WHERE sent_at > $3::float8 AND sent_at <= $4::float8
         ORDER BY sent_at DESC LIMIT 1 OFFSET $2::bigint);

-- name: write
-- Intents and imported tasks; a REJECTED entry is replaced.
INSERT INTO {schema}.ledger_entry (
  key, model, input, digest, until, state, tries, sent_at, context, webhook, cost, task_id, guessed,
  accepted_at, expected_at, ask_at, asks, reason, status, ended_at, place, prediction, delivered)
SELECT
  key, model, input, digest, until, state, tries, sent_at, context, webhook, cost, task_id, guessed,
  accepted_at, expected_at, ask_at, asks, reason, status, ended_at, place, prediction, delivered
  FROM unnest(
    $1::text[], $2::text[], $3::text[], $4::text[], $5::float8[], $6::text[], $7::integer[],
    $8::float8[], $9::text[], $10::boolean[], $11::float8[], $12::text[], $13::boolean[],
    $14::float8[], $15::float8[], $16::float8[], $17::integer[], $18::text[], $19::text[],
    $20::float8[], $21::bigint[], $22::text[], $23::boolean[])
  WITH ORDINALITY AS new (
    key, model, input, digest, until, state, tries, sent_at, context, webhook, cost, task_id,
    guessed, accepted_at, expected_at, ask_at, asks, reason, status, ended_at, place, prediction,
    delivered, nth)
 ORDER BY nth
    ON CONFLICT (key) DO UPDATE
   SET model = excluded.model, input = excluded.input, digest = excluded.digest,
       until = excluded.until, state = excluded.state, tries = excluded.tries,
       sent_at = excluded.sent_at, context = excluded.context, webhook = excluded.webhook,
       cost = excluded.cost, task_id = excluded.task_id, guessed = excluded.guessed,
       accepted_at = excluded.accepted_at, expected_at = excluded.expected_at,
       ask_at = excluded.ask_at, asks = excluded.asks, reason = excluded.reason,
       status = excluded.status, ended_at = excluded.ended_at, place = excluded.place,
       prediction = excluded.prediction, delivered = excluded.delivered;

-- name: change
-- All columns that change after the intent.
UPDATE {schema}.ledger_entry AS entry
   SET state = new.state, task_id = new.task_id, guessed = new.guessed,
       accepted_at = new.accepted_at, expected_at = new.expected_at, ask_at = new.ask_at,
       asks = new.asks, reason = new.reason, status = new.status, ended_at = new.ended_at,
       place = new.place, prediction = new.prediction, delivered = new.delivered
  FROM unnest(
    $1::text[], $2::text[], $3::text[], $4::boolean[], $5::float8[], $6::float8[], $7::float8[],
    $8::integer[], $9::text[], $10::text[], $11::float8[], $12::bigint[], $13::text[],
    $14::boolean[])
  AS new (
    key, state, task_id, guessed, accepted_at, expected_at, ask_at, asks, reason, status, ended_at,
    place, prediction, delivered)
 WHERE entry.key = new.key;

-- name: save_head
-- Listeners are notified at the commit, but not of changes that nobody waits for.
WITH head AS (UPDATE {schema}.ledger_head SET changes = $1, place = $2, paused = $3)
SELECT pg_notify($4, $5) WHERE $5 IS NOT NULL;

-- name: find
SELECT {columns} FROM {schema}.ledger_entry WHERE key = ANY ($1::text[]);

-- name: find_tasks
-- The entry to believe comes last: the earliest that is not a guess.
SELECT {columns} FROM {schema}.ledger_entry
 WHERE task_id = ANY ($1::text[]) ORDER BY guessed DESC, seq DESC;

-- name: open_entries
SELECT {columns} FROM {schema}.ledger_entry
 WHERE state IN ('intended', 'unknown', 'accepted')
 ORDER BY sent_at, seq LIMIT $1;

-- name: finished
SELECT {columns} FROM {schema}.ledger_entry
 WHERE state = 'finished' AND place > $1 ORDER BY place LIMIT $2;

-- name: head
SELECT changes, place FROM {schema}.ledger_head;

-- name: to_finish
-- True if any of these results changes an entry. Each is looked up by itself, for a plan that stays
-- the same for any number of results.
SELECT EXISTS (
  SELECT FROM unnest($1::text[], $2::text[], $3::boolean[]) AS result (key, task_id, delivered)
   CROSS JOIN LATERAL (
     SELECT state, delivered FROM {schema}.ledger_entry WHERE key = result.key
      UNION ALL
     SELECT state, delivered FROM {schema}.ledger_entry WHERE task_id = result.task_id
   ) AS entry
   WHERE entry.state <> 'finished' OR (result.delivered AND NOT entry.delivered));

-- name: due
SELECT {columns} FROM {schema}.ledger_entry
 WHERE state IN ('intended', 'unknown', 'accepted') AND ask_at <= $1
 ORDER BY ask_at, seq LIMIT $2;

-- name: due_of
-- Found by their keys, even if few are due.
WITH asked AS MATERIALIZED (
  SELECT {columns} FROM {schema}.ledger_entry WHERE key = ANY ($3::text[]))
SELECT * FROM asked
 WHERE state IN ('intended', 'unknown', 'accepted') AND ask_at <= $1
 ORDER BY ask_at, seq LIMIT $2;

-- name: undelivered
SELECT {columns} FROM {schema}.ledger_entry
 WHERE state = 'finished' AND webhook AND NOT delivered AND ended_at < $1
 ORDER BY ended_at, seq LIMIT $2;

-- name: durations
-- No condition on `state`, which would admit the index of all places: few may be of this model.
SELECT ended_at - accepted_at FROM {schema}.ledger_entry
 WHERE place > 0 AND status = 'completed' AND accepted_at IS NOT NULL AND model = $1
 ORDER BY place DESC LIMIT $2;

-- name: overdue
SELECT count(*) FROM {schema}.ledger_entry
 WHERE state IN ('intended', 'unknown', 'accepted') AND expected_at IS NOT NULL
   AND expected_at < $1;

-- name: uploaded
SELECT url FROM {schema}.ledger_upload WHERE digest = $1 AND uploaded_at > $2;

-- name: upload
INSERT INTO {schema}.ledger_upload (digest, url, uploaded_at) VALUES ($1, $2, $3)
    ON CONFLICT (digest) DO UPDATE SET url = excluded.url, uploaded_at = excluded.uploaded_at;

-- name: purge_entries
DELETE FROM {schema}.ledger_entry WHERE seq = ANY (ARRAY (
  SELECT seq FROM {schema}.ledger_entry
   WHERE state IN ('rejected', 'finished') AND ended_at < $1
   ORDER BY ended_at LIMIT $2))
RETURNING key;

-- name: purge_uploads
DELETE FROM {schema}.ledger_upload WHERE digest = ANY (ARRAY (
  SELECT digest FROM {schema}.ledger_upload
   WHERE uploaded_at < $1 ORDER BY uploaded_at LIMIT $2))
RETURNING digest;

-- name: is_migrated
-- Read from the catalog's tables: `to_regclass` may answer from before another's commit.
SELECT count(*) > 0 FROM pg_catalog.pg_class
 WHERE relname = 'ledger_schema'
   AND relnamespace = (SELECT oid FROM pg_catalog.pg_namespace WHERE nspname = '{name}');

-- name: schema_version
SELECT version FROM {schema}.ledger_schema;

-- name: migration_lock
-- Until the end of the transaction, for whoever would migrate the ledger of this schema.
SELECT pg_advisory_xact_lock(hashtextextended('wavehook ledger {name}', 0));

-- name: foreign_tables
-- The receiver's inbox may be in the schema before the ledger.
SELECT count(*) > 0 AND count(*) FILTER (WHERE relname = 'migration') = 0
  FROM pg_catalog.pg_class
 WHERE relnamespace = (SELECT oid FROM pg_catalog.pg_namespace WHERE nspname = '{name}')
   AND relkind IN ('r', 'p', 'v', 'm', 'f');

-- name: record_migration
INSERT INTO {schema}.ledger_schema (one, version) VALUES (1, $1)
    ON CONFLICT (one) DO UPDATE SET version = excluded.version;
