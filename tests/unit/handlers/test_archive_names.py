"""Names of archived files: what a template gives, and that nothing leads out of the root."""

from __future__ import annotations

import re
from pathlib import Path, PurePosixPath, PureWindowsPath
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from receiver.event import Event
from receiver.handlers.archive.disk import Folder
from receiver.handlers.archive.names import EVENT_FIELDS, NameTemplate, OutputName, event_values
from submitter.prediction import JSON
from submitter.submit.files import UNKNOWN, FileType

NOW = 1_800_000_000.0
SHA256 = "ab" * 32
MP4 = FileType("mp4", "video/mp4")
DEVICES = {
    "CON",
    "PRN",
    "AUX",
    "NUL",
    *(f"{name}{n}" for name in ("COM", "LPT") for n in range(10)),
}


def name(template: str, index: int = 0, kind: FileType = MP4, **about: Any) -> str:
    """The name of one output of an event."""
    given = {"subject": "task-1", "model": "kwaivgi/kling-v2.1", "received_at": NOW, **about}
    event = Event("wavespeed:x:completed", "wavespeed", "prediction.completed", **given)
    parsed = NameTemplate.parse(template)
    values = {**event_values(parsed, event), "index": str(index)}
    return OutputName(parsed, values).final(kind, SHA256)


def test_the_usual_name() -> None:
    """The day of the event, its task, the number of the output, and its kind."""
    assert name("{date}/{task}/{index}{ext}") == "2027-01-15/task-1/0.mp4"
    assert name("{date}/{task}/{index}{ext}", 3, occurred_at=NOW + 86400).startswith("2027-01-16/")


def test_every_field() -> None:
    """A model's own slashes are folders; a context's keys are joined by dots."""
    context: JSON = {"user": {"id": 7}, "job": "a-1"}
    text = "{source}/{model}/{context.user.id}-{context.job}/{sha256}{ext}"
    assert name(text, context=context) == f"wavespeed/kwaivgi/kling-v2.1/7-a-1/{SHA256}.mp4"


@pytest.mark.parametrize("context", [None, [], "x", {"a": None}, {"a": True}, {"a": {}}, {"a": ""}])
def test_what_an_event_does_not_have_is_an_underscore(context: JSON) -> None:
    """A paid output is kept, whatever its context."""
    assert name("{context.a}/{task}/{index}", context=context) == "_/task-1/0"
    assert name("{model}/{task}/{index}", model=None, subject=None) == "_/_/0"


@pytest.mark.parametrize(
    ("task", "plain"),
    [
        ("../../etc/passwd", r".*_.._etc_passwd-[0-9a-f]{8}"),
        ("/etc/passwd", r"_etc_passwd-[0-9a-f]{8}"),
        ("C:\\Windows", r"C__Windows-[0-9a-f]{8}"),
        ("a\0b", r"a_b-[0-9a-f]{8}"),
        ("a\r\nb", r"a__b-[0-9a-f]{8}"),
        ("..", r"__"),
        (".", r"_"),
        (".hidden", r"_hidden"),
        ("trailing.", r"trailing_"),
        ("nul", r"_nul"),
        ("CoM1.tar", r"_CoM1\.tar"),
        ("\N{FULLWIDTH SOLIDUS}\N{TWO DOT LEADER}\N{RIGHT-TO-LEFT OVERRIDE}4pm", r"___4pm-.{8}"),
        ("\ud800", r"_-[0-9a-f]{8}"),
        ("x" * 5000, r"x{64}-[0-9a-f]{8}"),
        ("", r"_"),
    ],
)
def test_what_cannot_be_in_a_name_is_replaced(task: str, plain: str) -> None:
    """F36: paths, devices, hidden and overlong names, control and odd characters."""
    found = name("{task}/{index}", subject=task).removesuffix("/0")
    assert re.fullmatch(plain, found), found


def test_different_values_are_different_names() -> None:
    """F36: what was replaced or cut still tells one task from another."""
    tasks = ["a/b", "a_b", "a\\b", "x" * 64, "x" * 65, "x" * 66]
    assert len({name("{task}/{index}", subject=task) for task in tasks}) == len(tasks)


def test_a_device_is_one_with_an_ending_too() -> None:
    """F36: Windows opens the device for NUL.mp4 as well."""
    assert name("{task}{ext}/{index}", subject="NUL") == "_NUL.mp4/0"


