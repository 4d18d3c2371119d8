"""How fast, and in how much memory, ``paratree diff`` compares weights value by value.

Files as whole processes, imports included, against the script that users write with torch and against cmp.
Then weights in memory (``benchmarks.compare_in_memory``): time of the processor, on one thread, against
reading both streams. Each side in turn, medians, ratios. Prints a Markdown table; exits 1 if a bar is missed.
"""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

from benchmarks.listing import FOLDER, PARATREE
from benchmarks.timing import TORCH_PAIR, Row, arguments, in_own_process, shown
from benchmarks.weights_files import weights

TORCH_FILES = (
    TORCH_PAIR
    + """
from safetensors import safe_open
with safe_open(sys.argv[1], "pt") as a, safe_open(sys.argv[2], "pt") as b:
    for name in a.keys():
        print(name, compared(a.get_tensor(name), b.get_tensor(name)))
"""
)


def main() -> int:
    """Measure, print, and return 1 if a bar is missed."""
    options = arguments(__doc__.splitlines()[0])
    size = int(options.size * 1e6)
    a, b = weights(FOLDER, size, 2), weights(FOLDER, size, 2, change=True)
    copy = a.replace(".safetensors", "-copy.safetensors")
    if not Path(copy).exists():
        shutil.copyfile(a, copy)
    torch_script = [sys.executable, "-c", TORCH_FILES, a, b]
    different = f"`paratree diff`, two bfloat16 files of {options.size:g} MB, against the torch script"
    rows = [
        Row(different, [PARATREE, "diff", a, b], torch_script, 20, faster=True),
        Row(
            "`paratree diff` of equal files, against `cmp`",
            [PARATREE, "diff", a, copy],
            ["cmp", a, copy],
            1.5,
        ),
    ]
    kept = shown(rows, options.rounds, {different: 256})
    kept &= in_own_process("benchmarks.compare_in_memory", options.memory, options.rounds)
    return 0 if kept else 1


if __name__ == "__main__":
    sys.exit(main())
