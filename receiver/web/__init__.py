"""The receiver over HTTP."""