def test_a_long_segment_keeps_its_ending() -> None:
    """F36: no file system takes it whole, and programs look at the ending."""
    found = name("{task}{task}{task}{task}{index}{ext}", subject="x" * 64)
    assert len(found) < 200
    assert found.endswith("x0.mp4")
    assert found != name("{task}{task}{task}{task}{index}{ext}", 1, subject="x" * 64)


@pytest.mark.parametrize(
    "template",
    [
        *["", "/a/{index}", "a//{index}", "../{index}", "a/./{index}", "a/../{index}", "{index}/"],
        *["a\\{index}", "C:{index}", "a\0{index}", "nul/{index}", "a./{index}", ".a/{index}"],
        *[
            "~#%{index}",
            "\N{LATIN SMALL LETTER U WITH DIAERESIS}{index}",
            "{{index}}",
            "a }{index}",
        ],
    ],
)
def test_templates_that_are_no_relative_paths(template: str) -> None:
    """F36: what the person writes must be a plain name too."""
    with pytest.raises(ValueError, match=r"^(a relative path|fields in braces)"):
        NameTemplate.parse(template)


@pytest.mark.parametrize(
    "template",
    [
        *["{", "{}", "{0}", "{job}", "{task!r}", "{task:>9}", "{task.x}", "{task[0]}", "{context}"],
        *["{context.}", "{context..a}", "{context.__class__[0]}", "{index", "{{}"],
    ],
)
def test_templates_with_fields_that_there_are_not(template: str) -> None:
    """The fault names those that there are."""
    with pytest.raises(ValueError, match="fields in braces, of date, task, model, source, index"):
        NameTemplate.parse(template)


def test_a_manifests_name_has_no_fields_of_files() -> None:
    """It is the same for all outputs."""
    with pytest.raises(ValueError, match=r"of date, task, model, source and context\.KEY"):
        NameTemplate.parse("{task}/{sha256}", EVENT_FIELDS)


@pytest.mark.parametrize("template", ["x" * 201, "{index}" * 9])
def test_templates_have_bounds(template: str) -> None:
    """F36: so have the names that come out."""
    with pytest.raises(ValueError, match="200 characters and 8 fields at most"):
        NameTemplate.parse(template)


def test_a_name_is_known_early_unless_it_takes_the_content() -> None:
    """What a bucket needs to know before the upload."""
    assert OutputName(NameTemplate.parse("{index}{ext}"), {"index": "0"}).early(MP4) == "0.mp4"
    assert OutputName(NameTemplate.parse("{sha256}"), {}).early(MP4) is None


TEXTS = st.text(max_size=300) | st.sampled_from(
    [
        "..",
        ".",
        "/",
        "\\",
        "../..",
        "con",
        "NUL.txt",
        " ",
        "a.",
        "~",
        "%2e%2e",
        ".wavehook",
        "a/../b",
    ]
)


@given(
    subject=TEXTS,
    model=TEXTS | st.none(),
    source=TEXTS,
    context=st.dictionaries(st.just("a"), TEXTS | st.integers() | st.floats() | st.booleans()),
    template=st.sampled_from(
        [
            "{task}",
            "{model}",
            "{context.a}",
            "{source}{task}{context.a}{index}{ext}",
            "{model}/{ext}",
        ]
    ),
)
def test_no_event_leads_out_of_the_root(
    subject: str, model: str | None, source: str, context: JSON, template: str
) -> None:
    """F36: every name is relative, plain, bounded, and no device, on every kind of system."""
    event = Event(
        "x", source, "prediction.completed", subject=subject, model=model, context=context
    )
    parsed = NameTemplate.parse(template)
    values = {**event_values(parsed, event), "index": "0"}
    found = OutputName(parsed, values).final(UNKNOWN, SHA256)
    assert len(found.encode()) < 1024
    assert not PurePosixPath(found).is_absolute()
    assert not PureWindowsPath(found).anchor
    for segment in found.split("/"):
        assert re.fullmatch(r"[A-Za-z0-9_-]|[A-Za-z0-9_-][A-Za-z0-9._-]*[A-Za-z0-9_-]", segment)
        assert len(segment) <= 200
        assert segment.partition(".")[0].upper() not in DEVICES


@settings(max_examples=30)
@given(subject=TEXTS)
def test_no_task_writes_outside(subject: str) -> None:
    """F36: on this machine's own disk, the file is below the root."""
    with TemporaryDirectory() as folder:
        root = Path(folder, "root")
        root.mkdir()
        written = name("{task}/{index}{ext}", subject=subject)
        Folder(root).write(written, b"x", durable=False)
        assert (root / written).resolve().is_relative_to(root.resolve())
        assert list(Path(folder).iterdir()) == [root]
