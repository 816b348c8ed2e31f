"""What a publisher's window offers where a validator has failed."""

from pathlib import Path
from typing import Any

import pyblish.api

from omnimotion_core.publishing.repair import export_again
from omnimotion_core.publishing.sequences import find_sequences, forget_measured


class ExportAgain(pyblish.api.Action):  # type: ignore[misc]
    """Writes the sequences that the validator refused again, from the run's field."""

    label = "Export again"
    on = "failed"
    icon = "wrench"

    def process(self, context: Any, plugin: Any) -> None:
        latest = {}  # an instance may have been refused and repaired before; each discovery makes new plug-in classes
        for result in context.data["results"]:
            if result["plugin"].__name__ == plugin.__name__ and result["action"] is None:
                latest[result["instance"].id] = result
        refused = [result["instance"] for result in latest.values() if result["error"] is not None]
        run = Path(context.data["omnimotionRun"])
        done = set()
        for instance in refused:
            folder = next(iter(instance.data["exrSequence"].files.values())).parent
            if folder not in done:
                export_again(run, folder)
                done.add(folder)
            refresh(instance)


def refresh(instance: Any) -> None:
    """Have an instance tell of the files that are there now."""
    before = instance.data["exrSequence"]
    folder = next(iter(before.files.values())).parent
    now = [one for one in find_sequences(folder.parent) if one.stem == before.stem]
    if now:
        instance.data["exrSequence"] = now[0]
        instance.data["representations"][0]["files"] = [path.name for path in now[0].files.values()]
    forget_measured(instance.data)
