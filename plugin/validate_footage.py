"""Is the footage still what was tracked?"""

import hashlib

import pyblish.api

from omnimotion_core.publishing.facts import footage_files
from omnimotion_core.publishing.problems import PublishValidationError


class ValidateFootage(pyblish.api.ContextPlugin):
    """The clip is where it was, and its content is what the tracks were made of.

    Footage that is gone is told and no error: it may have been archived, and nothing of the run depends on it.
    """

    order = pyblish.api.ValidatorOrder + 0.1
    label = "Footage"

    def process(self, context):
        facts = context.data.get("omnimotionFacts")
        if facts is None:  # the run folder could not be read, which has been told
            return
        digest = hashlib.sha256()
        for path in footage_files(facts):
            try:
                with path.open("rb") as file:
                    while block := file.read(1 << 20):
                        digest.update(block)
            except OSError:
                self.log.warning("%s is not there any more, so it is not known whether it has changed since it was "
                                 "tracked", path)
                return
        if digest.hexdigest() != facts.sha256:
            raise PublishValidationError(
                f"{facts.clip_path} has changed since it was tracked", "track it again, or put the old footage back",
                title="The footage has changed",
                description="The clip's SHA-256 is not the one in the run's manifest, so the tracks and vectors belong "
                            "to **other pictures** than those that are there now.\n\nTrack the clip into a new run "
                            "folder.",
            )
