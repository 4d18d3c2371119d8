"""How fast, and in how much memory, ``paratree convert`` writes a file, against a copy and against torch.

Whole processes in turn, medians, ratios within one run; the source is in the page cache, the target is not
there and nothing waits to be written to the disk when a side begins. paratree flushes what it writes (fsync)
and neither ``cp`` nor torch's script do: it is measured without that beside them, and with it beside ``cp``
with ``sync``. Prints a Markdown table; exits 1 if a bar is missed. Needs 4.4 GB in ``.cache/bench`` beside
the file.
"""

from __future__ import annotations

import os
import sys

from benchmarks.listing import FOLDER, PARATREE, made
from benchmarks.timing import Row, arguments, in_own_process, shown
from benchmarks.weights_files import weights

TORCH_CAST = """
import sys, torch
from safetensors.torch import load_file, save_file
torch.set_num_threads(1)
save_file({name: tensor.float() for name, tensor in load_file(sys.argv[1]).items()}, sys.argv[2])
"""
TORCH_SCRIPT = """
import sys, torch
from safetensors.torch import save_file
save_file(torch.load(sys.argv[1], mmap=True, weights_only=True), sys.argv[2])
"""
UNSYNCED = """
import os, sys
os.fsync = lambda descriptor: None
from paratree.cli import main
sys.exit(main())
"""


def main() -> int:
    """Measure, print, and return 1 if a bar is missed."""
    options = arguments(__doc__.splitlines()[0])
    source = made("llama.pt", FOLDER)
    ours, other = (FOLDER / f"converted-{who}.safetensors" for who in ("ours", "other"))

    def clear() -> None:
        for path in (ours, other):
            path.unlink(missing_ok=True)
        os.sync()

    durable = [PARATREE, "convert", source, str(ours)]
    unsynced = [sys.executable, "-c", UNSYNCED, *durable[1:]]
    copied = ["cp", source, str(other)]
    torch_script = [sys.executable, "-c", TORCH_SCRIPT, source, str(other)]
    synced = ["sh", "-c", 'cp "$0" "$1" && sync "$1"', source, str(other)]
    half = weights(FOLDER, int(options.memory * 1e6), 2)
    wider = [sys.executable, "-c", UNSYNCED, "convert", half, str(ours), "--dtype", "fp32"]
    torch_cast = [sys.executable, "-c", TORCH_CAST, half, str(other)]
    copy = ".pt to .safetensors of 2.2 GB, no fsync, against `cp`"
    cast = f"bfloat16 to float32, {options.memory:g} MB read, no fsync, against a script with torch"
    rows = [
        Row(copy, unsynced, copied, 1.2, before=clear),
        Row("the same, against torch.load(mmap) and save_file", unsynced, torch_script, 2.5, True, clear),
        Row("the same, durable, against `cp` and `sync`", durable, synced, 1.2, before=clear),
        Row(cast, wider, torch_cast, 1, True, clear),
    ]
    kept = shown(rows, options.rounds, {copy: 100, cast: 100})
    clear()
    kept &= in_own_process("benchmarks.convert_in_memory", options.rounds)
    return 0 if kept else 1


if __name__ == "__main__":
    sys.exit(main())
