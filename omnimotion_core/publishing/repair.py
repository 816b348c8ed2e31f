"""Writing a sequence again in place of one that is wrong."""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from omnimotion_core.errors import PublishError
from omnimotion_core.files import unwritable

_TIMEOUT_S = 24 * 3600


def remedy_for(instance: Mapping[str, Any]) -> str:
    """How to mend a sequence by hand.

    Args:
        instance: its data, with ``exrSequence``.
    """
    sequence, run = instance["exrSequence"], instance["omnimotionFacts"].folder
    return (f"delete {sequence.folder} and run `omnimotion export {run} --to {sequence.export_kind}`, or publish with "
            "--repair")


def export_again(run: Path, folder: Path, kind: str) -> None:
    """Export anew what ``folder`` of the run folder holds; where that fails, it stays as it was.

    The export is a process of its own, since this one may be a host without torch.

    Args:
        run: the run folder.
        folder: one of its ``exr`` folders.
        kind: what ``omnimotion export`` calls what it holds.
    Raises:
        PublishError: the export failed, or the folder cannot be moved aside.
    """
    aside = folder.with_name(f".{folder.name}.replaced")
    try:
        shutil.rmtree(aside, ignore_errors=True)
        os.rename(folder, aside)  # export keeps whole files of the same run, and those may be the wrong ones
        try:
            _export(run, kind)
        except BaseException:
            shutil.rmtree(folder, ignore_errors=True)
            os.rename(aside, folder)
            raise
        shutil.rmtree(aside)
    except OSError as error:
        told = unwritable(folder, error)
        raise PublishError(told.problem, told.remedy) from error


def _export(run: Path, kind: str) -> None:
    command = [os.environ.get("OMNIMOTION_PYTHON", sys.executable), "-m", "omnimotion_core", "export", str(run),
               "--to", kind]  # fmt: skip
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=_TIMEOUT_S)
    if done.returncode != 0:
        told = re.findall(r"^omnimotion: (.*)$", done.stderr, re.MULTILINE)
        reason = told[-1] if told else (done.stderr.strip().splitlines() or ["no word"])[-1]
        raise PublishError(f"{kind} could not be exported again ({reason})",
                           f"run `omnimotion export {run} --to {kind}` where omnimotion is installed, or set "
                           "OMNIMOTION_PYTHON to the Python that has it")

