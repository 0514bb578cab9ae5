"""Kept import path of the SSRF-guarded HTTP client; see `receiver.outbound.client`."""

from receiver.outbound.client import client

__all__ = ["client"]
