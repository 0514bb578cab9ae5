"""Results of tasks: long polls, sync of the ledger with the inbox, and reconciling.

Begin with `long_poll`.
"""
