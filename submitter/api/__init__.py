"""The WaveSpeedAI HTTP API: requests, responses, transport.

Begin with `client`; `requests` and `responses` do no I/O.
"""
