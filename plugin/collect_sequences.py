"""The EXR sequences of the run: motion vectors, and pictures such as STMaps."""

import pyblish.api

from omnimotion_core.publishing.instances import instance_data, representation, variant_of
from omnimotion_core.publishing.sequences import find_sequences, sequence_folders


class CollectSequences(pyblish.api.ContextPlugin):
    """Makes an instance of each sequence."""

    order = pyblish.api.CollectorOrder + 0.1
    label = "EXR sequences"

    def process(self, context):
        facts = context.data.get("omnimotionFacts")
        if facts is None:  # the run folder could not be read, which has been told
            return
        taken: set[str] = set()
        for sequence in find_sequences(facts.run.exr):
            variant = variant_of(sequence.stem.removeprefix(f"{facts.name}."))
            prefix = "motionvector" if sequence.is_vectors else "image"
            name = base = f"{prefix}{variant}"
            while name in taken:  # a-b and a.b are one product name
                name = f"{base}{len(taken)}"
            taken.add(name)
            kinds = ["motionvector", "omnimotion.vectors"] if sequence.is_vectors else []
            data = instance_data(facts, "image", name, families=[*kinds, "omnimotion.sequence"],
                                 folder_path=context.data.get("folderPath"))
            files = list(sequence.files.values())
            context.create_instance(
                name, **data, exrSequence=sequence, colorspace="data",
                representations=[representation(facts, "exr", [path.name for path in files], files[0].parent)],
            )
        for folder in sequence_folders(facts.run.exr):
            if any(folder.iterdir()) and not any(folder.glob("*.exr")):
                self.log.warning("%s holds no EXR files and is not published", folder)
