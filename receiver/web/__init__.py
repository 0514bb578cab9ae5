"""The receiver over HTTP: the ack path, the API, health and the lifecycle.

Begin with `app` and `ingest`; `asgi` is the entry point for servers. It imports ports only.
"""
