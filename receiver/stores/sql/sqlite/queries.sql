-- Named statements; `-- name:` begins each.

-- name: add_events
-- What is new gets the next numbers, in order. The rows stand where the ellipsis is.
INSERT INTO event (id, source, type, subject, model, context, body, origin, webhook_id,
                   occurred_at, received_at)
VALUES ... ON CONFLICT (id) DO NOTHING;

-- name: added
-- The ids of the last rows: those that `add_events` did not pass over.
SELECT json_group_array(id) FROM event WHERE seq > ?;

-- name: add_dispatches
-- Every handler of a plan for every event of a range.
INSERT INTO dispatch (event, handler, due_at, after, waiting)
SELECT event.seq, json_extract(planned.value, '$[0]'), event.received_at,
       json_extract(planned.value, '$[1]'), json_extract(planned.value, '$[2]')
  FROM event CROSS JOIN json_each(:plan) AS planned
 WHERE event.seq BETWEEN :first AND :last;

-- name: paused
SELECT handler FROM pause WHERE until > :now;

-- name: next_at
SELECT next_at FROM rate WHERE handler = :handler;

-- name: keep_next_at
INSERT INTO rate (handler, next_at) VALUES (:handler, :next_at)
    ON CONFLICT (handler) DO UPDATE SET next_at = excluded.next_at;

-- name: due
SELECT dispatch.*, event.*
  FROM dispatch CROSS JOIN event ON event.seq = dispatch.event
 WHERE dispatch.handler = :handler AND dispatch.due_at <= :now
   AND dispatch.state IN ('pending', 'leased') AND dispatch.waiting = 0
 ORDER BY dispatch.due_at, dispatch.event
 LIMIT :limit;

-- name: lease
UPDATE dispatch
   SET state = 'leased', attempt = attempt + 1, tries = tries + 1, owner = :owner, due_at = :until
 WHERE handler = :handler AND event IN (SELECT value FROM json_each(:events));

-- name: lose_attempts
-- The runs whose lease ran out before these were claimed again.
UPDATE attempt SET outcome = 'lost', ended_at = :now
 WHERE handler = :handler AND ended_at IS NULL
   AND event IN (SELECT value FROM json_each(:events));

-- name: start_attempts
INSERT INTO attempt (event, handler, number, owner, started_at) VALUES ...;

-- name: earlier
SELECT dispatch.*, event.id FROM dispatch CROSS JOIN event ON event.seq = dispatch.event
 WHERE dispatch.event = :event AND dispatch.handler IN (SELECT value FROM json_each(:handlers))
   AND dispatch.state IN ('done', 'dead');

-- name: extend
UPDATE dispatch SET due_at = :until
 WHERE event = (SELECT seq FROM event WHERE id = :event_id) AND handler = :handler
   AND state = 'leased' AND owner = :owner AND attempt = :attempt;

-- name: settle
UPDATE dispatch
   SET state = :state, due_at = coalesce(:due_at, due_at), tries = tries - :spared,
       error = :error, result = :result, settled_at = :settled_at, owner = NULL
 WHERE event = (SELECT seq FROM event WHERE id = :event_id) AND handler = :handler
   AND state = 'leased' AND owner = :owner AND attempt = :attempt;

-- name: end_attempt
UPDATE attempt SET ended_at = :now, outcome = :outcome, error = :error
 WHERE event = (SELECT seq FROM event WHERE id = :event_id) AND handler = :handler
   AND number = :attempt;

-- name: free
-- Dispatches of one event whose predecessors are all done or dead.
UPDATE dispatch SET waiting = 0, due_at = :now
 WHERE waiting = 1 AND event = (SELECT seq FROM event WHERE id = :event_id)
   AND NOT EXISTS (
     SELECT 1 FROM json_each(dispatch.after) AS name CROSS JOIN dispatch AS earlier
         ON earlier.event = dispatch.event AND earlier.handler = name.value
      WHERE earlier.state IN ('pending', 'leased'));

-- name: pause
INSERT INTO pause (handler, until) VALUES (:handler, :until)
    ON CONFLICT (handler) DO UPDATE SET until = max(until, excluded.until);

-- name: next_due
SELECT min(max(due, coalesce((SELECT until FROM pause WHERE pause.handler = name), due),
                    coalesce((SELECT next_at FROM rate WHERE rate.handler = name), due)))
  FROM (SELECT wanted.value AS name,
               (SELECT min(due_at) FROM dispatch
                 WHERE handler = wanted.value
                   AND state IN ('pending', 'leased') AND waiting = 0) AS due
          FROM json_each(:handlers) AS wanted)
 WHERE due IS NOT NULL;

-- name: event
SELECT * FROM event WHERE id = :id;

-- name: events
SELECT event.*,
       (SELECT json_group_object(handler, state) FROM dispatch WHERE event = event.seq)
         AS dispatches
  FROM event
 WHERE (:before IS NULL OR seq < :before) AND (:type IS NULL OR type = :type)
 ORDER BY seq DESC
 LIMIT :limit;

