"""Fuzzing: changed files go through the reader of a format, in memory; those that it takes badly are kept.

``scripts/fuzz FORMAT SECONDS`` runs atheris (libFuzzer) from the good files of ``cases_FORMAT.py`` in
``tests/attacks``. A finding is an input on which anything but a ``ParatreeError`` in one printable line
escapes from listing the file or reading its values, or which takes a second or 512 MiB. It lies in
``.cache/fuzz/FORMAT``, its traceback beside it; ``python -m tests.fuzz FORMAT --replay FILE`` runs it again.

The first two bytes of an input choose the checkpoint, which of its files is the changed one, and whether
checksums are looked at: a changed file with a right one is rare. The rest are the bytes of that file.
"""

from __future__ import annotations

import argparse
import hashlib
import mmap
import os
import resource
import struct
import subprocess
import sys
import tempfile
import time
import traceback
from importlib import import_module
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[1]
SECONDS = 1.0  # of processor time, for one input
MEMORY = 512 << 20  # over what the process takes with everything imported
LONGEST_SEED = 16 << 10
LARGEST_VALUE, ALL_VALUES = 1 << 20, 4 << 20  # bytes: values that claim more are not read
HANG = 20  # seconds after which libFuzzer gives up on an input
_WHERE = struct.Struct("<H")
_CHECKED = 0x8000  # of _WHERE: checksums are looked at
_CHECKSUMS = [  # module, and the function in it that the readers call
    ("zlib", "crc32"),
    ("paratree.files.crc32c", "masked"),
    ("paratree.files.lookup3", "checksum"),
]
_COUNT = struct.Struct("<Q")


class Place(NamedTuple):
    """A checkpoint on disk, the path that is opened, and the file of it whose bytes come from memory."""

    opened: str
    changed: str


class _AnyNumber(int):
    """A checksum that is equal to every other."""

    def __eq__(self, other: object) -> bool:
        return True

    def __ne__(self, other: object) -> bool:
        return False

    __hash__ = int.__hash__


class Finding(Exception):
    """What should not happen and raises nothing by itself."""


class Target:
    """The reader of one format, applied to bytes; other modules are as they were once it is closed."""

    def __init__(self, format: str, folder: Path) -> None:
        _import_reader(format)
        self.reader = import_module(f"paratree.formats.{format}")
        self.places: list[Place] = []
        self.seeds: list[bytes] = []
        self._now: tuple[str, bytes] = ("", b"")
        self._collect(import_module(f"tests.attacks.cases_{format}"), folder)
        self._local = import_module("paratree.files.local").LocalFile
        self._in_memory = _in_memory_class(self._local)
        self._known: dict[str, dict[str, object]] = {}  # what is known of the files on disk
        self._checked = True
        self._before: list[tuple[object, str, object]] = []
        self._override(import_module("paratree.files.folder"), "LocalFile", self._open)
        for module, function in _CHECKSUMS:
            if module in sys.modules:
                self._override_checksum(sys.modules[module], function)

    def close(self) -> None:
        """Put back what was there before."""
        while self._before:
            setattr(*self._before.pop())

    def _override(self, module, name: str, value: object) -> None:
        self._before.append((module, name, getattr(module, name)))
        setattr(module, name, value)

    def _override_checksum(self, module, function: str) -> None:
        """Let the readers see a checksum that fits, unless checksums are looked at."""
        compute = getattr(module, function)
        self._override(module, function, lambda *of: compute(*of) if self._checked else _AnyNumber())

    def _collect(self, module, folder: Path) -> None:
        """Write every good checkpoint; each file of one is a seed, beside the others as they are."""
        from paratree.registry import _index_of, entry_of
        from tests.attacks.harness import write

        known: dict[object, int] = {}
        goods = [lambda at, case=case: write(case, "good", at) for case in module.CASES]
        goods += [lambda at, sweep=sweep: _write_sweep(sweep, at) for sweep in getattr(module, "SWEEPS", ())]
        for number, write_one in enumerate(goods):
            at = folder / str(number)
            at.mkdir()
            opened = write_one(at)
            opened = Path(entry_of(str(opened)) if opened.is_dir() else _index_of(str(opened)))
            files = sorted(f for f in at.rglob("*") if f.is_file() and not f.is_symlink())
            contents = {file: file.read_bytes() for file in files}
            for file in files:
                others = tuple((f.relative_to(at), contents[f]) for f in files if f != file)
                key = (opened.relative_to(at), file.relative_to(at), others)
                if key not in known:
                    known[key] = len(self.places)
                    self.places.append(Place(str(opened), str(file)))
                if len(contents[file]) <= LONGEST_SEED:
                    self.seeds.append(_WHERE.pack(known[key]) + contents[file])

    def _open(self, path: str, descriptor: int = -1):
        changed, data = self._now
        if path != changed:
            return self._local(path, descriptor)
        if descriptor >= 0:
            os.close(descriptor)
        if path not in self._known:
            found = self._local(path)
            self._known[path] = {**vars(found)}
            found.close()
        return self._in_memory(self._known[path], data)

    def run(self, data: bytes) -> None:
        """List the changed checkpoint and read its values.

        Raises:
            Exception: whatever escapes from the reader, and :class:`Finding`; never a ``ParatreeError``.
        """
        from paratree.core.errors import ParatreeError

        if len(data) < _WHERE.size:
            return
        where = _WHERE.unpack_from(data)[0]
        place, self._checked = self.places[where % _CHECKED % len(self.places)], where >= _CHECKED
        self._now = (place.changed, data[_WHERE.size :])
        started = time.thread_time()
        try:
            self._read(self._open(place.opened))
        except ParatreeError as error:
            if not str(error).isprintable():
                raise Finding(f"an error of several lines: {error}") from error
        if (taken := time.thread_time() - started) > SECONDS:
            raise Finding(f"it took {taken:.1f} s")

    def _read(self, file) -> None:
        from paratree.core.errors import ParatreeError
        from paratree.verbs.show import show

        if not self.reader.sniff(file):
            return
        with self.reader.open(file) as tree:
            show(tree)
            left = ALL_VALUES
            for param in tree.values():
                size = param.nbytes
                if size is None or size > min(LARGEST_VALUE, left) or param.array.problem is not None:
                    continue
                left -= size
                try:
                    shape = param.value.shape
                except ParatreeError as error:
                    if not str(error).isprintable():
                        raise Finding(f"an error of several lines: {error}") from error
                    continue
                if shape != param.shape:
                    raise Finding(f"a value of {shape} where {param.shape} was listed")


