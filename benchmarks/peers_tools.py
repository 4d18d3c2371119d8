"""What each tool of the table of peers claims to answer, the command for it, and how its answer is read.

A tool that documents no answer to a question has no entry, and the table says so with a dash. A reading turns
real output into a plain value: the names of tensors, a number, a range. It never looks at what was expected.
"""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable

    Reading = Callable[["Output"], Any]

NAME = r"[a-z_0-9.]+\.(?:weight|bias)"


class Output(NamedTuple):
    """What a process printed, and its exit code; None if it was killed for its time."""

    code: int | None
    text: str


class Answer(NamedTuple):
    """Commands by the form of the files (their suffix, mostly), and how the output is read.

    In a command ``{a}`` and ``{b}`` stand for the files without their suffix.
    """

    commands: dict[str, str]
    read: Reading


class Tool(NamedTuple):
    """A package, pinned, and what it claims to answer."""

    package: str
    version: str
    answers: dict[str, Answer]


def _forms(command: str, *forms: str) -> dict[str, str]:
    """Return one command for files of several suffixes."""
    return {form: command.replace("FORM", form) for form in forms}


def _number(pattern: str) -> Reading:
    """Read the first number after what a pattern finds."""

    def read(output: Output) -> int | None:
        found = re.search(pattern + r"[^\w-]+([\d,]+)", output.text)
        return int(found[1].replace(",", "")) if found else None

    return read


def _names(output: Output) -> set[str]:
    return set(re.findall(rf"(?<![\w.]){NAME}|\b\d\.(?:weight|bias)", output.text))


def _refused(output: Output) -> bool:
    """An exit code that is not 0, by the program's own doing."""
    return output.code is not None and output.code > 0


def _document(output: Output) -> Any:
    """Return the JSON document in an output, or None."""
    try:
        return json.loads(output.text[output.text.index("{") :])
    except ValueError:
        return None


def _paratree_changed(output: Output) -> set[str] | None:
    if (found := _document(output)) is None:
        return None
    return {row["name"] for row in found["rows"] if row["status"] != "bit-equal"}


def _paratree_total(output: Output) -> int | None:
    found = _document(output)
    return None if found is None else int(found["totals"]["parameter"]["size"])


def _paratree_names(output: Output) -> set[str]:
    return {param["name"] for param in (_document(output) or {"params": []})["params"]}


def _paratree_dtypes(output: Output) -> set[str]:
    return {param["dtype"] for param in (_document(output) or {"params": []})["params"]}


def _paratree_not_finite(output: Output) -> set[str]:
    rows = (_document(output) or {"rows": []})["rows"]
    return {row["name"] for row in rows if row["nan"] + row["pos_inf"] + row["neg_inf"]}


def _paratree_described(output: Output) -> dict[str, tuple[int, float, float]]:
    rows = (_document(output) or {"rows": []})["rows"]
    return {
        row["name"]: (row["nan"] + row["pos_inf"] + row["neg_inf"], row["min"], row["max"]) for row in rows
    }


def _paratree_findings(output: Output) -> set[str] | None:
    found = _document(output)
    return found and {finding["name"] for finding in found["findings"]}


def _diffai_changed(output: Output) -> set[str] | None:
    """Tensors, where entries have their names; else whatever the entries name."""
    if output.code != 0:
        return None
    paths = {entry["path"] for entry in json.loads(output.text)}
    named = {found[1] for path in paths if (found := re.match(rf"tensors\.({NAME})", path))}
    return named or paths


def _ckptkit_changed(output: Output) -> set[str] | None:
    return set(re.findall(rf"│ +\S +│ +({NAME}) ", output.text)) if output.code == 0 else None


def _weightscope_changed(output: Output) -> set[str] | None:
    if output.code != 0:
        return None
    rows = re.findall(rf"^\| `({NAME})` \|[^|]*\|[^|]*\| ([\d,]+) \|", output.text, re.M)
    alone = re.findall(rf"^- `({NAME})`", output.text, re.M)
    return {name for name, changed in rows if changed != "0"} | set(alone)


