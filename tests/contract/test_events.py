import json
from pathlib import Path

import jsonschema
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

import onlooker.operators
from onlooker.operators.events import (
    Side,
    canonical_line,
    event_json_schema,
    make_event,
    parse_event,
    stream_name,
)

VALIDATOR = jsonschema.Draft202012Validator(event_json_schema())


def caption(**changes):
    fields = dict(stream="cam1", epoch=0, event_no=3, rev=1, phase="end", t_start=1.0, t_end=2.5, t_seen=2.5)
    return make_event("caption", **{**fields, "text": "A dog runs.", **changes})


def test_ids_follow_the_documented_form():
    event = caption()
    assert event.id == "cam1/0/caption/3/1"
    assert event.data.event_id == "cam1/0/caption/3"
    assert event.type == "onlooker.caption.v1"
    assert event.order == ("cam1", "caption", 3, 1)


def test_an_open_event_says_null():
    event = make_event(
        "query", stream="s", epoch=0, event_no=0, rev=0, phase="new", t_start=1, t_end=None, t_seen=2, query="a dog"
    )
    data = json.loads(event.to_json())["data"]
    assert data["t_end"] is None
    assert data["t_seen"] == 2.0


@given(st.floats(0, 1e6), st.floats(-10, 10), st.text(min_size=1))
def test_every_event_survives_json_and_fits_the_schema(t, score, text):
    event = caption(t_start=t, t_end=t + 1, t_seen=t + 1, score=score, text=text)
    line = event.to_json()
    assert "\n" not in line
    assert parse_event(line) == event
    VALIDATOR.validate(json.loads(line))


def test_schema_rejects_what_is_not_an_event():
    broken = json.loads(caption().to_json())
    broken["data"]["phase"] = "finished"
    with pytest.raises(jsonschema.ValidationError):
        VALIDATOR.validate(broken)


def test_an_alarm_and_an_answer_fit_the_schema():
    shared = dict(stream="bus", epoch=1, event_no=0, rev=0, phase="new", t_start=0.0, t_end=None, t_seen=0.0)
    alarm = make_event("alarm", code="disk_full", message="The disk is full; make room.", **shared)
    answer = caption(ask="7")
    for event in (alarm, answer):
        VALIDATOR.validate(json.loads(event.to_json()))
        assert parse_event(event.to_json()) == event
    assert "ask" not in json.loads(caption().to_json())["data"], "only answers have it"


def test_what_others_and_later_versions_add_is_passed_over():
    members = json.loads(caption().to_json())
    members["sequence"], members["data"]["mood"] = "7", "calm"
    VALIDATOR.validate(members)
    assert parse_event(json.dumps(members)) == caption()


def test_nothing_that_a_kind_does_not_have_is_made():
    with pytest.raises(TypeError, match="no 'txet'"):
        caption(txet="a cat")


def test_shipped_schema_is_the_generated_one():
    shipped = Path(onlooker.operators.__file__).parent / "event.schema.json"
    assert json.loads(shipped.read_text()) == event_json_schema()


def test_times_and_scores_are_rounded():
    event = caption(t_start=0.12345678, score=0.987654)
    assert event.t_start == 0.123457
    assert event.data.score == 0.9877


def test_canonical_form_leaves_out_what_differs_between_runs():
    plain = caption()
    one = plain.with_side(Side(time_source="file", latency_ms={"models": 1.0}))
    other = plain.with_side(Side(time_source="file", latency_ms={"models": 2.0}))
    assert one.to_json() != other.to_json()
    assert canonical_line(one.to_json()) == canonical_line(other.to_json()) == plain.to_json()


@pytest.mark.parametrize("name", ["a/b", "", "ä", "a b"])
def test_bad_stream_names_are_refused(name):
    with pytest.raises(ValidationError):
        caption(stream=name)


@given(st.text())
def test_any_label_becomes_a_valid_stream_name(label):
    assert caption(stream=stream_name(label)).data.stream


def test_infinite_time_is_refused():
    with pytest.raises(ValidationError):
        caption(t_end=float("inf"))
