"""Are size and pixel aspect those of the plate?"""

import math

import pyblish.api

from omnimotion_core.publishing.actions import ExportAgain
from omnimotion_core.publishing.problems import PublishValidationError
from omnimotion_core.publishing.repair import remedy_for
from omnimotion_core.publishing.sequences import listed, measure


class ValidateResolution(pyblish.api.InstancePlugin):
    """Every frame has the plate's width, height and pixel aspect."""

    order = pyblish.api.ValidatorOrder + 0.1
    label = "Resolution"
    families = ["omnimotion.sequence"]
    actions = [ExportAgain]

    def process(self, instance):
        facts = instance.data["omnimotionFacts"]
        bad = [
            frame for frame in measure(instance.data)
            if not frame.problem and (frame.size != facts.size or not math.isclose(
                frame.attributes.get("pixelAspectRatio", 1.0), facts.pixel_aspect, rel_tol=1e-5))
        ]
        if bad:
            (width, height), aspect = bad[0].size, bad[0].attributes.get("pixelAspectRatio", 1.0)
            raise PublishValidationError(
                f"frame {listed([frame.number for frame in bad])} is {width}x{height} with pixel aspect {aspect:g}, "
                f"the plate is {facts.size[0]}x{facts.size[1]} with {facts.pixel_aspect:g}",
                remedy_for(instance.data),
                title="Not the plate's size",
                description="A compositor lays vectors over the plate pixel by pixel, so they have its very size.",
            )
