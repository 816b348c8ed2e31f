"""Do the files belong to this clip and this run?"""

import pyblish.api

from omnimotion_core.publishing.actions import ExportAgain
from omnimotion_core.publishing.facts import read_record
from omnimotion_core.publishing.problems import PublishValidationError
from omnimotion_core.publishing.repair import remedy_for
from omnimotion_core.publishing.sequences import listed, measure


class ValidateOrigin(pyblish.api.InstancePlugin):
    """The clip's hash is the same in every header, in the manifest and in the record of the working frames.

    The field that the files were made of is the run's present one, and one version of the program wrote them all.
    """

    order = pyblish.api.ValidatorOrder + 0.1
    label = "Clip hash"
    families = ["omnimotion.sequence"]
    actions = [ExportAgain]

    def process(self, instance):
        facts = instance.data["omnimotionFacts"]
        recorded = read_record(facts)["sha256"]
        if recorded != facts.sha256:
            raise self.refuse("the working frames are of another clip than the manifest says",
                              f"run `omnimotion prepare {facts.folder}`")
        headers = [(frame.number, frame.attributes) for frame in measure(instance.data) if not frame.problem]
        for name, expected, words in (("te/clip_sha256", facts.sha256, "were made of another clip"),
                                      ("te/run", facts.digest, "were made of another fit of the clip")):
            others = [number for number, header in headers if header.get(name) != expected]
            if others:
                raise self.refuse(f"frames {listed(others)} {words}", remedy_for(instance.data))
        versions = {str(header.get("te/version")) for _, header in headers}
        if len(versions) > 1:
            raise self.refuse(f"its files come from several versions of omnimotion ({', '.join(sorted(versions))})",
                              remedy_for(instance.data))
        if versions - {facts.tool_version}:
            self.log.warning("its files come from omnimotion %s, the tracks from %s", *versions, facts.tool_version)

    def refuse(self, problem, remedy):
        return PublishValidationError(
            problem, remedy, title="Files of another origin",
            description="Each file's header tells the SHA-256 of its clip (`te/clip_sha256`) and the field that it was "
                        "made of (`te/run`). Both have to be those in the run's `run.json`.",
        )
