"""A new version of the clip in the publish folder."""

import pyblish.api

from omnimotion_core.errors import PublishError
from omnimotion_core.publishing.facts import read_facts
from omnimotion_core.publishing.instances import failures, is_ours
from omnimotion_core.publishing.staging import staging_of
from omnimotion_core.publishing.versions import integrate


class IntegrateVersion(pyblish.api.ContextPlugin):
    """Hands on all that was extracted in one step, or nothing.

    Without a publish folder the host's own integrator takes what was extracted.
    """

    order = pyblish.api.IntegratorOrder
    label = "New version"

    def process(self, context):
        staging = staging_of(context.data)
        failed = failures(context.data["results"])
        if failed:  # pyblish itself integrates after a failed collector or extractor
            if staging is not None:
                staging.discard()
            raise PublishError(f"{failed[0]['plugin'].__name__} failed", "see its error; nothing is published")
        if not context.data["publishDir"]:
            self.log.info("no publish folder is set: integrating is left to the host")
            return
        ours = [instance.data for instance in context
                if is_ours(instance.data) and instance.data.get("publish", True)]
        if staging is None or not ours:
            raise PublishError("nothing was extracted", "leave at least one product switched on")
        if read_facts(context.data["omnimotionRun"]) != context.data["omnimotionFacts"]:
            staging.discard()
            raise PublishError("the run was tracked again while it was published", "publish it again when that is done")
        ours.sort(key=lambda data: data["productName"])  # the order of plug-ins with one number is not fixed
        context.data["publishedVersion"] = str(integrate(staging, context.data, ours))
