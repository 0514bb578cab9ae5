"""Prediction: read leniently, nothing lost."""

from __future__ import annotations

import base64
import json
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from submitter.prediction import JSON, Prediction, Status, TaskFailed
from tests.support.paths import VALID_SIGNATURES

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)

FIELDS = [
    "model",
    "outputs",
    "error",
    "code",
    "has_nsfw_contents",
    "created_at",
    "executionTime",
    "urls",
    "timings",
    "input",
    "inputs",
]

near_predictions = st.fixed_dictionaries(
    {"id": st.text(min_size=1), "status": st.sampled_from([*Status, "surprising"])},
    optional=dict.fromkeys(FIELDS, json_values),
)


def parse(**fields: Any) -> Prediction:
    prediction = Prediction.parse({"id": "t1", "status": "completed", **fields})
    assert prediction is not None
    return prediction


@given(json_values)
def test_any_json_is_a_prediction_or_none(data: JSON) -> None:
    """F11: no JSON value makes parsing raise."""
    prediction = Prediction.parse(data)
    assert (prediction is None) or (isinstance(data, dict) and prediction.raw is data)


@given(near_predictions)
def test_fields_of_any_type_keep_id_and_status(data: dict[str, JSON]) -> None:
    """F11: with an id and a status it is a prediction, whatever the other fields hold."""
    prediction = Prediction.parse(data)
    assert prediction is not None
    assert (prediction.id, prediction.status) == (data["id"], data["status"])
    assert all(isinstance(url, str) for url in prediction.outputs)


@pytest.mark.parametrize("vector", VALID_SIGNATURES, ids=lambda vector: str(vector["name"]))
def test_the_vectors_of_the_vendor_are_predictions_where_they_have_id_and_status(
    vector: dict[str, str],
) -> None:
    """A signed body with an id and a status is read as a prediction of them."""
    try:
        data = json.loads(base64.b64decode(vector["body_base64"]))
    except ValueError:
        data = None
    prediction = Prediction.parse(data)
    known = isinstance(data, dict) and data.get("id") and data.get("status")
    assert (prediction is not None) == bool(known)


@pytest.mark.parametrize(
    "data",
    [
        None,
        [],
        "x",
        1,
        {},
        {"id": "a"},
        {"id": "", "status": "x"},
        {"id": "a", "status": ""},
        {"id": 1, "status": "x"},
        {"id": "a", "status": None},
    ],
)
def test_without_id_and_status_there_is_no_prediction(data: JSON) -> None:
    """Only a text id and a text status make a prediction."""
    assert Prediction.parse(data) is None


def test_the_documented_shape() -> None:
    """Every documented field is read."""
    data: dict[str, JSON] = {
        "id": "t1",
        "status": "failed",
        "model": "kwaivgi/kling-v2.1-i2v-standard",
        "outputs": ["https://a/1.mp4", {"url": "https://a/2.mp4"}, {"url": 3}, None, ""],
        "urls": {"get": "https://api/result"},
        "has_nsfw_contents": [True, False, None],
        "created_at": "2026-03-01T09:12:48.239112031Z",
        "error": "image not reachable",
        "code": 1402,
        "timings": {"inference": 61234},
        "input": {"prompt": "x"},
    }
    prediction = Prediction.parse(data)
    assert prediction == Prediction(
        id="t1",
        status=Status.FAILED,
        model="kwaivgi/kling-v2.1-i2v-standard",
        outputs=("https://a/1.mp4", "https://a/2.mp4"),
        error="image not reachable",
        code=1402,
        has_nsfw_contents=(True, False, False),
        created_at=datetime(2026, 3, 1, 9, 12, 48, 239112, tzinfo=UTC),
        inference_ms=61234.0,
        result_url="https://api/result",
        input={"prompt": "x"},
        raw=data,
    )


def test_variants_of_the_samples() -> None:
    """`executionTime`, `inputs`, null flags and empty errors are read as what they mean."""
    prediction = parse(executionTime=1, inputs={"a": 1}, has_nsfw_contents=None, error="")
    assert prediction.inference_ms == 1.0
    assert prediction.input == {"a": 1}
    assert prediction.has_nsfw_contents == ()
    assert prediction.error is None


@pytest.mark.parametrize(
    "value", ["2026-03-01T09:12:48", "yesterday", 5, "2" * 65, "2026-03-01", None]
)
def test_a_time_without_zone_or_shape_is_absent(value: JSON) -> None:
    """A time that cannot be placed is left out, and the rest stays."""
    assert parse(created_at=value).created_at is None


@pytest.mark.parametrize("value", [True, 10**400, "12", None])
def test_a_duration_that_is_no_number_is_absent(value: JSON) -> None:
    """F11: an absurd number is left out, and nothing overflows."""
    assert parse(timings={"inference": value}).inference_ms is None


@pytest.mark.parametrize("status", ["cancelled", "timeout", "failed", "completed"])
def test_terminal_statuses(status: str) -> None:
    """All four endings are endings."""
    assert parse(status=status).terminal


@pytest.mark.parametrize("status", ["created", "pending", "processing", "deleted", "new one"])
def test_other_statuses_are_kept_and_open(status: str) -> None:
    """An unknown status is kept as it is, and is not an ending."""
    prediction = parse(status=status)
    assert prediction.status == status
    assert not prediction.terminal


def test_repr_holds_no_prompt() -> None:
    """F16: neither prompt, error text nor outputs are in the repr."""
    shown = repr(parse(input={"prompt": "SECRET"}, error="SECRET", outputs=["https://SECRET"]))
    assert "SECRET" not in shown


def test_a_task_that_ended_well_or_not_yet_is_itself() -> None:
    """Only a bad end is raised; whoever asks early gets what there is."""
    for status in ("completed", "created", "processing", "deleted", "new one"):
        prediction = parse(status=status)
        assert prediction.raise_for_status() is prediction
        assert prediction.succeeded == (status == "completed")


@pytest.mark.parametrize("status", ["failed", "cancelled", "timeout"])
def test_a_task_that_ended_badly_is_raised(status: str) -> None:
    """F16: the error carries the prediction, and shows its code and none of its words."""
    prediction = parse(status=status, code=1200, error="SECRET")
    assert not prediction.succeeded
    with pytest.raises(TaskFailed, match="1200: content moderation") as caught:
        prediction.raise_for_status()
    assert caught.value.prediction is prediction
    assert "SECRET" not in f"{caught.value} {caught.value!r}"


@pytest.mark.parametrize("code", [True, "1200", 1200.0, 10**400, None])
def test_a_code_that_is_none_is_absent(code: JSON) -> None:
    """F11: a code is an integer of a size that can be stored and shown."""
    assert parse(code=code).code is None


def test_a_prediction_is_rebuilt_from_what_was_stored() -> None:
    """What is kept as JSON gives the same prediction again."""
    prediction = parse(outputs=["https://a/1.mp4"], code=0, created_at="2026-03-01T09:12:48Z")
    assert Prediction.parse(json.loads(json.dumps(prediction.raw))) == prediction
