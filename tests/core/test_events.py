import json

import pytest

from omnimotion_core import events
from omnimotion_core.events import Cancelled, Event, Progress, Reporter


def test_an_event_is_one_ascii_line() -> None:
    line = events.Failed(problem="naïve\nshot", remedy="rename it").to_json()
    assert "\n" not in line
    assert line.isascii()
    assert json.loads(line) == {"event": "error", "problem": "naïve\nshot", "remedy": "rename it"}


def test_the_first_event_names_the_protocol() -> None:
    assert json.loads(events.Started(version="1").to_json())["protocol"] == events.PROTOCOL


def test_every_event_has_a_name_of_its_own() -> None:
    names = [event.name for event in Event.__subclasses__()]
    assert len(set(names)) == len(names) == 9


def test_progress_is_told_before_a_cancel_is_heeded() -> None:
    heard: list[Event] = []
    reporter = Reporter(heard.append, lambda: True)
    with pytest.raises(Cancelled):
        reporter.progress("fit", 3, 10)
    assert heard == [Progress(stage="fit", done=3, total=10)]


def test_a_reporter_without_a_listener_is_silent() -> None:
    reporter = Reporter()
    reporter.stage("fit")
    reporter.progress("fit", 1, 2)
    reporter.warning("careful")
    reporter.artifact("tracks", "tracks.npz")
    reporter.check()
