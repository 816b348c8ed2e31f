"""The command ``omnimotion``: arguments in, an exit code out.

    0 done · 1 our bug (a traceback on stderr), or a publish with errors (a line each)
    2 something the user can mend (one line) · 3 cancelled

Nothing heavy is imported before the arguments are understood, so that ``--help`` is instant.
"""

import argparse
import errno
import math
import os
import re
import signal
import sys
import threading
import time
import traceback
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, NoReturn

from omnimotion_core import __version__
from omnimotion_core.errors import ConfigError, OmniMotionError, PublishFailed
from omnimotion_core.events import Cancelled, CancelledEvent, Event, Failed, Finished, Reporter, Started

if TYPE_CHECKING:
    from omnimotion_core.terminal import TerminalSink

DONE, BUG, MENDABLE, CANCELLED = range(4)  # exit codes
REFUSED = BUG  # a publish in which a plug-in told an error: pipelines expect 1
_MENDABLE_ERRNOS = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM)  # where no room told more


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns its exit code.

    Args:
        argv: the arguments after the program's name; those of this process when not given.
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    with ExitStack() as stack:
        asked = stack.enter_context(_stopping_on_signals())
        if "--events" in arguments:
            from omnimotion_core.terminal import CancelOnStdin, JsonSink

            sink = stack.enter_context(JsonSink())
            stdin = CancelOnStdin().start()
            sink(Started(version=__version__))
            reporter = Reporter(sink, lambda: asked.is_set() or stdin.cancelled() or sink.closed)
        else:
            reporter = Reporter(stack.enter_context(_Terminal()), asked.is_set)
        code, last, told = _perform(arguments, reporter)
        reporter.emit(last)
    for line in told:
        print(_one_line(f"omnimotion: {line}"), file=sys.stderr)
    return code


def _perform(arguments: list[str], reporter: Reporter) -> tuple[int, Event, tuple[str, ...]]:
    """Do what the arguments ask: the exit code, the job's last event, and what to tell on standard error."""
    began = time.perf_counter()
    resumable = False
    try:
        options = build_parser().parse_args(arguments)
        resumable = options.resumable
        if options.command == "doctor":
            _doctor(options)
        else:
            from omnimotion_core import commands

            name = options.command if options.command != "import" else "import_"  # a word of Python's own
            getattr(commands, name)(options, reporter)
    except (Cancelled, KeyboardInterrupt):
        return CANCELLED, CancelledEvent(resumable=resumable), ()
    except BrokenPipeError:  # whoever read the answer has seen enough, as `| head` does
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # or it is told again when Python ends
        return CANCELLED, CancelledEvent(resumable=resumable), ()
    except PublishFailed as error:
        return REFUSED, Failed(problem=error.problem, remedy=error.remedy), (*error.lines, str(error))
    except Exception as error:  # noqa: BLE001  # every failure becomes an exit code here, and only here
        mendable = error if isinstance(error, OmniMotionError) else _as_mendable(error)
        if mendable is not None:
            return MENDABLE, Failed(problem=mendable.problem, remedy=mendable.remedy), (str(mendable),)
        traceback.print_exc()
        problem = f"this is a bug in omnimotion: {type(error).__name__}: {error}"
        return BUG, Failed(problem=problem, remedy="report it with the log"), ()
    return DONE, Finished(seconds=round(time.perf_counter() - began, 3)), ()


def _doctor(options: argparse.Namespace) -> None:
    """Here and not among the other commands, so that it works where a package that they need is broken."""
    from omnimotion_core.doctor import examine

    report = examine()
    print(report.to_json() if options.json else report.to_text(), flush=True)
    if not report.ok:
        raise ConfigError("this machine lacks something that is needed", "follow the advice above")


