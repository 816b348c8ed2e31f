"""Can every file be read whole?"""

import pyblish.api

from omnimotion_core.publishing.actions import ExportAgain
from omnimotion_core.publishing.problems import PublishValidationError
from omnimotion_core.publishing.repair import remedy_for
from omnimotion_core.publishing.sequences import listed, measure


class ValidateReadable(pyblish.api.InstancePlugin):
    """No file is damaged or truncated, and every channel is there, the same ones in all frames."""

    order = pyblish.api.ValidatorOrder
    label = "Channels present"
    families = ["omnimotion.sequence"]
    actions = [ExportAgain]

    def process(self, instance):
        frames = measure(instance.data)
        broken = [frame for frame in frames if frame.problem]
        if broken:
            raise PublishValidationError(
                f"{broken[0].problem}" + (f" (and {len(broken) - 1} more files)" if len(broken) > 1 else ""),
                remedy_for(instance.data),
                title="Files that cannot be used",
                description="\n".join(f"- {frame.problem}" for frame in broken),
            )
        usual = set(frames[0].channels)
        others = [frame.number for frame in frames if set(frame.channels) != usual]
        if others:
            raise PublishValidationError(
                f"frames {listed(others)} have other channels than frame {frames[0].number}", remedy_for(instance.data),
                title="Channels differ",
                description=f"Frame {frames[0].number} has `{'`, `'.join(sorted(usual))}`.",
            )
