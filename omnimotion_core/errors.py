"""What a user can mend, told in one line.

    OmniMotionError            exit code 2: "what is wrong; how to mend it"
    ├── ConfigError            a setting or an argument
    ├── ClipError              the movie, the image sequence or the mask
    ├── FlowError              optical flow and its correspondences
    ├── FitError               the optimisation
    ├── QueryError             points or frames that were asked for
    ├── RunError               the run folder: lock, another clip, a missing stage
    ├── ExportError            what is written for other programs
    ├── BatchError             clips of a batch that failed
    ├── EvaluationError        truth files and metrics
    └── PublishError           what is handed on to a pipeline
        └── PublishFailed      exit code 1: a plug-in told an error, and nothing was published
"""


class OmniMotionError(Exception):
    """Base of every error a user can mend.

    Args:
        problem: what is wrong, naming the value received and the value expected.
        remedy: what the user can do about it.
    """

    def __init__(self, problem: str, remedy: str) -> None:
        super().__init__(problem, remedy)
        self.problem, self.remedy = problem, remedy

    def __str__(self) -> str:
        return f"{self.problem}; {self.remedy}"


class ConfigError(OmniMotionError):
    """A setting or a command-line argument cannot be used."""


class ClipError(OmniMotionError):
    """The footage cannot be read or cannot be tracked."""


class FlowError(OmniMotionError):
    """Optical flow cannot be computed, read or compared."""


class FitError(OmniMotionError):
    """The optimisation cannot start or does not converge."""


class QueryError(OmniMotionError):
    """A point or frame that was asked for is not in the clip."""


class RunError(OmniMotionError):
    """The run folder cannot be used for what was asked."""


class ExportError(OmniMotionError):
    """A file for another program cannot be written or read back."""


class BatchError(OmniMotionError):
    """Clips of a batch could not be tracked; each is told in the batch's report."""


class EvaluationError(OmniMotionError):
    """A truth file cannot be used with this run."""


class PublishError(OmniMotionError):
    """What is to be published is not fit for it, or cannot be handed on."""


class PublishFailed(PublishError):
    """A publish ended with errors in its results; nothing was published.

    Args:
        lines: an error each.
    """

    def __init__(self, problem: str, remedy: str, lines: tuple[str, ...]) -> None:
        super().__init__(problem, remedy)
        self.lines = lines
