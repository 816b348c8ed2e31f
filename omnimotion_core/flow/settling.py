"""Flow that is nearly right moved to where the pictures agree best, smoothly and without a search.

Two equations a pixel tell where it is to go: pictures and their slopes are to agree, and pixels are to move as those
beside them do. Both count by how well they hold already, so the equations are solved, set up anew and solved again.

Source: Brox et al. 2004, "High accuracy optical flow estimation based on a theory for warping", normalized as in Zimmer
et al. 2011, "Optic flow in harmony". Constants and differences are those of OpenCV's ``VariationalRefinement``, and
results are the same but for rounding, in two thirds of the time: what does not change from one set of equations to the
next is computed once, and a row goes through all sweeps over the picture while it is in the cache.

Pixels of two colors, as on a chessboard, are kept apart, since those of one depend on those of the other alone. Pixel
(x, y) is of color (x + y) % 2 and the k-th of that color in its row, k = x // 2.
"""

import math
import threading

import numpy as np

from omnimotion_core.compilation import compiled, inlined
from omnimotion_core.flow.consistency import sample, targets

SYSTEMS = 5  # of equations, each with the weights that the flow of the one before gives
SWEEPS = 5  # over all pixels for each
SMOOTHNESS, COLOR, SLOPES = 20.0, 5.0, 10.0  # what unevenness of flow, and differences of both, weigh
OVER_RELAXATION = 1.6
NO_SLOPE = 0.1  # gray levels: slopes that are less tell nothing
EVEN = 0.001  # below which a penalty is quadratic

_APART = 1024  # entries between arrays
_local = threading.local()
_ONE = np.float32(1)
_UNSIGNED = np.uint64
_ENTRY = np.uint64(1)


def settle(source: np.ndarray, target: np.ndarray, flow: np.ndarray) -> np.ndarray:
    """``flow`` moved to where the pictures agree best nearby.

    Args:
        source, target: (h, w) luminance of 0 to 255.
        flow: (h, w, 2) from source to target, pixels.
    Returns:
        (h, w, 2) float32.
    """
    flow = np.array(flow, dtype=np.float32, order="C")
    laid_over = sample(target.astype(np.float32), targets(flow))
    height, width = source.shape
    each, around = (width + 1) // 2, (height + 2, width + 2)
    terms, given, system, steps, *rows = _room(
        (9, height, width), (2, *around), (5, 2, height, each), (4, 2, height + 2, each + 2), (4, width + 2),
        (4, width + 2), (2, width), (width + 1,), (width,), (width,), (width,), (width,), (width,), (each,), (each,),
    )  # fmt: skip
    _take_terms(source.astype(np.float32), laid_over, terms)
    for zeros in (given, system, steps, *rows):
        zeros[:] = 0
    given[:, 1:-1, 1:-1] = flow[..., 0], flow[..., 1]
    for _ in range(SYSTEMS):
        _solve(terms, given, system, steps, *rows)
    _add(steps, flow)
    return flow


def _room(*shapes: tuple[int, ...]) -> list[np.ndarray]:
    """Arrays of these ``shapes``, apart from each other, in memory that this thread keeps; what they hold is left over.

    A loop that writes to other memory than it reads is compiled twice, with vector instructions and, should both lie
    near to each other, without; these round otherwise. So where arrays lie must not depend on where memory was free.
    """
    sizes = [math.prod(shape) for shape in shapes]
    whole = sum(sizes) + _APART * len(sizes)
    if not hasattr(_local, "room") or len(_local.room) < whole:
        _local.room = np.zeros(whole, np.float32)
    starts = np.cumsum([0, *sizes[:-1]]) + _APART * np.arange(len(sizes))
    parts = zip(starts, sizes, shapes, strict=True)
    return [_local.room[start : start + size].reshape(shape) for start, size, shape in parts]


@inlined
def _slopes(above, here, below, across, down):  # type: ignore[no-untyped-def]  # numba infers
    """Fill ``across`` and ``down`` (w,): between the two pixels beside each one, of twice their distance."""
    width = here.shape[0]
    for x in range(1, width - 1):
        across[x] = here[x + 1] - here[x - 1]
    across[0] = here[min(1, width - 1)] - here[0]
    across[width - 1] = here[width - 1] - here[max(width - 2, 0)]
    for x in range(width):
        down[x] = below[x] - above[x]


