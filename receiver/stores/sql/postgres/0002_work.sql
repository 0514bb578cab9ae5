-- What writes, as functions: one round trip each, with a plan that stays with the connection, also
-- behind a pooler. A plan is made while the tables are small and used when they are large, so none
-- may read a table whole: hence the settings of each. A later version that needs a function to do
-- something else gives it another name: both versions run at once during a rolling restart.
--
-- A time that is NULL stands for this server's clock; the times beside it are then distances.

-- Stores new events, each with the dispatches of its plan; answers which of them are new, from 1.
-- The lock makes the order of the numbers the order of the commits, whatever process stores
-- (promise 9); it is held for this one statement, and given back after its commit is visible.
CREATE FUNCTION {schema}.add_events(
  ids TEXT[], sources TEXT[], types TEXT[], subjects TEXT[], models TEXT[], contexts TEXT[],
  bodies BYTEA[], origins TEXT[], webhook_ids TEXT[], occurred DOUBLE PRECISION[],
  received DOUBLE PRECISION[], plan_of INTEGER[], plans INTEGER[], handlers TEXT[], afters TEXT[],
  waitings BOOLEAN[], server_clock BOOLEAN, channel TEXT, sender TEXT
) RETURNS SETOF INTEGER LANGUAGE plpgsql
  SET enable_seqscan = off SET lock_timeout = '8s' AS $$
DECLARE
  last BIGINT;
  moment DOUBLE PRECISION;
BEGIN
  -- Whoever stops between this statement and its commit must not stop all others.
  PERFORM set_config('idle_in_transaction_session_timeout', '10s', true);
  PERFORM pg_advisory_xact_lock(hashtextextended('wavehook add {name}', 0));
  SELECT coalesce(max(event.seq), 0) INTO last FROM {schema}.event;
  IF server_clock THEN
    moment := extract(epoch FROM clock_timestamp());
  END IF;
  RETURN QUERY
  WITH fresh AS (
    INSERT INTO {schema}.event AS stored (seq, id, source, type, subject, model, context, body,
                                         origin, webhook_id, occurred_at, received_at)
    SELECT last + given.n, given.id, given.source, given.type, given.subject, given.model,
           given.context, given.body, given.origin, given.webhook_id, given.occurred_at,
           given.received_at
      FROM unnest(ids, sources, types, subjects, models, contexts, bodies, origins, webhook_ids,
                  occurred, received) WITH ORDINALITY
           AS given (id, source, type, subject, model, context, body, origin, webhook_id,
                     occurred_at, received_at, n)
        ON CONFLICT (id) DO NOTHING
    RETURNING (stored.seq - last)::INTEGER AS n, stored.received_at
  ), fanned AS (
    INSERT INTO {schema}.dispatch (event, handler, due_at, after, waiting)
    SELECT last + fresh.n, planned.handler, coalesce(moment, fresh.received_at), planned.after,
           planned.waiting
      FROM fresh CROSS JOIN unnest(plans, handlers, afters, waitings)
           AS planned (plan, handler, after, waiting)
     WHERE planned.plan = plan_of[fresh.n]
  )
  SELECT fresh.n FROM fresh;
  IF FOUND AND channel IS NOT NULL AND cardinality(handlers) > 0 THEN
    PERFORM pg_notify(channel, sender);
  END IF;
END $$;

-- Leases what is due, longest due first. What another claims, settles or delivers again at this
-- moment is passed over, so nobody waits.
CREATE FUNCTION {schema}.claim_due(
  claimer TEXT, handlers TEXT[], limits INTEGER[], lease DOUBLE PRECISION, at DOUBLE PRECISION
) RETURNS TABLE (
  event BIGINT, handler TEXT, state TEXT, attempt INTEGER, tries INTEGER, due_at DOUBLE PRECISION,
  after TEXT, waiting BOOLEAN, owner TEXT, error TEXT, result TEXT, settled_at DOUBLE PRECISION,
  seq BIGINT, id TEXT, source TEXT, type TEXT, subject TEXT, model TEXT, context TEXT, body BYTEA,
  origin TEXT, webhook_id TEXT, occurred_at DOUBLE PRECISION, received_at DOUBLE PRECISION
) LANGUAGE plpgsql
  SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off AS $$
