"""The preview movie and the report of the run."""

import pyblish.api

from omnimotion_core.publishing.instances import instance_data, representation


class CollectReview(pyblish.api.ContextPlugin):
    """Makes an instance of what is there to be looked at."""

    order = pyblish.api.CollectorOrder + 0.1
    label = "Preview"

    def process(self, context):
        facts = context.data.get("omnimotionFacts")
        if facts is None:  # the run folder could not be read, which has been told
            return
        run = facts.run
        if not run.preview.exists():
            return
        found = [representation(facts, "mp4", [run.preview.name], run.path, tags=["review"])]
        if run.report.exists():
            found.append(representation(facts, "html", [run.report.name], run.path))
        data = instance_data(facts, "review", "reviewMain", families=["omnimotion.review"],
                             folder_path=context.data.get("folderPath"))
        context.create_instance("reviewMain", **data, representations=found)
