"""Submitting a task once: input checks, file uploads, rate limit, and the sealed context.

Begin with `sender`.
"""
