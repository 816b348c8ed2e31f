"""What our HTML pages share: the shell with its style sheet, pictures within the page, figures for people."""

import base64
import math
from collections.abc import Sequence
from html import escape
from importlib.resources import files

import cv2
import numpy as np

from omnimotion_core.errors import ExportError
from omnimotion_core.export.plots import number


def html_page(title: str, sections: Sequence[str]) -> str:
    """A self-contained page; empty sections are left out."""
    style = files("omnimotion_core.export").joinpath("report.css").read_text(encoding="utf-8")
    page = (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(title)} – Track Everything</title>\n<style>\n{style}</style>\n</head>\n<body>\n<main>\n"
        + "\n".join(section for section in sections if section)
        + "\n</main>\n</body>\n</html>\n"
    )
    return page.encode("utf-8", "replace").decode("utf-8")  # a path may hold what UTF-8 cannot


def embedded_image(picture: np.ndarray, label: str) -> str:
    """An (H, W, 3) RGB picture as a JPEG within the page."""
    done, data = cv2.imencode(".jpg", cv2.cvtColor(picture, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, 82])
    if not done:
        raise ExportError(f"the picture {label!r} cannot be encoded", "report this as a bug of this program")
    height, width = picture.shape[:2]
    return (f'<img alt="{escape(label)}" width="{width}" height="{height}" '
            f'src="data:image/jpeg;base64,{base64.b64encode(data.tobytes()).decode("ascii")}">')


def figures_list(figures: Sequence[tuple[str, str]]) -> str:
    """Large figures in a row, each (value, what it is)."""
    entries = "".join(f"<div><dt>{escape(name)}</dt><dd>{escape(value)}</dd></div>" for value, name in figures)
    return f'<dl class="figures">{entries}</dl>'


def percent(share: float) -> str:
    """A share of 1; a dash where it is not finite."""
    return f"{100 * share:.0f}%" if math.isfinite(share) else "–"


def duration(seconds: float) -> str:
    """Seconds as people say them."""
    if seconds < 60:
        return f"{number(seconds, 2)} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"
