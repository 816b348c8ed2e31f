"""Are vectors of a length that motion can have?"""

import math

import pyblish.api

from omnimotion_core.publishing.actions import ExportAgain
from omnimotion_core.publishing.problems import PublishValidationError
from omnimotion_core.publishing.repair import remedy_for
from omnimotion_core.publishing.sequences import measure


class ValidateVectorsBounded(pyblish.api.InstancePlugin):
    """No vector is longer than the plate's diagonal."""

    order = pyblish.api.ValidatorOrder + 0.1
    label = "Vectors bounded"
    families = ["omnimotion.vectors"]
    actions = [ExportAgain]

    def process(self, instance):
        frames = measure(instance.data)
        worst = max(frames, key=lambda frame: frame.longest_px)
        diagonal = math.hypot(*instance.data["omnimotionFacts"].size)
        if worst.longest_px > diagonal:
            raise PublishValidationError(
                f"a vector of frame {worst.number} is {worst.longest_px:.0f} px long, the plate's diagonal is "
                f"{diagonal:.0f} px", remedy_for(instance.data),
                title="Vectors too long",
                description="From one frame to the next nothing moves further than across the whole picture. Such "
                            "values come from files in another unit, or from a field that was not fitted there.",
            )
