"""Image sequences: which numbered files on disk a name, a pattern or a folder stands for.

A frame's number is the last run of digits before the extension, as in Blender. A sign is part of the name:
``shot-0001.png`` is frame 1, while general parsers of frame ranges read it as frame -1.
"""

import os
import re
from dataclasses import dataclass
from pathlib import Path

import fileseq
from fileseq.constants import PAD_STYLE_HASH1

from omnimotion_core.errors import ClipError

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".exr", ".dpx")
_PADDING = re.compile(r"#+|@+|%0?[0-9]*d|\$F[0-9]*")
_NUMBER = re.compile(r"([0-9]+)([^0-9]*)$")


@dataclass(frozen=True, kw_only=True)
class FrameFile:
    """One frame of a sequence."""

    number: int
    path: Path
    repeated: bool = False  # stands in for a missing file


@dataclass(frozen=True, kw_only=True)
class ImageSequence:
    """The numbered files of one picture name in one folder."""

    folder: Path
    prefix: str  # of the file names, before the number
    width: int  # digits of the number at least
    suffix: str  # after the number, with the extension
    files: dict[int, Path]  # by number, rising

    @property
    def title(self) -> str:
        """The name without number, for people; the folder's where nothing is left."""
        return self.prefix.rstrip("._- ") or self.folder.name or "sequence"

    @property
    def pattern(self) -> str:
        """The name with # for each digit of the number."""
        return f"{self.prefix}{'#' * self.width}{self.suffix}"

    @property
    def first(self) -> int:
        """The lowest number."""
        return min(self.files)

    @property
    def last(self) -> int:
        """The highest number."""
        return max(self.files)

    def missing(self, first: int, last: int) -> list[int]:
        """Numbers from first to last that have no file."""
        return [number for number in range(first, last + 1) if number not in self.files]

    def select(self, frames: tuple[int, int] | None, *, allow_gaps: bool) -> list[FrameFile]:
        """The files of ``frames`` (inclusive; None: all), a gap filled by the file before it where that is allowed.

        Raises:
            ClipError: the range reaches beyond the sequence, or a file is missing.
        """
        first, last = frames or (self.first, self.last)
        if first < self.first or last > self.last:
            raise ClipError(
                f"{self.pattern} holds frames {self.first}-{self.last} and frames {first}-{last} were asked for",
                f"choose frames within {self.first}-{self.last}",
            )
        missing = self.missing(first, last)
        if missing and not allow_gaps:
            raise ClipError(
                f"{self.pattern} has no frame {fileseq.framesToFrameRange(missing, compress=False)}",
                "add the missing files, choose frames without a gap, or allow gaps",
            )
        selected: list[FrameFile] = []
        stand_in = max(number for number in self.files if number <= first)
        for number in range(first, last + 1):
            if number in self.files:
                stand_in = number
            selected.append(FrameFile(number=number, path=self.files[stand_in], repeated=number != stand_in))
        return selected


def is_image(name: str) -> bool:
    """Whether the file name ends as a picture's."""
    return name.lower().endswith(IMAGE_SUFFIXES)


def is_pattern(name: str) -> bool:
    """Whether the file name has a placeholder for the frame number and ends as a picture's."""
    return is_image(name) and _PADDING.search(name) is not None


def sequence_of_pattern(pattern: Path) -> ImageSequence:
    """The files that ``name.####.ext``, ``%04d``, ``$F4`` or ``@@@@`` stands for; one digit or none: any padding.

    Raises:
        ClipError: no file matches.
    """
    token = list(_PADDING.finditer(pattern.name))[-1]
    prefix, suffix = pattern.name[: token.start()], pattern.name[token.end() :]
    width = int(fileseq.getPaddingNum(token.group(), pad_style=PAD_STYLE_HASH1))
    found = _numbered(pattern.parent, prefix, suffix)
    files = _of_width(found, width) if width > 1 else _of_width(found, width := _common_width(list(found), None))
    if not files:
        raise ClipError(f"no file matches {pattern}", "check the folder, the name and the number of digits")
    return ImageSequence(folder=pattern.parent, prefix=prefix, width=width, suffix=suffix, files=files)


