"""The command line as data: its commands and their flags."""

from __future__ import annotations

from typing import Any

from typer.main import get_command

from receiver.cli.application import application


def tree(program: Any, path: str = "") -> dict[str, Any]:
    """Every command that does something, by its words."""
    below = getattr(program, "commands", None)
    if below is None:
        return {path: program}
    return {
        name: leaf
        for word, each in below.items()
        for name, leaf in tree(each, f"{path} {word}".strip()).items()
    }


COMMANDS = tree(get_command(application()))


def flags(program: Any) -> set[str]:
    """All that a command takes, in every spelling."""
    every = {flag for each in program.params for flag in (*each.opts, *each.secondary_opts)}
    return every | {"-h", "--help"}


def check(words: list[str]) -> None:
    """That these words after `wavehook` are a command, with flags that it has."""
    name = " ".join(words[:2]) if words[0] == "dead" else words[0]
    assert name in COMMANDS, f"wavehook {' '.join(words)}"
    used = {word.partition("=")[0] for word in words if word.startswith("-") and word != "-"}
    assert used <= flags(COMMANDS[name]), f"wavehook {' '.join(words)}"
