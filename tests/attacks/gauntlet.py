"""Makes pickles that run something when they are unpickled: every opcode that can call, every known bypass.

Each would run ``touch evil`` if it can, so that a test can show that it does in Python's own unpickler, and
that nothing of the kind happens here.
"""

from __future__ import annotations

import struct
from typing import NamedTuple

from tests.attacks.cases_dcp import chunk, folder, metadata, place
from tests.attacks.cases_dcp import entry as dcp_entry
from tests.attacks.cases_dcp import made as dcp_made
from tests.attacks.cases_pickle import array, dtype, joblib
from tests.attacks.cases_torch_tar import pid, torch_tar
from tests.attacks.makers import (
    Op,
    call,
    member,
    name,
    op,
    pickled,
    storage,
    tensor,
    torch_legacy,
    torch_zip,
    zipped,
)

REFUSED, INERT = "refused", "inert"  # exit 2; exit 0 with the object said to be not built
_SHELL = "touch evil"
_CODE = "open('evil', 'w')"
_IMPORTED = f"__import__('os').system('{_SHELL}')"


class Trial(NamedTuple):
    """A program of opcodes that leaves one value, and what must become of it."""

    id: str
    code: Op
    verdict: str = REFUSED
    fires: bool = False  # Python's unpickler creates the file ``evil``


def _global4(module: str, attribute: str) -> Op:
    """Return STACK_GLOBAL, which takes dotted names."""
    return Op(op(module) + op(attribute) + b"\x93")


_SYSTEM, _OS = name("os", "system"), call(name("builtins", "__import__"), "os")
_GETATTR = name("builtins", "getattr")

