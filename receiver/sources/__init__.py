"""Sources: the signature schemes of senders, one file each. Begin with `base`."""
