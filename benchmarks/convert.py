"""How fast, and in how much memory, ``paratree convert`` writes a file, against a copy and against torch.

Whole processes in turn, medians, ratios within one run; the file is warm. paratree's file is on the disk when
it ends, so the copy is made durable, too (``sync``); that of torch's script is not. Prints a Markdown table;
exits 1 if a bar is missed. Needs 4.4 GB in ``.cache/bench`` beside the file.
"""

from __future__ import annotations

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


def main() -> int:
    """Measure, print, and return 1 if a bar is missed."""
    options = arguments(__doc__.splitlines()[0])
    source = made("llama.pt", FOLDER)
    ours, other = (FOLDER / f"converted-{who}.safetensors" for who in ("ours", "other"))
    convert = [PARATREE, "convert", source, str(ours), "--force"]
    copied = ["sh", "-c", 'cp "$0" "$1" && sync "$1"', source, str(other)]
    copy = "`paratree convert`, .pt to .safetensors of 2.2 GB, against `cp` and `sync`"
    torch_script = [sys.executable, "-c", TORCH_SCRIPT, source, str(other)]
    half = weights(FOLDER, int(options.memory * 1e6), 2)
    cast = "bfloat16 to float32, against a script with torch"
    wider = [PARATREE, "convert", half, str(ours), "--dtype", "fp32", "--force"]
    torch_cast = [sys.executable, "-c", TORCH_CAST, half, str(other)]
    rows = [
        Row(copy, convert, copied, 1.2),
        Row("the same, against torch.load(mmap) and save_file", convert, torch_script, 2.5, faster=True),
        Row(f"{cast}, {options.memory:g} MB read", wider, torch_cast, 1, faster=True),
    ]
    kept = shown(rows, options.rounds, {copy: 100, rows[-1].title: 100})
    kept &= in_own_process("benchmarks.convert_in_memory", options.rounds)
    for path in (ours, other):
        path.unlink(missing_ok=True)
    return 0 if kept else 1


if __name__ == "__main__":
    sys.exit(main())