STANDARD = [  # functions of the standard library: (module, name, arguments, whether it fires)
    ("os", "system", (_SHELL,), True), ("posix", "system", (_SHELL,), True), ("nt", "system", (_SHELL,), False),
    ("os", "popen", (_SHELL,), False), ("os", "execvp", ("touch", ["touch", "evil"]), True),
    ("os", "spawnlp", (0, "touch", "touch", "evil"), True), ("posix", "posix_spawn", ("/bin/touch", ["touch", "evil"], {}), False),
    ("os", "remove", ("x",), False), ("os", "open", ("evil", 66), True), ("os", "mkdir", ("evil",), True), ("shutil", "rmtree", ("x",), False),
    ("subprocess", "getoutput", (_SHELL,), True), ("subprocess", "call", (["touch", "evil"],), True), ("subprocess", "Popen", (["touch", "evil"],), False),
    ("_posixsubprocess", "fork_exec", (), False), ("multiprocessing.util", "spawnv_passfds", (b"/bin/touch", [b"touch"], []), False),
    ("builtins", "eval", (_IMPORTED,), True), ("builtins", "exec", (_CODE,), True), ("builtins", "compile", (_CODE, "x", "exec"), False),
    ("builtins", "__import__", ("antigravity",), False), ("builtins", "open", ("evil", "w"), True), ("builtins", "breakpoint", (), False),
    ("builtins", "setattr", (), False), ("builtins", "input", (), False), ("builtins", "vars", (), False), ("builtins", "type", ("X", (), {}), False),
    ("__builtin__", "eval", (_IMPORTED,), True), ("__builtin__", "execfile", ("x",), False),
    ("io", "open", ("evil", "w"), True), ("_io", "FileIO", ("evil", "w"), True), ("codecs", "open", ("evil", "w"), True), ("_codecs", "decode", (b"x", "evil"), False),
    ("marshal", "loads", (b"N",), False), ("types", "FunctionType", (), False), ("types", "CodeType", (), False), ("pickle", "loads", (b"",), False), ("_pickle", "loads", (b"",), False),
    ("cPickle", "loads", ("",), False), ("shelve", "open", ("evil",), True), ("dbm.dumb", "open", ("evil",), False),
    ("runpy", "_run_code", (_CODE, {}), True), ("runpy", "run_path", ("x",), False), ("code", "InteractiveInterpreter", (), False), ("codeop", "compile_command", ("1",), False),
    ("timeit", "timeit", ("pass", _CODE), True), ("timeit", "repeat", ("pass", _CODE), True), ("cProfile", "run", (_CODE,), True), ("cProfile", "runctx", (_CODE, {}, {}), True),
    ("profile", "run", (_CODE,), True), ("trace", "Trace", (), False), ("bdb", "Bdb", (), False), ("pdb", "run", (_CODE,), False), ("doctest", "debug_script", (_CODE,), False),
    ("pydoc", "pipepager", ("text", _SHELL), True), ("pydoc", "tempfilepager", ("text", "touch evil;"), True), ("pydoc", "locate", ("antigravity",), False),
    ("asyncio.unix_events", "_UnixSubprocessTransport", (), False), ("asyncio", "create_subprocess_shell", (_SHELL,), False),
    ("logging.config", "dictConfig", ({"version": 1, "formatters": {"a": {"()": "os.system", "command": _SHELL}}},), True), ("logging.config", "fileConfig", ("x",), False),
    ("ssl", "get_server_certificate", (("localhost", 1),), False), ("socket", "create_connection", (("localhost", 1),), False), ("urllib.request", "urlopen", ("http://localhost",), False),
    ("urllib", "urlopen", ("x",), False), ("http.client", "HTTPSConnection", ("x",), False), ("ftplib", "FTP", ("x",), False), ("smtplib", "SMTP", ("x",), False), ("xmlrpc.client", "ServerProxy", ("http://x",), False),
    ("telnetlib", "Telnet", ("x",), False), ("webbrowser", "open", ("x",), False), ("antigravity", "geohash", (), False), ("this", "s", (), False),
    ("pty", "spawn", (["touch", "evil"],), True), ("uuid", "_get_command_stdout", ("touch", "evil"), True), ("_osx_support", "_read_output", (_SHELL,), True), ("_aix_support", "_read_cmd_output", (_SHELL,), False),
    ("distutils.file_util", "write_file", ("evil", ["x"]), False), ("ensurepip", "_run_pip", (["--version"],), False), ("venv", "create", ("evil",), False), ("zipapp", "create_archive", ("x",), False),
    ("idlelib.calltip", "get_entity", (_IMPORTED,), False), ("idlelib.pyshell", "ModifiedInterpreter", (), False), ("idlelib.run", "Executive", (), False), ("lib2to3.pgen2.grammar", "Grammar", (), False), ("lib2to3.pgen2.pgen", "ParserGenerator", ("x",), False),
    ("importlib", "import_module", ("antigravity",), False), ("importlib.util", "spec_from_file_location", ("x", "x"), False), ("importlib.machinery", "SourceFileLoader", ("x", "x"), False), ("imp", "load_source", ("x", "x"), False),
    ("zipimport", "zipimporter", ("x",), False), ("pkgutil", "resolve_name", ("os:system",), False), ("site", "addsitedir", ("x",), False), ("sys", "exit", (), False), ("sys", "settrace", (None,), False), ("sys", "setprofile", (None,), False),
    ("ctypes", "CDLL", ("x",), False), ("_ctypes", "dlopen", ("x", 0), False), ("threading", "Thread", (), False), ("_thread", "start_new_thread", (_SYSTEM, (_SHELL,)), False), ("atexit", "register", (_SYSTEM, _SHELL), True),
    ("signal", "signal", (10, _SYSTEM), False), ("weakref", "finalize", (), False), ("tempfile", "mktemp", (), False), ("linecache", "getlines", ("/etc/passwd",), False), ("fileinput", "input", ("/etc/passwd",), False),
    ("configparser", "ConfigParser", (), False), ("sqlite3", "connect", ("evil",), True), ("tarfile", "open", ("x",), False), ("zipfile", "ZipFile", ("evil", "w"), True), ("gzip", "open", ("evil", "w"), True), ("mmap", "mmap", (-1, 1), False),
    ("operator", "methodcaller", ("system", _SHELL), False), ("operator", "call", (_SYSTEM, _SHELL), False), ("functools", "reduce", (_SYSTEM, [_SHELL]), False), ("functools", "cached_property", (_SYSTEM,), False),
    ("builtins", "map", (_SYSTEM, [_SHELL]), False), ("builtins", "filter", (_SYSTEM, [_SHELL]), False), ("builtins", "max", ([_SHELL], _SYSTEM), False), ("builtins", "sorted", ([],), False), ("itertools", "starmap", (_SYSTEM, [(_SHELL,)]), False), ("itertools", "filterfalse", (_SYSTEM, [_SHELL]), False),
    ("copyreg", "add_extension", ("os", "system", 1), False), ("copyreg", "pickle", (), False), ("copyreg", "__newobj_ex__", (_SYSTEM, (_SHELL,), {}), False), ("copyreg", "_reduce_ex", (), False),
    ("contextlib", "ExitStack", (), False), ("inspect", "getsource", (_SYSTEM,), False), ("unittest.mock", "_importer", ("antigravity",), False), ("concurrent.futures", "ThreadPoolExecutor", (), False), ("sched", "scheduler", (), False), ("cmd", "Cmd", (), False), ("curses", "initscr", (), False), ("turtle", "Screen", (), False),
]  # fmt: skip
THIRD_PARTY = [  # what other packages offer stays a name; nothing is imported to look whether it is there
    ("numpy", "load", ("x.npy", None, True)), ("numpy", "fromfile", ("/etc/passwd",)), ("numpy", "memmap", ("evil", "u1", "w+", 0, (1,))), ("numpy.f2py.crackfortran", "myeval", (_IMPORTED,)),
    ("numpy.f2py.diagnose", "run_command", (_SHELL,)), ("numpy.testing._private.utils", "runstring", (_CODE, {})), ("numpy.lib._npyio_impl", "os.system", (_SHELL,)), ("torch", "load", ("x",)), ("torch.serialization", "load", ("x",)),
    ("torch.hub", "load", ("x", "y")), ("torch.jit", "load", ("x",)), ("torch.jit.unsupported_tensor_ops", "execWrapper", (_CODE, {}, {})), ("torch.utils.collect_env", "run", (_SHELL,)), ("torch._dynamo.guards", "GuardBuilder.get", ()),
    ("torch.utils._config_module", "ConfigModule.load_config", (b"",)), ("torch.utils.bottleneck.__main__", "run_cprofile", (_CODE, {})), ("torch.fx.experimental.symbolic_shapes", "ShapeEnv.evaluate_guards_expression", (_IMPORTED,)), ("torch.distributed.rpc", "rpc_sync", ()),
    ("pip._internal.cli.main", "main", (["install", "x"],)), ("pip", "main", (["install", "x"],)), ("setuptools.command.easy_install", "main", ()), ("pkg_resources", "run_script", ("x", {})), ("cloudpickle", "loads", (b"",)), ("dill", "loads", (b"",)), ("joblib", "load", ("x",)),
    ("pandas", "read_pickle", ("x",)), ("tensorflow", "io.write_file", ("evil", "x")), ("keras.models", "load_model", ("x",)), ("jax", "jit", ()), ("transformers", "pipeline", ("x",)), ("yaml", "unsafe_load", ("x",)), ("requests", "get", ("http://localhost",)),
    ("IPython", "embed", ()), ("fsspec", "open", ("evil", "w")), ("test.support.script_helper", "assert_python_ok", ("-c", _CODE)), ("__main__", "evil", (_SHELL,)), ("\u043es", "system", (_SHELL,)), ("os ", "system", (_SHELL,)), ("", "system", (_SHELL,)),
]  # fmt: skip
_THING = name("mine", "Thing")
_LOADED = call(name("pickle", "loads"), pickled(call(_SYSTEM, _SHELL)))
_USERDICT = Op(name("collections", "UserDict") + b")\x81")
BYPASSES = [
    Trial("reduce", call(_SYSTEM, _SHELL), fires=True),
    Trial("inst", Op(b"(" + op(_SHELL) + b"ios\nsystem\n"), fires=True),
    Trial("obj", Op(b"(" + _SYSTEM + op(_SHELL) + b"o"), fires=True),
    Trial("newobj", Op(_SYSTEM + op((_SHELL,)) + b"\x81")),
    Trial("newobj-of-a-class", Op(name("subprocess", "Popen") + op((["touch", "evil"],)) + b"\x81")),
    Trial("newobj-ex", Op(_SYSTEM + op((_SHELL,)) + b"}\x92")),
    Trial("newobj-ex-of-a-class", Op(name("zipfile", "ZipFile") + op(("evil",)) + op({"mode": "w"}) + b"\x92")),
    Trial("stack-global", Op(_global4("os", "system") + op((_SHELL,)) + b"R"), fires=True),
    Trial("stack-global-from-memo", Op(op("os") + b"q\x07" + b"0" + op("system") + b"q\x080h\x07h\x08\x93" + op((_SHELL,)) + b"R"), fires=True),
    Trial("stack-global-from-long-memo", Op(op("os") + b"r\0\1\0\0" + b"0" + op("system") + b"r\1\1\0\0" + b"0j\0\1\0\0j\1\1\0\0\x93" + op((_SHELL,)) + b"R"), fires=True),
    Trial("stack-global-dotted", Op(_global4("builtins", "__import__.__self__.eval") + op((_IMPORTED,)) + b"R")),
    Trial("stack-global-through-a-module", Op(_global4("posixpath", "os.system") + op((_SHELL,)) + b"R")),
    Trial("stack-global-of-text-from-calls", Op(call(name("_codecs", "encode"), "os", "latin1") + op("system") + b"\x93" + op((_SHELL,)) + b"R")),
    Trial("stack-global-of-third-party-dotted", Op(_global4("torch.serialization", "os.system") + op((_SHELL,)) + b"R"), INERT),
    Trial("duplicated-on-the-stack", Op(_SYSTEM + b"2" + op((_SHELL,)) + b"R\x86"), fires=True),
    Trial("popped-result", Op(call(_SYSTEM, _SHELL) + b"0N"), fires=True),
    Trial("popped-with-a-mark", Op(b"(" + call(_SYSTEM, _SHELL) + b"1N"), fires=True),
    Trial("memoised-and-dropped", Op(call(_SYSTEM, _SHELL) + b"q\x40" + b"0h\x40"), fires=True),
    Trial("in-a-key", Op(b"}" + call(_SYSTEM, _SHELL) + b"Ns"), fires=True),
    Trial("in-a-set", Op(b"\x8f(" + call(_SYSTEM, _SHELL) + b"\x90"), fires=True),
    Trial("in-a-frozen-set", Op(b"(" + call(_SYSTEM, _SHELL) + b"\x91"), fires=True),
    Trial("in-a-state", Op(_THING + b")\x81" + op({"a": call(_SYSTEM, _SHELL)}) + b"b")),
    Trial("in-a-slot-state", Op(_THING + b")\x81" + op((None, {"a": call(_SYSTEM, _SHELL)})) + b"b")),
    Trial("in-the-arguments", call(_THING, call(_SYSTEM, _SHELL))),
    Trial("before-a-broken-opcode", Op(call(_SYSTEM, _SHELL) + b"\xff"), fires=True),
    Trial("before-an-underflow", Op(call(_SYSTEM, _SHELL) + b"00000000R"), fires=True),
    Trial("after-a-second-protocol", Op(b"\x80\x04" + call(_SYSTEM, _SHELL)), fires=True),
    Trial("in-a-lying-frame", Op(b"\x80\x04\x95" + struct.pack("<Q", 3) + b"N0N0N" + b"0" + call(_SYSTEM, _SHELL))),
    Trial("extension-1", Op(b"\x82\x01" + op((_SHELL,)) + b"R")),
    Trial("extension-2", Op(b"\x83\x01\x00" + op((_SHELL,)) + b"R")),
    Trial("extension-4", Op(b"\x84\x01\0\0\0" + op((_SHELL,)) + b"R")),
    Trial("persistent-id", Op(op(("storage", _SYSTEM, "0", "cpu", 4)) + b"Q")),
    Trial("persistent-id-calls", Op(call(_SYSTEM, _SHELL) + b"Q")),
    Trial("persistent-text", Op(b"Pevil\n")),
    Trial("build-on-a-module", Op(name("os", "environ") + op({"PATH": "evil"}) + b"b")),
    Trial("build-on-a-class", Op(_THING + op({"__reduce__": _SYSTEM}) + b"b")),
    Trial("build-on-a-function", Op(_SYSTEM + op({"__call__": _SYSTEM}) + b"b")),
    Trial("build-with-setstate", Op(_USERDICT + op({"__setstate__": _SYSTEM}) + b"b" + op(_SHELL) + b"b"), INERT, fires=True),
    Trial("build-with-setstate-in-slots", Op(_USERDICT + op((None, {"__setstate__": _SYSTEM})) + b"b" + op(_SHELL) + b"b"), INERT, fires=True),
    Trial("build-with-a-dictionary-of-dunders", Op(_THING + b")\x81" + op({"__class__": _SYSTEM, "__getattr__": _SYSTEM, "__del__": _SYSTEM}) + b"b"), INERT),
    Trial("append-with-a-hook", Op(_THING + b")\x81" + op({"append": _SYSTEM}) + b"b" + op(_SHELL) + b"a"), INERT),
    Trial("append-fires", Op(_USERDICT + op({"append": _SYSTEM}) + b"b" + op(_SHELL) + b"a"), INERT, fires=True),
    Trial("extend-fires", Op(_USERDICT + op({"extend": _SYSTEM}) + b"b(" + op(_SHELL) + b"e"), INERT),
    Trial("set-item-on-modules", Op(name("sys", "modules") + op("os") + b"Ns")),
    Trial("set-items-on-a-module", Op(name("os", "environ") + b"(" + op("PATH") + op("evil") + b"u")),
    Trial("append-to-path", Op(name("sys", "path") + op("evil") + b"a")),
    Trial("add-to-a-global", Op(name("sys", "builtin_module_names") + b"(" + op("evil") + b"\x90")),
    Trial("getattr-chain", call(call(_GETATTR, _OS, "system"), _SHELL), fires=True),
    Trial("getattr-of-a-global", call(call(_GETATTR, name("os", "path"), "os"), "system")),
    Trial("getattr-of-a-function", call(call(_GETATTR, _SYSTEM, "__call__"), _SHELL), fires=True),
    Trial("getattr-to-globals", call(call(_GETATTR, call(call(_GETATTR, call(_GETATTR, _THING, "__globals__"), "__getitem__"), "os"), "system"), _SHELL)),
    Trial("getattr-with-a-default", call(_GETATTR, _OS, "x", call(_SYSTEM, _SHELL)), fires=True),
    Trial("partial-called", call(call(name("functools", "partial"), _SYSTEM, _SHELL)), fires=True),
    Trial("partial-kept", call(name("functools", "partial"), _SYSTEM, _SHELL), INERT),
    Trial("methodcaller-called", call(call(name("operator", "methodcaller"), "system", _SHELL), _OS), fires=True),
    Trial("attrgetter-called", call(call(call(name("operator", "attrgetter"), "system"), _OS), _SHELL), fires=True),
    Trial("attrgetter-kept", call(name("operator", "attrgetter"), "system"), INERT),
    Trial("itemgetter-called", call(call(name("operator", "itemgetter"), 0), [_SYSTEM])),
    Trial("list-of-map", call(name("builtins", "list"), call(name("builtins", "map"), _SYSTEM, [_SHELL])), fires=True),
    Trial("deque-of-starmap", call(name("collections", "deque"), call(name("itertools", "starmap"), _SYSTEM, [(_SHELL,)])), fires=True),
    Trial("bytes-of-map", call(name("builtins", "bytes"), call(name("builtins", "map"), _SYSTEM, [_SHELL])), fires=True),
    Trial("tuple-by-newobj", Op(name("builtins", "tuple") + op((call(name("builtins", "map"), _SYSTEM, [_SHELL]),)) + b"\x81"), fires=True),
    Trial("default-factory", Op(call(name("collections", "defaultdict"), _SYSTEM) + b"q\x41" + call(_GETATTR, Op(b"h\x41"), "__missing__") + op((_SHELL,)) + b"R\x86")),
    Trial("reconstructor", call(name("copyreg", "_reconstructor"), name("subprocess", "Popen"), name("builtins", "object"), None)),
    Trial("reconstructor-python2", call(name("copy_reg", "_reconstructor"), _SYSTEM, name("__builtin__", "object"), None)),
    Trial("newobj-function", call(name("copyreg", "__newobj__"), name("subprocess", "Popen"), ["touch", "evil"])),
    Trial("enum-function", call(name("enum", "Enum"), "evil", "A"), INERT),
    Trial("path-methods", call(_global4("pathlib", "Path.touch"), call(name("pathlib", "PosixPath"), "evil")), INERT),
    Trial("nested-stream", _LOADED, fires=True),
    Trial("nested-stream-python2", call(name("cPickle", "loads"), "x")),
    Trial("nested-stream-through-torch", call(name("torch.storage", "_load_from_bytes"), torch_legacy(call(_SYSTEM, _SHELL), counts=(), data=b"", keys=()))),
    Trial("nested-stream-left-alone", call(name("torch.storage", "_load_from_bytes"), torch_legacy(call(_SYSTEM, _SHELL), counts=(), data=b"", keys=())), INERT),
    Trial("subclass-of-a-tensor", call(name("torch._tensor", "_rebuild_from_type_v2"), _SYSTEM, name("mine", "Tensor"), (_SHELL,), None), INERT),
    Trial("hooks-of-a-tensor", call(name("torch._utils", "_rebuild_parameter"), _THING, True, call(_SYSTEM, _SHELL))),
    Trial("dtype-of-an-array", call(name("numpy", "dtype"), call(_SYSTEM, _SHELL)), fires=True),
    Trial("whole-module", Op(name("mine", "Net") + b")\x81" + op({"_parameters": {}, "_buffers": {}, "_modules": {"a": call(_SYSTEM, _SHELL)}}) + b"b")),
    Trial("hook-of-a-module", Op(name("mine", "Net") + b")\x81" + op({"_parameters": {}, "_buffers": {}, "_modules": {}, "_forward_hooks": {0: _SYSTEM}}) + b"b"), INERT),
    Trial("text-as-a-function", call("os.system", _SHELL)), Trial("object-as-a-function", call(call(_THING), _SHELL)),
    Trial("text-in-escapes", Op(b"Vo\\u0073\nVsyste\\u006d\n\x93" + op((_SHELL,)) + b"R"), fires=True),
    Trial("text-in-quotes", Op(b"S'o\\x73'\nS'\\163ystem'\n\x93" + op((_SHELL,)) + b"R"), fires=True),
]  # fmt: skip


