"""Synthetic images that an engine must answer as the trained network does, however little they look like the data.

A test set shows an engine at the images it holds: grey ones cannot show exchanged channels, and none of them is white.
All arithmetic is in integers, and the noise is the raw stream of a named bit generator, so that every machine and
every version of numpy makes the same bytes.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from samdeploy.arrays import UInt8Array

_SEED = 2026
# Two grids of colours, each in the middle of the other's cubes: no colour is further than 72 from one of them.
_LEVELS, _BETWEEN = (0, 128, 255), (64, 191)
_COLOURS: dict[tuple[int, ...], str] = {
    (0, 0, 0): "black",
    (128, 128, 128): "mid grey",
    (255, 255, 255): "white",
    (255, 0, 0): "pure red",
    (0, 255, 0): "pure green",
    (0, 0, 255): "pure blue",
    (255, 255, 0): "pure yellow",
    (255, 0, 255): "pure magenta",
    (0, 255, 255): "pure cyan",
}


@dataclass(frozen=True, slots=True)
class ProbeImages:
    """Probe images with their names.

    Attributes:
        names: such as "pure red" or "noise in blocks of 4 px", all different.
        images: uint8 [n, H, W, 3], RGB.
    """

    names: tuple[str, ...]
    images: UInt8Array


def probe_images(golden: UInt8Array) -> ProbeImages:
    """The probes of a bundle.

    Args:
        golden: uint8 [n, H, W, 3], n >= 1: real images, from which a part of the probes is made.
    """
    height, width = golden.shape[1:3]
    made = [*_flat(height, width), *_noise(height, width), *_patterns(height, width), *_from_real(golden)]
    return ProbeImages(tuple(name for name, _ in made), np.stack([image for _, image in made]))


def stand_ins(height: int, width: int) -> UInt8Array:
    """Eight images in place of real ones, for a network that came without any: noise at four scales, four patterns."""
    made = [*[*_noise(height, width)][:4], *[*_patterns(height, width)][-4:]]
    return np.stack([image for _, image in made])


def coloured(golden: UInt8Array) -> UInt8Array:
    """Real images with colour: each channel holds another of `golden`; uint8 [n, H, W, 3] of n.

    Every channel keeps the values that the network knows, and no two of them are alike.
    """
    red, green, blue = (np.roll(golden, -shift, axis=0)[..., channel] for channel, shift in enumerate((0, 1, 2)))
    return np.stack([red, green, blue], axis=-1)


def _flat(height: int, width: int) -> Iterator[tuple[str, UInt8Array]]:
    """35 colours: wrong at a colour, a brightness or a channel shows in some of them."""
    for colour in (*itertools.product(_LEVELS, repeat=3), *itertools.product(_BETWEEN, repeat=3)):
        name = _COLOURS.get(colour, f"colour {colour[0]}, {colour[1]}, {colour[2]}")
        yield name, np.broadcast_to(np.array(colour, np.uint8), (height, width, 3))


def _noise(height: int, width: int) -> Iterator[tuple[str, UInt8Array]]:
    bits = np.random.PCG64(_SEED)

    def random(rows: int, columns: int) -> UInt8Array:
        raw = bits.random_raw(rows * columns * 3)
        return (raw >> np.uint64(56)).astype(np.uint8).reshape(rows, columns, 3)

    for block in (1, 2, 4, 8):
        small = random(-(-height // block), -(-width // block))
        name = f"noise in blocks of {block} px"
        yield name, small.repeat(block, axis=0).repeat(block, axis=1)[:height, :width]
    noise = random(height, width)
    weak: UInt8Array = noise >> np.uint8(3)
    yield "grey noise", np.repeat(noise[..., :1], 3, axis=2)
    yield "dark noise", weak
    yield "bright noise", np.uint8(255) - weak
    yield "noise of low contrast", np.uint8(112) + weak
    yield "noise of black and white", (noise >> np.uint8(7)) * np.uint8(255)
    yield "red noise", noise * np.array([1, 0, 0], np.uint8)


def _patterns(height: int, width: int) -> Iterator[tuple[str, UInt8Array]]:
    row, column = np.arange(height)[:, None], np.arange(width)[None, :]

    def drawn(*channels: np.ndarray) -> UInt8Array:
        planes = [np.broadcast_to(channel, (height, width)).astype(np.uint8) for channel in channels]
        return np.stack(planes * (3 // len(planes)), axis=-1)

    down, across = row * 255 // max(1, height - 1), column * 255 // max(1, width - 1)
    yield "checkerboard of 1 px", drawn((row + column) % 2 * 255)
    yield "checkerboard of 8 px", drawn((row // 8 + column // 8) % 2 * 255)
    yield "stripes across", drawn(row % 2 * 255)
    yield "stripes down", drawn(column % 2 * 255)
    yield "coloured stripes", drawn(*(((column + shift) // 2 % 3 == 0) * 255 for shift in (0, 2, 4)))
    yield "gradient across", drawn(across)
    yield "gradient down", drawn(255 - down)
    yield "coloured gradient", drawn(across, down, 255 - across)
    yield "upper half white", drawn((row < height // 2) * 255)


def _from_real(golden: UInt8Array) -> Iterator[tuple[str, UInt8Array]]:
    """Colours and contrasts that the data may lack, on shapes that the network knows."""
    first, second, third = (golden[index % len(golden)] for index in range(3))
    wide = first.astype(np.int32)
    for number, image in enumerate(coloured(golden)[:4]):
        yield f"golden images {number} to {number + 2} as red, green and blue", image
    for name, tint in (("red", (4, 1, 1)), ("green", (1, 4, 1)), ("blue", (1, 1, 4)), ("yellow", (4, 4, 1))):
        for number, image in enumerate((first, second)):
            yield f"golden image {number} in {name}", (image.astype(np.int32) * tint // 4).astype(np.uint8)
    yield "golden image 0 inverted", 255 - first
    yield "golden image 1 inverted", 255 - second
    yield "golden image 0 dark", first >> 3
    yield "golden image 0 bright", 255 - ((255 - first) >> 3)
    yield "golden image 0 of high contrast", np.clip(wide * 3 - 255, 0, 255).astype(np.uint8)
    yield "golden image 2 of low contrast", 96 + (third >> 2)
