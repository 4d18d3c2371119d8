"""How fast, how exact and in how much memory ``paratree stats`` describes weights.

Files as whole processes, imports included, against reading the bytes and against the script that users write
with torch. Then weights in memory (``benchmarks.scan_in_memory``): time of the processor, on one thread,
against summing the same bytes. Each side in turn, medians, ratios. Prints a Markdown table; exits 1 if a bar
is missed.
"""

from __future__ import annotations

import sys

from benchmarks.listing import FOLDER, PARATREE
from benchmarks.timing import TORCH_USER, Row, arguments, in_own_process, shown
from benchmarks.weights_files import weights

READ = """
import sys
buffer = bytearray(8 << 20)
with open(sys.argv[1], "rb", buffering=0) as file:
    while file.readinto(buffer):
        pass
"""
READ_TO_PAGES = READ.replace("import sys", "import mmap, sys").replace("bytearray(8", "mmap.mmap(-1, 8")
TORCH_FILE = (
    TORCH_USER
    + """
from safetensors import safe_open
with safe_open(sys.argv[1], "pt") as file:
    for name in file.keys():
        print(name, *described(file.get_tensor(name)))
"""
)


def main() -> int:
    """Measure, print, and return 1 if a bar is missed."""
    options = arguments(__doc__.splitlines()[0])
    path = weights(FOLDER, int(options.size * 1e6), 2)
    ours = [PARATREE, "stats", path]
    reading = f"`paratree stats`, bfloat16 file of {options.size:g} MB, all cores, against reading it"
    rows = [
        Row(reading, ours, [sys.executable, "-c", READ, path], 4),
        Row(
            "the same, against reading it into a buffer at the start of a page",
            ours,
            [sys.executable, "-c", READ_TO_PAGES, path],
            None,
        ),
        Row(
            "the same, against the torch script",
            ours,
            [sys.executable, "-c", TORCH_FILE, path],
            15,
            faster=True,
        ),
    ]
    kept = shown(rows, options.rounds, {reading: 400})
    kept &= in_own_process("benchmarks.scan_in_memory", options.memory, options.rounds)
    return 0 if kept else 1


if __name__ == "__main__":
    sys.exit(main())