@compiled
def _take_terms(source, laid_over, terms):  # type: ignore[no-untyped-def]
    """Fill ``terms`` (9, h, w): three equations a pixel, what each says of a step across, down, and what is left.

    That colors agree, that slopes across do, and that slopes down do.
    """
    height, width = source.shape
    nothing = np.float32(NO_SLOPE**2)
    mean, change = np.empty((height, width), np.float32), np.empty((height, width), np.float32)
    for y in range(height):
        for x in range(width):
            mean[y, x] = (source[y, x] + laid_over[y, x]) * np.float32(0.5)
            change[y, x] = laid_over[y, x] - source[y, x]
    across, down = np.empty((height, width), np.float32), np.empty((height, width), np.float32)
    for y in range(height):
        _slopes(mean[max(y - 1, 0)], mean[y], mean[min(y + 1, height - 1)], across[y], down[y])
    of_change_x, of_change_y = np.empty(width, np.float32), np.empty(width, np.float32)
    xx, xy = np.empty(width, np.float32), np.empty(width, np.float32)
    yx, yy = np.empty(width, np.float32), np.empty(width, np.float32)
    of_color, of_across = np.empty(width, np.float32), np.empty(width, np.float32)
    of_down = np.empty(width, np.float32)
    for y in range(height):
        before, after = max(y - 1, 0), min(y + 1, height - 1)
        _slopes(change[before], change[y], change[after], of_change_x, of_change_y)
        _slopes(across[before], across[y], across[after], xx, xy)
        _slopes(down[before], down[y], down[after], yx, yy)
        first, second, left = across[y], down[y], change[y]
        for x in range(width):
            of_color[x] = _ONE / math.sqrt(first[x] * first[x] + second[x] * second[x] + nothing)
            of_across[x] = _ONE / math.sqrt(xx[x] * xx[x] + xy[x] * xy[x] + nothing)
            of_down[x] = _ONE / math.sqrt(yy[x] * yy[x] + xy[x] * xy[x] + nothing)
        _scale(first, second, left, of_color, terms[0, y], terms[1, y], terms[2, y])
        _scale(xx, xy, of_change_x, of_across, terms[3, y], terms[4, y], terms[5, y])
        _scale(xy, yy, of_change_y, of_down, terms[6, y], terms[7, y], terms[8, y])


@inlined
def _scale(a, b, c, by, first, second, third):  # type: ignore[no-untyped-def]
    """Fill the last three with the first three times ``by``."""
    for x in range(by.shape[0]):
        first[x], second[x], third[x] = a[x] * by[x], b[x] * by[x], c[x] * by[x]


