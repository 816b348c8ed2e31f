"""What this machine has for the work, and how to mend what is missing; works when every other package is broken."""

import contextlib
import dataclasses
import importlib
import json
import os
import platform
import re
import shutil
import sys
from collections.abc import Callable
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from types import ModuleType

from omnimotion_core import __version__

DISTRIBUTION = "omnimotion-core"

# Each package's distribution, and the name it is imported by.
MODULES = {
    "torch": "torch", "numpy": "numpy", "opencv-python-headless": "cv2", "av": "av", "OpenImageIO": "OpenImageIO",
    "OpenEXR": "OpenEXR", "fileseq": "fileseq", "safetensors": "safetensors", "rich": "rich",
    "filelock": "filelock", "numba": "numba", "psutil": "psutil",
}  # fmt: skip
DECODERS = ("h264", "hevc", "prores", "dnxhd", "ffv1")  # what editors and cameras deliver
ENCODERS = ("libx264",)  # of the preview
FORMATS = ("openexr", "dpx", "png", "jpeg", "tiff")

SMALL_MEMORY_GB = 2.0  # a short clip at 256 x 256 pixels needs about that
SMALL_DISK_GB = 1.0


@dataclass(frozen=True, kw_only=True)
class Device:
    """Something that torch can compute on."""

    name: str  # as --device takes it, with a number where there are several
    description: str
    memory_gb: float | None


@dataclass(frozen=True, kw_only=True)
class Package:
    """A package the core needs; ``version`` is None where it cannot be imported."""

    name: str
    version: str | None


@dataclass(frozen=True, kw_only=True)
class Advice:
    """What is wrong and how to mend it; without what is ``needed`` the core does not work."""

    problem: str
    remedy: str
    needed: bool


@dataclass(frozen=True, kw_only=True)
class Report:
    """A machine as the core sees it."""

    version: str
    python: str
    executable: str
    system: str
    cores: int  # that this process may use
    memory_gb: float | None
    memory_free_gb: float | None
    folder: str
    disk_free_gb: float  # where ``folder`` is
    devices: tuple[Device, ...]
    packages: tuple[Package, ...]
    decoders: dict[str, bool]
    encoders: dict[str, bool]
    formats: dict[str, bool]
    advice: tuple[Advice, ...]

    @property
    def ok(self) -> bool:
        """Whether the core can work here."""
        return not any(advice.needed for advice in self.advice)

    def to_json(self) -> str:
        """All of it, as one JSON object over several lines."""
        return json.dumps({**dataclasses.asdict(self), "ok": self.ok}, indent=1)

    def to_text(self) -> str:
        """All of it for a person, without the last newline."""
        rows = [
            ("omnimotion", f"{self.version}, Python {self.python} ({self.executable})"),
            ("system", f"{self.system}, {self.cores} cores to use"),
            ("memory", f"{_size(self.memory_gb)}, {_size(self.memory_free_gb)} free"),
            ("disk", f"{_size(self.disk_free_gb)} free in {self.folder}"),
            ("devices", "; ".join(map(_device_text, self.devices)) or "none"),
            ("packages", ", ".join(f"{package.name} {package.version or 'MISSING'}" for package in self.packages)),
            ("decoders", _presence(self.decoders)),
            ("encoders", _presence(self.encoders)),
            ("images", _presence(self.formats)),
        ]
        lines = [f"{name:<11} {text}" for name, text in rows]
        if self.advice:
            lines += ["", *(f"{'mend' if advice.needed else 'hint'}: {advice.problem}; {advice.remedy}"
                            for advice in self.advice)]  # fmt: skip
        return "\n".join([*lines, "", "All that is needed is here." if self.ok else "The core cannot work here yet."])


def examine(folder: Path | None = None) -> Report:
    """Look at this machine: Python, memory, disk, devices, packages and codecs.

    Args:
        folder: where runs are to be written; the current folder when not given.
    """
    folder = Path.cwd() if folder is None else folder
    advice: list[Advice] = []
    packages, modules = _packages(advice)
    memory_gb, memory_free_gb = _memory(modules, advice)
    disk_free_gb = shutil.disk_usage(folder).free / 2**30
    if disk_free_gb < SMALL_DISK_GB:
        advice.append(Advice(problem=f"only {_size(disk_free_gb)} is free in {folder}",
                             remedy="free some space, or write runs to another disk", needed=False))  # fmt: skip
    decoders, encoders = _codecs(modules.get("av"), "r", DECODERS), _codecs(modules.get("av"), "w", ENCODERS)
    formats = _formats(modules.get("OpenImageIO"))
    if "av" in modules:
        _advise_codecs({**decoders, **encoders}, "av", "PyAV", advice)
    if "OpenImageIO" in modules:
        _advise_codecs(formats, "OpenImageIO", "OpenImageIO", advice)
    return Report(
        version=__version__, python=platform.python_version(), executable=sys.executable, system=platform.platform(),
        cores=_cores(), memory_gb=memory_gb, memory_free_gb=memory_free_gb,
        folder=str(folder), disk_free_gb=disk_free_gb, devices=_devices(modules.get("torch"), advice),
        packages=packages, decoders=decoders, encoders=encoders, formats=formats, advice=tuple(advice),
    )  # fmt: skip


