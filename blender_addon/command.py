# SPDX-License-Identifier: GPL-3.0-or-later
"""``blender --command track_everything``: the job from a terminal, in Blender 4.2 and later.

    blender shot.blend --command track_everything --clip shot.mov --preset draft --output //runs/shot --save
    blender --command track_everything --footage /plates/shot.1001.exr --save-as /shots/shot.blend
"""

import argparse
import sys
from typing import Any

import bpy

from .properties import JobSettings

NAME = "track_everything"
_handle: Any = None


def run(arguments: "list[str]") -> int:
    """Track as the arguments say; 0 done, 2 what the user can mend, told in one line."""
    parser = argparse.ArgumentParser(prog=f"blender --command {NAME}", description="Tracks a clip of the .blend.")
    parser.add_argument("--clip", default="", help="its name; the only one when not given")
    parser.add_argument("--footage", help="a movie or the first file of a sequence, opened as a clip")
    parser.add_argument("--python", help="the interpreter that has the core, in place of the preferences'")
    parser.add_argument("--preset", choices=("draft", "standard", "paper"))
    parser.add_argument("--device", choices=("auto", "cpu", "cuda", "mps"))
    parser.add_argument("--max-tracks", type=int)
    parser.add_argument("--rounds", type=int, help="of flow and fit, 1 to 4: more are more exact, each as long again")
    parser.add_argument("--output", help="the run folder")
    parser.add_argument("--passes", action="store_true", default=None, help="write motion vectors too")
    parser.add_argument("--save", action="store_true", help="save the .blend")
    parser.add_argument("--save-as", metavar="FILE")
    try:
        options = parser.parse_args(arguments)
    except SystemExit as end:
        return int(end.code or 0)
    from .preferences import preferences

    if options.python:
        preferences(bpy.context).python = options.python
    given = {name: value for name in JobSettings.__annotations__ if (value := getattr(options, name, None)) is not None}
    try:
        if options.footage:
            options.clip = bpy.data.movieclips.load(options.footage).name
        done = bpy.ops.omnimotion.track_everything(clip=options.clip, **given)
        if options.save_as or options.save:
            # a new name may not be given twice, an unsaved file has none
            bpy.ops.wm.save_as_mainfile(filepath=options.save_as or bpy.data.filepath)
    except RuntimeError as error:
        print(f"{NAME}: {str(error).removeprefix('Error: ').strip()}", file=sys.stderr, flush=True)
        return 2
    return 0 if "FINISHED" in done else 3


def register() -> None:
    """The command, where Blender has them."""
    global _handle
    if hasattr(bpy.utils, "register_cli_command"):
        _handle = bpy.utils.register_cli_command(NAME, run)


def unregister() -> None:
    """Take it back."""
    global _handle
    if _handle is not None:
        bpy.utils.unregister_cli_command(_handle)
        _handle = None