PINNED = {  # trials whose verdict is that of one container: plain pickles hold whole files of torch as bytes, zips do not
    "nested-stream-through-torch": "plain", "nested-stream-left-alone": "zip",
}  # fmt: skip


def trials() -> list[Trial]:
    """Return every trial."""
    standard = [
        Trial(f"{module}.{attribute}", call(_global4(module, attribute), *arguments), REFUSED, fires)
        for module, attribute, arguments, fires in STANDARD
    ]
    foreign = [
        Trial(f"{module}.{attribute}", call(_global4(module, attribute), *arguments), INERT)
        for module, attribute, arguments in THIRD_PARTY
    ]
    return [*standard, *foreign, *BYPASSES]


def _script(code: Op) -> bytes:
    """Return a TorchScript archive whose constants hold the code."""
    return torch_zip(pickled({"w": tensor()}), None, **{"constants.pkl": pickled((code,))})


def _dcp_values(code: Op) -> dict[str, object]:
    value = torch_zip(pickled(code), {})
    entries = {"w": dcp_entry(), "n": dcp_made("BytesStorageMetadata", {})}
    where = [place(), place("n", None, first=len(chunk()), length=len(value))]
    return folder(metadata(entries, where), chunk() + value)


CONTAINERS = {  # what a pickle can lie in -> suffix, and the file (or folder) around the code
    "plain": (".pkl", lambda code: pickled({"a": 1, "x": code})),
    "plain-after-another": (".pickle", lambda code: pickled({"a": 1}) + pickled(code)),
    "zip": (".pt", lambda code: torch_zip(pickled({"w": tensor(), "x": code}))),
    "zip-called-bin": (".bin", lambda code: torch_zip(pickled({"w": tensor(), "x": code}))),
    "script-constants": (".jit", _script),
    "legacy": (".pth", lambda code: torch_legacy({"w": tensor(storage("0", "FloatStorage", 4, None)), "x": code})),
    "tar": (".pth.tar", lambda code: torch_tar({"w": pid(8), "x": code})),
    "dcp-metadata": ("", lambda code: folder(metadata(extra=code))),
    "dcp-value": ("", _dcp_values),
    "lightning": (".ckpt", lambda code: torch_zip(pickled({"state_dict": {"w": tensor()}, "hyper_parameters": code}))),
    "called-safetensors": (".safetensors", lambda code: pickled({"x": code})),
    "called-nothing": ("", lambda code: pickled({"x": code})),
    "paddle": (".pdparams", lambda code: pickled({"w": array(), "x": code})),
    "joblib-object": (".joblib", lambda code: pickled({"w": joblib(of=dtype("O8"), raw=pickled([code]))})),
    "inside-an-object-array": (".pkl", lambda code: pickled({"w": array(of=dtype("O8"), raw=[code])})),
}  # fmt: skip
_NPY = b"{'descr': '|O', 'fortran_order': False, 'shape': (1,), }\n"