def _packages(advice: list[Advice]) -> tuple[tuple[Package, ...], dict[str, ModuleType]]:
    """Try to import each package; what fails is advised about."""
    bounds, packages, modules = _bounds(), [], {}
    for name, import_name in MODULES.items():
        requirement = name + bounds.get(name.lower(), "")
        version = None
        try:
            with contextlib.redirect_stdout(sys.stderr):  # OpenCV prints when it misses numpy; our report is stdout's
                modules[name] = importlib.import_module(import_name)
            version = _version(name, modules[name])
            if _is_older(version, requirement):
                advice.append(Advice(problem=f"{name} {version} is too old, {requirement} is needed",
                                     remedy=f"run: pip install --upgrade '{requirement}'", needed=True))  # fmt: skip
        except ModuleNotFoundError as error:
            missing = name if (error.name or import_name) == import_name else f"{error.name}, which {name} needs,"
            remedy = f"run: pip install '{requirement}'"
            advice.append(Advice(problem=f"{missing} is missing", remedy=remedy, needed=True))
        except Exception as error:  # noqa: BLE001 - a broken package may raise anything, and that is the finding
            problem = f"{name} cannot be loaded ({type(error).__name__}: {error})"
            remedy = f"run: pip install --force-reinstall '{requirement}'"
            advice.append(Advice(problem=problem, remedy=remedy, needed=True))
        packages.append(Package(name=name, version=version))
    return tuple(packages), modules


def _bounds() -> dict[str, str]:
    """What the installed core asks of each package, such as torch: ``>=2.10``; nothing when it runs from its source."""
    try:
        lines = metadata.requires(DISTRIBUTION) or []
    except metadata.PackageNotFoundError:
        return {}
    plain = [line.replace(" ", "") for line in lines if ";" not in line]  # a marker stands for an extra
    parts = [re.fullmatch(r"([\w.-]+)(.*)", line) for line in plain]
    return {part[1].lower(): part[2] for part in parts if part is not None}  # builders write names in lower case


def _version(name: str, module: ModuleType) -> str:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:  # another build of the same module, such as opencv-python
        return str(getattr(module, "__version__", "unknown"))


def _is_older(version: str, requirement: str) -> bool:
    """Whether ``version`` is below the ``>=`` of ``requirement``; a suffix such as ``+cpu`` or ``rc1`` is left out."""
    bound, have = re.search(r">=([\d.]+)", requirement), re.match(r"[\d.]+", version)
    if bound is None or have is None:
        return False
    numbers = [[int(part) for part in text.split(".") if part] for text in (have[0], bound[1])]
    length = max(map(len, numbers))
    mine, least = (part + [0] * (length - len(part)) for part in numbers)
    return mine < least


def _cores() -> int:
    try:
        from omnimotion_core.devices import choose_threads
    except ImportError:  # it needs psutil
        return os.cpu_count() or 1
    return choose_threads(0)


def _memory(modules: dict[str, ModuleType], advice: list[Advice]) -> tuple[float | None, float | None]:
    if "psutil" not in modules:
        return None, None
    memory = modules["psutil"].virtual_memory()
    total_gb, free_gb = memory.total / 2**30, memory.available / 2**30
    if free_gb < SMALL_MEMORY_GB:
        remedy = "close other programs, or work on fewer or smaller frames"
        advice.append(Advice(problem=f"only {_size(free_gb)} of memory is free", remedy=remedy, needed=False))
    return total_gb, free_gb


def _devices(torch: ModuleType | None, advice: list[Advice]) -> tuple[Device, ...]:
    if torch is None:
        return ()
    devices = []
    for index in range(torch.cuda.device_count() if torch.cuda.is_available() else 0):
        properties = torch.cuda.get_device_properties(index)
        devices.append(Device(name=f"cuda:{index}", description=properties.name,
                              memory_gb=properties.total_memory / 2**30))  # fmt: skip
    if torch.backends.mps.is_available():
        devices.append(Device(name="mps", description="Apple GPU, which shares the machine's memory", memory_gb=None))
    if not devices and shutil.which("nvidia-smi"):
        build = f"is built for CUDA {torch.version.cuda}" if torch.version.cuda else "is a build for the CPU alone"
        advice.append(Advice(problem=f"an NVIDIA driver is here, but torch {torch.__version__} {build} and sees no GPU",
                             remedy="install the torch build for this driver (see Install in the README)",
                             needed=False))  # fmt: skip
    return (*devices, Device(name="cpu", description=platform.processor() or platform.machine(), memory_gb=None))


def _codecs(av: ModuleType | None, mode: str, names: tuple[str, ...]) -> dict[str, bool]:
    def present(name: str) -> bool:
        try:
            return av is not None and av.Codec(name, mode) is not None
        except ValueError:  # PyAV's UnknownCodecError is one
            return False

    return _table(names, present)


def _formats(oiio: ModuleType | None) -> dict[str, bool]:
    known = oiio.get_string_attribute("format_list").split(",") if oiio is not None else []
    return _table(FORMATS, lambda name: name in known)


def _table(names: tuple[str, ...], present: Callable[[str], bool]) -> dict[str, bool]:
    return {name: present(name) for name in names}


def _advise_codecs(table: dict[str, bool], package: str, title: str, advice: list[Advice]) -> None:
    missing = [name for name, there in table.items() if not there]
    if missing:
        remedy = f"run: pip install --force-reinstall --only-binary {package} {package}"
        problem = f"this build of {title} lacks {', '.join(missing)}"
        advice.append(Advice(problem=problem, remedy=remedy, needed=False))


def _size(gb: float | None) -> str:
    return "unknown" if gb is None else f"{gb:.1f} GB"


def _device_text(device: Device) -> str:
    memory = f", {_size(device.memory_gb)}" if device.memory_gb is not None else ""
    return f"{device.name} ({device.description}{memory})"


def _presence(table: dict[str, bool]) -> str:
    return ", ".join(name if there else f"{name} MISSING" for name, there in table.items())
