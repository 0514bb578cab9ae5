"""Dispatch of stored events to handlers: claim, run, settle.

Begin with `dispatcher`. `attempt` is one run of a handler, `slots` limits how many run.
"""
