"""Handlers that publish events as CloudEvents to a message broker.

Each file is one broker, and its docstring is the handler's reference: begin with `nats`. They
share `connection`, `cloudevent` (the message format), `topic` (templates of names) and `batching`.
"""