def _as_mendable(error: Exception) -> OmniMotionError | None:
    """What a machine's limits raise, as an error that tells the remedy; None where it is our bug."""
    if isinstance(error, OSError) and error.errno in _MENDABLE_ERRNOS:
        from omnimotion_core.files import unwritable

        return unwritable(Path(error.filename or "a file"), error)
    # torch and OpenCV have errors of their own, which are no MemoryError
    text = str(error).lower()
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError" or any(
        words in text for words in ("can't allocate memory", "not enough memory", "insufficient memory")
    ):
        return ConfigError("the memory is not enough", "lower video.long_side, fit.batch or tracks.memory_mb, take "
                           "fewer frames, or use --preset draft")
    return None


def _one_line(text: str) -> str:
    return " ".join(text.splitlines())


class _Terminal:
    """A ``TerminalSink`` that is made at the first event of a job: quick commands stay silent and need no rich."""

    def __init__(self) -> None:
        self._sink: TerminalSink | None = None

    def __call__(self, event: Event) -> None:
        if isinstance(event, Failed) or (self._sink is None and isinstance(event, Finished)):
            return  # told in one line after the bars are gone
        if self._sink is None:
            from omnimotion_core.terminal import TerminalSink

            self._sink = TerminalSink()
        self._sink(event)

    def __enter__(self) -> "_Terminal":
        return self

    def __exit__(self, *_: object) -> None:
        if self._sink is not None:
            self._sink.close()


@contextmanager
def _stopping_on_signals() -> Iterator[threading.Event]:
    """An event that is set by SIGINT (Ctrl-C) and SIGTERM; the second one interrupts at once."""
    asked = threading.Event()

    def stop(number: int, frame: FrameType | None) -> None:
        if asked.is_set():
            raise KeyboardInterrupt
        asked.set()

    if threading.current_thread() is not threading.main_thread():  # only the main thread may set handlers
        yield asked
        return
    before = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield asked
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise ConfigError(message, f"see `{self.prog} --help`")


