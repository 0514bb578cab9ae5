"""Local files in inputs: found, checked before anything is sent, replaced by their URLs."""

from __future__ import annotations

import hashlib
import os
import struct
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from submitter.catalogue import builtin, check
from submitter.simulator.media import mp4
from submitter.submit import files
from submitter.submit.files import PreparedInput, file_type, pixels, prepare
from tests.support.pictures import png

KLING = builtin("kwaivgi/kling-v2.1-i2v-standard") or {}
FRAMES = builtin("kwaivgi/kling-v2.1-i2v-pro/start-end-frame") or {}
URL = "https://example.com/a.png"
PNG = png()


def jpeg(width: int, height: int) -> bytes:
    """As much of a JPEG as says how large it is."""
    app = b"\xff\xe0" + struct.pack(">H", 16) + b"JFIF\x00\x01\x01\x00\x00\x01\x00\x01\x00\x00"
    frame = b"\xff\xc0" + struct.pack(">HBHHB", 17, 8, height, width, 3) + bytes(9)
    return b"\xff\xd8" + app + frame + b"\xff\xd9"


def faults(prepared: PreparedInput) -> dict[str, str]:
    return {fault.path: fault.message for fault in prepared.faults}


def refusal(image: object, schema: Any = None) -> str:
    """What is wrong with one image; the rest of its input has no fault of its own."""
    found = prepare({"prompt": "waves", "image": image}, KLING if schema is None else schema)
    assert found.files == ()
    assert check(KLING, found.input) == []
    return faults(found)["image"]


def test_urls_stay_as_they_are() -> None:
    """What is a URL is nobody's local file."""
    for url in (URL, "HTTP://127.0.0.1:9/a"):
        input = {"prompt": "first.png", "image": url}
        found = prepare(input, KLING)
        assert (found.input, found.files, found.faults) == (input, (), ())
        assert found.filled({}) == input


@pytest.mark.parametrize("form", [str, Path, Path.read_bytes], ids=["text", "path", "bytes"])
def test_a_local_file_becomes_a_url(tmp_path: Path, form: Any) -> None:
    """A text, a path and bytes all work; what is sent is the URL of the upload."""
    file = tmp_path / "private name.jpeg"
    file.write_bytes(PNG)
    found = prepare({"prompt": "waves", "image": form(file)}, KLING)
    [upload] = found.files
    digest = hashlib.sha256(PNG).hexdigest()
    assert (upload.path, upload.data, upload.digest) == ("image", PNG, digest)
    assert (upload.filename, upload.content_type) == (f"{digest[:16]}.png", "image/png")
    assert found.faults == ()
    assert check(KLING, found.input) == []
    assert found.filled({digest: URL}) == {"prompt": "waves", "image": URL}


def test_a_relative_path_is_the_working_folders(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The example of the documents: image="first.png"."""
    monkeypatch.chdir(tmp_path)
    Path("first.png").write_bytes(PNG)
    assert len(prepare({"prompt": "p", "image": "first.png"}, KLING).files) == 1


def test_nothing_private_is_shown(tmp_path: Path) -> None:
    """F16: neither content nor input nor the file's name is in a repr, a fault or the upload."""
    file = tmp_path / "SECRET.png"
    file.write_bytes(PNG)
    found = prepare({"prompt": "SECRET", "image": file}, KLING)
    refused = prepare({"image": tmp_path / "SECRET.jpeg"}, KLING)
    shown = repr((found, found.files[0].filename, refused))
    assert "SECRET" not in shown
    assert "PNG" not in shown


def test_one_content_is_one_upload(tmp_path: Path) -> None:
    """The same picture in two fields is sent once."""
    file = tmp_path / "a.png"
    file.write_bytes(PNG)
    found = prepare({"prompt": "p", "image": file, "end_image": PNG}, FRAMES)
    assert [upload.path for upload in found.files] == ["image"]
    assert found.filled({found.files[0].digest: URL}) == {
        "prompt": "p",
        "image": URL,
        "end_image": URL,
    }


def test_the_same_content_is_the_same_input() -> None:
    """What stands for a file depends on its content alone, so that inputs can be compared."""
    one, other = (prepare({"image": data}, KLING).input for data in (PNG, bytes(bytearray(PNG))))
    assert one == other
    assert one != prepare({"image": png(304)}, KLING).input


def test_a_missing_url_is_an_error() -> None:
    """An input is never sent with a placeholder in it."""
    with pytest.raises(KeyError):
        prepare({"image": PNG}, KLING).filled({})


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"", "is empty"),
        (b"hello", "must be JPEG or PNG, is of an unknown type by its content"),
        (b"GIF89a" + bytes(20), "must be JPEG or PNG, is GIF by its content"),
        (mp4(), "must be JPEG or PNG, is MP4 by its content"),
        (png(299), "must have at least 300 x 300 pixels, has 299 x 299"),
        (jpeg(1000, 200), "must have at least 300 x 300 pixels, has 1000 x 200"),
        (PNG[:20], "is damaged: a PNG whose size cannot be read"),
        (b"\xff\xd8\xff" + bytes(50), "is damaged: a JPEG whose size cannot be read"),
        (PNG + bytes(10485760), "must have at most 10485760 bytes, has 104"),
    ],
    ids=range(9),
)
def test_a_first_frame_that_the_api_would_refuse(tmp_path: Path, data: bytes, said: str) -> None:
    """Format by content, size and dimensions are checked before anything is paid for."""
    file = tmp_path / "first.png"
    file.write_bytes(data)
    for image in (data, file, str(file)):
        assert refusal(image).startswith(said)