#variable_conflict use_column
DECLARE
  moment DOUBLE PRECISION := coalesce(at, extract(epoch FROM clock_timestamp()));
BEGIN
  RETURN QUERY
  WITH wanted AS MATERIALIZED (
    SELECT asked.name, asked.most FROM unnest(handlers, limits) AS asked (name, most)
     WHERE NOT EXISTS (SELECT 1 FROM {schema}.pause
                        WHERE pause.handler = asked.name AND pause.until > moment)
  ), due AS MATERIALIZED (
    SELECT found.* FROM wanted CROSS JOIN LATERAL (
      SELECT dispatch.event, dispatch.handler, dispatch.state, dispatch.due_at
        FROM {schema}.dispatch
       WHERE dispatch.handler = wanted.name AND dispatch.due_at <= moment
         AND dispatch.state IN ('pending', 'leased') AND NOT dispatch.waiting
       ORDER BY dispatch.due_at, dispatch.event
       LIMIT wanted.most
         FOR UPDATE SKIP LOCKED) AS found
  ), leased AS (
    UPDATE {schema}.dispatch
       SET state = 'leased', attempt = dispatch.attempt + 1, tries = dispatch.tries + 1,
           owner = claimer, due_at = moment + lease
      FROM due
     WHERE dispatch.event = due.event AND dispatch.handler = due.handler
    RETURNING dispatch.*, due.due_at AS was_due
  ), lost AS (
    -- The runs whose lease ran out before these were claimed again.
    UPDATE {schema}.attempt SET outcome = 'lost', ended_at = moment
      FROM due
     WHERE due.state = 'leased' AND attempt.event = due.event AND attempt.handler = due.handler
       AND attempt.ended_at IS NULL
  ), started AS (
    INSERT INTO {schema}.attempt (event, handler, number, owner, started_at)
    SELECT leased.event, leased.handler, leased.attempt, claimer, moment FROM leased
  )
  SELECT leased.event, leased.handler, leased.state, leased.attempt, leased.tries, leased.due_at,
         leased.after, leased.waiting, leased.owner, leased.error, leased.result,
         leased.settled_at, stored.seq, stored.id, stored.source, stored.type, stored.subject,
         stored.model, stored.context, stored.body, stored.origin, stored.webhook_id,
         stored.occurred_at, stored.received_at
    FROM leased JOIN {schema}.event AS stored ON stored.seq = leased.event
   ORDER BY leased.was_due, leased.event;
END $$;

-- Renews leases; answers which of them, from 1.
CREATE FUNCTION {schema}.extend_leases(
  ids TEXT[], handlers TEXT[], attempts INTEGER[], holder TEXT, lease DOUBLE PRECISION,
  at DOUBLE PRECISION
) RETURNS SETOF INTEGER LANGUAGE plpgsql
  SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off AS $$
DECLARE
  moment DOUBLE PRECISION := coalesce(at, extract(epoch FROM clock_timestamp()));
BEGIN
  RETURN QUERY
  UPDATE {schema}.dispatch SET due_at = moment + lease
    FROM (SELECT (SELECT event.seq FROM {schema}.event WHERE event.id = held.id) AS event,
                 held.handler, held.attempt, held.n
            FROM unnest(ids, handlers, attempts) WITH ORDINALITY AS held (id, handler, attempt, n)
         ) AS held
   WHERE dispatch.event = held.event AND dispatch.handler = held.handler
     AND dispatch.state = 'leased' AND dispatch.owner = holder
     AND dispatch.attempt = held.attempt
  RETURNING held.n::INTEGER;
END $$;

