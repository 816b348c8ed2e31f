"""A synthetic scene as files: an image sequence or a movie, as a camera department would deliver them."""

from pathlib import Path

import av
import cv2
from av.video.reformatter import ColorPrimaries, ColorRange, Colorspace, ColorTrc

from omnimotion_core.errors import ConfigError
from omnimotion_core.evaluation.synthetic import Scene
from omnimotion_core.events import Reporter
from omnimotion_core.files import unwritable, write_atomically

STAGE = "render"  # what progress is told as
_QUALITY = 6  # x264's constant rate factor: 0 is lossless, what is lost at 6 stays within a few gray levels


def write_frames(
    scene: Scene,
    folder: Path,
    *,
    stem: str = "frame",
    first_frame: int = 1,
    keep_existing: bool = False,
    reporter: Reporter | None = None,
) -> list[Path]:
    """The scene as ``<stem>.0001.png``, … (8-bit RGB).

    Args:
        scene: what to render.
        folder: where to; made when absent.
        stem: the files' name before the number.
        first_frame: the first file's number.
        keep_existing: go on after an earlier call with the same scene, whose files are whole.
        reporter: told of progress, and asked whether to stop.
    Raises:
        RunError: the folder cannot be written.
    """
    reporter = reporter or Reporter()
    paths = []
    for t in range(scene.num_frames):
        path = folder / f"{stem}.{first_frame + t:04d}.png"
        paths.append(path)
        if not (keep_existing and path.exists()):
            with write_atomically(path) as temporary:
                if not cv2.imwrite(str(temporary), cv2.cvtColor(scene.render(t), cv2.COLOR_RGB2BGR)):
                    raise OSError(f"{path.name} was not written")
        reporter.progress(STAGE, t + 1, scene.num_frames)
    return paths


def write_movie(scene: Scene, path: Path, *, fps: int = 24, reporter: Reporter | None = None) -> None:
    """The scene as an H.264 movie, BT.709, hardly compressed.

    Args:
        scene: what to render. Colors are kept at half the resolution, as movies do, where both sides are even.
        path: of the movie, .mp4, .mov or .mkv.
        fps: frames per second.
        reporter: told of progress, and asked whether to stop.
    Raises:
        ConfigError: the file's suffix is none of these, or fps is not above 0.
        RunError: the file cannot be written.
    """
    if path.suffix.lower() not in (".mp4", ".mov", ".mkv"):
        raise ConfigError(f"the movie is to be called {path.name}", "end its name in .mp4, .mov or .mkv")
    if fps <= 0:
        raise ConfigError(f"fps is {fps}", "set it above 0")
    reporter = reporter or Reporter()
    with write_atomically(path) as temporary:
        try:
            _encode(scene, temporary, fps, reporter)
        except av.FFmpegError as error:
            raise unwritable(path, error if isinstance(error, OSError) else OSError(str(error))) from error


def _encode(scene: Scene, path: Path, fps: int, reporter: Reporter) -> None:
    pixel_format = "yuv444p" if scene.size[0] % 2 or scene.size[1] % 2 else "yuv420p"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=fps, options={"crf": str(_QUALITY), "preset": "fast"})
        stream.width, stream.height = scene.size
        stream.pix_fmt = pixel_format
        stream.codec_context.thread_count = 1  # the same bytes on every machine
        stream.codec_context.colorspace = Colorspace.ITU709
        stream.codec_context.color_primaries = ColorPrimaries.BT709
        stream.codec_context.color_trc = ColorTrc.BT709
        stream.codec_context.color_range = ColorRange.MPEG
        for t in range(scene.num_frames):
            picture = av.VideoFrame.from_ndarray(scene.render(t), format="rgb24")
            frame = picture.reformat(
                format=pixel_format, dst_colorspace=Colorspace.ITU709, dst_color_range=ColorRange.MPEG,
                src_color_range=ColorRange.JPEG,
            )  # fmt: skip
            container.mux(stream.encode(frame))
            reporter.progress(STAGE, t + 1, scene.num_frames)
        container.mux(stream.encode())
