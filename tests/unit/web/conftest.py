"""Fixtures for the web suites."""

from tests.support.web_fixtures import app, build, inbox, intake, log, seal, told

__all__ = ["app", "build", "inbox", "intake", "log", "seal", "told"]
