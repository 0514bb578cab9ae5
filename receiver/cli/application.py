"""The command `wavehook`: its subcommands, and how errors end them.

An error is printed as one sentence with an exit code, without a traceback.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib.metadata import version
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from receiver.cli import inbox
from receiver.cli.check import check
from receiver.cli.inbox import events, redeliver, show
from receiver.cli.maintenance import migrate, purge, secret
from receiver.cli.options import Flags
from receiver.cli.reconcile import reconcile
from receiver.cli.serve import serve
from receiver.cli.work import drain, worker
from receiver.demo.command import demo
from receiver.errors import SchemaMismatch, SettingsError, WavehookError
from submitter.cli import register
from submitter.settings import SubmitSettings


class CommandGroup(TyperGroup):
    """The subcommands; turns their errors into a message and an exit code."""

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


HELP = """Run WaveSpeedAI image and video jobs reliably.

Submits each job once, receives the signed webhook, and passes the result to your code, chat,
storage or message broker. A handler is retried until it succeeds.

Settings come from flags, the environment (WAVEHOOK_…, WAVESPEED_…) and wavehook.toml; a flag beats
the environment, and the environment beats the file.

Exit codes: 0 done, 1 failed, 2 usage or settings.

Begin with: wavehook demo
"""


def application() -> typer.Typer:
    """Assemble the commands."""
    app = typer.Typer(
        name="wavehook",
        cls=CommandGroup,
        help=HELP,
        no_args_is_help=True,
        add_completion=False,
        rich_markup_mode=None,
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    app.callback()(_root)
    _add(app, demo, serve, worker, drain)
    register(app, submit_settings)
    _add(app, reconcile, events, show, redeliver)
    app.add_typer(inbox.dead_commands, name="dead")
    _add(app, purge, migrate, check, secret)
    return app


def _add(app: typer.Typer, *commands: Callable[..., None]) -> None:
    for command in commands:
        app.command()(command)


def submit_settings() -> SubmitSettings:
    """Read the settings for the submitter's commands.

    Raises:
        SettingsError: with every fault.
    """
    return Flags().settings().for_submit()


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"wavehook {version('wavehook')}")
        raise typer.Exit


def _root(
    *,
    _: Annotated[
        bool,
        typer.Option(
            "--version", is_eager=True, callback=_print_version, help="Print the version."
        ),
    ] = False,
) -> None:
    """Carries the flags that stand before a command."""
