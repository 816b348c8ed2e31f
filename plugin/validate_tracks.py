"""Are the tracks those of the clip, and in order?"""

import pyblish.api

from omnimotion_core.publishing.facts import problem_of_tracks
from omnimotion_core.publishing.problems import PublishValidationError


class ValidateTracks(pyblish.api.InstancePlugin):
    """The tracks cover the clip's frames at the plate's size; what is seen has a position, confidence is in 0..1."""

    order = pyblish.api.ValidatorOrder + 0.1
    label = "Tracks"
    families = ["omnimotion.tracks"]

    def process(self, instance):
        facts = instance.data["omnimotionFacts"]
        problem = problem_of_tracks(facts)
        if problem is not None:
            raise PublishValidationError(
                problem, f"run `omnimotion tracks {facts.folder}` again", title="Tracks that do not fit the clip",
                description=f"`tracks.npz` or `markers.json` of `{facts.folder}`: {problem}.",
            )