@inlined
def _join(step, y, row):  # type: ignore[no-untyped-def]
    """Fill ``row`` (w + 2,) with row ``y`` of both colors, from 1 on."""
    width = row.shape[0] - 2
    even, odd = step[y % 2, y + 1], step[1 - y % 2, y + 1]
    for k in range(width // 2):
        row[2 * k + 1] = even[k + 1]
        row[2 * k + 2] = odd[k + 1]
    if width % 2:
        row[width] = even[(width + 1) // 2]


@inlined
def _part(row, even, odd):  # type: ignore[no-untyped-def]
    """The pixels of a ``row`` (w,) to those of its two colors."""
    width = row.shape[0]
    for k in range(width // 2):
        even[k] = row[2 * k]
        odd[k] = row[2 * k + 1]
    if width % 2:
        even[width // 2] = row[width - 1]


@compiled
def _solve(  # type: ignore[no-untyped-def]
    terms, given, system, steps, step, whole, below, beside, off, on_u, on_v, asked_u, asked_v, new_u, new_v
):
    """Set the equations up and solve them by successive over-relaxation, one color and then the other.

    Each row is set up when the sweeps come to it, and goes through a half of a sweep as soon as the row below it went
    through the half before.

    Args:
        terms: (9, h, w), see ``_take_terms``.
        given: (2, h + 2, w + 2), the flow, with a pixel around.
        system: (5, 2, h, w / 2), by color: of each pixel's two equations what is off the diagonal, one over what is on
            it (2), and the right sides (2).
        steps: (4, 2, h + 2, w / 2 + 2), by color with a pixel around: what is added to the flow (2), and how much each
            pixel is to move as that right of it, and as that below it.
        step, whole: (4, w + 2), to compute in as all that follow, zeros at first: of two rows the step in u and v, and
            the flow with it.
        below, beside: (2, w) of two rows and (w + 1,): how much pixels are to move as those below and beside.
        off, on_u, on_v, asked_u, asked_v: (w,), a row of ``system`` before it is parted by color.
        new_u, new_v: (w / 2,), a row's steps of one color.
    """
    height, width = terms.shape[1], terms.shape[2]
    step_u, step_v, whole_u, whole_v = step[0:2], step[2:4], whole[0:2], whole[2:4]
    below[1] = np.float32(0)  # of the row above the first one
    flat = steps[0].reshape(-1), steps[1].reshape(-1), steps[2].reshape(-1), steps[3].reshape(-1)
    diagonal = system[0].reshape(-1), system[1].reshape(-1), system[2].reshape(-1)
    equations = (*diagonal, system[3].reshape(-1), system[4].reshape(-1))
    each, line = _UNSIGNED(system.shape[3]), _UNSIGNED(steps.shape[3])
    for wave in range(-1, height + 2 * SWEEPS - 1):
        late = wave % 2
        if wave < height - 1:
            _join(steps[0], wave + 1, step_u[1 - late])
            _join(steps[1], wave + 1, step_v[1 - late])
            _move(given[0, wave + 2], step_u[1 - late], whole_u[1 - late])
            _move(given[1, wave + 2], step_v[1 - late], whole_v[1 - late])
        if 0 <= wave < height:
            following = late if wave == height - 1 else 1 - late
            tie = off  # which is not needed before
            _tie(whole_u[late], whole_v[late], whole_u[following], whole_v[following], tie)
            for x in range(width):
                beside[x + 1] = tie[x]
                below[late, x] = tie[x] if wave < height - 1 else np.float32(0)
            beside[width] = np.float32(0)
            _set_up(
                terms, given, wave, step_u[late], step_v[late], beside, below[1 - late], below[late],
                off, on_u, on_v, asked_u, asked_v,
            )  # fmt: skip
            first, second = late, 1 - late
            _part(beside[1:], steps[2, first, wave + 1, 1:], steps[2, second, wave + 1, 1:])
            _part(below[late], steps[3, first, wave + 1, 1:], steps[3, second, wave + 1, 1:])
            _part(off, system[0, first, wave], system[0, second, wave])
            _part(on_u, system[1, first, wave], system[1, second, wave])
            _part(on_v, system[2, first, wave], system[2, second, wave])
            _part(asked_u, system[3, first, wave], system[3, second, wave])
            _part(asked_v, system[4, first, wave], system[4, second, wave])
        for half in range(max(wave - height + 1, 0), min(2 * SWEEPS, wave + 1)):
            y, own = wave - half, half % 2  # its pixels of one color, the first of which is at x = late
            entry = _UNSIGNED(own * height + y) * each
            here = _UNSIGNED(own * (height + 2) + y + 1) * line + _ENTRY
            left = _UNSIGNED((1 - own) * (height + 2) + y + 1) * line + _UNSIGNED(late)
            upper = left + _ENTRY - _UNSIGNED(late) - line
            _relax(flat, equations, each, entry, here, left, upper, upper + line + line, new_u, new_v)


@inlined
def _move(row, step, moved):  # type: ignore[no-untyped-def]
    """Fill ``moved`` (w + 2,) with a row and the step; the pixel after its end goes as its last one."""
    last = row.shape[0] - 2
    for x in range(last + 2):
        moved[x] = row[x] + step[x]
    moved[last + 1] = moved[last]


@inlined
def _tie(u, v, under_u, under_v, tie):  # type: ignore[no-untyped-def]
    """Fill ``tie`` (w,): how much each pixel of a row is to move as those beside and below it, (w + 2,) each."""
    half, even = np.float32(SMOOTHNESS / 2), np.float32(EVEN**2)
    for x in range(tie.shape[0]):
        u_x, u_y = u[x + 2] - u[x + 1], under_u[x + 1] - u[x + 1]
        v_x, v_y = v[x + 2] - v[x + 1], under_v[x + 1] - v[x + 1]
        tie[x] = half / math.sqrt(u_x * u_x + v_x * v_x + u_y * u_y + v_y * v_y + even)


@inlined
def _set_up(  # type: ignore[no-untyped-def]
    terms, given, y, du, dv, beside, above, below, off, on_u, on_v, asked_u, asked_v
):
    """Fill the last five (w,) with the equations of row ``y``."""
    half_color, half_slopes = np.float32(COLOR / 2), np.float32(SLOPES / 2)
    even, nothing = np.float32(EVEN**2), np.float32(NO_SLOPE**2)
    a, b, c = terms[0, y], terms[1, y], terms[2, y]
    d, e, f = terms[3, y], terms[4, y], terms[5, y]
    g, h, i = terms[6, y], terms[7, y], terms[8, y]
    u, above_u, under_u = given[0, y + 1], given[0, y], given[0, y + 2]
    v, above_v, under_v = given[1, y + 1], given[1, y], given[1, y + 2]
    for x in range(off.shape[0]):
        left_color = c[x] + a[x] * du[x + 1] + b[x] * dv[x + 1]
        left_across = f[x] + d[x] * du[x + 1] + e[x] * dv[x + 1]
        left_down = i[x] + g[x] * du[x + 1] + h[x] * dv[x + 1]
        color = half_color / math.sqrt(left_color * left_color + even)
        slopes = half_slopes / math.sqrt(left_across * left_across + left_down * left_down + even)
        tied = beside[x] + beside[x + 1] + above[x] + below[x] + nothing
        off[x] = color * a[x] * b[x] + slopes * (d[x] * e[x] + g[x] * h[x])
        on_u[x] = _ONE / (color * a[x] * a[x] + slopes * (d[x] * d[x] + g[x] * g[x]) + tied)
        on_v[x] = _ONE / (color * b[x] * b[x] + slopes * (e[x] * e[x] + h[x] * h[x]) + tied)
        uneven_u = beside[x] * (u[x] - u[x + 1]) + beside[x + 1] * (u[x + 2] - u[x + 1])
        uneven_u += above[x] * (above_u[x + 1] - u[x + 1]) + below[x] * (under_u[x + 1] - u[x + 1])
        uneven_v = beside[x] * (v[x] - v[x + 1]) + beside[x + 1] * (v[x + 2] - v[x + 1])
        uneven_v += above[x] * (above_v[x + 1] - v[x + 1]) + below[x] * (under_v[x + 1] - v[x + 1])
        asked_u[x] = uneven_u - color * a[x] * c[x] - slopes * (d[x] * f[x] + g[x] * i[x])
        asked_v[x] = uneven_v - color * b[x] * c[x] - slopes * (e[x] * f[x] + h[x] * i[x])


@inlined
def _relax(steps, system, each, entry, here, left, upper, lower, new_u, new_v):  # type: ignore[no-untyped-def]
    """Half of a sweep over a row: ``each`` pixels of one color.

    Args:
        steps, system: as ``_solve`` has them, each of their arrays flat.
        entry: of ``system``, the first pixel's.
        here, left, upper, lower: of ``steps``, that pixel's and its neighbors'.
    """
    rate, right = np.float32(OVER_RELAXATION), left + _ENTRY
    u, v, to_right, to_below = steps
    off, on_u, on_v, asked_u, asked_v = system
    for k in range(each):
        around_u = to_right[left + k] * u[left + k] + to_right[here + k] * u[right + k]
        around_u += to_below[upper + k] * u[upper + k] + to_below[here + k] * u[lower + k]
        around_v = to_right[left + k] * v[left + k] + to_right[here + k] * v[right + k]
        around_v += to_below[upper + k] * v[upper + k] + to_below[here + k] * v[lower + k]
        was_u, was_v, tied = u[here + k], v[here + k], off[entry + k]
        wanted_u = (around_u + asked_u[entry + k] - was_v * tied) * on_u[entry + k]
        now_u = was_u + rate * (wanted_u - was_u)
        wanted_v = (around_v + asked_v[entry + k] - now_u * tied) * on_v[entry + k]
        new_u[k], new_v[k] = now_u, was_v + rate * (wanted_v - was_v)
    for k in range(each):
        u[here + k] = new_u[k]
        v[here + k] = new_v[k]


@compiled
def _add(steps, flow):  # type: ignore[no-untyped-def]
    """Add the steps to ``flow`` (h, w, 2)."""
    height, width = flow.shape[0], flow.shape[1]
    step_u, step_v = np.zeros(width + 2, np.float32), np.zeros(width + 2, np.float32)
    for y in range(height):
        _join(steps[0], y, step_u)
        _join(steps[1], y, step_v)
        for x in range(width):
            flow[y, x, 0] += step_u[x + 1]
            flow[y, x, 1] += step_v[x + 1]
