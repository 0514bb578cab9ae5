"""Results of tasks: long polls, the ledger kept in step with the inbox, and reconciling.

Begin with `long_poll`.
"""
