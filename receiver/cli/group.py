"""How every command ends: what went wrong in words, an exit code, no traceback."""

from __future__ import annotations

from typing import Any

import typer
from typer.core import TyperGroup

from receiver.errors import SchemaMismatch, SettingsError, WavehookError


class Group(TyperGroup):
    """The commands, with one end for all their errors."""

    def invoke(self, ctx: Any) -> Any:
        """Run a command."""
        try:
            return super().invoke(ctx)
        except SettingsError as error:
            count = len(error.faults)
            typer.echo(f"{count} setting{'s' * (count != 1)} cannot work:", err=True)
            for fault in error.faults:
                typer.echo(f"  {fault}", err=True)
            raise typer.Exit(2) from None
        except WavehookError as error:
            typer.echo(f"Error: {error}", err=True)
            raise typer.Exit(2 if isinstance(error, SchemaMismatch) else 1) from None
        except KeyboardInterrupt:
            raise typer.Exit(130) from None
