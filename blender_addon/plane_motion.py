# SPDX-License-Identifier: GPL-3.0-or-later
"""What moves as one plane: homographies of four points, and the tracks that follow one. Needs no Blender.

A homography is given by nine numbers, row after row. Unit square → quadrangle: Heckbert, Fundamentals of Texture
Mapping and Image Warping, 1989, section 2.2.3.
"""

import random
from collections.abc import Mapping, Sequence

Place = tuple[float, float]
Matrix = tuple[float, ...]  # 9

_TRIES = 300  # of four tracks drawn at random: enough where half of them lie on the plane
_CHECKED = 4  # frames in which a track has to follow
_LEAST_AREA = 0.02  # of the tracks' bounding box that each three of four drawn tracks span at least


def is_convex(quad: Sequence[Place]) -> bool:
    """Whether four corners, one after another, go once around an area."""
    turns = [_turn(quad[k], quad[(k + 1) % 4], quad[(k + 2) % 4]) for k in range(4)]
    return all(turn > 0 for turn in turns) or all(turn < 0 for turn in turns)


def contains(quad: Sequence[Place], place: Place) -> bool:
    """Whether a place lies in a convex quadrangle or on its edge."""
    turns = [_turn(quad[k], quad[(k + 1) % 4], place) for k in range(4)]
    return all(turn >= 0 for turn in turns) or all(turn <= 0 for turn in turns)


def homography(source: Sequence[Place], target: Sequence[Place]) -> Matrix:
    """The homography that takes four points to four others.

    Raises:
        ZeroDivisionError: three of the points lie on a line.
    """
    return _product(_from_square(target), _adjugate(_from_square(source)))


def fitted(source: Sequence[Place], target: Sequence[Place]) -> Matrix:
    """The homography that takes four or more points nearest to others, by linear least squares.

    Raises:
        ZeroDivisionError: they do not span an area.
    """
    middle = [sum(place[axis] for place in source) / len(source) for axis in (0, 1)]
    table = [[0.0] * 9 for _ in range(8)]  # the normal equations
    for (x, y), (u, v) in zip(source, target, strict=True):
        x, y = x - middle[0], y - middle[1]
        for row in ((x, y, 1.0, 0.0, 0.0, 0.0, -x * u, -y * u, u), (0.0, 0.0, 0.0, x, y, 1.0, -x * v, -y * v, v)):
            for i in range(8):
                for j in range(9):
                    table[i][j] += row[i] * row[j]
    for k in range(8):
        pivot = max(range(k, 8), key=lambda i: abs(table[i][k]))
        table[k], table[pivot] = table[pivot], table[k]
        if abs(table[k][k]) < 1e-13:
            raise ZeroDivisionError
        for i in range(8):
            if i != k:
                factor = table[i][k] / table[k][k]
                table[i] = [one - factor * other for one, other in zip(table[i], table[k], strict=True)]
    found = (*(table[k][8] / table[k][k] for k in range(8)), 1.0)
    return _product(found, (1.0, 0.0, -middle[0], 0.0, 1.0, -middle[1], 0.0, 0.0, 1.0))


def mapped(matrix: Matrix, place: Place) -> Place:
    """Where a place goes.

    Raises:
        ZeroDivisionError: to infinity.
    """
    a, b, c, d, e, f, g, h, i = matrix
    x, y = place
    w = g * x + h * y + i
    return (a * x + b * y + c) / w, (d * x + e * y + f) / w


def on_one_plane(tracks: Sequence[Mapping[int, Place]], frame: int, tolerance: float) -> list[int]:
    """Indices of the tracks that move as the plane on which most of them lie (RANSAC over homographies).

    Args:
        tracks: frame → place where it is seen, in one unit for x and y; all of them are seen at ``frame``.
        tolerance: in that unit: how far a track may be from where the plane takes it.
    Returns:
        Rising; fewer than four where no four tracks span an area in ``frame`` and share another frame. The same
        tracks give the same answer.
    """
    shared = {other: sum(other in one for one in tracks) for one in tracks for other in one if other != frame}
    enough = sorted(other for other, count in shared.items() if count >= max(4, len(tracks) / 2))
    checked = sorted({enough[k * (len(enough) - 1) // (_CHECKED - 1)] for k in range(_CHECKED)}) if enough else []
    whole = [index for index, one in enumerate(tracks) if all(other in one for other in checked)]
    if not checked or len(whole) < 4:
        return []
    here = [one[frame] for one in tracks]
    across, down = (max(place[axis] for place in here) - min(place[axis] for place in here) for axis in (0, 1))
    draw, best = random.Random(0), list[int]()
    for _ in range(_TRIES):
        four = draw.sample(whole, 4)
        quad = [here[index] for index in four]
        if any(abs(_turn(*(quad[n] for n in range(4) if n != k))) < 2 * _LEAST_AREA * across * down for k in range(4)):
            continue
        try:
            moves = [(other, homography(quad, [tracks[index][other] for index in four])) for other in checked]
        except ZeroDivisionError:
            continue
        found = [index for index, one in enumerate(tracks) if _follows(one, here[index], moves, tolerance)]
        if len(found) > len(best):
            best = found
    return best


def _follows(
    track: Mapping[int, Place], here: Place, moves: "Sequence[tuple[int, Matrix]]", tolerance: float
) -> bool:
    try:
        for frame, matrix in moves:
            if frame in track:
                x, y = mapped(matrix, here)
                if (x - track[frame][0]) ** 2 + (y - track[frame][1]) ** 2 > tolerance**2:
                    return False
    except ZeroDivisionError:
        return False
    return True


def _turn(a: Place, b: Place, c: Place) -> float:
    """Twice the area of a triangle, above 0 where it turns to the left (y up)."""
    return (b[0] - a[0]) * (c[1] - a[1]) - (b[1] - a[1]) * (c[0] - a[0])


def _from_square(quad: Sequence[Place]) -> Matrix:
    (x0, y0), (x1, y1), (x2, y2), (x3, y3) = quad
    dx1, dx2, dx3 = x1 - x2, x3 - x2, x0 - x1 + x2 - x3
    dy1, dy2, dy3 = y1 - y2, y3 - y2, y0 - y1 + y2 - y3
    area = dx1 * dy2 - dx2 * dy1
    g, h = (dx3 * dy2 - dx2 * dy3) / area, (dx1 * dy3 - dx3 * dy1) / area
    return x1 - x0 + g * x1, x3 - x0 + h * x3, x0, y1 - y0 + g * y1, y3 - y0 + h * y3, y0, g, h, 1.0


def _adjugate(matrix: Matrix) -> Matrix:
    a, b, c, d, e, f, g, h, i = matrix
    return (e * i - f * h, c * h - b * i, b * f - c * e, f * g - d * i, a * i - c * g, c * d - a * f,
            d * h - e * g, b * g - a * h, a * e - b * d)  # fmt: skip


def _product(first: Matrix, second: Matrix) -> Matrix:
    return tuple(sum(first[3 * i + k] * second[3 * k + j] for k in range(3)) for i in range(3) for j in range(3))
