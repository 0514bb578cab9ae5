"""The `archive` handler: downloads a task's outputs before the API deletes them.

`handler` has the handler, its settings and its reference. `storage` is the port that `disk` and
`bucket` implement.
"""