def _import_reader(format: str) -> None:
    """Import all that reads and lists, at once: what is imported later is not instrumented."""
    import pkgutil

    for room in ("core", "files", "formats"):
        package = import_module(f"paratree.{room}")
        for module in pkgutil.iter_modules(package.__path__, f"{package.__name__}."):
            name = module.name.rpartition(".")[2]
            if room != "formats" or name == format or name.startswith(f"_{format}"):
                import_module(module.name)
    import_module("paratree.registry")
    import_module("paratree.verbs.show")


def _in_memory_class(local: type):
    class InMemory(local):
        """A file that differs from one on disk in its bytes, which are in memory."""

        def __init__(self, known: dict[str, object], data: bytes) -> None:
            vars(self).update(known, size=len(data), head=data[:4096], archive=None, _descriptor=-1)
            self._data = data

        def readinto(self, view: memoryview, offset: int) -> None:
            view[:] = self._data[offset : offset + len(view)]

    return InMemory


def _write_sweep(sweep, folder: Path) -> Path:
    for name, data in (*sweep.beside, (sweep.name, sweep.good)):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)
    return folder / sweep.name


# One process that fuzzes, and the one that starts it again after a crash


def fuzz(format: str, seconds: int, kept: Path, counter: Path) -> None:
    """Run libFuzzer in this process, which it ends; findings in Python are kept, and it goes on."""
    import atheris

    with atheris.instrument_imports(include=["paratree"]):
        _import_reader(format)
    with tempfile.TemporaryDirectory() as folder, counter.open("r+b") as stream:
        target = Target(format, Path(folder))
        corpus = kept / "corpus"
        corpus.mkdir(exist_ok=True)
        longest = _longest(target.seeds)
        for seed in (seed for seed in target.seeds if len(seed) <= longest):
            (corpus / hashlib.sha1(seed).hexdigest()).write_bytes(seed)
        count = mmap.mmap(stream.fileno(), _COUNT.size)
        done = _COUNT.unpack_from(count)[0]

        def one(data: bytes) -> None:
            nonlocal done
            done += 1
            _COUNT.pack_into(count, 0, done)
            try:
                target.run(data)
            except Exception as error:  # noqa: BLE001 -- any that escapes is a finding
                _keep(kept, data, error)

        options = [
            f"-max_total_time={seconds}", f"-timeout={HANG}", f"-report_slow_units={HANG}",
            f"-max_len={longest}", "-len_control=0", "-rss_limit_mb=0", f"-artifact_prefix={kept}/",
        ]  # fmt: skip
        _limit_memory()
        atheris.Setup([sys.argv[0], *options, str(corpus)], one)
        atheris.Fuzz()