def build_parser() -> argparse.ArgumentParser:
    """All commands and their arguments."""
    parser = _Parser(prog="omnimotion", allow_abbrev=False,
                     description="Tracks everything: the motion of every pixel over a whole shot.",
                     epilog="Exit codes: 0 done, 1 a bug or a refused publish, 2 something to mend (told in one "
                            "line), 3 cancelled.")
    parser.add_argument("--version", action="version", version=f"omnimotion {__version__}")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True, parser_class=_Parser)

    def add(name: str, text: str, *, resumable: bool = True) -> argparse.ArgumentParser:
        command = commands.add_parser(name, help=text, description=f"{text[0].upper()}{text[1:]}.", allow_abbrev=False)
        command.set_defaults(resumable=resumable)
        command.add_argument("--events", action="store_true",
                             help="speak JSON lines on stdout; cancel by a line or the end of stdin")
        return command

    track = add("track", "track a clip: prepare, flow, fit, tracks and export, or go on where that was stopped")
    track.add_argument("clip", metavar="CLIP", help="a movie, or an image sequence such as shot.####.exr")
    track.add_argument("--out", metavar="RUN", required=True, help="the run folder; made where it is absent")
    _add_settings(track)

    prepare = add("prepare", "one stage: decode the clip into working frames")
    prepare.add_argument("run", metavar="RUN", help="a run folder; with --clip it is made where it is absent")
    prepare.add_argument("--clip", metavar="CLIP",
                         help="make the run folder for this clip, with the settings below; without it: the run's own")
    _add_settings(prepare)

    flow = add("flow", "one stage: find and filter the correspondences")
    _add_run(flow)
    flow.add_argument("--chunk", metavar="K/N", type=_chunk,
                      help="only the K-th of N parts, which may run at once; `flow` without it then completes them")
    _add_run(add("fit", "one stage: fit the motion field"))
    _add_run(add("tracks", "one stage: seed the tracks, write tracks.npz and markers.json"))

    take = add("import", "make a run folder of a checkpoint that OmniMotion's published code has saved")
    take.add_argument("checkpoint", metavar="CHECKPOINT", help="such as model_100000.pth")
    take.add_argument("--clip", metavar="CLIP", required=True, help="the frames that it was fitted to")
    take.add_argument("--out", metavar="RUN", required=True, help="the run folder; made where it is absent")
    _add_settings(take)

    query = add("query", "where given points are in every frame", resumable=False)
    _add_run(query)
    query.add_argument("--points", metavar="FILE", type=Path, required=True,
                       help="npz with queries (N,3), or csv t,x,y: frame counted from 0, pixels of the plate, y down; "
                            "or a folder, into which csv files come until the command is stopped")
    query.add_argument("--blender", action="store_true",
                       help="the points are places in Blender (the source's frame number, x and y as fractions of the "
                            "frame, y up), and FILE gets the layout of markers.json")
    query.add_argument("--out", metavar="FILE", type=Path, required=True,
                       help="the file to write: tracks (npz); a folder where the points are one")

    export = add("export", "write a finished run for other programs")
    _add_run(export)
    export.add_argument("--to", metavar="KIND", nargs="+",
                        help="vectors:blender, vectors:nuke, vectors:nuke-smartvector, vectors:rsmb, vectors:rsmb-16, "
                             "vectors:fusion, vectors:flo, vectors:ndc, vectors:custom, depth, stmap, stabilized; "
                             "tracks:nuke, tracks:3de, tracks:syntheyes, tracks:pftrack, tracks:ae, tracks:mmsolver, "
                             "tracks:json, tracks:csv, tracks:usd; preview, report; checkpoint of the paper's model; "
                             "without it, what the run's settings say")
    export.add_argument("--out", metavar="DIR",
                        help="write to DIR/KIND/… (a kind's colon becomes a dash) in place of the run folder")
    export.add_argument("--chunk", metavar="K/N", type=_chunk,
                        help="only the K-th of N parts of the frames of sequences; parts may run at once, and `export` "
                             "without it then adds the single files")
    export.add_argument("--reference", metavar="N", type=int, nargs="+",
                        help="of stmap and stabilized: reference frames by their numbers in the source; the first "
                             "tracked frame when not given")
    export.add_argument("--map", metavar="FILE", help="of vectors:custom: a JSON or TOML file that tells the channels")
    export.add_argument("--compression", metavar="NAME", help="of EXR files: ZIP (the default), ZIPS, PIZ, RLE, NONE "
                                                              "or PXR24, which rounds floats to 24 bits")
    export.add_argument("--multipart", action="store_const", const=True, help="EXR files with a part for each layer")
    export.add_argument("--max-displace", metavar="PX", type=float,
                        help="of vectors:rsmb and rsmb-16: the plug-in's Max Displace; 256 when not given")
    export.add_argument("--flip-v", action="store_const", const=True, help="of vectors:nuke-smartvector: y down")
    export.add_argument("--best", metavar="N", type=int,
                        help="of tracks: at most so many, the longest and surest, spread over the frame; as many as "
                             "markers.json has (500) when not given")

    propagate = add("propagate", "carry a matte or painted frames to every frame of the shot")
    _add_run(propagate)
    propagate.add_argument("--frame", metavar="N", type=int, action="append",
                           help="the frame, by its number in the source, that the picture was made on")
    propagate.add_argument("--image", metavar="FILE", action="append",
                           help="a picture of the plate's size; give several pairs to have them blended")
    propagate.add_argument("--out", metavar="DIR", required=True, help="the folder that gets a picture for each frame")

    evaluate = add("evaluate", "compare with the truth, beside chained flow and Lucas-Kanade", resumable=False)
    _add_run(evaluate)
    evaluate.add_argument("--truth", metavar="FILE", type=Path, required=True, help="a TAP-Vid truth file (npz)")
    evaluate.add_argument("--query", metavar="MODE", choices=("first", "strided"), default="first",
                          help="first (the default) or strided")
    evaluate.add_argument("--baselines", action="store_true",
                          help="also beside the flow from each query's frame to every other, which takes a pair of "
                               "frames' flow for each frame that is queried and each other, chaining over several "
                               "intervals, and the paper's model at equal time")
    evaluate.add_argument("--volumetric-time", metavar="FACTOR", type=_factor,
                          help="with --baselines: how long the paper's model is fitted, in times of the run's own fit "
                               "(1 when not given; 0: not at all)")
    evaluate.add_argument("--tracks", metavar="NAME=FILE", type=_named_file, nargs="+", action="extend",
                          help="also beside another tracker's answers to the same queries (npz)")
    evaluate.add_argument("--json", metavar="FILE", type=Path, help="write the figures there too")

    batch = add("batch", "track many clips: those of a jobs file, or of a folder")
    _add_jobs(batch)
    batch.add_argument("--out", metavar="DIR", dest="runs",
                       help="run folders, report and logs go there; by default where the jobs file says, or runs "
                            "beside it, or FOLDER-runs")
    batch.add_argument("--jobs", metavar="N", type=int, default=0,
                       help="processes at once, among which the cores are shared out; 0 (the default): as many as "
                            "cores and memory allow")
    batch.add_argument("--keep-going", action="store_true", help="go on with the other clips where one fails")

    farm = add("farm", "write the jobs of a batch for a farm's engine", resumable=False)
    farm.add_argument("engine", metavar="openjd|slurm|flamenco", choices=("openjd", "slurm", "flamenco"))
    _add_jobs(farm)
    farm.add_argument("--out", metavar="FILE", type=Path, required=True,
                      help="an Open Job Description template (JSON, which is YAML too), a bash script of sbatch calls, "
                           "or a job type in JavaScript")
    farm.add_argument("--runs", metavar="DIR", help="run folders go there; by default as with batch")
    farm.add_argument("--command", metavar="PROGRAM", dest="command_on_hosts", default="omnimotion",
                      help="the program on the farm's hosts: omnimotion (the default) on their PATH, or a path")

    publish = add("publish", "hand a finished run on as the next version of its clip, once it is found to be in order",
                  resumable=False)
    publish.add_argument("run", metavar="RUN", help="a run folder")
    publish.add_argument("--out", metavar="DIR", required=True, help="gets DIR/CLIP/v001, v002 and so on")
    publish.add_argument("--comment", metavar="TEXT", default="", help="kept with the version")
    publish.add_argument("--repair", action="store_true",
                         help="have files that are found wrong exported again, then publish")
    publish.add_argument("--allow-env-plugins", action="store_true",
                         help="run the plug-ins of PYBLISHPLUGINPATH too; without it, those that come with omnimotion")

    demo = add("demo", "make a short clip with known motion, track it, export it, compare it with the truth")
    demo.add_argument("--out", metavar="DIR", type=Path, default=Path("omnimotion-demo"),
                      help="omnimotion-demo when not given")
    demo.add_argument("--frames", metavar="N", type=int, default=24, dest="num_frames", help="length of the clip")
    demo.add_argument("--size", metavar="N", type=int, default=256, help="its side in pixels")
    _add_machine(demo)
    demo.add_argument("--preset", metavar="NAME", help="draft, standard (the default) or paper")
    demo.add_argument("--config", metavar="FILE|JSON", help="changes to the preset")

    bench = add("bench", "measure what each stage costs on this machine, and how the costs grow; or how accurate it is",
                resumable=False)
    bench.add_argument("--json", metavar="FILE", type=Path, help="write the figures there too")
    measured = bench.add_mutually_exclusive_group()
    measured.add_argument("--quick", action="store_true",
                          help="tiny clips: whether it works here, rather than how fast")
    measured.add_argument("--accuracy", metavar="SCENE", nargs="*",
                          help="hard scenes whose motion is known, all or those named, beside the baselines")
    bench.add_argument("--preset", metavar="NAME", help="with --accuracy: draft, standard (the default) or paper")
    bench.add_argument("--config", metavar="FILE|JSON", help="with --accuracy: changes to the preset")
    bench.add_argument("--seed", metavar="N", type=int, help="with --accuracy: of the scenes and of the fit")
    bench.add_argument("--plot", metavar="FILE", type=Path, help="with --accuracy: draw the figures there too (SVG)")
    _add_machine(bench)

    weights = add("weights", "pretrained weights for learned flow: what is known, and the asked-for download")
    weights.add_argument("action", metavar="list|get", choices=("list", "get"))
    weights.add_argument("name", metavar="NAME", nargs="?", help="which weights to get, as `weights list` calls them")

    addon = add("addon", "build the Blender add-on: one zip that Blender 3.4 to 5.x installs", resumable=False)
    addon.add_argument("--out", metavar="DIR", type=Path, default=Path(), help="this folder when not given")

    doctor = add("doctor", "what this machine has, what is missing and how to mend it", resumable=False)
    doctor.add_argument("--json", action="store_true", help="print JSON")
    return parser


