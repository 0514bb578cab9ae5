"""The SSRF guard: HTTP requests to URLs that come from outside.

Begin with `client`.
"""
