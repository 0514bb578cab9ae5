"""The database engine under the inbox and the ledger: SQLite and PostgreSQL.

It knows neither of them: it runs transactions, migrates schemas and tells of changes. Its errors
are its own (`errors`); `receiver.stores` and `submitter.ledger` translate them at their ports.
Begin with `sqlite_writer` for SQLite and `postgres_pool` for PostgreSQL.
"""
