"""What an instance of a publish holds, in the shape that AYON's publishers use."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from string import ascii_lowercase
from typing import Any

from omnimotion_core.publishing.facts import RunFacts


def context_data(facts: RunFacts) -> dict[str, Any]:
    """What all instances of a run share."""
    return {
        "omnimotionRun": str(facts.folder), "omnimotionFacts": facts, "clipName": facts.name, "runDigest": facts.digest,
        "clip": {
            "name": facts.name, "path": str(facts.clip_path), "sha256": facts.sha256, "size": list(facts.size),
            "pixel_aspect": facts.pixel_aspect, "fps": facts.fps, "frames": [facts.first_frame, facts.last_frame],
        },
        "frameStart": facts.first_frame, "frameEnd": facts.last_frame, "fps": facts.fps,
    }  # fmt: skip


def instance_data(
    facts: RunFacts, family: str, name: str, *, families: Sequence[str], folder_path: str | None
) -> dict[str, Any]:
    """What an instance holds before its representations.

    Args:
        family: the product's type: image, trackpoints or review.
        name: of the product: its type in small letters, then its variant, which begins with a capital or a digit.
        families: all that it belongs to beside ``family``.
        folder_path: the host's; the clip's name where it has none.
    """
    first, last = facts.first_frame, facts.last_frame
    return {
        "family": family, "families": list(families), "productType": family, "productBaseType": family,
        "variant": name.lstrip(ascii_lowercase), "productName": name, "folderPath": folder_path or f"/{facts.name}",
        "frameStart": first, "frameEnd": last, "handleStart": 0, "handleEnd": 0, "frameStartHandle": first,
        "frameEndHandle": last, "fps": facts.fps, "resolutionWidth": facts.size[0],
        "resolutionHeight": facts.size[1], "pixelAspect": facts.pixel_aspect, "source": str(facts.folder),
        "farm": False, "review": family == "review", "omnimotionFacts": facts, "digests": {},
    }  # fmt: skip


def representation(
    facts: RunFacts, name: str, files: Sequence[str], folder: Path, *, tags: Sequence[str] = ()
) -> dict[str, Any]:
    """Files that belong together.

    Args:
        name: unique within the instance.
        files: names without folders; a single one becomes text, as AYON wants it.
        folder: where they are.
    """
    return {
        "name": name, "ext": files[0].rpartition(".")[2], "files": files[0] if len(files) == 1 else list(files),
        "stagingDir": str(folder), "frameStart": facts.first_frame, "frameEnd": facts.last_frame, "fps": facts.fps,
        "tags": list(tags),
    }  # fmt: skip


def variant_of(text: str) -> str:
    """``nuke-smartvector`` → ``NukeSmartvector``: letters and digits alone, as product names want it."""
    return "".join(word[:1].upper() + word[1:] for word in re.findall(r"[A-Za-z0-9]+", text)) or "Main"


def is_ours(instance: Mapping[str, Any]) -> bool:
    """Whether an instance came from one of our collectors."""
    return "omnimotionFacts" in instance


def failures(results: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """The results with an error that no later result of the same plug-in and instance has made up for.

    A publisher's window keeps a context, and all its results, over repairs and second tries; what an action told is no
    result of its plug-in. Each discovery makes new classes, so a plug-in is known by its name.
    """
    latest = {}
    for result in results:
        if result["action"] is None:
            latest[result["plugin"].__name__, getattr(result["instance"], "id", None)] = result
    return [result for result in latest.values() if result["error"] is not None]
