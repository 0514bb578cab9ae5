-- Named statements; `-- name:` begins each. `{schema}` is the schema, `{name}` its name in a text.
-- Columns are named, so that a later version may add some while this one runs.

-- name: add
SELECT {schema}.add_events($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16,
                          $17, $18, $19) AS n;

-- name: claim
SELECT * FROM {schema}.claim_due($1, $2, $3, $4, $5);

-- name: claim_at_rates
SELECT * FROM {schema}.claim_at_rates($1, $2, $3, $4, $5, $6);

-- name: earlier
-- The finished dispatches of some events, each with the event's number first.
SELECT event, handler, state, attempt, tries, due_at, after, waiting, owner, error, result,
       settled_at
  FROM {schema}.dispatch
 WHERE event = ANY ($1::BIGINT[]) AND state IN ('done', 'dead');

-- name: extend
SELECT {schema}.extend_leases($1, $2, $3, $4, $5, $6) AS n;

-- name: settle
SELECT {schema}.settle_attempts($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13) AS settled;

-- name: pause
INSERT INTO {schema}.pause AS stored (handler, until)
VALUES ($1, $2::DOUBLE PRECISION
            + CASE WHEN $3::BOOLEAN THEN extract(epoch FROM clock_timestamp()) ELSE 0 END)
    ON CONFLICT (handler) DO UPDATE SET until = greatest(stored.until, excluded.until);

-- name: retry
-- The lock keeps `purge` from the event. The condition excludes the other states instead of naming
-- `dead`, so that no plan reads the index of all dead dispatches.
WITH stored AS (SELECT seq FROM {schema}.event WHERE id = $1 FOR KEY SHARE),
retried AS (
  UPDATE {schema}.dispatch
     SET state = 'pending', tries = 0, settled_at = NULL,
         due_at = coalesce($3::DOUBLE PRECISION, extract(epoch FROM clock_timestamp()))
    FROM stored
   WHERE event = stored.seq AND handler = $2 AND state NOT IN ('pending', 'leased', 'done')
  RETURNING 1)
SELECT count(*) > 0 AS retried,
       CASE WHEN count(*) > 0 AND $4::TEXT IS NOT NULL THEN pg_notify($4, $5) END
  FROM retried;

-- name: redeliver
SELECT {schema}.deliver_again($1, $2, $3, $4, $5, $6) AS found;

-- name: ping
INSERT INTO {schema}.ping AS stored (one, n) VALUES (1, 1)
    ON CONFLICT (one) DO UPDATE SET n = 1 - stored.n;

-- name: purge
SELECT upto, payloads, events FROM {schema}.purge_step($1, $2, $3, $4, $5);

-- name: next_due
SELECT min(greatest(due, (SELECT until FROM {schema}.pause WHERE handler = name),
                    (SELECT next_at FROM {schema}.rate WHERE handler = name))) AS due,
       extract(epoch FROM clock_timestamp())::DOUBLE PRECISION AS server
  FROM (SELECT wanted.name,
               (SELECT min(due_at) FROM {schema}.dispatch
                 WHERE handler = wanted.name
                   AND state IN ('pending', 'leased') AND NOT waiting) AS due
          FROM unnest($1::TEXT[]) AS wanted (name)) AS open
 WHERE due IS NOT NULL;

-- name: find
-- LIMIT 1 keeps the planner from a sequential scan while the table is small: the plan stays.
SELECT found.* FROM unnest($1::TEXT[]) AS wanted (id) CROSS JOIN LATERAL (
  SELECT seq, id, source, type, subject, model, context, body, origin, webhook_id, occurred_at,
         received_at
    FROM {schema}.event WHERE event.id = wanted.id LIMIT 1) AS found;

-- name: events
SELECT seq, id, source, type, subject, model, context, body, origin, webhook_id, occurred_at,
       received_at,
       (SELECT coalesce(json_object_agg(handler, state), '{}')::TEXT FROM {schema}.dispatch
         WHERE dispatch.event = event.seq) AS dispatches
  FROM {schema}.event
 WHERE seq < coalesce($1::BIGINT, 9223372036854775807) AND ($2::TEXT IS NULL OR type = $2)
 ORDER BY seq DESC
 LIMIT $3;