def _modeldelta_changed(output: Output) -> set[str] | None:
    """Tensors whose difference has a norm; its verdict, if that speaks of fine-tuning where none has."""
    if (found := _document(output)) is None:
        return None
    changed = {module["name"] for module in found["modules"] if module["frob_norm"]}
    verdict = found["diagnostics"]["summary"].split(". ")[0]
    return changed or ({verdict} if "tuned" in verdict or "modified" in verdict else set())


def _weightlens_not_finite(output: Output) -> set[str]:
    return set(re.findall(rf"non-finite-values +({NAME})", output.text))


def _weightlens_described(output: Output) -> dict[str, str]:
    """It prints no figures for one tensor; what it skips it names, with the reason."""
    return dict(re.findall(rf"skipped +({NAME}) +(.*?)  ", output.text))


def _weightlens_findings(output: Output) -> set[str] | None:
    if "Coverage:" not in output.text:
        return None
    return set(re.findall(rf"(?:warn|error) +[a-z-]+ +({NAME})", output.text))


def _weightlens_all_described(output: Output) -> int | None:
    found = re.search(r"Coverage: (\d+) of", output.text) or re.search(r"tensor_count\W+(\d+)", output.text)
    return int(found[1]) if found else None


def _paratree_all_described(output: Output) -> int | None:
    found = _document(output)
    return found and sum(row["min"] is not None for row in found["rows"])


def _dtypes(output: Output) -> set[str]:
    return set(re.findall(r"\b(?:UNKNOWN|F8_E4M3|F32|f8_e4m3|float8_e4m3fn)\b", output.text))


_DIFFAI = 'python -c \'import json, diffai; print(json.dumps(diffai.diff_paths("{a}.FORM", "{b}.FORM")))\''
_MODELDELTA = dict.fromkeys(("safetensors", "shards"), "modeldelta -q -o {out}.json {a} {b}")
_SAFE_OPEN = (
    'python -c \'from safetensors.numpy import load_file; print(*load_file("{a}.safetensors"), sep="\\n")\''
)


def _summary(package: str, arguments: str) -> str:
    made = f"from benchmarks.peers_corpus import {{a}}; import {package}"
    return f"python -c '{made}; {package}.summary({{a}}(), {arguments})'"


PARATREE = Tool("paratree", "", {
    "changed": Answer({
        **_forms("paratree diff --json {a}.FORM {b}.FORM", "safetensors", "npz", "pt"),
        "shards": "paratree diff --json {a} {b}",
        "mixed": "paratree diff --json {a}.pt {b}.safetensors",
    }, _paratree_changed),
    "total": Answer({
        **_forms("paratree show --json {a}.FORM", "safetensors", "pt"),
        "shards": "paratree show --json {a}",
        "live": "paratree show --json benchmarks.peers_corpus:{a}",
    }, _paratree_total),
    "names": Answer(_forms("paratree show --json {a}.FORM", "safetensors"), _paratree_names),
    "dtypes": Answer(_forms("paratree show --json {a}.FORM", "safetensors"), _paratree_dtypes),
    "not finite": Answer(_forms("paratree stats --json {a}.FORM", "safetensors"), _paratree_not_finite),
    "described": Answer(_forms("paratree stats --json {a}.FORM", "safetensors"), _paratree_described),
    "all described": Answer(_forms("paratree stats --json {a}.FORM", "safetensors"), _paratree_all_described),
    "findings": Answer(_forms("paratree stats --json {a}.FORM", "safetensors"), _paratree_findings),
    "refused": Answer(_forms("paratree show {a}.FORM", "safetensors", "pt"), _refused),
    "hostile": Answer(_forms("paratree show {a}.FORM", "pt"), _refused),
})  # fmt: skip

