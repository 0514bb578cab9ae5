"""HTTP requests to addresses that a stranger named: the SSRF guard.

Begin with `client`.
"""