-- Records what attempts came to, and frees the dispatches that waited for them; answers which of
-- them were still owned, from 1. Two that end the last predecessors of one dispatch at once, each
-- unseen by the other, meet at the lock on the event: the second sees what the first has done.
CREATE FUNCTION {schema}.settle_attempts(
  ids TEXT[], handlers TEXT[], attempts INTEGER[], owners TEXT[], states TEXT[],
  dues DOUBLE PRECISION[], spared INTEGER[], errors TEXT[], results TEXT[], outcomes TEXT[],
  times DOUBLE PRECISION[], channel TEXT, sender TEXT
) RETURNS INTEGER[] LANGUAGE plpgsql
  SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off AS $$
DECLARE
  moment DOUBLE PRECISION := extract(epoch FROM clock_timestamp());
  settled INTEGER[];
  ended BIGINT[];
  latest DOUBLE PRECISION;
  woken BOOLEAN;
BEGIN
  WITH given AS MATERIALIZED (
    SELECT (SELECT event.seq FROM {schema}.event WHERE event.id = told.id) AS event, told.*,
           coalesce(told.at, moment) AS moment,
           told.due + CASE WHEN told.at IS NULL THEN moment ELSE 0 END AS due_at
      FROM unnest(ids, handlers, attempts, owners, states, dues, spared, errors, results,
                  outcomes, times) WITH ORDINALITY
           AS told (id, handler, attempt, owner, state, due, spared, error, result, outcome, at, n)
  ), kept AS (
    UPDATE {schema}.dispatch
       SET state = given.state, due_at = coalesce(given.due_at, dispatch.due_at),
           tries = dispatch.tries - given.spared, error = given.error, result = given.result,
           settled_at = CASE WHEN given.state IN ('done', 'dead') THEN given.moment END,
           owner = NULL
      FROM given
     WHERE dispatch.event = given.event AND dispatch.handler = given.handler
       AND dispatch.state = 'leased' AND dispatch.owner = given.owner
       AND dispatch.attempt = given.attempt
    RETURNING given.*
  ), recorded AS (
    UPDATE {schema}.attempt
       SET ended_at = kept.moment, outcome = kept.outcome, error = kept.error
      FROM kept
     WHERE attempt.event = kept.event AND attempt.handler = kept.handler
       AND attempt.number = kept.attempt
  )
  SELECT array_agg(kept.n), array_agg(kept.event) FILTER (WHERE kept.state IN ('done', 'dead')),
         max(kept.moment), bool_or(kept.outcome = 'released')
    INTO settled, ended, latest, woken
    FROM kept;
  PERFORM 1 FROM {schema}.event
    WHERE event.seq = ANY (ARRAY(SELECT dispatch.event FROM {schema}.dispatch
                                  WHERE dispatch.event = ANY (ended) AND dispatch.waiting))
    ORDER BY event.seq FOR NO KEY UPDATE;
  IF FOUND THEN
    UPDATE {schema}.dispatch SET waiting = false, due_at = latest
     WHERE dispatch.waiting AND dispatch.event = ANY (ended)
       AND NOT EXISTS (SELECT 1 FROM {schema}.dispatch AS earlier
                        WHERE earlier.event = dispatch.event
                          AND earlier.state IN ('pending', 'leased')
                          AND dispatch.after::JSONB ? earlier.handler);
    woken := woken OR FOUND;
  END IF;
  IF woken AND channel IS NOT NULL THEN
    PERFORM pg_notify(channel, sender);
  END IF;
  RETURN settled;
END $$;

-- Makes the dispatches of a stored event pending again, apart from those that run. The locks keep
-- `purge` from the event, and whoever settles one of its dispatches from passing unseen.
CREATE FUNCTION {schema}.deliver_again(
  given TEXT, handlers TEXT[], afters TEXT[], at DOUBLE PRECISION, channel TEXT, sender TEXT
) RETURNS BOOLEAN LANGUAGE plpgsql AS $$
DECLARE
  moment DOUBLE PRECISION := coalesce(at, extract(epoch FROM clock_timestamp()));
  found_seq BIGINT;
