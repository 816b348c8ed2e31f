"""The tracks: as they are, and as text for every program."""

import hashlib

import pyblish.api

from omnimotion_core.export.track_text import TRACK_FORMATS, track_file_name, write_track_text
from omnimotion_core.publishing.instances import representation
from omnimotion_core.publishing.staging import copy_file, staged
from omnimotion_core.trajectories.tracks import Tracks


class ExtractTracks(pyblish.api.InstancePlugin):
    """Copies ``tracks.npz`` and ``markers.json``, and writes the tracks that the latter holds for each program."""

    order = pyblish.api.ExtractorOrder
    label = "Write tracks"
    families = ["omnimotion.tracks"]

    def process(self, instance):
        facts, digests = instance.data["omnimotionFacts"], instance.data["digests"]
        run, tracks = facts.run, Tracks.load(facts.run.tracks)
        with staged(instance.context.data, instance.data) as folder:
            names = {"npz": f"{facts.name}.tracks.npz", "markers": f"{facts.name}.markers.json"}
            copy_file(run.tracks, folder, names["npz"], digests)
            copy_file(run.markers, folder, names["markers"], digests)
            for program in TRACK_FORMATS:
                names[program] = track_file_name(facts.name, program)
                path = folder / names[program]
                write_track_text(tracks, path, program, max_tracks=facts.max_markers, clip_offset=facts.clip_offset,
                                 pixel_aspect=facts.pixel_aspect)
                digests[path.name] = hashlib.sha256(path.read_bytes()).hexdigest()
        instance.data["stagingDir"] = str(folder)
        instance.data["representations"] = [representation(facts, kind, [name], folder) for kind, name in names.items()]
