"""The command `wavehook`: one module for each group of subcommands.

Begin with `application`, which assembles them. Importing this package imports none of them.
"""

from __future__ import annotations


def main() -> None:
    """Run the command of the process's arguments."""
    from receiver.cli.application import application

    application()(prog_name="wavehook")
