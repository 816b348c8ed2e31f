"""Is every value a number?"""

import pyblish.api

from omnimotion_core.publishing.actions import ExportAgain
from omnimotion_core.publishing.problems import PublishValidationError
from omnimotion_core.publishing.repair import remedy_for
from omnimotion_core.publishing.sequences import listed, measure


class ValidateFinite(pyblish.api.InstancePlugin):
    """No channel holds infinities or what is not a number."""

    order = pyblish.api.ValidatorOrder + 0.1
    label = "Finite values"
    families = ["omnimotion.sequence"]
    actions = [ExportAgain]

    def process(self, instance):
        bad = [frame for frame in measure(instance.data) if frame.not_finite]
        if bad:
            raise PublishValidationError(
                f"channel {bad[0].not_finite[0]} of frame {bad[0].number} holds values that are no numbers"
                + (f", and so do frames {listed([frame.number for frame in bad[1:]])}" if bad[1:] else ""),
                remedy_for(instance.data),
                title="Values that are no numbers",
                description="\n".join(f"- frame {frame.number}: `{'`, `'.join(frame.not_finite)}`" for frame in bad),
            )
