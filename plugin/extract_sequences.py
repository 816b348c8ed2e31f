"""The EXR sequences, copied to where they are published from."""

from pathlib import Path

import pyblish.api

from omnimotion_core.publishing.staging import copy_file, staged
from omnimotion_core.publishing.versions import files_of


class ExtractSequences(pyblish.api.InstancePlugin):
    """Copies a sequence under the names that it has."""

    order = pyblish.api.ExtractorOrder
    label = "Copy EXR sequence"
    families = ["omnimotion.sequence"]

    def process(self, instance):
        (representation,) = instance.data["representations"]
        source = Path(representation["stagingDir"])
        with staged(instance.context.data, instance.data) as folder:
            for name in files_of(representation):
                copy_file(source / name, folder, name, instance.data["digests"])
        representation["stagingDir"] = instance.data["stagingDir"] = str(folder)