def _longest(seeds: list[bytes]) -> int:
    """Return how long an input may be: short ones are read faster, and hold what long ones do."""
    middle = sorted(map(len, seeds))[len(seeds) // 2]
    return min(max(2 * middle, 2 << 10), LONGEST_SEED)


def _limit_memory() -> None:
    """Let what asks for far more than an input is worth fail with a ``MemoryError``, which is a finding."""
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0])
    most = pages * resource.getpagesize() + MEMORY
    resource.setrlimit(resource.RLIMIT_AS, (most, most))


def _keep(kept: Path, data: bytes, error: BaseException) -> None:
    """Keep the shortest input for each line of code that something escaped from."""
    frames = [f for f in traceback.extract_tb(error.__traceback__) if "/paratree/" in f.filename]
    where = f"{Path(frames[-1].filename).stem}-{frames[-1].lineno}" if frames else "result"
    path = kept / f"{type(error).__name__}-{where}"
    if not path.exists() or len(data) < path.stat().st_size:
        path.write_bytes(data)
        text = "".join(traceback.format_exception(error, limit=-8))
        path.with_name(f"{path.name}.txt").write_text(f"{text}\n{data.hex()}\n", encoding="utf-8")


def replay(format: str, path: Path) -> int:
    """Run one input again, without instrumentation; print what escapes, and return 1 if something does."""
    with tempfile.TemporaryDirectory() as folder:
        target = Target(format, Path(folder))
        _limit_memory()
        try:
            target.run(path.read_bytes())
        except Exception:  # noqa: BLE001 -- any that escapes is a finding
            traceback.print_exc()
            return 1
        finally:
            target.close()
    return 0


def _replayed(format: str, path: Path) -> bool:
    """Tell whether an input is a finding in a process of its own, or ends that process."""
    command = [sys.executable, "-m", "tests.fuzz", format, "--replay", str(path)]
    try:
        return subprocess.run(command, cwd=ROOT, capture_output=True, timeout=2 * HANG).returncode != 0
    except subprocess.TimeoutExpired:
        return True


def main() -> int:
    """Fuzz for a while; print how many inputs were tried, and return 1 if there was a finding."""
    parser = argparse.ArgumentParser(prog="scripts/fuzz", description=__doc__.splitlines()[0])
    known = sorted(p.stem.removeprefix("cases_") for p in (ROOT / "tests/attacks").glob("cases_*.py"))
    parser.add_argument("format", choices=known)
    parser.add_argument("seconds", type=int, nargs="?", default=60)
    parser.add_argument("--replay", type=Path, metavar="FILE", help="run one input again")
    parser.add_argument("--child", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    kept = ROOT / ".cache" / "fuzz" / options.format
    if options.replay:
        return replay(options.format, options.replay)
    if options.child:
        fuzz(options.format, options.seconds, kept, options.child)
    kept.mkdir(parents=True, exist_ok=True)
    return _run(options.format, options.seconds, kept)


def _run(format: str, seconds: int, kept: Path) -> int:
    before = {path: path.stat().st_mtime_ns for path in kept.iterdir() if path.is_file()}
    started, left, count = time.monotonic(), float(seconds), 0
    with tempfile.NamedTemporaryFile() as counter:
        counter.write(bytes(_COUNT.size))
        counter.flush()
        while left >= 1:
            command = [sys.executable, "-m", "tests.fuzz", format, str(int(left)), "--child", counter.name]
            done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, errors="replace")
            before_it, count = count, _COUNT.unpack(Path(counter.name).read_bytes())[0]
            if count == before_it:
                print(done.stderr[-2000:], file=sys.stderr)
                return 2
            left = seconds - (time.monotonic() - started)
    taken = time.monotonic() - started
    fresh = [p for p in sorted(kept.iterdir()) if p.is_file() and before.get(p) != p.stat().st_mtime_ns]
    found = [path for path in fresh if path.suffix != ".txt" and _replayed(format, path)]
    rate = f"{count:,} inputs in {taken:.0f} s ({count / taken:,.0f} a second)"
    print(f"{format}: {rate}, {len(found)} finding{'s' if len(found) != 1 else ''}")
    for path in found:
        print(f"  {path.relative_to(ROOT)}")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