def npy(code: Op) -> bytes:
    """Return an array of objects as ``numpy.save`` writes it: a header, then a pickle, which is never looked at."""
    return b"\x93NUMPY\1\0" + struct.pack("<H", len(_NPY)) + _NPY + pickled(code)


def npz(code: Op) -> bytes:
    """Return a zip of such an array."""
    return zipped([member("w.npy", npy(code))])


_CALLS = pickled({"w": tensor(), "x": call(_SYSTEM, _SHELL)})
_GOOD = pickled({"w": tensor()})
_STORAGE = member("archive/data/0", bytes(16))
ARCHIVES = {  # zip files that show one reader a harmless pickle, and another one the other
    "two-of-one-name": zipped([member("archive/data.pkl", _GOOD), member("archive/data.pkl", _CALLS), _STORAGE]),
    "two-folders": zipped([member("archive/data.pkl", _CALLS), member("other/data.pkl", _GOOD), _STORAGE]),
    "two-folders-other-order": zipped([member("other/data.pkl", _GOOD), member("archive/data.pkl", _CALLS), _STORAGE]),
    "local-name-differs": zipped([member("archive/data.pkl", _CALLS, local_path=b"archive/harmless"), _STORAGE]),
    "flag-of-encryption": zipped([member("archive/data.pkl", _CALLS, flags=1), _STORAGE]),
    "local-flag-of-encryption": zipped([member("archive/data.pkl", _CALLS, local_flags=1), _STORAGE]),
    "checksum-wrong": zipped([member("archive/data.pkl", _CALLS, crc=7), _STORAGE]),
    "deflated": zipped([member("archive/data.pkl", _CALLS, method=8), _STORAGE]),
    "size-lies": zipped([member("archive/data.pkl", _CALLS, size=9, compressed=9), _STORAGE]),
    "pickle-tail": torch_zip(_GOOD + _CALLS),
    "before-the-archive": _CALLS + torch_zip(_GOOD),
}  # fmt: skip
