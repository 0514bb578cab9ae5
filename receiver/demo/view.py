"""Views of a demo: a live table on a terminal, lines elsewhere, and the summary at the end."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Self

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from receiver.demo.story import DemoLog, DemoSummary

MAX_NOTES = 4
"""Lines of the story under the table."""

Statuses = Mapping[str, str]
"""The API's status of each task, by id."""


class View:
    """View of a running demo; this one shows nothing, for `--json`."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        """End the view."""

    def show(self, log: DemoLog, statuses: Statuses) -> None:
        """Show the present state."""


class Lines(View):
    """Prints each note once, for pipes and log files.

    Args:
        echo: prints a line.
    """

    def __init__(self, echo: Callable[[str], None]) -> None:
        self._echo = echo
        self._printed = 0

    def show(self, log: DemoLog, statuses: Statuses) -> None:  # noqa: ARG002
        """Print the new notes."""
        for note in log.notes[self._printed :]:
            self._echo(note)
        self._printed = len(log.notes)


class LiveTable(View):
    """Table that is redrawn in place.

    Args:
        console: the terminal.
    """

    def __init__(self, console: Console) -> None:
        self._live = Live(console=console, auto_refresh=False)

    def __enter__(self) -> Self:
        self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._live.stop()

    def show(self, log: DemoLog, statuses: Statuses) -> None:
        """Redraw the table."""
        self._live.update(picture(log, statuses), refresh=True)


def picture(log: DemoLog, statuses: Statuses) -> RenderableType:
    """The table of tasks, the progress bar, and the last notes."""
    table = Table(
        "task", "id", "status", "webhook", "attempts", "handled", box=None, pad_edge=False
    )
    for row in log.rows:
        table.add_row(
            str(row.number),
            row.task_id[:8],
            statuses.get(row.task_id, "-"),
            _webhook(row.webhooks),
            str(row.attempts or "-"),
            Text("yes", "green") if row.handled else Text("-"),
        )
    done = sum(row.handled for row in log.rows)
    progress = Table.grid(padding=(0, 1))
    progress.add_row(
        ProgressBar(total=log.total, completed=done, width=40), f"{done}/{log.total} handled"
    )
    for name, outcomes in log.user_handlers.items():
        progress.add_row(name, _counted(outcomes))
    return Group(table, "", progress, "", Text("\n".join(log.notes[-MAX_NOTES:]), "dim"))


def _webhook(count: int) -> str:
    if count < 2:
        return "verified" if count else "-"
    return f"verified, {count - 1} more dropped"


def _counted(states: Mapping[str, int]) -> str:
    """Number of dispatches by state, such as `9 done, 1 dead`."""
    return ", ".join(f"{count} {state}" for state, count in states.items()) or "none yet"


def summary_text(summary: DemoSummary) -> str:
    """The summary for a person."""
    verdict = "each exactly once" if summary.exactly_once else "NOT each exactly once"
    lines = [
        f"{summary.submitted:>3} tasks submitted",
        f"{summary.verified:>3} webhooks received with a valid signature",
        f"{summary.duplicates_dropped:>3} of these dropped as duplicates",
        f"{summary.forgeries_refused:>3} forged webhook refused",
        f"{summary.retried:>3} handler attempts failed or killed, then retried",
        f"{summary.handled:>3} tasks handled ({verdict}, in {summary.seconds:.1f} s)",
        *(f"    {name}: {_counted(states)}" for name, states in summary.handlers.items()),
    ]
    if summary.database:
        flag = f"--database sqlite:///{summary.database}"
        if summary.schema:
            flag = f"--database-schema {summary.schema}"
        lines += [
            "",
            "The inbox is kept. To look into it:",
            f"  wavehook events {flag}",
            f"  wavehook events {flag} --json",
            f"  wavehook show EVENT_ID {flag}",
        ]
    return "\n".join(lines)