def test_a_first_frame_at_the_limits() -> None:
    """What the vendor documents as allowed passes."""
    whole = PNG + bytes(10485760 - len(PNG))
    for data in (png(300), jpeg(300, 4000), whole):
        assert prepare({"image": data}, KLING).faults == ()


@pytest.mark.parametrize(
    ("image", "said"),
    [
        ("missing.png", "is not an http(s) URL, and cannot be read as a local file: No such file"),
        ("~/first.png", "local file; `~` is not expanded: No such file"),
        ("a\0b", "not a valid file name"),
        ("a" * 5000, "cannot be read as a local file: File name too long"),
        ("", "is empty; give an http(s) URL or a local file"),
        (".", "must be a file, is a folder"),
        (Path("missing.png"), "cannot be read: No such file"),
        (Path(), "must be a file, is a folder"),
        ("DATA:image/png;base64,AAAA", "does not document data: URIs"),
        ("file:///first.png", "must be an http(s) URL or a local file"),
        ("s3://bucket/first.png", "must be an http(s) URL or a local file"),
        (Path("/dev/zero"), "must be a regular file"),
    ],
    ids=range(12),
)
def test_what_is_no_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, image: object, said: str
) -> None:
    """A path that cannot be read is a fault in words, without the path."""
    monkeypatch.chdir(tmp_path)
    assert said in refusal(image)


def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    """Neither a pipe, nor one that takes the file's place after the look at it."""
    pipe = tmp_path / "a.png"
    os.mkfifo(pipe)
    assert "pipe" in refusal(pipe)
    with open(pipe, "rb", opener=files._open) as file:
        assert file.read(1) == b""


def test_a_huge_file_is_not_read(tmp_path: Path) -> None:
    """F8: the size is looked at first."""
    file = tmp_path / "a.png"
    with file.open("wb") as sparse:
        sparse.truncate(2**40)
    assert "has 1099511627776" in refusal(file)
    assert "at most 209715200 bytes" in faults(prepare({"image": file}, {}))["image"]


def test_all_files_together_are_bounded() -> None:
    """F8: memory has a limit, however many files an input names."""
    images = [b"a" * 10, b"b" * 10, b"a" * 10, b"c" * 10]
    found = prepare({"images": images}, {}, max_total_bytes=25)
    assert len(found.files) == 2
    assert list(faults(found)) == ["images[3]"]


def test_all_faults_at_once() -> None:
    """Every file is looked at, and each fault has its path."""
    found = prepare({"prompt": "p", "image": b"x", "end_image": "missing.png"}, FRAMES)
    assert list(faults(found)) == ["image", "end_image"]


@pytest.mark.parametrize(
    ("value", "said"), [(5, "type string"), (None, "type string"), ([PNG], "is an array")]
)
def test_other_types_are_the_schemas_business(value: object, said: str) -> None:
    """What is no file at all is left for the check of the input."""
    found = prepare({"prompt": "p", "image": value}, KLING)
    assert said in {fault.path: fault.message for fault in check(KLING, found.input)}["image"]


def test_bytes_in_a_text_field_are_refused() -> None:
    """A prompt from a file is not uploaded."""
    assert "takes no file" in faults(prepare({"prompt": b"waves", "image": URL}, KLING))["prompt"]


