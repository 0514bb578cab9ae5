"""Handlers that publish events as CloudEvents to a message broker.

Begin with `connection` and `cloudevent`, then read one broker, such as `nats`.
"""
