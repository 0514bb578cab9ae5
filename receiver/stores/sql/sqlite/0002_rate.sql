-- How many leases a second of a handler: it is enough to know when the next one may be given.

CREATE TABLE rate (
  handler TEXT PRIMARY KEY,
  next_at REAL NOT NULL
) STRICT, WITHOUT ROWID;
