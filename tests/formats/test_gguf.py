"""GGUF: every type and every kind of metadata; against the library gguf, which writes and decodes them."""

from __future__ import annotations

import importlib
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import paratree as pt
from paratree.core.dtypes import BITS, BLOCKS
from paratree.files.local import LocalFile
from paratree.formats import _gguf_header
from paratree.formats._gguf_tensors import HALVES, REFUSED, TYPES
from paratree.formats.gguf import _TIED
from tests import weights
from tests.attacks.cases_gguf import ARRAY, BOOL, TEXT, U8, U32, Raw, Tensor, gguf

REAL = "smollm2"
STORED = {"F32": "float32", "F16": "float16", "BF16": "bfloat16", "F64": "float64"}
WIDTH = 512  # values in a row: two of the largest blocks


@pytest.fixture
def library():
    return pytest.importorskip("gguf", reason="gguf writes the files and decodes the values")


def written(path, content):
    path.write_bytes(content)
    return path


def write(library, path, tensors, *, fill=None, **options):
    """Write tensors by name: an array, or an array of bytes and its type."""
    writer = library.GGUFWriter(path, "llama", **options)
    if fill is not None:
        fill(writer)
    for name, tensor in tensors.items():
        data, type = tensor if isinstance(tensor, tuple) else (tensor, None)
        writer.add_tensor(name, data, raw_dtype=type)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def same_bits(found, expected):
    assert found.dtype == expected.dtype
    assert found.shape == expected.shape
    np.testing.assert_array_equal(
        np.ascontiguousarray(found).view(np.uint8), np.ascontiguousarray(expected).view(np.uint8)
    )