-- name: find
SELECT event.* FROM json_each(:ids) AS wanted CROSS JOIN event ON event.id = wanted.value;

-- name: since
SELECT event.*,
       (SELECT json_group_object(handler, state) FROM dispatch WHERE event = event.seq)
         AS dispatches
  FROM event
 WHERE seq > :after
 ORDER BY seq
 LIMIT :limit;

-- name: last_seq
SELECT coalesce(max(seq), 0) FROM event;

-- name: dispatches
SELECT dispatch.*, event.id FROM event CROSS JOIN dispatch ON dispatch.event = event.seq
 WHERE event.id = :id ORDER BY handler;

-- name: attempts
SELECT attempt.* FROM event CROSS JOIN attempt ON attempt.event = event.seq
 WHERE event.id = :id ORDER BY handler, number;

-- name: dead
SELECT dispatch.*, event.id FROM dispatch CROSS JOIN event ON event.seq = dispatch.event
 WHERE state = 'dead' ORDER BY settled_at DESC, event DESC, handler LIMIT :limit;

-- name: retry
UPDATE dispatch
   SET state = 'pending', tries = 0, due_at = :now, settled_at = NULL
 WHERE event = (SELECT seq FROM event WHERE id = :event_id) AND handler = :handler
   AND state = 'dead';

-- name: redeliver
INSERT INTO dispatch (event, handler, due_at, after)
VALUES ((SELECT seq FROM event WHERE id = :event_id), :handler, :now, :after)
    ON CONFLICT (event, handler) DO UPDATE
   SET state = 'pending', tries = 0, due_at = excluded.due_at, after = excluded.after,
       error = NULL, result = NULL, settled_at = NULL
 WHERE state <> 'leased';

-- name: await_earlier
-- After `redeliver`: these dispatches wait again if one of their predecessors is open.
UPDATE dispatch SET waiting = EXISTS (
     SELECT 1 FROM json_each(dispatch.after) AS name CROSS JOIN dispatch AS earlier
         ON earlier.event = dispatch.event AND earlier.handler = name.value
      WHERE earlier.state IN ('pending', 'leased'))
 WHERE event = (SELECT seq FROM event WHERE id = :event_id) AND state = 'pending'
   AND handler IN (SELECT value FROM json_each(:handlers));

-- name: old
-- The next finished events that were received before a time. The newest row of all is never
-- forgotten: SQLite would give its number to another event.
SELECT seq, received_at < :forget AND seq < (SELECT max(seq) FROM event) AS forget, body IS NOT NULL AS payload FROM event
 WHERE seq > :after AND received_at < :before
   AND NOT EXISTS (SELECT 1 FROM dispatch
                    WHERE event = seq AND state IN ('pending', 'leased'))
 ORDER BY seq LIMIT :limit;

-- name: forget_payloads
UPDATE event SET body = NULL, context = NULL WHERE seq IN (SELECT value FROM json_each(:events));

-- name: forget_results
UPDATE dispatch SET result = NULL
 WHERE event IN (SELECT value FROM json_each(:events)) AND result IS NOT NULL;

-- name: forget_attempts
DELETE FROM attempt WHERE event IN (SELECT value FROM json_each(:events));

-- name: forget_dispatches
DELETE FROM dispatch WHERE event IN (SELECT value FROM json_each(:events));

-- name: forget_events
DELETE FROM event WHERE seq IN (SELECT value FROM json_each(:events));

-- name: depth
-- Three reads of partial indexes: the cost follows what is open or dead, not what is stored.
SELECT handler, state, sum(n) FROM (
  SELECT handler, state, count(*) AS n FROM dispatch INDEXED BY dispatch_due
   WHERE state IN ('pending', 'leased') AND waiting = 0 GROUP BY handler, state
  UNION ALL
  SELECT handler, 'pending', count(*) FROM dispatch INDEXED BY dispatch_waiting
   WHERE waiting = 1 GROUP BY handler
  UNION ALL
  SELECT handler, 'dead', count(*) FROM dispatch INDEXED BY dispatch_dead
   WHERE state = 'dead' GROUP BY handler)
 GROUP BY handler, state;

-- name: oldest_open
SELECT min(received_at) FROM event WHERE seq IN (
  SELECT event FROM dispatch INDEXED BY dispatch_due
   WHERE state IN ('pending', 'leased') AND waiting = 0
  UNION ALL
  SELECT event FROM dispatch INDEXED BY dispatch_waiting WHERE waiting = 1);

-- name: ping
INSERT INTO ping (one, n) VALUES (1, 1) ON CONFLICT (one) DO UPDATE SET n = 1 - n;

-- name: is_migrated
SELECT user_version <> 0 FROM pragma_user_version;

-- name: schema_version
SELECT user_version FROM pragma_user_version;

-- name: foreign_tables
-- The submitter's ledger may be in the file before the inbox.
SELECT count(*) > 0 FROM sqlite_schema
 WHERE tbl_name NOT GLOB 'ledger_*' AND tbl_name NOT GLOB 'sqlite_*';

-- name: record_migration
PRAGMA user_version = {version};
