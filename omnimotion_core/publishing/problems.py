"""What a validator raises."""

from omnimotion_core.errors import PublishError


class PublishValidationError(PublishError):
    """Something is not fit to be published; has what the publishers of studios show.

    Args:
        problem: what is wrong, in one line.
        remedy: what to do about it.
        title: a few words over it.
        description: the same at length, Markdown.
    """

    def __init__(self, problem: str, remedy: str, *, title: str, description: str) -> None:
        super().__init__(problem, remedy)
        self.message, self.title, self.description = str(self), title, description
