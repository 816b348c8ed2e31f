"""Are there files for exactly the frames of the clip?"""

import pyblish.api

from omnimotion_core.publishing.actions import ExportAgain
from omnimotion_core.publishing.problems import PublishValidationError
from omnimotion_core.publishing.repair import remedy_for
from omnimotion_core.publishing.sequences import listed, measure


class ValidateFrameRange(pyblish.api.InstancePlugin):
    """Each tracked frame has one file, which is of the frame in its name, and no other frame has."""

    order = pyblish.api.ValidatorOrder + 0.05
    label = "Frame range"
    families = ["omnimotion.sequence"]
    actions = [ExportAgain]

    def process(self, instance):
        expected = set(instance.data["omnimotionFacts"].frames)
        found = set(instance.data["exrSequence"].files)
        others = [frame.number for frame in measure(instance.data)
                  if frame.attributes.get("te/frame", frame.number) != frame.number]
        problems = [
            f"{text} ({listed(sorted(numbers))})"
            for text, numbers in (("frames are missing", expected - found),
                                  ("frames are not in the clip", found - expected),
                                  ("files are of other frames than their names say", others))
            if numbers
        ]
        if problems:
            raise PublishValidationError(
                f"{instance.data['exrSequence'].stem}: {', '.join(problems)}", remedy_for(instance.data),
                title="Wrong frames",
                description="The sequence has to hold the frames "
                            f"**{min(expected)} to {max(expected)}**, those that were tracked.\n\n"
                            + "\n".join(f"- {problem}" for problem in problems),
            )
