"""`wavehook` that waits for a database for a second, and not for half a minute."""

from __future__ import annotations

from receiver.cli import main, startup

startup.OPEN_TIMEOUT_S = 1.5

if __name__ == "__main__":
    main()
