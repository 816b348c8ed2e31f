"""Are visibility and confidence between 0 and 1?"""

import pyblish.api

from omnimotion_core.publishing.actions import ExportAgain
from omnimotion_core.publishing.problems import PublishValidationError
from omnimotion_core.publishing.repair import remedy_for
from omnimotion_core.publishing.sequences import measure


class ValidateVisibility(pyblish.api.InstancePlugin):
    """Visibility and confidence of every pixel lie in 0..1."""

    order = pyblish.api.ValidatorOrder + 0.1
    label = "Visibility in 0..1"
    families = ["omnimotion.sequence"]
    actions = [ExportAgain]

    def process(self, instance):
        for frame in measure(instance.data):
            for what, (least, greatest) in (("visibility", frame.visibility), ("confidence", frame.confidence)):
                if least < 0 or greatest > 1:
                    raise PublishValidationError(
                        f"{what} of frame {frame.number} reaches from {least:g} to {greatest:g}",
                        remedy_for(instance.data),
                        title=f"{what.capitalize()} out of range",
                        description="Compositors multiply by it: beyond 0..1 it brightens or inverts the picture.",
                    )
