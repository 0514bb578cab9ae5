"""Built-in handlers, one file each, loaded through the same entry points as anybody's."""