def sequence_of_file(path: Path) -> ImageSequence | None:
    """The whole sequence that one of its files stands for; None: the name has no number."""
    parts = split_number(path.name)
    if parts is None:
        return None
    prefix, digits, suffix = parts
    found = _numbered(path.parent, prefix, suffix)
    width = _common_width(list(found), digits)
    return ImageSequence(
        folder=path.parent, prefix=prefix, width=width, suffix=suffix, files=_of_width(found, width)
    )


def sequences_of_folder(folder: Path) -> dict[str, ImageSequence]:
    """All sequences that a folder itself holds, by their pattern; single pictures beside them do not count.

    Raises:
        ClipError: the folder cannot be read.
    """
    found: dict[str, ImageSequence] = {}
    for name in _picture_names(folder):
        if (parts := split_number(name)) and not any(_belongs(name, sequence) for sequence in found.values()):
            sequence = sequence_of_file(folder / name)
            assert sequence is not None, parts
            if len(sequence.files) > 1:
                found[sequence.pattern] = sequence
    return found


def sequence_of_folder(folder: Path) -> ImageSequence:
    """The one sequence that a folder holds; single pictures beside it do not count.

    Raises:
        ClipError: there is none, or more than one.
    """
    found = sequences_of_folder(folder)
    if not found:
        raise ClipError(
            f"the folder {folder} holds no image sequence",
            "name a movie, or a folder of numbered PNG, JPEG, TIFF, EXR or DPX files",
        )
    if len(found) > 1:
        names = sorted(found)
        listed = ", ".join(names[:3]) + (", ..." if len(names) > 3 else "")
        raise ClipError(f"the folder {folder} holds {len(names)} image sequences ({listed})", "name one of them")
    return next(iter(found.values()))


def split_number(name: str) -> tuple[str, str, str] | None:
    """A file name as (before, digits, after) of its last number before the extension; None: it has none."""
    stem, extension = os.path.splitext(name)
    match = _NUMBER.search(stem)
    return (stem[: match.start()], match.group(1), match.group(2) + extension) if match else None


def _belongs(name: str, sequence: ImageSequence) -> bool:
    return (sequence.folder / name) in sequence.files.values()


def _picture_names(folder: Path) -> list[str]:
    """Pictures of a folder, sorted; hidden files (such as macOS's ``._`` twins) left out."""
    try:
        with os.scandir(folder) as entries:
            return sorted(entry.name for entry in entries
                          if is_image(entry.name) and not entry.name.startswith(".") and entry.is_file())
    except FileNotFoundError as error:
        raise ClipError(f"the folder {folder} does not exist", "check the path") from error
    except OSError as error:
        raise ClipError(f"the folder {folder} cannot be read ({error.strerror})", "check its permissions") from error


def _numbered(folder: Path, prefix: str, suffix: str) -> dict[str, Path]:
    """Files ``prefix digits suffix`` of a folder, by their digits."""
    found: dict[str, Path] = {}
    for name in _picture_names(folder):
        digits = name[len(prefix) : len(name) - len(suffix)]
        if name.startswith(prefix) and name.endswith(suffix) and re.fullmatch("[0-9]+", digits):
            found[digits] = folder / name
    return found


def _of_width(found: dict[str, Path], width: int) -> dict[int, Path]:
    """Those whose number is padded to ``width`` digits, by rising number."""
    return dict(sorted((int(digits), path) for digits, path in found.items() if _padded(digits, width)))


def _padded(digits: str, width: int) -> bool:
    return len(digits) == width or (len(digits) > width and digits[0] != "0")


def _common_width(found: list[str], named: str | None) -> int:
    """The padding that most files agree on and, where one was named, that one too; of equals the longest."""
    longest = max((len(digits) for digits in found), default=1)
    widths = [width for width in range(1, longest + 1) if named is None or _padded(named, width)]
    return max(widths, key=lambda width: (sum(_padded(digits, width) for digits in found), width))