-- name: since
SELECT seq, id, source, type, subject, model, context, body, origin, webhook_id, occurred_at,
       received_at,
       (SELECT coalesce(json_object_agg(handler, state), '{}')::TEXT FROM {schema}.dispatch
         WHERE dispatch.event = event.seq) AS dispatches
  FROM {schema}.event
 WHERE seq > $1
 ORDER BY seq
 LIMIT $2;

-- name: last_seq
SELECT coalesce(max(seq), 0) AS last FROM {schema}.event;

-- name: dispatches
SELECT event, handler, state, attempt, tries, due_at, after, waiting, owner, error, result,
       settled_at
  FROM {schema}.dispatch
 WHERE event = (SELECT seq FROM {schema}.event WHERE id = $1) ORDER BY handler;

-- name: attempts
SELECT event, handler, number, owner, started_at, ended_at, outcome, error
  FROM {schema}.attempt
 WHERE event = (SELECT seq FROM {schema}.event WHERE id = $1) ORDER BY handler, number;

-- name: dead
SELECT event, handler, state, attempt, tries, due_at, after, waiting, owner, error, result,
       settled_at, (SELECT id FROM {schema}.event WHERE seq = dispatch.event) AS id
  FROM {schema}.dispatch
 WHERE state = 'dead' ORDER BY settled_at DESC, event DESC, handler LIMIT $1;

-- name: depth
-- Three reads of partial indexes: the cost follows what is open or dead, not what is stored.
SELECT handler, state, sum(n)::BIGINT AS n FROM (
  SELECT handler, state, count(*) AS n FROM {schema}.dispatch
   WHERE state IN ('pending', 'leased') AND NOT waiting GROUP BY handler, state
  UNION ALL
  SELECT handler, 'pending', count(*) FROM {schema}.dispatch WHERE waiting GROUP BY handler
  UNION ALL
  SELECT handler, 'dead', count(*) FROM {schema}.dispatch WHERE state = 'dead' GROUP BY handler)
    AS counted
 GROUP BY handler, state;

-- name: oldest_open
SELECT min(received_at) AS oldest FROM {schema}.event WHERE seq = ANY (ARRAY(
  SELECT event FROM {schema}.dispatch WHERE state IN ('pending', 'leased') AND NOT waiting
  UNION
  SELECT event FROM {schema}.dispatch WHERE waiting));

-- name: is_migrated
SELECT count(*) > 0 FROM pg_catalog.pg_class
 WHERE relname = 'migration'
   AND relnamespace = (SELECT oid FROM pg_catalog.pg_namespace WHERE nspname = '{name}');

-- name: schema_version
SELECT coalesce(max(number), 0) FROM {schema}.migration;

-- name: migration_lock
-- Until the end of the transaction, for whoever would migrate the inbox of this schema.
SELECT pg_advisory_xact_lock(hashtextextended('wavehook migrate {name}', 0));

-- name: foreign_tables
-- The submitter's ledger may be in the schema before the inbox.
SELECT count(*) > 0 FROM pg_catalog.pg_class
 WHERE relnamespace = (SELECT oid FROM pg_catalog.pg_namespace WHERE nspname = '{name}')
   AND relkind IN ('r', 'p', 'v', 'm', 'f')
   AND relname NOT LIKE 'ledger\_%';

-- name: record_migration
INSERT INTO {schema}.migration (number) VALUES ($1);

-- name: room
SELECT coalesce(has_schema_privilege(to_regnamespace('{name}')::OID, 'CREATE'),
                has_database_privilege(current_database(), 'CREATE')) AS may_make,
       (SELECT sum(numbackends) FROM pg_stat_database WHERE datname IS NOT NULL)::INTEGER AS used,
       current_setting('max_connections')::INTEGER
         - current_setting('superuser_reserved_connections')::INTEGER AS most;

-- name: remove
DROP SCHEMA IF EXISTS {schema} CASCADE;
