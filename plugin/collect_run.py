"""The run folder that is to be published, and its clip."""

import getpass
import os

import pyblish.api

from omnimotion_core.errors import PublishError
from omnimotion_core.publishing.facts import read_facts
from omnimotion_core.publishing.instances import context_data


class CollectRun(pyblish.api.ContextPlugin):
    """Reads the manifest of the run folder.

    It is named by ``runFolder`` in the context's data, else by the variable OMNIMOTION_RUN. ``publishDir``, else
    OMNIMOTION_PUBLISH_DIR, is the folder that gets versions; without it, integrating is left to the host.
    """

    order = pyblish.api.CollectorOrder
    label = "Run folder"

    def process(self, context):
        run = context.data.get("runFolder") or os.environ.get("OMNIMOTION_RUN")
        if not run:
            raise PublishError("no run folder is named",
                               "set runFolder in the context's data, or the variable OMNIMOTION_RUN")
        context.data.update(context_data(read_facts(run)))
        context.data.setdefault("publishDir", os.environ.get("OMNIMOTION_PUBLISH_DIR", ""))
        context.data.setdefault("user", getpass.getuser())
        context.data["label"] = context.data["clipName"]
