"""Do the vectors to the next frame and back agree?"""

import pyblish.api

from omnimotion_core.publishing.actions import ExportAgain
from omnimotion_core.publishing.problems import PublishValidationError
from omnimotion_core.publishing.repair import remedy_for
from omnimotion_core.publishing.sequences import measure

MAX_MISS_PX = 0.5  # of the median pixel; a fitted field misses by hundredths
MAX_MISS_SHARE = 0.02  # of the motion's length, for presets that store halves


class ValidateVectorsConsistent(pyblish.api.InstancePlugin):
    """A visible point that goes to the next frame and back comes home, in the median of each frame."""

    order = pyblish.api.ValidatorOrder + 0.2
    label = "Forward and backward agree"
    families = ["omnimotion.vectors"]
    actions = [ExportAgain]

    def process(self, instance):
        frames = measure(instance.data)
        if not (any(frame.goes for frame in frames) and any(frame.came for frame in frames)):
            self.log.info("it holds one direction alone, or nothing moves")
            return
        bad = [frame for frame in frames if frame.miss_px is not None
               and frame.miss_px > MAX_MISS_PX + MAX_MISS_SHARE * frame.step_px]
        if bad:
            worst = max(bad, key=lambda frame: frame.miss_px or 0.0)
            raise PublishValidationError(
                f"from frame {worst.number} to the next and back, points miss their own place by "
                f"{worst.miss_px:.1f} px" + (f" (as in {len(bad) - 1} more frames)" if bad[1:] else ""),
                remedy_for(instance.data),
                title="The two directions contradict each other",
                description="The forward vectors of a frame and the backward vectors of the next one tell the same "
                            "motion. Where they do not, a file is of another run, or a direction or an axis has the "
                            "wrong sign.",
            )