def _add_run(command: argparse.ArgumentParser) -> None:
    command.add_argument("run", metavar="RUN", help="a run folder")
    _add_machine(command)


def _add_jobs(command: argparse.ArgumentParser) -> None:
    command.add_argument("path", metavar="JOBS.toml|FOLDER", help="a jobs file, or a folder of clips")
    command.add_argument("--preset", metavar="NAME", help="of every clip: draft, standard (the default) or paper")
    command.add_argument("--to", metavar="KIND", nargs="+", help="what is exported of every clip")
    command.add_argument("--flow", metavar="NAME|DIR", help="as with track, of every clip")
    command.add_argument("--device", metavar="NAME", help="auto, cpu, cuda or mps")
    command.add_argument("--config", metavar="FILE|JSON", help="changes to the preset, of every clip")
    command.add_argument("--flow-chunks", metavar="N", type=int, help="parts of a clip's flow that may run at once")
    command.add_argument("--export-chunks", metavar="N", type=int, help="parts of its exported frames, likewise")


def _add_machine(command: argparse.ArgumentParser) -> None:
    command.add_argument("--device", metavar="NAME", help="auto, cpu, cuda or mps")
    command.add_argument("--threads", metavar="N", type=int, help="0: as many as this process may use")


def _add_settings(command: argparse.ArgumentParser) -> None:
    command.add_argument("--preset", metavar="NAME", help="draft, standard (the default) or paper")
    _add_machine(command)
    command.add_argument("--frames", metavar="A-B", type=_frames,
                         help="first and last frame: file numbers of a sequence, counted from 1 in a movie")
    command.add_argument("--flow", metavar="NAME|DIR",
                         help="auto (the default: DIS, and learned flow where its weights are here), dis, raft, "
                              "raft-small, gmflow, another estimator's name, or a folder of flow made elsewhere")
    command.add_argument("--weights", metavar="FILE", help="the weights of raft, raft-small or gmflow")
    command.add_argument("--mask", metavar="PATH", help="an image or a sequence; white is tracked")
    command.add_argument("--seed", metavar="N", type=int, help="of everything random")
    command.add_argument("--allow-gaps", action="store_const", const=True,
                         help="a missing file of a sequence repeats the one before it")
    command.add_argument("--config", metavar="FILE|JSON", help="changes to the preset")


def _frames(text: str) -> tuple[int, int]:
    match = re.fullmatch(r"(-?\d+)-(-?\d+)", text)
    if match is None:
        raise argparse.ArgumentTypeError(f"{text!r} is not A-B, such as 1001-1048")
    return int(match[1]), int(match[2])


def _factor(text: str) -> float:
    try:
        factor = float(text)
    except ValueError:
        factor = math.nan
    if not 0 <= factor < math.inf:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of 0 or more")
    return factor


def _named_file(text: str) -> tuple[str, Path]:
    name, separator, path = text.partition("=")
    if not separator or not name.strip() or not path:
        raise argparse.ArgumentTypeError(f"{text!r} is not NAME=FILE, such as CoTracker=cotracker.npz")
    return name.strip(), Path(path)


def _chunk(text: str) -> tuple[int, int]:
    match = re.fullmatch(r"(\d+)/(\d+)", text)
    if match is None:
        raise argparse.ArgumentTypeError(f"{text!r} is not K/N, such as 2/8")
    return int(match[1]), int(match[2])
