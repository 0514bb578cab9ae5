"""Many inputs for one model: each paid for once, however often the command is run."""
