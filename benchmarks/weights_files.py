"""Files with values for the benchmarks that read them: a LLaMA of 1.1 billion parameters, or a part of one.

Made by a process of its own (``python -m benchmarks.weights_files PATH SIZE WIDTH CHANGE``), so that the
process that measures stays small.
"""

from __future__ import annotations

import json
import subprocess
import sys
from math import prod
from pathlib import Path

from benchmarks.makers import llama_shapes

WORDS = {2: "BF16", 4: "F32"}
CHUNK = 1 << 22  # values made at a time
PLANTED = {
    1_000: 0x7FC0,
    70_000: 0xFFC1,
    900_000: 0x7FC0,
    5_000: 0x7F80,
    80_000: 0xFF80,
}  # 3 NaN, 2 infinities
EVERY = 50  # of these, one value is another in a changed file


def weights(folder: Path, size: int, width: int, *, change: bool = False) -> str:
    """Return the path of a safetensors file of at most ``size`` bytes, made if it is not there.

    The tensors are those of the LLaMA, as many as fit, normal with a deviation of 0.02. Three NaN and two
    infinities are planted in the first million values; with ``change``, one value in 50 is another one.
    """
    path = folder / f"weights-{WORDS[width].lower()}-{size >> 20}{'-changed' if change else ''}.safetensors"
    if not path.exists():
        print(f"making {path}", file=sys.stderr)
        arguments = [str(path), str(size), str(width), "changed" if change else ""]
        subprocess.run([sys.executable, "-m", "benchmarks.weights_files", *arguments], check=True)
    return str(path)


def chosen(size: int, width: int) -> dict[str, tuple[int, ...]]:
    """Return as many tensors as fit; one that would take a third of the room or more is passed over."""
    found, left = {}, size
    for name, shape in llama_shapes().items():
        nbytes = width * prod(shape)
        if nbytes <= left and 3 * nbytes < size:
            found[name] = shape
            left -= nbytes
    return found


def write(path: Path, shapes: dict[str, tuple[int, ...]], width: int, *, change: bool) -> None:
    """Write the file."""
    import numpy as np

    header, end = {}, 0
    for name, shape in shapes.items():
        start, end = end, end + width * prod(shape)
        header[name] = {"dtype": WORDS[width], "shape": shape, "data_offsets": [start, end]}
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    generator, planted, left = np.random.default_rng(0), PLANTED, end // width
    with path.open("wb") as stream:
        stream.write(len(text).to_bytes(8, "little") + text)
        while left:
            values = generator.standard_normal(min(CHUNK, left), np.float32) * np.float32(0.02)
            bits = values.view(np.uint32)
            for place, pattern in planted.items():
                bits[place] = pattern << 16
            if change:
                bits[7::EVERY] ^= 1 << 17
            stream.write((bits >> 16).astype(np.uint16).data if width == 2 else bits.data)
            planted, left = {}, left - len(bits)


if __name__ == "__main__":
    target, part = Path(sys.argv[1]), Path(sys.argv[1] + ".part")
    write(part, chosen(int(sys.argv[2]), int(sys.argv[3])), int(sys.argv[3]), change=bool(sys.argv[4]))
    part.replace(target)
