"""What a publisher's window offers where a validator has failed."""

from pathlib import Path
from typing import Any

import pyblish.api

from omnimotion_core.publishing.instances import failures
from omnimotion_core.publishing.repair import export_again
from omnimotion_core.publishing.sequences import find_sequences, forget_measured


class ExportAgain(pyblish.api.Action):  # type: ignore[misc]
    """Writes the sequences that the validator refused again, from the run's field."""

    label = "Export again"
    on = "failed"
    icon = "wrench"

    def process(self, context: Any, plugin: Any) -> None:
        refused = [result["instance"] for result in failures(context.data["results"])
                   if result["plugin"].__name__ == plugin.__name__]  # fmt: skip
        run = Path(context.data["omnimotionRun"])
        done = context.data.get("omnimotionMended", set())  # our runner's: one export mends for all validators
        for instance in refused:
            sequence = instance.data["exrSequence"]
            if sequence.folder not in done:
                export_again(run, sequence.folder, sequence.export_kind)
                done.add(sequence.folder)
            refresh(instance)


def refresh(instance: Any) -> None:
    """Have an instance tell of the files that are there now."""
    before = instance.data["exrSequence"]
    now = [one for one in find_sequences(before.folder.parent) if one.stem == before.stem]
    if now:
        instance.data["exrSequence"] = now[0]
        instance.data["representations"][0]["files"] = [path.name for path in now[0].files.values()]
    forget_measured(instance.data)
