"""What the user named: a movie or an image sequence, found and checked before anything is decoded."""

import hashlib
import os
import re
import stat
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from omnimotion_core.config import VideoConfig
from omnimotion_core.errors import ClipError
from omnimotion_core.files import safe_name, sha256_of
from omnimotion_core.video.mask import MaskSource, find_mask
from omnimotion_core.video.movie import MovieFacts, read_movie_facts
from omnimotion_core.video.picture import PictureFacts, read_facts
from omnimotion_core.video.sequence import (
    FrameFile,
    ImageSequence,
    is_image,
    is_pattern,
    sequence_of_file,
    sequence_of_folder,
    sequence_of_pattern,
)

DEFAULT_FPS = 24.0  # of sequences whose files do not tell


@dataclass(frozen=True, kw_only=True)
class Source:
    """Footage that exists and can be opened, and which of its frames are tracked."""

    name: str  # safe as part of a file name
    path: str  # absolute: the movie, or the sequence's first file (loaded in Blender it shows the whole clip)
    sha256: str  # of the movie file, or of the tracked files' contents one after another
    first_frame: int  # the first tracked frame: a file's number in a sequence, counted from 1 in a movie
    last_frame: int | None  # the last one; None: to the end of the movie
    clip_first_frame: int  # the whole clip's first frame in the same numbering
    expected_frames: int  # that will be tracked, 0: not known before the movie is decoded
    fps: float
    pixel_aspect: float  # of the stored picture
    movie: MovieFacts | None = None
    files: tuple[FrameFile, ...] = ()  # of a sequence, one each tracked frame
    picture: PictureFacts | None = None  # of a sequence's first tracked file
    mask: MaskSource | None = None
    mask_sha256: str = ""  # of the mask pictures' contents, empty where there is none

    @property
    def is_sequence(self) -> bool:
        """Image files rather than a movie."""
        return self.movie is None


def identify(path: str, config: VideoConfig) -> Source:
    """Find the movie or image sequence that ``path`` names; reads headers and hashes contents, decodes nothing.

    Args:
        path: a movie; a sequence as ``name.####.ext``, ``%04d``, ``$F4`` or ``@@@@``, by one of its files (which
            stands for all of them) or by a folder that holds no other.
        config: frames, gaps and mask.
    Raises:
        ClipError: there is no such footage, or it can be told already that it cannot be tracked.
    """
    if re.match(r"[A-Za-z][A-Za-z0-9+.-]*://", path):
        raise ClipError(f"{path} is a URL", "download it and give the file's path")
    absolute = Path(os.path.abspath(path))
    mode = _mode(absolute, path)
    if mode is None and is_pattern(absolute.name):
        return _identify_sequence(sequence_of_pattern(absolute), config)
    if mode is None:
        raise ClipError(f"{path} does not exist", "check the path of the movie or image sequence")
    if stat.S_ISDIR(mode):
        return _identify_sequence(sequence_of_folder(absolute), config)
    if not stat.S_ISREG(mode):
        raise ClipError(f"{path} is not a regular file", "give a movie or an image sequence")
    if not is_image(absolute.name):
        return _identify_movie(absolute, config)
    sequence = sequence_of_file(absolute)
    if sequence is None or len(sequence.files) == 1:
        raise ClipError(f"{path} is a single picture", "give a movie or a sequence of numbered pictures")
    return _identify_sequence(sequence, config)


def _mode(path: Path, named: str) -> int | None:
    """The file's kind; None: there is none."""
    try:
        return os.stat(path).st_mode if named else None
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, ValueError) as error:  # a null byte is a ValueError
        reason = getattr(error, "strerror", None) or str(error)
        raise ClipError(f"{named!r} cannot be opened ({reason})", "check the path and its permissions") from error


def _identify_movie(path: Path, config: VideoConfig) -> Source:
    facts = read_movie_facts(path)
    first, last = config.frames or (1, None)
    if first < 1:
        raise ClipError(f"frames {first}-{last} were asked for", "a movie's frames are counted from 1")
    expected = facts.expected_frames
    if last is not None:
        expected = last - first + 1
    _check_count(path.name, expected, config)
    mask = find_mask(config.mask, first) if config.mask else None
    mask_files = [] if mask is None else _mask_files(mask, range(first, first + max(expected, 1)))
    return Source(
        name=safe_name(path.stem), path=str(path), sha256=_hash_movie(path), first_frame=first, last_frame=last,
        clip_first_frame=1, expected_frames=expected, fps=facts.fps, pixel_aspect=facts.pixel_aspect, movie=facts,
        mask=mask, mask_sha256=_hash(mask_files) if mask_files else "",
    )  # fmt: skip


def _identify_sequence(sequence: ImageSequence, config: VideoConfig) -> Source:
    if len(sequence.files) == 1:
        raise ClipError(f"{sequence.pattern} holds 1 frame", "give at least two frames")
    files = sequence.select(config.frames, allow_gaps=config.allow_gaps)
    _check_count(sequence.pattern, len(files), config)
    for file in files:
        if _size_of(file.path) == 0:
            raise ClipError(f"{file.path} is empty (0 bytes)", "replace the file, or leave its frame out")
    facts = read_facts(files[0].path)
    first = files[0].number
    mask = find_mask(config.mask, first) if config.mask else None
    mask_files = [] if mask is None else [mask.file(file.number) for file in files]
    return Source(
        name=safe_name(sequence.title), path=str(sequence.files[sequence.first]),
        sha256=_hash(file.path for file in files), first_frame=first, last_frame=files[-1].number,
        clip_first_frame=sequence.first, expected_frames=len(files), fps=facts.fps or DEFAULT_FPS,
        pixel_aspect=facts.pixel_aspect, files=tuple(files), picture=facts,
        mask=mask, mask_sha256=_hash(mask_files) if mask_files else "",
    )  # fmt: skip


def _check_count(name: str, count: int, config: VideoConfig) -> None:
    if count > config.max_frames:
        raise ClipError(
            f"{name} would be tracked over {count} frames, at most {config.max_frames} are tracked at once",
            "choose a part with frames A-B, or raise video.max_frames",
        )


def _mask_files(mask: MaskSource, numbers: range) -> list[Path]:
    """The mask pictures of frames that are expected; a movie may turn out shorter than its header says."""
    return [mask.still] if mask.still else [mask.file(n) for n in numbers if mask.sequence and n in mask.sequence.files]


def _size_of(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError as error:
        raise _unreadable(path, error) from error


def _hash_movie(path: Path) -> str:
    try:
        return sha256_of(path)
    except OSError as error:
        raise _unreadable(path, error) from error


def _hash(paths: Iterable[Path]) -> str:
    """SHA-256 of the files' contents one after another, hexadecimal."""
    digest = hashlib.sha256()
    for path in paths:
        try:
            with path.open("rb") as file:
                while block := file.read(1 << 20):
                    digest.update(block)
        except OSError as error:
            raise _unreadable(path, error) from error
    return digest.hexdigest()


def _unreadable(path: Path, error: OSError) -> ClipError:
    return ClipError(f"{path} cannot be read ({error.strerror})", "check the file and its permissions")
