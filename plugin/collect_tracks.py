"""The tracks of the run."""

import pyblish.api

from omnimotion_core.publishing.instances import instance_data, representation


class CollectTracks(pyblish.api.ContextPlugin):
    """Makes one instance of all tracks."""

    order = pyblish.api.CollectorOrder + 0.1
    label = "Tracks"

    def process(self, context):
        facts = context.data.get("omnimotionFacts")
        if facts is None:  # the run folder could not be read, which has been told
            return
        data = instance_data(facts, "trackpoints", "trackpointsMain", families=["omnimotion.tracks"],
                             folder_path=context.data.get("folderPath"))
        run = facts.run
        context.create_instance(
            "trackpointsMain", **data,
            representations=[
                representation(facts, "npz", [run.tracks.name], run.path),
                representation(facts, "markers", [run.markers.name], run.path),
            ],
        )
