"""Durations, rates and sizes as a person writes them."""

from __future__ import annotations

import pytest

from submitter.units import per_second, seconds, size


@pytest.mark.parametrize(
    ("value", "number"),
    [
        *[("500ms", 0.5), ("30s", 30), ("2m", 120), ("1h", 3600), ("7d", 604800)],
        *[("1.5 h", 5400), ("10", 10), (" 3s ", 3), (0, 0), (2, 2), (0.25, 0.25)],
    ],
)
def test_durations(value: object, number: float) -> None:
    """Units, plain numbers and fractions."""
    assert seconds(value) == number


@pytest.mark.parametrize(
    "value",
    [
        *["", "s", "-1s", "1 week", "1s2", "٣s", "1e3s", "9" * 400],
        *[None, True, [], -1, 10**400, float("nan"), float("inf")],
    ],
)
def test_what_is_no_duration(value: object) -> None:
    """The error says what was expected."""
    with pytest.raises(ValueError, match=r"^a duration such as 500ms, 30s"):
        seconds(value)


@pytest.mark.parametrize(
    ("value", "number"),
    [("1/s", 1), ("30/m", 0.5), ("3600/h", 1), ("0.5 / s", 0.5), (2, 2), (0.1, 0.1)],
)
def test_rates(value: object, number: float) -> None:
    """So many a second, minute or hour, or a number a second."""
    assert per_second(value) == number


@pytest.mark.parametrize(
    "value", ["", "1", "1/", "/s", "1/d", "0/s", "-1/s", 0, -1, None, True, float("nan"), 10**400]
)
def test_what_is_no_rate(value: object) -> None:
    """The error says what was expected."""
    with pytest.raises(ValueError, match=r"^a rate such as 1/s, 30/m"):
        per_second(value)


@pytest.mark.parametrize(
    ("value", "number"),
    [
        *[("512KiB", 524288), (" 1 MiB ", 1048576), ("1.5kb", 1500), ("2GB", 2 * 10**9)],
        *[("1GiB", 2**30), ("7", 7), ("7b", 7), (0, 0), (9, 9)],
    ],
)
def test_sizes(value: object, number: int) -> None:
    """Units of 1000 and of 1024 in any case, plain numbers and fractions."""
    assert size(value) == number


@pytest.mark.parametrize("value", ["", "MB", "-1", "1TB", "1e3", -1, 1.5, None, True])
def test_what_is_no_size(value: object) -> None:
    """The error says what was expected."""
    with pytest.raises(ValueError, match=r"^a size such as 512KiB"):
        size(value)
