# SPDX-License-Identifier: GPL-3.0-or-later
"""Polygons → a matte as a PNG file. Needs no Blender and no numpy."""

import struct
import zlib
from collections.abc import Iterable, Sequence
from pathlib import Path

Polygon = Sequence["tuple[float, float]"]  # corners in fractions of the frame, bottom-left (0, 0); closed by itself


class Matte:
    """White where it is to be tracked, 8 bit a pixel, the top row first."""

    def __init__(self, size: "tuple[int, int]", value: int = 0) -> None:
        self.size = size
        self.rows = [bytearray([value]) * size[0] for _ in range(size[1])]

    def fill(self, polygons: Iterable[Polygon], value: int = 255) -> None:
        """Paint what lies inside an odd number of ``polygons``; pixels count by their centres."""
        width, height = self.size
        edges = []
        for polygon in polygons:
            # to pixels whose centres are whole numbers, y down
            corners = [(x * width - 0.5, (1 - y) * height - 0.5) for x, y in polygon]
            edges += [(a, b) if a[1] < b[1] else (b, a)
                      for a, b in zip(corners, [*corners[1:], *corners[:1]], strict=True) if a[1] != b[1]]  # fmt: skip
        edges.sort(key=lambda edge: edge[0][1])
        if not edges:
            return
        active: list[tuple[tuple[float, float], tuple[float, float]]] = []
        taken = 0
        for row in range(max(int(edges[0][0][1]), 0), height):
            while taken < len(edges) and edges[taken][0][1] <= row:
                active.append(edges[taken])
                taken += 1
            active = [edge for edge in active if edge[1][1] > row]
            crossings = sorted(a[0] + (row - a[1]) * (b[0] - a[0]) / (b[1] - a[1]) for a, b in active)
            for left, right in zip(crossings[::2], crossings[1::2], strict=True):
                first, last = max(_ceil(left), 0), min(_ceil(right), width)
                if last > first:
                    self.rows[row][first:last] = bytes([value]) * (last - first)

    def invert(self) -> None:
        """Exchange in and out."""
        table = bytes(255 - value for value in range(256))
        self.rows = [row.translate(table) for row in self.rows]

    def add(self, other: "Matte", *, subtract: bool = False) -> None:
        """White where either is; or, to subtract, black where ``other`` is white."""
        ours = [int.from_bytes(row, "big") for row in self.rows]
        theirs = [int.from_bytes(row, "big") for row in other.rows]
        whole = int.from_bytes(b"\xff" * self.size[0], "big")
        joined = [(a & (whole ^ b)) if subtract else (a | b) for a, b in zip(ours, theirs, strict=True)]
        self.rows = [bytearray(value.to_bytes(self.size[0], "big")) for value in joined]

    @property
    def empty(self) -> bool:
        """Whether nothing is white."""
        return not any(any(row) for row in self.rows)

    def write(self, path: Path) -> None:
        """Write a gray PNG."""
        raw = b"".join(b"\0" + bytes(row) for row in self.rows)
        header = struct.pack(">IIBBBBB", *self.size, 8, 0, 0, 0, 0)
        parts = (b"IHDR", header), (b"IDAT", zlib.compress(raw, 1)), (b"IEND", b"")
        chunks = [struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
                  for kind, data in parts]  # fmt: skip
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(chunks))


def _ceil(value: float) -> int:
    return -int(-value // 1)