def test_an_input_that_is_no_json_is_not_walked() -> None:
    """F11: what holds itself, or has names that are no text, is left for the check."""
    knot: list[object] = []
    knot.extend([knot, knot])
    for input in ({"image": knot}, {"image": {1: b"x"}}):
        assert prepare(input, KLING).files == ()
        assert check({}, prepare(input, KLING).input)


FILE = "is not an http(s) URL, and cannot be read"


@pytest.mark.parametrize(
    ("name", "schema", "takes"),
    [
        ("image", {"type": "string"}, True),
        ("last_image_url", {"type": "string"}, True),
        ("reference_images", {"type": "array", "items": {"type": "string"}}, True),
        ("video", {"type": ["string", "null"]}, True),
        ("audio", {"anyOf": [{"type": "string"}, {"type": "null"}]}, True),
        ("mask", {"type": "string", "format": "uri"}, True),
        ("masks", {"type": "array", "items": {"type": "string", "format": "url"}}, True),
        ("data", {"type": "string", "x-ui-component": "uploader"}, True),
        ("image", {"type": "string", "x-media": {"formats": "png", "max_bytes": "x"}}, True),
        ("image", 5, True),
        ("image_size", {"type": "string"}, False),
        ("image", {"type": "string", "enum": ["first", "last"]}, False),
        ("generate_audio", {"type": "boolean"}, False),
        ("image", {"type": [{}]}, False),
        ("prompt", {"type": "string"}, False),
    ],
    ids=range(15),
)
def test_which_fields_of_live_models_take_files(name: str, schema: Any, takes: bool) -> None:
    """A live schema says it by format, hint or name, and whatever it says does no harm."""
    many = isinstance(schema, dict) and schema.get("type") == "array"
    found = prepare({name: ["missing.x"] if many else "missing.x"}, {"properties": {name: schema}})
    assert [FILE in message for message in faults(found).values()] == [True] * takes
    assert files.takes_files(name, schema) is takes


def test_files_deep_inside() -> None:
    """Objects and arrays are looked into, with or without a schema."""
    schema: dict[str, Any] = {
        "properties": {
            "loras": {"items": {"properties": {"path": {"type": "string", "format": "uri"}}}}
        }
    }
    input = {"loras": [{"path": b"PK\x03\x04", "scale": 1}], "a": {"image": PNG}, "b": "x"}
    for known in (schema, {}):
        found = prepare(input, known)
        assert [file.path for file in found.files] == ["loras[0].path", "a.image"]
        assert [file.content_type for file in found.files] == ["application/zip", "image/png"]
        urls = {file.digest: f"{URL}?{i}" for i, file in enumerate(found.files)}
        assert found.filled(urls) == {
            "loras": [{"path": f"{URL}?0", "scale": 1}],
            "a": {"image": f"{URL}?1"},
            "b": "x",
        }


@pytest.mark.parametrize(
    ("data", "content_type"),
    [
        (b"\xff\xd8\xff\xe0", "image/jpeg"),
        (b"RIFF\0\0\0\0WEBPVP8 ", "image/webp"),
        (b"RIFF\0\0\0\0WAVEfmt ", "audio/wav"),
        (b"RIFF\0\0\0\0what", "application/octet-stream"),
        (b"\0\0\0\x18ftypavif", "image/avif"),
        (b"\0\0\0\x18ftypqt  ", "video/quicktime"),
        (b"\0\0\0\x18ftypisom", "video/mp4"),
        (b"ID3\x04", "audio/mpeg"),
        (b"\x1aE\xdf\xa3", "video/webm"),
        (b"x", "application/octet-stream"),
    ],
    ids=range(10),
)
def test_content_types(data: bytes, content_type: str) -> None:
    """A file of a live model is sent as what its content says."""
    [file] = prepare({"anything": data}, {}).files
    assert file.content_type == content_type
    assert file.filename.endswith(file_type(data).name)


@given(
    st.sampled_from([b"", b"\xff\xd8\xff", PNG[:16], PNG[:8], jpeg(9, 9)[:25]]),
    st.binary(max_size=300)
    | st.lists(st.sampled_from([b"\xff\xe1\0\x10", b"\xff", b"Exif\0\0MM\0*"])),
)
def test_any_bytes_are_looked_at(start: bytes, rest: bytes | list[bytes]) -> None:
    """F11: no content makes the look at a picture raise, or gives a size that is none."""
    data = start + (rest if isinstance(rest, bytes) else b"".join(rest))
    size = pixels(data)
    assert size is None or min(size) > 0
    found = prepare({"prompt": "p", "image": data}, KLING)
    assert len(found.files) + len(found.faults) == 1