PEERS = [
    Tool("ckptkit", "0.3.0", {
        "changed": Answer({
            **_forms("ckptkit diff {a}.FORM {b}.FORM", "safetensors", "pt"),
            "mixed": "ckptkit diff {a}.pt {b}.safetensors",
        }, _ckptkit_changed),
        "total": Answer(_forms("ckptkit stats {a}.FORM", "safetensors", "pt"), _number("Parameters")),
        "names": Answer(_forms("ckptkit info {a}.FORM", "safetensors"), _names),
        "dtypes": Answer(_forms("ckptkit info {a}.FORM", "safetensors"), _dtypes),
        "refused": Answer(_forms("ckptkit validate {a}.FORM", "safetensors", "pt"), _refused),
        "hostile": Answer(_forms("ckptkit info {a}.FORM", "pt"), _refused),
    }),
    Tool("diffai-python", "0.5.2", {
        "changed": Answer(_forms(_DIFFAI, "safetensors", "npz", "pt"), _diffai_changed),
    }),
    Tool("weightscope", "0.4.3", {
        "changed": Answer(_forms("weightscope diff {a} {b}", "safetensors", "shards"), _weightscope_changed),
    }),
    Tool("modeldelta", "0.4.4", {"changed": Answer(_MODELDELTA, _modeldelta_changed)}),
    Tool("weightlens", "0.3.0", {
        "total": Answer({
            **_forms("lens analyze {a}.FORM", "safetensors", "pt"),
            "shards": "lens analyze {a}/model.safetensors.index.json",
        }, _number("total_params")),
        "not finite": Answer(_forms("lens analyze {a}.FORM", "safetensors"), _weightlens_not_finite),
        "described": Answer(_forms("lens analyze {a}.FORM", "safetensors"), _weightlens_described),
        "all described": Answer(_forms("lens analyze {a}.FORM", "safetensors"), _weightlens_all_described),
        "findings": Answer(_forms("lens analyze {a}.FORM", "safetensors"), _weightlens_findings),
        "refused": Answer(_forms("lens analyze {a}.FORM", "safetensors", "pt"), _refused),
        "hostile": Answer(_forms("lens analyze {a}.FORM", "pt"), _refused),
    }),
    Tool("checkpoint-lens", "0.1.2", {
        "total": Answer(_forms("checkpoint-lens inspect {a}.FORM", "pt"), _number("Parameter count")),
        "refused": Answer(_forms("checkpoint-lens inspect {a}.FORM", "pt"), _refused),
        "hostile": Answer(_forms("checkpoint-lens inspect {a}.FORM", "pt"), _refused),
    }),
    Tool("modelinfo-cli", "1.4.4", {
        "total": Answer({
            **_forms("modelinfo {a}.FORM", "safetensors", "pt"),
            "shards": "modelinfo {a}/model.safetensors.index.json",
        }, _number("Parameters")),
        "dtypes": Answer(_forms("modelinfo {a}.FORM", "safetensors"), _dtypes),
        "refused": Answer(_forms("modelinfo {a}.FORM", "safetensors", "pt"), _refused),
        "hostile": Answer(_forms("modelinfo {a}.FORM", "pt"), _refused),
    }),
    Tool("safetensors-print", "0.1.0", {
        "total": Answer(
            _forms("safetensors-print {a}.FORM", "safetensors"), _number(r"\n +F\d+\S* +\d+ +\d+")
        ),
        "names": Answer(_forms("safetensors-print --all {a}.FORM", "safetensors"), _names),
        "dtypes": Answer(_forms("safetensors-print {a}.FORM", "safetensors"), _dtypes),
        "refused": Answer(_forms("safetensors-print {a}.FORM", "safetensors"), _refused),
    }),
    Tool("safetensors", "0.8.0", {"refused": Answer({"safetensors": _SAFE_OPEN}, _refused)}),
    Tool("torchinfo", "1.8.0", {
        "total": Answer({"live": _summary("torchinfo", "verbose=1")}, _number("Total params")),
    }),
    Tool("torchsummary", "1.5.1", {
        "total": Answer(
            {"live": _summary("torchsummary", '({width},), device="cpu"')}, _number("Total params")
        ),
    }),
]  # fmt: skip
WITHOUT_A_CASE = [
    "hf-mem 0.5.6 (reads the Hub only)",
    "weightbridge 0.0.4 (maps live weights, opens no file)",
]
