"""`wavehook` of a version that does not know of the inbox's newest migration on PostgreSQL."""

from __future__ import annotations

from receiver.cli import main
from submitter.storage import migrations

every_script = migrations.scripts


def known_scripts(package: str, engine: str) -> list[tuple[int, str]]:
    """The migrations that the older version has."""
    found = every_script(package, engine)
    return found[:-1] if (package, engine) == ("receiver.stores", "postgres") else found


migrations.scripts = known_scripts

if __name__ == "__main__":
    main()
