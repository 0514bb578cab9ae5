"""Where submissions are recorded: the port, and its backends."""
