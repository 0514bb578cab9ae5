"""Fixtures for the suites of the command line."""

from tests.support.command import folder

__all__ = ["folder"]
