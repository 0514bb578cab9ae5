"""How a demo is shown: a live table on a terminal, lines elsewhere."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import TracebackType
from typing import Protocol, Self

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from receiver.demo.story import Ledger, Summary

NOTES = 4
"""Lines of the story under the table."""

HANDLED = "handled"

Statuses = Mapping[str, str]
"""What the API says of the tasks, by id."""


class View(Protocol):
    """Shows a demo while it runs."""

    def __enter__(self) -> Self: ...

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None: ...

    def show(self, ledger: Ledger, statuses: Statuses) -> None:
        """Show how it stands."""
        ...


class Silent:
    """Shows nothing: for programs."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        """Nothing to end."""

    def show(self, ledger: Ledger, statuses: Statuses) -> None:
        """See `View.show`."""


class Lines(Silent):
    """Prints the story line by line: for pipes and logs.

    Args:
        echo: prints a line.
    """

    def __init__(self, echo: Callable[[str], None]) -> None:
        self._echo = echo
        self._told = 0

    def show(self, ledger: Ledger, statuses: Statuses) -> None:  # noqa: ARG002
        """See `View.show`."""
        for note in ledger.notes[self._told :]:
            self._echo(note)
        self._told = len(ledger.notes)


class LiveTable:
    """Redraws a table in place.

    Args:
        console: of the terminal.
    """

    def __init__(self, console: Console) -> None:
        self._live = Live(console=console, auto_refresh=False)

    def __enter__(self) -> Self:
        self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._live.stop()

    def show(self, ledger: Ledger, statuses: Statuses) -> None:
        """See `View.show`."""
        self._live.update(picture(ledger, statuses), refresh=True)


def picture(ledger: Ledger, statuses: Statuses) -> RenderableType:
    """The table, the progress, and the end of the story."""
    table = Table("task", "id", "status", "webhook", "attempts", HANDLED, box=None, pad_edge=False)
    for row in ledger.rows:
        table.add_row(
            str(row.number),
            row.task_id[:8],
            statuses.get(row.task_id, "-"),
            _webhook(row.webhooks),
            str(row.attempts or "-"),
            Text("yes", "green") if row.handled else Text("-"),
        )
    done = sum(row.handled for row in ledger.rows)
    progress = Table.grid(padding=(0, 1))
    progress.add_row(
        ProgressBar(total=ledger.total, completed=done, width=40), f"{done}/{ledger.total} handled"
    )
    for name, outcomes in ledger.guests.items():
        progress.add_row(name, _counted(outcomes))
    story = Text("\n".join(ledger.notes[-NOTES:]), "dim")
    return Group(table, "", progress, "", story)


def _webhook(count: int) -> str:
    if count < 2:
        return "verified" if count else "-"
    return f"verified, {count - 1} more dropped"


def _counted(states: Mapping[str, int]) -> str:
    """Such as `9 done, 1 dead`."""
    return ", ".join(f"{count} {state}" for state, count in states.items()) or "none yet"


def closing(summary: Summary) -> str:
    """The summary for a person."""
    word = "all, exactly once" if summary.exactly_once else "NOT all exactly once"
    lines = [
        f"submitted           {summary.submitted}",
        f"verified            {summary.verified}",
        f"duplicates dropped  {summary.duplicates_dropped}",
        f"forgeries refused   {summary.forgeries_refused}",
        f"retried             {summary.retried}",
        f"handled             {summary.handled}  ({word}, {summary.seconds:.1f} s)",
        *(f"{name:<18}  {_counted(states)}" for name, states in summary.handlers.items()),
    ]
    if summary.database:
        flag = f"--database sqlite:///{summary.database}"
        if summary.schema:
            flag = f"--database-schema {summary.schema}"
        lines += [
            "",
            "The inbox is kept. Look into it:",
            f"  wavehook events {flag}",
            f"  wavehook events {flag} --json",
            f"  wavehook show EVENT_ID {flag}",
        ]
    return "\n".join(lines)