def random_blocks(library, type, rows=3, seed=0):
    """Return random bytes as rows of a quantised type: every one of them means something."""
    values, width = library.GGML_QUANT_SIZES[type]
    return np.random.default_rng(seed).integers(0, 256, (rows, WIDTH // values * width), np.uint8)


# A real model


def test_a_real_model_is_listed_without_the_library(absent):
    absent("gguf")
    with pt.open(weights.path(REAL)) as tree:
        assert len(tree) == 273
        assert tree.ties == (("token_embd.weight", "output.weight"),)
        assert "output.weight is not stored" in tree.notes[0]
        assert tree["token_embd.weight"].dtype == "q8_0"
        assert tree["token_embd.weight"].shape == (49152, 576)
        assert tree["output_norm.weight"].value.dtype == np.float32
        assert tree.nbytes == 96_576_768
        assert (tree.size, tree.expanded_size) == (134_515_008, 134_515_008 + 49152 * 576)
        blocks = list(dict.fromkeys(name.split(".")[1] for name in tree if name.startswith("blk.")))
        assert blocks == [str(number) for number in range(30)]
        assert tree.meta["general.architecture"] == "llama"
        assert tree.meta["tokenizer.chat_template"].startswith("{% for message in messages %}")
        tokens = tree.meta["tokenizer.ggml.tokens"]
        assert (len(tokens), tokens[0], tokens[-1]) == (49152, "<|endoftext|>", "ectable")
        with pytest.raises(pt.MissingPackageError, match=r"pip install 'paratree\[gguf\]'"):
            _ = tree["token_embd.weight"][0]


def test_a_real_model_equals_the_library(library):
    reader = library.GGUFReader(weights.path(REAL))
    with pt.open(weights.path(REAL)) as tree:
        stored = [name for name in tree if name != "output.weight"]
        assert set(stored) == {tensor.name for tensor in reader.tensors}
        for number, tensor in enumerate(reader.tensors):
            param = tree[tensor.name]
            assert param.shape == tuple(reversed(tensor.shape.tolist()))
            assert param.dtype == STORED.get(tensor.tensor_type.name, tensor.tensor_type.name.lower())
            assert param.nbytes == tensor.n_bytes
            assert param.storage.offset == tensor.data_offset
            if param.dtype == "float32" or number % 32 == 0:
                same_bits(param.value, library.dequantize(tensor.data, tensor.tensor_type))
        head = next(tensor for tensor in reader.tensors if tensor.name == "token_embd.weight")
        expected = library.dequantize(head.data[1000:1100], head.tensor_type)
        same_bits(tree["output.weight"][1000:1100], expected)
        for key, field in reader.fields.items():
            if not key.startswith("GGUF."):
                found = tree.meta[key]
                if isinstance(found, _gguf_header.LongArray):
                    assert found[:1000] == field.contents(slice(0, 1000))
                    assert (len(found), found[-1]) == (len(field.data), field.contents(-1))
                else:
                    assert found == field.contents()


def test_listing_imports_neither_numpy_nor_the_library():
    code = (
        f"import sys, paratree; paratree.open({str(weights.path(REAL))!r});"
        "print({'numpy', 'gguf', 'dataclasses', 'typing', 'pathlib'} & set(sys.modules))"
    )
    root = Path(pt.__file__).parents[1]
    found = subprocess.check_output([sys.executable, "-S", "-c", code], text=True, cwd=root)
    assert found.strip() == "set()"


# Types


def test_the_table_of_types_is_that_of_the_library(library):
    theirs = {int(type): STORED.get(type.name, type.name.lower()) for type in library.GGML_QUANT_SIZES}
    words = {"i8": "int8", "i16": "int16", "i32": "int32", "i64": "int64"}
    assert {number: words.get(name, name) for number, name in theirs.items()}.items() <= TYPES.items()
    removed = {name for number, name in TYPES.items() if number not in theirs}
    assert removed == {name for name in BLOCKS if name.endswith(("_4_4", "_4_8", "_8_8"))}
    for type, (values, width) in library.GGML_QUANT_SIZES.items():
        name = TYPES[type]
        assert BLOCKS[name] == (values, width) if name in BLOCKS else BITS[name] == width * 8
    assert set(BLOCKS) == set(TYPES.values()) - set(BITS)


def test_what_is_refused_is_what_the_library_does_not_decode(library):
    refused = set()
    for type in library.GGML_QUANT_SIZES:
        try:
            with np.errstate(all="ignore"):
                library.dequantize(random_blocks(library, type), type)
        except NotImplementedError:
            refused.add(TYPES[type])
    assert refused & set(BLOCKS) == {name for name in REFUSED if name.count("_") < 3}


@pytest.mark.parametrize("name", sorted(set(BLOCKS) - set(REFUSED)))
def test_every_quantised_type_equals_the_library(library, tmp_path, name):
    type = library.GGMLQuantizationType[name.upper()]
    data = random_blocks(library, type)
    tree = pt.open(write(library, tmp_path / "m.gguf", {"w": (data, type), "end": np.ones(3, "f4")}))
    param = tree["w"]
    assert (param.shape, param.dtype, param.nbytes) == ((3, WIDTH), name, data.nbytes)
    with np.errstate(all="ignore"):
        same_bits(param.value, library.dequantize(data, type))
    assert tree["end"].value.tolist() == [1, 1, 1]


@pytest.mark.parametrize("name", sorted(REFUSED))
def test_a_type_without_values_is_listed_and_refused(tmp_path, name):
    values, width = BLOCKS[name]
    number = next(number for number, of in TYPES.items() if of == name)
    tensor = Tensor("w", (values, 2), number, bytes(2 * width))
    param = pt.open(written(tmp_path / "m.gguf", gguf([tensor])))["w"]
    assert (param.shape, param.dtype, param.nbytes) == ((2, values), name, 2 * width)
    with pytest.raises(pt.UnreadableError, match="does not dequantise"):
        _ = param.value


@pytest.mark.parametrize("name", ["Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0", "TQ1_0", "TQ2_0", "MXFP4", "BF16"])
def test_what_the_library_quantises_is_read_back(library, tmp_path, name):
    type = library.GGMLQuantizationType[name]
    values = np.random.default_rng(1).standard_normal((4, WIDTH), np.float32)
    data = library.quantize(values, type)
    param = pt.open(write(library, tmp_path / "m.gguf", {"w": (data, type)}))["w"]
    same_bits(param.value.astype(np.float32), library.dequantize(data, type))


@pytest.mark.parametrize("code", ["f4", "f2", "f8", "i1", "i2", "i4", "i8"])
@pytest.mark.parametrize("big", [False, True])
def test_plain_types_in_both_byte_orders(library, tmp_path, code, big):
    values = (np.arange(24).reshape(2, 3, 4) * 7 - 50).astype(code)
    endian = library.GGUFEndian.BIG if big else library.GGUFEndian.LITTLE
    path = write(
        library, tmp_path / "m.gguf", {"w": values, "x": np.ones(3, "f4")}, endianess=endian,
        fill=lambda writer: writer.add_array("numbers", [300, -2, 7]),
    )  # fmt: skip
    tree = pt.open(path)
    same_bits(tree["w"].value, values)
    same_bits(tree["w"][1, :, ::-2], values[1, :, ::-2])
    assert tree.meta["numbers"] == [300, -2, 7]
    assert tree.meta["general.architecture"] == "llama"


@pytest.mark.parametrize("name", sorted(HALVES))
def test_a_quantised_file_converted_to_big_endian(library, tmp_path, monkeypatch, name):
    converter = pytest.importorskip("gguf.scripts.gguf_convert_endian", reason="the library's converter")
    type = library.GGMLQuantizationType[name.upper()]
    data = random_blocks(library, type)
    path = write(library, tmp_path / "m.gguf", {"w": (data, type), "x": np.arange(9, dtype="f4")})
    with np.errstate(all="ignore"):
        expected = library.dequantize(data, type)
    monkeypatch.setattr("builtins.input", lambda _: "YES")
    reader = library.GGUFReader(path, "r+")
    converter.convert_byteorder(reader, type_of(order="big"))
    del reader
    assert path.read_bytes()[4:8] == b"\0\0\0\3"
    tree = pt.open(path)
    same_bits(tree["w"].value, expected)
    assert tree["x"].value.tolist() == list(range(9))


def type_of(**fields):
    return type("Arguments", (), fields | {"dry_run": False})


def test_the_other_quantised_types_are_refused_in_big_endian_files(tmp_path):
    small = gguf([Tensor("w", (32,), 3, bytes(20))])
    swapped = b"GGUF" + (3).to_bytes(4, "big") + (1).to_bytes(8, "big") + (0).to_bytes(8, "big")
    swapped += (1).to_bytes(8, "big") + b"w" + (1).to_bytes(4, "big") + (32).to_bytes(8, "big")
    swapped += (3).to_bytes(4, "big") + (0).to_bytes(8, "big")
    path = written(tmp_path / "m.gguf", swapped + bytes(-len(swapped) % 32) + bytes(32))
    assert pt.open(written(tmp_path / "l.gguf", small))["w"].array.problem is None
    with pytest.raises(pt.UnreadableError, match="q4_1 in a big-endian file"):
        _ = pt.open(path)["w"].value


# Parts of an array

PLACES = st.one_of(
    st.integers(-3, 2), st.slices(3), st.just(slice(None)), st.sampled_from([slice(None, None, -1), ...])
)
COLUMNS = st.one_of(st.integers(-WIDTH, WIDTH - 1), st.slices(WIDTH), st.just(slice(None)))


@pytest.fixture(scope="module")
def blocks(tmp_path_factory):
    library = pytest.importorskip("gguf", reason="gguf decodes the values")
    type = library.GGMLQuantizationType.Q8_0
    data = np.concatenate([random_blocks(library, type, seed=n)[None] for n in range(2)])
    path = write(library, tmp_path_factory.mktemp("gguf") / "m.gguf", {"w": (data, type)})
    with np.errstate(all="ignore"):
        return path, library.dequantize(data, type)


@settings(max_examples=60, deadline=None)
@given(st.tuples(st.integers(-2, 1) | st.slices(2), PLACES.filter(lambda p: p is not ...), COLUMNS))
def test_any_part_equals_that_part_of_the_whole(blocks, index):
    path, whole = blocks
    with pt.open(path) as tree:
        same_bits(np.asarray(tree["w"][index]), np.asarray(whole[index]))
        same_bits(np.asarray(tree["w"][index[0]]), np.asarray(whole[index[0]]))


def test_only_the_blocks_asked_for_are_read(library, tmp_path, monkeypatch):
    type = library.GGMLQuantizationType.Q4_0
    data = np.zeros((1000, 10_000 // 32 * 18), np.uint8)
    path = write(library, tmp_path / "m.gguf", {"w": (data, type)})
    read = []
    plain = LocalFile.readinto
    with pt.open(path) as tree:
        monkeypatch.setattr(
            LocalFile, "readinto", lambda self, view, at: (read.append(len(view)), plain(self, view, at))
        )
        assert tree["w"][500:502].shape == (2, data.shape[1] // 18 * 32)
        assert sum(read) == 2 * data.shape[1]
        read.clear()
        assert tree["w"][7, 33].shape == ()
        assert sum(read) == 18


def test_a_tensor_without_values(tmp_path):
    tensors = [Tensor("w", (32, 0), 3, b""), Tensor("s", (), 0, bytes(4)), Tensor("e", (0,), 0, b"")]
    tree = pt.open(written(tmp_path / "m.gguf", gguf(tensors)))
    assert (tree["w"].value.shape, tree["s"].value.shape, tree["e"].value.shape) == ((0, 32), (), (0,))


# Metadata


def test_metadata_of_every_type(library, tmp_path):
    words = {
        "uint8": 200, "int8": -3, "uint16": 60_000, "int16": -300, "uint32": 1 << 31, "int32": -70_000,
        "float32": 0.5, "uint64": 1 << 63, "int64": -(1 << 62), "float64": 0.1, "bool": True, "string": "γ\n",
    }  # fmt: skip
    arrays = {
        "a.int": [1, -2], "a.float": [0.5, 1.5], "a.bool": [True, False], "a.text": ["x", "", "ζ"],
        "a.bytes": b"\1\2", "a.nested": [[1, 2], [3]], "a.deep": [[["x"], ["y", "z"]], [["w"]]],
    }  # fmt: skip

    def fill(writer):
        for word, value in words.items():
            getattr(writer, f"add_{word}")(f"m.{word}", value)
        for key, value in arrays.items():
            writer.add_array(key, value)

    meta = pt.open(write(library, tmp_path / "m.gguf", {"w": np.ones(1, "f4")}, fill=fill)).meta
    assert {word: meta[f"m.{word}"] for word in words} == words
    assert {key: meta[key] for key in arrays} == arrays | {"a.bytes": [1, 2]}
    assert meta["m.bool"] is True


def test_long_arrays_are_read_when_asked_for(library, tmp_path):
    texts = [f"{n}" * (n % 7) for n in range(3000)]
    nested = [[n, n + 1] for n in range(400)]

    def fill(writer):
        writer.add_array("texts", texts)
        writer.add_array("numbers", list(range(70_000)))
        writer.add_array("nested", nested)
        writer.add_string("after", "it")

    with pt.open(write(library, tmp_path / "m.gguf", {"w": np.ones(1, "f4")}, fill=fill)) as tree:
        found = tree.meta["texts"]
        assert list(found) == texts
        assert (found[-1], found[5:9], found[::-1000]) == (texts[-1], texts[5:9], texts[::-1000])
        assert "22" in found
        assert found.index("22") == 22 // 11
        with pytest.raises(IndexError):
            _ = found[3000]
        assert repr(found) == "<3000 values of text: '', '1', '22', …>"
        assert tree.meta["numbers"][69_999] == 69_999
        assert list(tree.meta["nested"]) == nested
        assert tree.meta["after"] == "it"


def test_long_texts_are_shortened_and_what_is_no_utf8_is_escaped(tmp_path):
    meta = [("long", TEXT, "x" * 300_000), ("odd", TEXT, b"a\xffb"), ("k", ARRAY, (U8, [1]))]
    found = pt.open(written(tmp_path / "m.gguf", gguf(meta=meta))).meta
    assert found["long"] == "x" * (1 << 18) + "… (300000 bytes)"
    assert found["odd"] == "a\\xffb"
    assert found["k"] == [1]


def test_what_is_kept_of_the_metadata_is_bounded(tmp_path):
    meta = [(f"k{n}", TEXT, "x" * 200_000) for n in range(30)]
    found = pt.open(written(tmp_path / "m.gguf", gguf(meta=meta))).meta
    assert sum(map(len, found.values())) < 5_000_000
    assert found["k29"] == "… (200000 bytes)"


names = st.text(st.characters(codec="utf-8"), min_size=1, max_size=12)
plain = st.booleans() | st.integers(-(1 << 31), (1 << 31) - 1) | st.text(min_size=1, max_size=20)


@settings(max_examples=60, deadline=None)
@given(
    st.dictionaries(names.filter(lambda n: n != "general.architecture"), plain, max_size=6),
    st.dictionaries(
        names, st.tuples(st.lists(st.integers(0, 5), min_size=1, max_size=4), st.sampled_from("fdbhiq"))
    ),
    st.sampled_from([8, 32, 64, 4096]),
    st.booleans(),
)
def test_what_the_library_writes_is_read_back(meta, tensors, alignment, big):
    library = pytest.importorskip("gguf", reason="gguf writes the files")
    rng = np.random.default_rng(0)
    arrays = {name: (rng.random(shape) * 100).astype(code) for name, (shape, code) in tensors.items()}

    def fill(writer):
        writer.add_custom_alignment(alignment)
        for key, value in meta.items():
            add = writer.add_bool if isinstance(value, bool) else writer.add_int32
            (writer.add_string if isinstance(value, str) else add)(key, value)

    with tempfile.TemporaryDirectory() as folder:
        endian = library.GGUFEndian.BIG if big else library.GGUFEndian.LITTLE
        path = write(library, Path(folder) / "m.gguf", arrays, fill=fill, endianess=endian)
        with pt.open(path) as tree:
            assert {key: value for key, value in tree.meta.items() if not key.startswith("general.")} == meta
            assert set(tree) == set(arrays)
            for name, values in arrays.items():
                same_bits(tree._params[name].value, values)


# Ties, order, kinds


def opened(folder, names, architecture="llama", more=()):
    tensors = [Tensor(name) for name in names]
    meta = [("general.architecture", TEXT, architecture), *more]
    return pt.open(written(folder / "m.gguf", gguf(tensors, meta)))


@pytest.mark.parametrize("architecture", sorted(_TIED))
def test_an_output_left_out_is_the_embedding(tmp_path, architecture):
    tree = opened(tmp_path, ["token_embd.weight", "output_norm.weight"], architecture)
    assert list(tree) == ["token_embd.weight", "output_norm.weight", "output.weight"]
    assert tree.ties == (("token_embd.weight", "output.weight"),)
    assert (tree.size, tree.expanded_size) == (8, 12)
    assert architecture in tree.notes[0]


@pytest.mark.parametrize(
    ("architecture", "more"),
    [
        ("bert", []),
        ("nomic-bert", []),
        ("gemma-embedding", []),
        ("t5encoder", []),
        ("rwkv6", []),
        ("clip", []),
        ("something new", []),
        ("llama", [("general.type", TEXT, "adapter")]),
        ("qwen3", [("qwen3.pooling_type", U32, 3)]),
    ],
)
def test_no_tie_is_invented(tmp_path, architecture, more):
    tree = opened(tmp_path, ["token_embd.weight", "output_norm.weight"], architecture, more)
    assert "output.weight" not in tree
    assert not tree.ties
    assert not tree.notes


def test_an_output_of_its_own_is_not_tied(tmp_path):
    assert not opened(tmp_path, ["token_embd.weight", "output.weight"]).ties


def test_the_architecture_may_be_anything(tmp_path):
    meta = [("general.architecture", ARRAY, (TEXT, ["llama"]))]
    assert list(pt.open(written(tmp_path / "m.gguf", gguf(meta=meta)))) == ["w"]


def test_the_architectures_with_a_tie_are_ones_that_the_library_knows_as_decoders(library):
    tensors = importlib.import_module("gguf.constants").MODEL_TENSORS
    names = importlib.import_module("gguf.constants").MODEL_ARCH_NAMES
    known = {names[arch]: set(tensors[arch]) for arch in tensors}
    assert set(known) >= _TIED
    assert all(library.MODEL_TENSOR.TOKEN_EMBD in known[name] for name in _TIED)
    assert not any("bert" in name or "encoder" in name or "embed" in name for name in _TIED)


def test_blocks_sorted_as_text_are_put_in_order_and_others_are_left(tmp_path):
    as_text = ["token_embd.weight", *(f"blk.{n}.{w}" for n in (0, 1, 10, 11, 2) for w in "ba"), "output_norm"]
    assert list(opened(tmp_path, as_text, "bert")) == [
        "token_embd.weight", *(f"blk.{n}.{w}" for n in (0, 1, 2, 10, 11) for w in "ba"), "output_norm",
    ]  # fmt: skip
    other = [f"blk.{n}.w" for n in (3, 0, 10, 2)]
    assert list(opened(tmp_path, other, "bert")) == other


def test_kinds(tmp_path):
    tree = opened(tmp_path, ["rope_freqs.weight", "blk.0.attn_norm.weight"], "bert")
    assert [param.kind for param in tree.values()] == ["buffer", "parameter"]
    tree = opened(tmp_path, ["blk.0.attn_q.weight.counts"], "llama", [("general.type", TEXT, "imatrix")])
    assert [param.kind for param in tree.values()] == ["other"]


# Split files, and what is wrong with files


def test_split_files_equal_the_whole(library, tmp_path):
    values = {f"blk.{n}.w": np.full((2, 3), n, "f4") for n in range(5)}
    write(
        library, tmp_path / "m.gguf", values, split_max_tensors=2,
        fill=lambda writer: writer.add_string("k", "only in the first"),
    )  # fmt: skip
    parts = sorted(path.name for path in tmp_path.iterdir())
    assert parts == [f"m-0000{n}-of-00003.gguf" for n in (1, 2, 3)]
    for source in (tmp_path, *(tmp_path / part for part in parts)):
        with pt.open(source) as tree:
            assert tree.format == "GGUF, 3 parts"
            assert list(tree) == list(values)
            assert tree.meta["k"] == "only in the first"
            for name, value in values.items():
                same_bits(tree[name].value, value)


def test_a_part_may_be_a_symbolic_link(library, tmp_path):
    cache, folder = tmp_path / "blobs", tmp_path / "snapshot"
    cache.mkdir()
    folder.mkdir()
    write(library, cache / "m.gguf", {f"{n}": np.ones(1, "f4") for n in range(4)}, split_max_tensors=2)
    for part in cache.iterdir():
        (folder / part.name).symlink_to(part)
    assert len(pt.open(folder)) == 4


def test_a_missing_part_is_named(library, tmp_path):
    write(library, tmp_path / "m.gguf", {f"{n}": np.ones(1, "f4") for n in range(4)}, split_max_tensors=2)
    (tmp_path / "m-00002-of-00002.gguf").unlink()
    with pytest.raises(pt.SourceNotFoundError, match=r"m-00002-of-00002\.gguf: no such file"):
        pt.open(tmp_path / "m-00001-of-00002.gguf")


def test_a_piece_cut_by_hand_says_what_to_do(tmp_path):
    whole = gguf([Tensor("w", (1000,), 0, bytes(4000))])
    with pytest.raises(pt.CorruptFileError, match="join them, in order: cat A B > WHOLE") as caught:
        pt.open(written(tmp_path / "m.gguf.part1of2", whole[:2000]))
    assert caught.value.offset == 2000
    with pytest.raises(pt.UnknownSourceError, match="as no GGUF file does"):
        pt.open(written(tmp_path / "m-b.gguf", whole[2000:]))


def test_version_1_is_refused_by_name(tmp_path):
    with pytest.raises(pt.CorruptFileError, match="GGUF version 1"):
        pt.open(written(tmp_path / "m.gguf", gguf(version=1)))
    assert len(pt.open(written(tmp_path / "m.gguf", gguf(version=2)))) == 1


def test_bytes_behind_the_last_tensor_are_noted(tmp_path):
    tree = pt.open(written(tmp_path / "m.gguf", gguf(tail=bytes(7))))
    assert tree.notes == ("7 bytes follow the last tensor; nothing says what they are",)
    assert pt.open(written(tmp_path / "m.gguf", gguf()[:-16])).notes == ()


def test_a_file_of_a_vocabulary_only(tmp_path):
    tree = pt.open(written(tmp_path / "m.gguf", gguf([], [("k", ARRAY, (TEXT, ["a"]))])))
    assert (len(tree), tree.meta["k"]) == (0, ["a"])


def test_an_old_library_is_told_to_be_upgraded(library, tmp_path, monkeypatch):
    type = library.GGMLQuantizationType.MXFP4
    path = write(library, tmp_path / "m.gguf", {"w": (random_blocks(library, type), type)})

    def fails(*_):
        raise NotImplementedError

    monkeypatch.setattr("gguf.quants.dequantize", fails)
    with pytest.raises(pt.UnreadableError, match="pip install --upgrade gguf"):
        _ = pt.open(path)["w"].value


def test_a_closed_tree_says_so(tmp_path):
    path = written(
        tmp_path / "m.gguf", gguf(meta=[("k", ARRAY, (U32, range(1000))), ("b", BOOL, Raw(b"\1"))])
    )
    tree = pt.open(path)
    tree.close()
    for read in (lambda: tree["w"].value, lambda: tree.meta["k"][3]):
        with pytest.raises(pt.CorruptFileError, match="the tree was closed"):
            read()
