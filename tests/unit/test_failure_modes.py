"""Failure modes: the table in tests/README.md and the docstrings of the tests say the same."""

from __future__ import annotations

from tests.support import failure_modes

PAGE = failure_modes.PAGE.read_text("utf-8")


def test_the_table_names_the_tests_of_each_failure_mode() -> None:
    """Every test in a row exists and names the row; every test that names the row is in it."""
    assert failure_modes.renewed(PAGE) == PAGE, "renew it: python -m tests.support.failure_modes"


def test_every_failure_mode_that_a_test_names_has_a_row() -> None:
    """The rows are numbered without a gap; no docstring names a number that has no row."""
    codes = [code for code, _, _ in failure_modes.rows(PAGE)]
    assert codes == [f"F{number}" for number in range(1, len(codes) + 1)]
    assert set(failure_modes.named()) <= set(codes)


def test_the_first_forty_five_are_covered() -> None:
    """One of them has no test: it is about a dashboard, which does not exist yet."""
    tests = failure_modes.named()
    assert [n for n in range(1, 46) if not tests.get(f"F{n}")] == [37]
