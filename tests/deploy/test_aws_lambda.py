"""`deploy/aws-lambda`, through the real runtime interface client."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from tests.deploy.functions import PATH, Target, bearer, body, headers
from tests.deploy.lambda_events import SHAPES, event, function_url
from tests.deploy.lambda_runtime import Function, function
from tests.support.paths import ROOT

FOLDER = ROOT / "deploy" / "aws-lambda"


@pytest.fixture
def receiver(target: Target, tmp_path: Path) -> Iterator[Function]:
    """The function that takes requests in."""
    with running("handler.receive", target, tmp_path / "log") as found:
        yield found


def running(handler: str, target: Target, log: Path, **changes: str) -> Any:
    environ = {**target.environ, "PYTHONPATH": f"{target.folder}:{ROOT}", **changes}
    return function(handler, FOLDER, environ, log)


def test_a_signed_webhook_in_every_shape(receiver: Function, target: Target) -> None:
    """What stands before the function, and how it encodes a body, changes nothing."""
    tasks = []
    for shape in SHAPES:
        for encoded in (False, True):
            task = f"{shape.__name__}-{encoded}"
            tasks.append(task)
            sent, forged = body(task), body(f"forged-{task}")

            def status(headers: dict[str, str], content: bytes) -> int:
                made = event(shape, PATH, headers, content, encoded=encoded)  # noqa: B023 - at once
                found: int = receiver.invoke(made)["statusCode"]
                return found

            assert status(headers(sent), sent) == 202, task
            assert status(headers(sent), sent) == 200, task
            assert status(headers(forged, secret="whsec_other"), forged) == 401, task
            assert status(headers(sent), forged) == 401, task

    assert target.handled == tasks
    for task in tasks:
        # Byte for byte, as it was signed.
        found = asyncio.run(target.event(task))
        assert found is not None
        assert found.body == body(task)
    # F12: what is no text comes in base64, and is kept for a person.
    sent = b"\xff\x00\xfe"
    answer = receiver.invoke(event(function_url, PATH, headers(sent), sent, encoded=True))
    assert answer["statusCode"] == 202


def test_a_token_in_the_path(receiver: Function, target: Target) -> None:
    """F33: the context comes with it, the ledger knows before the answer; another one is 401."""
    for shape in SHAPES:
        task = shape.__name__
        asyncio.run(target.submitted(task, task))
        path = f"{PATH}/{target.token({'user': 'é'}, task)}"

        answer = receiver.invoke(event(shape, path, headers(body(task)), body(task)))
        moved = receiver.invoke(event(shape, path, headers(body("two")), body("two")))

        assert (answer["statusCode"], moved["statusCode"]) == (202, 401), task
        id = f"wavespeed:{task}:completed"
        assert json.loads(answer["body"]) == {"id": id, "duplicate": False}
        assert asyncio.run(target.status(task)) == "completed"
        found = asyncio.run(target.event(task))
        assert found is not None
        assert found.context == {"user": "é"}


def test_frozen_between_two_events(receiver: Function, target: Target) -> None:
    """F41: the connections that were cut meanwhile cost no delivery."""
    statuses = []
    for number in range(3):
        sent = body(f"task-{number}")
        answer = receiver.invoke(event(function_url, PATH, headers(sent), sent))
        statuses.append(answer["statusCode"])
        receiver.freeze()
        assert asyncio.run(target.server.cut()) > 0
        receiver.thaw()

    assert statuses == [202] * 3
    assert target.handled == [f"task-{number}" for number in range(3)]


def test_the_schedule(target: Target, tmp_path: Path) -> None:
    """What a receiver has left is done by the other function, which ends before its own limit."""
    with running(
        "handler.receive", target, tmp_path / "log", WAVEHOOK_DISPATCH="external"
    ) as receiver:
        receiver.invoke(event(function_url, PATH, headers(body()), body()))
        assert target.handled == []
        by_url = event(function_url, "/api/drain", bearer(), method="GET")
        assert json.loads(receiver.invoke(by_url)["body"])["ran"] == 1
        receiver.invoke(event(function_url, PATH, headers(body("two")), body("two")))
    with running("handler.drain", target, tmp_path / "drain.log") as drain:
        assert drain.invoke({}) == {"ran": 1, "reconciled": 0, "more": False}
        assert drain.invoke({}) == {"ran": 0, "reconciled": 0, "more": False}

    assert target.handled == ["task-1", "two"]


def test_sqlite_is_refused(target: Target, tmp_path: Path) -> None:
    """F15: senders keep their events, and the function's log says what to set."""
    changes = {"WAVEHOOK_DATABASE": "sqlite:////tmp/inbox.db"}
    with running("handler.receive", target, tmp_path / "log", **changes) as receiver:
        answer = receiver.invoke(event(function_url, PATH, headers(body()), body()))

        assert answer["statusCode"] == 503
        assert "does not last on AWS Lambda" in receiver.log


def test_the_template() -> None:
    """It is valid, and names what there is."""
    path = FOLDER / "template.yaml"
    done = subprocess.run(
        [
            Path(sys.executable).parent / "cfn-lint",
            "--non-zero-exit-code",
            "informational",
            "--",
            str(path),
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout) == (0, "")
    template = YAML().load(path.read_text())
    handlers = [each["Properties"]["Handler"] for each in template["Resources"].values()]
    assert handlers == ["handler.receive", "handler.drain"]
