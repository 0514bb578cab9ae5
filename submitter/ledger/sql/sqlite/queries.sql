-- Named statements; `-- name:` begins each.

-- name: find
SELECT * FROM ledger_entry WHERE key IN (SELECT value FROM json_each(:keys));

-- name: find_tasks
-- The one to believe comes last: the earliest that is no guess.
SELECT * FROM ledger_entry WHERE task_id IN (SELECT value FROM json_each(:task_ids))
 ORDER BY guessed DESC, seq DESC;

-- name: holders
SELECT * FROM ledger_entry WHERE task_id = :task_id ORDER BY seq;

-- name: open_entries
SELECT * FROM ledger_entry
 WHERE state IN ('intended', 'unknown', 'accepted')
 ORDER BY sent_at, seq LIMIT :limit;

-- name: finished
SELECT * FROM ledger_entry WHERE state = 'finished' AND place > :after ORDER BY place LIMIT :limit;

-- name: head
SELECT changes, place, paused FROM ledger_head;

-- name: count_open
-- Counts up to the limit only.
SELECT count(*) FROM (SELECT 1 FROM ledger_entry
                       WHERE state IN ('intended', 'unknown', 'accepted') LIMIT :limit);

-- name: sent
-- When the Nth last of the window around now was sent; later ones are from before a clock's step.
SELECT sent_at FROM ledger_entry
 WHERE sent_at > :now - :window AND sent_at <= :now + :window
 ORDER BY sent_at DESC LIMIT 1 OFFSET :nth - 1;

-- name: write
-- An intent, or a task that was imported; over a REJECTED entry all is new.
INSERT INTO ledger_entry (
  key, model, input, digest, until, state, tries, sent_at, context, webhook, cost, task_id, guessed,
  accepted_at, expected_at, ask_at, asks, reason, status, ended_at, place, prediction, delivered)
VALUES (
  :key, :model, :input, :digest, :until, :state, :tries, :sent_at, :context, :webhook, :cost,
  :task_id, :guessed, :accepted_at, :expected_at, :ask_at, :asks, :reason, :status, :ended_at,
  :place, :prediction, :delivered)
    ON CONFLICT (key) DO UPDATE
   SET model = excluded.model, input = excluded.input, digest = excluded.digest,
       until = excluded.until, state = excluded.state, tries = excluded.tries,
       sent_at = excluded.sent_at, context = excluded.context, webhook = excluded.webhook,
       cost = excluded.cost, ask_at = excluded.ask_at, asks = excluded.asks,
       reason = excluded.reason, ended_at = excluded.ended_at;

-- name: change
-- Everything that changes after the intent.
UPDATE ledger_entry
   SET state = :state, task_id = :task_id, guessed = :guessed, accepted_at = :accepted_at,
       expected_at = :expected_at, ask_at = :ask_at, asks = :asks, reason = :reason,
       status = :status, ended_at = :ended_at, place = :place, prediction = :prediction,
       delivered = :delivered
 WHERE key = :key;

-- name: changed
UPDATE ledger_head SET changes = changes + 1;

-- name: take_place
UPDATE ledger_head SET place = place + 1;

-- name: to_finish
-- True if any of these results, each as [key, task id, delivered], would change an entry.
SELECT EXISTS (
  SELECT 1 FROM json_each(:results) AS result CROSS JOIN ledger_entry AS entry
      ON entry.key = json_extract(result.value, '$[0]')
   WHERE entry.state <> 'finished'
      OR (entry.delivered = 0 AND json_extract(result.value, '$[2]')))
    OR EXISTS (
  SELECT 1 FROM json_each(:results) AS result CROSS JOIN ledger_entry AS entry
      ON entry.task_id = json_extract(result.value, '$[1]')
   WHERE entry.state <> 'finished'
      OR (entry.delivered = 0 AND json_extract(result.value, '$[2]')));

-- name: due
SELECT * FROM ledger_entry
 WHERE state IN ('intended', 'unknown', 'accepted') AND ask_at <= :now
 ORDER BY ask_at, seq LIMIT :limit;

-- name: due_of
SELECT * FROM ledger_entry
 WHERE key IN (SELECT value FROM json_each(:keys))
   AND +state IN ('intended', 'unknown', 'accepted') AND +ask_at <= :now
 ORDER BY ask_at, seq LIMIT :limit;

-- name: undelivered
SELECT * FROM ledger_entry
 WHERE state = 'finished' AND webhook = 1 AND delivered = 0 AND ended_at < :before
 ORDER BY ended_at, seq LIMIT :limit;

-- name: pause
UPDATE ledger_head SET paused = :until;

-- name: durations
SELECT ended_at - accepted_at FROM ledger_entry
 WHERE state = 'finished' AND status = 'completed' AND accepted_at IS NOT NULL AND model = :model
 ORDER BY place DESC LIMIT :limit;

-- name: overdue
SELECT count(*) FROM ledger_entry
 WHERE state IN ('intended', 'unknown', 'accepted') AND expected_at IS NOT NULL
   AND expected_at < :now;

-- name: uploaded
SELECT url FROM ledger_upload WHERE digest = :digest AND uploaded_at > :after;

-- name: upload
INSERT INTO ledger_upload (digest, url, uploaded_at) VALUES (:digest, :url, :now)
    ON CONFLICT (digest) DO UPDATE SET url = excluded.url, uploaded_at = excluded.uploaded_at;

-- name: purge_entries
DELETE FROM ledger_entry WHERE seq IN (
  SELECT seq FROM ledger_entry
   WHERE state IN ('rejected', 'finished') AND ended_at < :before
   ORDER BY ended_at LIMIT :limit);

-- name: purge_uploads
DELETE FROM ledger_upload WHERE digest IN (
  SELECT digest FROM ledger_upload WHERE uploaded_at < :before LIMIT :limit);

-- name: is_migrated
SELECT count(*) > 0 FROM sqlite_schema WHERE type = 'table' AND name = 'ledger_schema';

-- name: schema_version
SELECT version FROM ledger_schema;

-- name: foreign_tables
-- The receiver's inbox may be in the file before the ledger.
SELECT count(*) > 0
       AND NOT ((SELECT user_version FROM pragma_user_version) <> 0
                AND count(*) FILTER (WHERE name IN ('event', 'dispatch', 'attempt')) = 3)
  FROM sqlite_schema WHERE type = 'table' AND name NOT GLOB 'sqlite_*';

-- name: record_migration
INSERT OR REPLACE INTO ledger_schema (one, version) VALUES (1, {version});