BEGIN
  SELECT event.seq INTO found_seq FROM {schema}.event WHERE event.id = given FOR KEY SHARE;
  IF NOT FOUND THEN
    RETURN false;
  END IF;
  PERFORM 1 FROM {schema}.dispatch WHERE dispatch.event = found_seq
    ORDER BY dispatch.handler FOR UPDATE;
  INSERT INTO {schema}.dispatch AS stored (event, handler, due_at, after)
  SELECT found_seq, planned.handler, moment, planned.after
    FROM unnest(handlers, afters) AS planned (handler, after)
      ON CONFLICT (event, handler) DO UPDATE
     SET state = 'pending', tries = 0, due_at = excluded.due_at, after = excluded.after,
         error = NULL, result = NULL, settled_at = NULL
   WHERE stored.state <> 'leased';
  -- Who of these must wait for whom.
  UPDATE {schema}.dispatch
     SET waiting = EXISTS (SELECT 1 FROM {schema}.dispatch AS earlier
                            WHERE earlier.event = dispatch.event
                              AND earlier.state IN ('pending', 'leased')
                              AND dispatch.after::JSONB ? earlier.handler)
   WHERE dispatch.event = found_seq AND dispatch.state = 'pending'
     AND dispatch.handler = ANY (handlers);
  IF channel IS NOT NULL THEN
    PERFORM pg_notify(channel, sender);
  END IF;
  RETURN true;
END $$;

-- One step of `purge`: looks at the next events after a number; answers where to go on, and what
-- it removed. The newest event of all is never removed, so that no number is given twice.
CREATE FUNCTION {schema}.purge_step(
  later_than BIGINT, before DOUBLE PRECISION, forget DOUBLE PRECISION, server_clock BOOLEAN,
  most INTEGER, OUT upto BIGINT, OUT payloads INTEGER, OUT events INTEGER
) LANGUAGE plpgsql
  SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off AS $$
DECLARE
  moment DOUBLE PRECISION := 0;
  newest BIGINT;
  locked BIGINT[];
  kept BIGINT[];
  gone BIGINT[];
BEGIN
  IF server_clock THEN
    moment := extract(epoch FROM clock_timestamp());
  END IF;
  SELECT max(event.seq) INTO newest FROM {schema}.event;
  SELECT max(page.seq) INTO upto FROM (
    SELECT event.seq FROM {schema}.event WHERE event.seq > later_than
     ORDER BY event.seq LIMIT most) AS page;
  locked := ARRAY(
    SELECT event.seq FROM {schema}.event
     WHERE event.seq > later_than AND event.seq <= upto AND event.received_at < before + moment
     ORDER BY event.seq FOR UPDATE SKIP LOCKED);
  -- Looked at anew now that nobody can make a dispatch of these open again.
  SELECT coalesce(array_agg(event.seq) FILTER (WHERE old), '{}'),
         coalesce(array_agg(event.seq) FILTER (WHERE NOT old), '{}')
    INTO gone, kept
    FROM (SELECT event.seq, event.received_at < forget + moment AND event.seq < newest AS old
            FROM {schema}.event
           WHERE event.seq = ANY (locked)
             AND NOT EXISTS (SELECT 1 FROM {schema}.dispatch
                              WHERE dispatch.event = event.seq
                                AND dispatch.state IN ('pending', 'leased'))) AS event;
  UPDATE {schema}.event SET body = NULL, context = NULL
   WHERE event.seq = ANY (kept) AND event.body IS NOT NULL;
  GET DIAGNOSTICS payloads = ROW_COUNT;
  -- An event that was emptied before may have been delivered again since.
  UPDATE {schema}.dispatch SET result = NULL
   WHERE dispatch.event = ANY (kept) AND dispatch.result IS NOT NULL;
  DELETE FROM {schema}.attempt WHERE attempt.event = ANY (kept || gone);
  DELETE FROM {schema}.dispatch WHERE dispatch.event = ANY (gone);
  DELETE FROM {schema}.event WHERE event.seq = ANY (gone);
  events := cardinality(gone);
END $$;
