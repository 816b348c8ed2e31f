"""Where weights are looked for, what is said when they are absent or wrong, and their terms, shown once."""

from pathlib import Path

import pytest

from omnimotion_core import cli
from omnimotion_core.errors import FlowError
from omnimotion_core.files import sha256_of
from omnimotion_core.flow import weights as store
from omnimotion_core.flow.estimators import LEARNED
from omnimotion_core.flow.weights import (
    BEST_FIRST,
    FEATURES,
    KNOWN,
    cache_folder,
    find_best,
    find_features,
    find_weights,
    known_weights,
    require_known_hash,
    terms_to_show,
)  # fmt: skip


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "cache"
    monkeypatch.setenv(store.CACHE_VARIABLE, str(folder))
    return folder


def test_the_known_weights_are_well_described() -> None:
    for weights in KNOWN:
        assert weights.estimator in {*LEARNED, FEATURES}
        assert weights.file.endswith(f"-{weights.sha256[:8]}.pth" if weights.sha256 else ".pth")
        assert known_weights(weights.name) is weights
    assert set(BEST_FIRST) == set(LEARNED)


def test_the_cache_folder_follows_the_environment(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert cache_folder() == cache
    monkeypatch.delenv(store.CACHE_VARIABLE)
    monkeypatch.setattr("sys.platform", "linux")
    monkeypatch.setenv("XDG_CACHE_HOME", "/elsewhere")
    assert cache_folder() == Path("/elsewhere/omnimotion/weights")


def test_absent_weights_are_told_with_the_place_and_the_command(cache: Path) -> None:
    with pytest.raises(FlowError, match="there are no weights for 'raft'") as caught:
        find_weights("raft", None)
    assert "omnimotion weights get raft-large" in caught.value.remedy
    assert str(cache) in caught.value.problem
    assert find_best() is None
    assert not cache.exists()
    with pytest.raises(FlowError, match=r"no weights at /nowhere/a\.pth"):
        find_weights("raft", "/nowhere/a.pth")
    with pytest.raises(FlowError, match="use one of gmflow, raft-large, raft-small, dino-vits16"):
        known_weights("gnflow")


def test_a_file_with_a_known_name_and_another_content_is_refused(cache: Path) -> None:
    cache.mkdir()
    wrong = cache / known_weights("raft-small").file
    wrong.write_bytes(b"something else")
    for search in (lambda: find_weights("raft-small", None), lambda: find_weights("raft", str(wrong)), find_best):
        with pytest.raises(FlowError, match=r"SHA-256 does not begin with 01064c6d.*; delete it and run"):
            search()


def test_any_other_file_may_be_given(tmp_path: Path) -> None:
    mine = tmp_path / "mine.pth"
    mine.write_bytes(b"content is looked at when it is loaded")
    assert find_weights("raft", str(mine)) == mine


def test_known_weights_are_found_in_the_cache(cache: Path, weights: Path) -> None:
    gmflow = known_weights("gmflow")
    assert sha256_of(weights / "gmflow.pth") == gmflow.sha256
    cache.mkdir()
    (cache / gmflow.file).write_bytes((weights / "gmflow.pth").read_bytes())
    require_known_hash(cache / gmflow.file)
    assert find_best() == ("gmflow", cache / gmflow.file)


def test_features_come_from_a_given_file_or_the_cache(cache: Path, tmp_path: Path) -> None:
    assert find_features(None) is None
    with pytest.raises(FlowError, match=r"set flow\.exhaustive\.features to an existing file"):
        find_features(str(tmp_path / "nowhere.pth"))
    mine = tmp_path / "mine.pth"
    mine.touch()
    assert find_features(str(mine)) == mine
    cache.mkdir()
    known = cache / known_weights("dino-vits16").file
    known.write_bytes(b"of no published hash: the layout tells")
    assert find_features(None) == known
    assert find_best() is None  # it gives no flow


def test_terms_are_shown_once(cache: Path, tmp_path: Path) -> None:
    path = cache / known_weights("gmflow").file
    assert "Apache-2.0" in (terms_to_show(path) or "")
    assert terms_to_show(path) is None
    assert "BSD" in (terms_to_show(cache / known_weights("raft-large").file) or "")
    assert terms_to_show(tmp_path / "mine.pth") is None
    (cache / "terms-shown.json").write_text("damaged")
    assert terms_to_show(path) is not None


def test_terms_are_shown_where_nothing_can_be_remembered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv(store.CACHE_VARIABLE, str(tmp_path / "file"))
    assert terms_to_show(tmp_path / known_weights("gmflow").file) is not None


def test_the_list_tells_what_is_here(cache: Path, capsys: pytest.CaptureFixture[str]) -> None:
    cache.mkdir()
    (cache / known_weights("raft-small").file).touch()
    assert cli.main(["weights", "list"]) == cli.DONE
    text = capsys.readouterr().out
    assert str(cache) in text
    assert [line.split()[0] for line in text.splitlines()[1::2]] == [
        "gmflow", "raft-large", "raft-small", "dino-vits16",
    ]  # fmt: skip
    assert text.count("not here") == 3
    assert text.count("here as raft_small_C_T_V2-01064c6d.pth") == 1


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [(["get"], "needs a name"), (["get", "x"], "no weights are called 'x'"), (["list", "gmflow"], "takes no 'gmflow'"),
     ([], "list|get"), (["put", "gmflow"], "put")],
)  # fmt: skip
def test_wrong_arguments_are_told(capsys: pytest.CaptureFixture[str], arguments: list[str], problem: str) -> None:
    assert cli.main(["weights", *arguments]) == cli.MENDABLE
    assert problem in capsys.readouterr().err
