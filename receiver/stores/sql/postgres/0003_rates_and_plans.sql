-- How many leases a second of a handler, over all that claim: it is enough to know when the next one
-- may be given. What counts is in `receiver/stores/rate_limit.py`, by other names.

CREATE TABLE {schema}.rate (
  handler TEXT COLLATE "C" PRIMARY KEY,
  next_at DOUBLE PRECISION NOT NULL
);

CREATE FUNCTION {schema}.rate_believed(
  next_at DOUBLE PRECISION, rate DOUBLE PRECISION, moment DOUBLE PRECISION
) RETURNS DOUBLE PRECISION LANGUAGE sql IMMUTABLE AS $$
  SELECT CASE WHEN next_at > moment + 1 / rate + 30 THEN moment + 1 / rate ELSE next_at END
$$;

CREATE FUNCTION {schema}.rate_free(
  next_at DOUBLE PRECISION, rate DOUBLE PRECISION, moment DOUBLE PRECISION
) RETURNS DOUBLE PRECISION LANGUAGE sql IMMUTABLE AS $$
  SELECT CASE WHEN next_at > moment THEN 0
              ELSE floor(least(greatest(1, rate), 1 + (moment - next_at) * rate)) END
$$;

CREATE FUNCTION {schema}.rate_spent(
  next_at DOUBLE PRECISION, rate DOUBLE PRECISION, moment DOUBLE PRECISION, count BIGINT
) RETURNS DOUBLE PRECISION LANGUAGE sql IMMUTABLE AS $$
  SELECT greatest(next_at, moment - greatest(0, 1 - 1 / rate)) + count / rate
$$;

-- As `claim_due`, for handlers some of which have a rate (NULL: it has none). Claims for one such
-- handler go one after the other, each until its commit, and the time is read when it is one's
-- turn; but nobody waits for a handler that has nothing due or whose rate is used up. All rows are
-- made before one is locked, both in the order of their names, so that no two claims wait for each
-- other.
CREATE FUNCTION {schema}.claim_at_rates(
  claimer TEXT, handlers TEXT[], limits INTEGER[], rates DOUBLE PRECISION[],
  lease DOUBLE PRECISION, at DOUBLE PRECISION
) RETURNS TABLE (
  event BIGINT, handler TEXT, state TEXT, attempt INTEGER, tries INTEGER, due_at DOUBLE PRECISION,
  after TEXT, waiting BOOLEAN, owner TEXT, error TEXT, result TEXT, settled_at DOUBLE PRECISION,
  seq BIGINT, id TEXT, source TEXT, type TEXT, subject TEXT, model TEXT, context TEXT, body BYTEA,
  origin TEXT, webhook_id TEXT, occurred_at DOUBLE PRECISION, received_at DOUBLE PRECISION
) LANGUAGE plpgsql
  SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off
  SET lock_timeout = '8s' AS $$
#variable_conflict use_column
DECLARE
  moment DOUBLE PRECISION := coalesce(at, extract(epoch FROM clock_timestamp()));
  metered TEXT[] := ARRAY(
    SELECT asked.name
      FROM unnest(handlers, rates) AS asked (name, rate)
      LEFT JOIN {schema}.rate ON rate.handler = asked.name
     WHERE asked.rate IS NOT NULL
       AND (rate.next_at IS NULL OR rate.next_at <= moment
            OR rate.next_at <> {schema}.rate_believed(rate.next_at, asked.rate, moment))
       AND NOT EXISTS (SELECT 1 FROM {schema}.pause
                        WHERE pause.handler = asked.name AND pause.until > moment)
       -- A value and no EXISTS, which may become a join that reads all that is due.
       AND (SELECT true FROM {schema}.dispatch
             WHERE dispatch.handler = asked.name AND dispatch.due_at <= moment
               AND dispatch.state IN ('pending', 'leased') AND NOT dispatch.waiting LIMIT 1)
     ORDER BY asked.name COLLATE "C");
BEGIN
  IF cardinality(metered) > 0 THEN
    -- Whoever stops between this statement and its commit must not stop all others.
    PERFORM set_config('idle_in_transaction_session_timeout', '10s', true);
    INSERT INTO {schema}.rate (handler, next_at)
    SELECT wanted.name, '-Infinity' FROM unnest(metered) AS wanted (name)
     WHERE NOT EXISTS (SELECT 1 FROM {schema}.rate WHERE rate.handler = wanted.name)
        ON CONFLICT DO NOTHING;
    PERFORM 1 FROM {schema}.rate WHERE rate.handler = ANY (metered)
      ORDER BY rate.handler FOR UPDATE;
    moment := coalesce(at, extract(epoch FROM clock_timestamp()));
  END IF;
  RETURN QUERY
  WITH asked AS MATERIALIZED (
    SELECT given.name, given.most, given.rate, rate.next_at AS kept,
           {schema}.rate_believed(rate.next_at, given.rate, moment) AS next_at
      FROM unnest(handlers, limits, rates) AS given (name, most, rate)
      LEFT JOIN {schema}.rate ON rate.handler = given.name AND given.rate IS NOT NULL
     WHERE given.rate IS NULL OR given.name = ANY (metered)
  ), open AS MATERIALIZED (
    SELECT asked.name,
           CASE WHEN asked.rate IS NULL THEN asked.most
                ELSE least(asked.most, {schema}.rate_free(asked.next_at, asked.rate, moment))
           END::INTEGER AS most
      FROM asked
  ), claimed AS MATERIALIZED (
    SELECT due.* FROM {schema}.claim_due(
      claimer, ARRAY(SELECT open.name FROM open WHERE open.most > 0),
      ARRAY(SELECT open.most FROM open WHERE open.most > 0), lease, moment) AS due
  ), counted AS (
    SELECT claimed.handler, count(*) AS n FROM claimed GROUP BY claimed.handler
  ), told AS (
    UPDATE {schema}.rate
       SET next_at = CASE WHEN counted.n IS NULL THEN asked.next_at
                          ELSE {schema}.rate_spent(asked.next_at, asked.rate, moment, counted.n) END
      FROM asked LEFT JOIN counted ON counted.handler = asked.name
     WHERE rate.handler = asked.name AND asked.rate IS NOT NULL
       AND (counted.n IS NOT NULL OR asked.next_at <> asked.kept)
  )
  SELECT claimed.* FROM claimed;
END $$;

-- Every call would be planned anew, as the lengths of its arrays make a plan of its own look
-- cheaper than one for all: half of what a claim costs.
ALTER FUNCTION {schema}.add_events SET plan_cache_mode = force_generic_plan;
ALTER FUNCTION {schema}.claim_due SET plan_cache_mode = force_generic_plan;
ALTER FUNCTION {schema}.claim_at_rates SET plan_cache_mode = force_generic_plan;
ALTER FUNCTION {schema}.extend_leases SET plan_cache_mode = force_generic_plan;
ALTER FUNCTION {schema}.settle_attempts SET plan_cache_mode = force_generic_plan;
