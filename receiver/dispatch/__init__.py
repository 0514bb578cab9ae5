"""Dispatch of stored events to handlers: claim, run, settle.

Begin with `dispatcher`.
"""
