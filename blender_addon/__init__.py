# SPDX-License-Identifier: GPL-3.0-or-later
"""Track Everything: an extension for Blender 4.2 and later, and by ``bl_info`` an add-on for 3.4 to 4.1."""

from types import ModuleType

bl_info = {
    "name": "Track Everything",
    "description": "The motion of every pixel: tracks and passes from footage",
    "author": "Track Everything",
    "version": (0, 1, 0),
    "blender": (3, 4, 0),
    "location": "Movie Clip Editor > Sidebar > Track Everything",
    "category": "Tracking",
}


def _rooms() -> tuple[ModuleType, ...]:
    """The modules that register something, in their order; imported late, so that tests need no Blender."""
    from . import (
        batch,
        command,
        compositing,
        installing,
        operators,
        overlay,
        panel,
        picking,
        plane_tracks,
        preferences,
        properties,
        selecting,
    )

    return (
        preferences, properties, installing, operators, picking, selecting, plane_tracks, compositing, overlay, batch,
        panel, command,
    )  # fmt: skip


def register() -> None:
    """Make the add-on known to Blender."""
    for room in _rooms():
        room.register()


def unregister() -> None:
    """Take it back, and stop what still runs."""
    for room in reversed(_rooms()):
        room.unregister()
