"""The preview movie and the report, copied to where they are published from."""

from pathlib import Path

import pyblish.api

from omnimotion_core.publishing.staging import copy_file, staged


class ExtractReview(pyblish.api.InstancePlugin):
    """Copies what is there to be looked at, under the clip's name."""

    order = pyblish.api.ExtractorOrder
    label = "Copy preview"
    families = ["omnimotion.review"]

    def process(self, instance):
        clip = instance.data["omnimotionFacts"].name
        with staged(instance.context.data, instance.data) as folder:
            for representation in instance.data["representations"]:
                name = f"{clip}.{representation['files']}"
                copy_file(Path(representation["stagingDir"]) / representation["files"], folder, name,
                          instance.data["digests"])
                representation.update(files=name, stagingDir=str(folder))
        instance.data["stagingDir"] = str(folder)
