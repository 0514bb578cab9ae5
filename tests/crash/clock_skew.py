"""`wavehook` on a machine whose clock is wrong: `clock_skew.py SECONDS COMMAND …`."""

from __future__ import annotations

import sys
import time

OFFSET = float(sys.argv.pop(1))
right = time.time
# Before anything of ours is imported, and in this process alone.
time.time = lambda: right() + OFFSET

if __name__ == "__main__":
    from receiver.cli import main

    main()
