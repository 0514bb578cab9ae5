"""Sources: how senders sign, one file a dialect."""
