"""Stores: the durable inbox, one file a backend."""
