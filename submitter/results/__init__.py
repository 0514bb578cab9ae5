"""Waiting for a task's result: in this process, over the ledger, or from a receiver elsewhere.

Begin with `wait`.
"""
