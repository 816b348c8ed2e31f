"""The add-on's reader understands every line the core writes."""

import dataclasses
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

import blender_addon.events as reader
import omnimotion_core.events as core

SAMPLES: list[core.Event] = [
    core.Started(version="1.2.3"),
    core.Stage(stage="flow", index=1, count=5),
    core.Progress(stage="flow", done=3, total=40),
    core.Noted(message="learned flow for 12 pairs"),
    core.Warned(message='a "hard" cut at 12\nand a line break'),
    core.Artifact(kind="markers", path="C:\\shots\\Åre 東京\\markers.json"),
    core.Finished(seconds=12.5),
    core.CancelledEvent(resumable=False),
    core.Failed(problem="clip.mov holds 1 frame", remedy="choose a longer clip"),
]


@pytest.mark.parametrize("event", SAMPLES, ids=lambda event: event.name)
def test_an_event_arrives_as_it_was_sent(event: core.Event) -> None:
    line = event.to_json()
    received = reader.parse_line(line + "\n")
    assert received is not None
    assert not isinstance(received, reader.Log)
    assert dataclasses.asdict(received) == dataclasses.asdict(event)
    assert "\n" not in line
    assert line.isascii()


def test_every_event_of_the_core_is_sampled_above() -> None:
    assert {type(event) for event in SAMPLES} == set(core.Event.__subclasses__())


def test_each_event_becomes_a_record_of_its_own() -> None:
    assert len({type(reader.parse_line(event.to_json())) for event in SAMPLES}) == len(SAMPLES)


def test_the_two_protocols_are_the_same() -> None:
    assert reader.PROTOCOL == core.PROTOCOL


def test_the_last_events_are_known_as_such() -> None:
    last = {event.name for event in SAMPLES if isinstance(reader.parse_line(event.to_json()), reader.LAST)}
    assert last == {"finished", "cancelled", "error"}


def test_events_and_fields_of_a_newer_core_are_skipped() -> None:
    assert reader.parse_line('{"event": "heartbeat", "load": 0.5}') is None
    line = '{"event": "progress", "stage": "fit", "done": 1, "total": 2, "loss": 0.1}'
    assert reader.parse_line(line) == reader.Progress("fit", 1, 2)


def test_fields_with_a_default_may_be_missing() -> None:
    assert reader.parse_line('{"event": "finished"}') == reader.Finished(0.0)
    assert reader.parse_line('{"event": "finished", "seconds": 3}') == reader.Finished(3)


@pytest.mark.parametrize("protocol", ["2", "0", "null", '"1"', "[]"])
def test_another_protocol_is_refused(protocol: str) -> None:
    with pytest.raises(reader.ProtocolError, match="update the older"):
        reader.parse_line(f'{{"event": "started", "protocol": {protocol}}}')


def test_a_core_that_does_not_tell_its_protocol_is_refused() -> None:
    with pytest.raises(reader.ProtocolError):
        reader.parse_line('{"event": "started"}')


@pytest.mark.parametrize(
    "line",
    [
        "Traceback (most recent call last):",
        '{"event": "progress", "stage": "fit", "done": 1',
        '{"event": "progress", "stage": "fit", "done": 1}',
        '{"event": "progress", "stage": "fit", "done": "1", "total": 2}',
        '{"event": "progress", "stage": "fit", "done": true, "total": 2}',
        '{"event": "cancelled", "resumable": 1}',
        '{"event": ["progress"]}',
        '["event"]',
        "7",
        "[" * 100_000,
    ],
    ids=lambda line: line[:60],
)
def test_a_line_that_is_no_event_goes_to_the_log(line: str) -> None:
    assert reader.parse_line(line) == reader.Log(line)


def test_an_empty_line_says_nothing() -> None:
    assert reader.parse_line(" \r\n") is None


JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=5,
)
FIELDS = st.sampled_from(["stage", "done", "total", "message", "kind", "path", "seconds", "problem", "index", "loss"])


@given(st.sampled_from([event.name for event in SAMPLES if event.name != "started"]),
       st.dictionaries(FIELDS, JSON_VALUES))  # fmt: skip
def test_no_line_of_a_broken_core_raises(name: str, fields: dict[str, object]) -> None:
    event = reader.parse_line(json.dumps({**fields, "event": name}))
    for value in vars(event).values() if event is not None else ():
        assert isinstance(value, (str, int, float, bool))


@given(st.text())
def test_no_text_raises(text: str) -> None:
    assert isinstance(reader.parse_line(text), reader.Log | None)
