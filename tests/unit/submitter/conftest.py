"""Fixtures for the submitter's suites."""

from tests.support.submitter_fixtures import ledger, no_waits

__all__ = ["ledger", "no_waits"]
