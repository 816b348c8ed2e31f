"""Is everything that is to be published inside of its folder?"""

import stat
from pathlib import Path

import pyblish.api

from omnimotion_core.publishing.instances import is_ours
from omnimotion_core.publishing.problems import PublishValidationError
from omnimotion_core.publishing.versions import files_of


class ValidateStaging(pyblish.api.InstancePlugin):
    """Every file is a regular one, not empty, directly in the folder that its representation names, in the run.

    A link, or a name with a folder in it, could publish what nobody meant to publish.
    """

    order = pyblish.api.ValidatorOrder
    label = "Inside the staging folder"
    families = ["omnimotion.sequence", "omnimotion.tracks", "omnimotion.review"]

    def process(self, instance):
        if not is_ours(instance.data):
            return
        run = instance.data["omnimotionFacts"].folder.resolve()
        for representation in instance.data["representations"]:
            folder = Path(representation["stagingDir"])
            if not folder.resolve().is_relative_to(run):
                raise self.refuse(f"{folder} is outside of the run folder", "export into the run folder, without --out")
            for name in files_of(representation):
                if Path(name).name != name:
                    raise self.refuse(f"{name!r} names a folder", "name files without folders")
                self.check_file(folder / name)

    def check_file(self, path):
        try:
            facts = path.lstat()
        except OSError as error:
            raise self.refuse(f"{path} is not there", "export it again") from error
        if not stat.S_ISREG(facts.st_mode):
            raise self.refuse(f"{path} is a link or no file", "put the file itself there, or export it again")
        if facts.st_size == 0:
            raise self.refuse(f"{path} is empty (0 bytes)", "export it again")

    def refuse(self, problem, remedy):
        return PublishValidationError(
            problem, remedy, title="Outside of the staging folder",
            description="What is published is copied from the run folder alone: regular files, no links, and names "
                        "without folders.",
        )
