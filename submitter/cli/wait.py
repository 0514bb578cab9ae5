"""The command `wavehook wait`."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated

import typer

from submitter.cli.opening import run, tell
from submitter.cli.options import Timeout
from submitter.cli.predictions import fields, show
from submitter.errors import SubmitterError
from submitter.printing import json_line, plain
from submitter.settings import SubmitSettings

if TYPE_CHECKING:
    from submitter.client import WaveSpeed


def wait_command(settings: Callable[[], SubmitSettings]) -> Callable[..., None]:
    """Make the command.

    Args:
        settings: gives the settings when the command runs; raises BadSettings for exit code 2.
    """

    def wait(
        ids: Annotated[
            list[str],
            typer.Argument(
                help="Ids of tasks, or keys of submissions.", metavar="ID...", show_default=False
            ),
        ],
        *,
        timeout: Timeout = None,
        as_json: Annotated[
            bool,
            typer.Option(
                "--json",
                help="One JSON object a line, in the order of ending: `given` (the ID) and the "
                "fields of `wavehook result`.",
            ),
        ] = False,
    ) -> None:
        """Wait until tasks have ended, and print each as it ends.

        A receiver that shares the database, or is reached with WAVEHOOK_ADMIN_TOKEN, tells of
        them; the API itself is asked rarely. Whoever stops waiting loses nothing.

        Example: wavehook wait 7f3c1d0e9a5b4c2d8e6f0a1b2c3d4e5f --timeout 10m

        Exit codes: 0 all ended well, 1 one ended badly, or not in time, 2 usage or settings,
        130 Ctrl-C, 143 SIGTERM.
        """

        async def one(wave: WaveSpeed, id: str) -> bool:
            try:
                prediction = await wave.wait(id, timeout=timeout)
            except SubmitterError as error:
                tell(error, about=plain(id))
                return False
            if as_json:
                json_line({"given": id, **fields(prediction)})
            else:
                show(prediction, name=id)
            return prediction.succeeded

        async def work(given: SubmitSettings) -> bool:
            from submitter.client import WaveSpeed

            async with WaveSpeed(settings=given) as wave:
                waits = [one(wave, id) for id in dict.fromkeys(ids)]
                return all(await asyncio.gather(*waits))

        if not run(
            settings, work, interrupted="Interrupted. The tasks go on; wait for them again."
        ):
            raise typer.Exit(1)

    return wait
