"""The `archive` handler: downloads a task's outputs before the API deletes them.

Begin with `handler`; `storage` is the port that `disk` and `bucket` implement.
"""
