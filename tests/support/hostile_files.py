"""Model files and archives made to attack, as data: what each is, which command it enters by, what its user reads.

`make` spoils a place that holds a sound run/ of the digits, photos/ of 8 × 8 pixels and classes/ of 32 × 32. Pickles
in it leave a file `executed` behind if they are loaded; so does run/recipe.py. Changed files of a run are signed again
in model.json, as an attacker would.
"""

from __future__ import annotations

import io
import json
import os
import pickle
import struct
import tarfile
import zipfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from folders import change
from PIL import Image

MARK = "executed"
RECIPE = """
import pathlib
from fastcls.errors import RecipeError
pathlib.Path(PLACE).touch()
raise RecipeError("it was run")
"""
PREDICT = ("predict", "run", "photos")
REPORT = ("report", "run")
EXPORT = ("export", "run", "--safetensors", "-o", "out")
UNPACK = ("unpack", "archive", "unpacked")
ARCH = "squeezenet1_0"
TRAIN = (*("recipe", "folder", "--path", "classes", "--size", "32", "--arch", ARCH, "--dry-run"), "--weights")
FILE = (*TRAIN, "w.safetensors")


@dataclass(frozen=True)
class Hostile:
    """A file that attacks; `says` is part of the message, on one line."""

    name: str
    words: tuple[str, ...]
    says: str
    make: Callable[[Path], object]
    code: int = 4

    @property
    def light(self) -> bool:
        """Whether neither fastai nor torch is needed to refuse it."""
        return self.words[0] in ("predict", "unpack")


class Payload:
    """What a pickle would do."""

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (f"touch {MARK}",)


def sound(place: Path, run: Path) -> None:
    """What every case starts from; `run` is a run of digits-cnn."""
    import shutil

    shutil.copytree(run, place / "run", ignore=shutil.ignore_patterns("checkpoints", "figures", "export"))
    with (place / "run" / "recipe.py").open("a") as file:
        file.write(RECIPE.replace("PLACE", repr(str(place / MARK))))
    rng = np.random.default_rng(0)
    for folder, side, count in (("photos", 8, 1), ("classes/a", 32, 6), ("classes/b", 32, 6)):
        (place / folder).mkdir(parents=True)
        for i in range(count):
            pixels = rng.integers(0, 256, (side, side, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(place / folder / f"{i}.png")


def sign(run: Path) -> None:
    from fastcls.runfolder import model_files

    change(run / "model.json", sha256=model_files.sums(run))


def model(**values: Any) -> Callable[[Path], object]:
    return lambda place: change(place / "run" / "model.json", **values)


def prepared(**values: Any) -> Callable[[Path], object]:
    """A model.json whose preprocessing says something else."""

    def make(place: Path) -> None:
        file = place / "run" / "model.json"
        change(file, preprocessing=json.loads(file.read_text())["preprocessing"] | values)

    return make


def raw(name: str, data: Callable[[], bytes]) -> Callable[[Path], object]:
    """A file with these bytes."""
    return lambda place: (place / name).write_bytes(data())


def of_run(name: str, data: Callable[[], bytes]) -> Callable[[Path], object]:
    """A file of the run with these bytes, signed."""

    def make(place: Path) -> None:
        (place / "run" / name).write_bytes(data())
        sign(place / "run")

    return make


def nested(depth: int = 200_000) -> bytes:
    return b'{"classes": ' + b"[" * depth + b"]" * depth + b"}"


def zipped(name: str = "data.pkl", content: bytes | None = None) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as bundle:
        bundle.writestr(name, pickle.dumps(Payload()) if content is None else content)
    return buffer.getvalue()


def torch_file() -> bytes:
    """As torch.save lays it out."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as bundle:
        bundle.writestr("archive/data.pkl", pickle.dumps(Payload(), 2))
        bundle.writestr("archive/version", "3\n")
        bundle.writestr("archive/byteorder", "little")
    return buffer.getvalue()


# ---- safetensors


def tensors(header: Mapping[str, Any] | bytes, size: int = 0, length: int | None = None) -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text) if length is None else length) + text + bytes(size)


def tensor(start: int, end: int, shape: Sequence[int] = (1,), dtype: str = "F32") -> dict[str, Any]:
    return {"dtype": dtype, "shape": list(shape), "data_offsets": [start, end]}


def body(change: Callable[[dict[str, Any]], object] = lambda header: None, last: bytes = b"") -> Callable[[], bytes]:
    """The weights of ARCH, all zeros; `change` spoils the header, `last` replaces the last bytes."""

    def data() -> bytes:
        import torch
        from torchvision.models import get_model

        with torch.device("meta"):
            shapes = {name: list(value.shape) for name, value in get_model(ARCH).state_dict().items()}
        header: dict[str, Any] = {}
        end = 0
        for name, shape in shapes.items():
            start, end = end, end + 4 * int(np.prod(shape))
            header[name] = tensor(start, end, shape)
        change(header)
        return tensors(header, end)[: -len(last) or None] + last

    return data


def every(**values: Any) -> Callable[[dict[str, Any]], object]:
    return lambda header: [entry.update(values) for entry in header.values()]


def turned(header: dict[str, Any]) -> None:
    for entry in header.values():
        entry["shape"] = entry["shape"][::-1]


def not_a_number(place: Path) -> None:
    """Its last tensor of the body that is read is not all numbers."""
    data = bytearray(body()())
    length = struct.unpack("<Q", data[:8])[0]
    header = json.loads(data[8 : 8 + length])
    at = 8 + length + header["features.3.squeeze.weight"]["data_offsets"][0]
    data[at : at + 4] = struct.pack("<f", float("nan"))
    (place / "w.safetensors").write_bytes(data)


def sparse(place: Path) -> None:
    """A header that says it is 100 MB long, in a file that is."""
    with (place / "w.safetensors").open("wb") as file:
        file.write(struct.pack("<Q", 100_000_000) + b"{")
        file.truncate(8 + 100_000_000)


def of_another_run(name: str) -> Callable[[Path], object]:
    """The same shapes, as a run with its classes in another order would have: one value differs."""

    def make(place: Path) -> None:
        file = place / "run" / name
        data = bytearray(file.read_bytes())
        data[-1] ^= 1
        file.write_bytes(data)

    return make


def pipe(place: Path) -> None:
    os.mkfifo(place / "w.safetensors")


# ---- ONNX


def network(
    nodes: Callable[[Any], list[Any]] | None = None,
    weights: np.ndarray | None = None,
    image: Sequence[int | str] = ("batch", 1, 8, 8),
    classes: int = 10,
    kind: int = 1,
    spoil: Callable[[Any], object] = lambda model: None,
) -> Callable[[], bytes]:
    """An ONNX file: the image, flattened, times the weights; or what `nodes` puts in between."""

    def data() -> bytes:
        import onnx
        from onnx import helper

        held = np.zeros((64, classes), np.float32) if weights is None else weights
        own = [helper.make_node("Flatten", ["images"], ["flat"]), helper.make_node("MatMul", ["flat", "w"], ["logits"])]
        graph = helper.make_graph(
            own if nodes is None else nodes(helper),
            "graph",
            [helper.make_tensor_value_info("images", kind, image)],
            [helper.make_tensor_value_info("logits", 1, ["batch", classes])],
            [onnx.numpy_helper.from_array(held, "w")],
        )
        found = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
        spoil(found)
        return found.SerializeToString()

    return data


def external(location: str) -> Callable[[Any], object]:
    def spoil(found: Any) -> None:
        weight = found.graph.initializer[0]
        weight.ClearField("raw_data")
        weight.data_location = 1
        for key, value in (("location", location), ("length", "2560")):
            weight.external_data.add(key=key, value=value)

    return spoil


def external_constant(helper: Any) -> list[Any]:
    """The same, in a constant amid the operators."""
    import onnx

    elsewhere = onnx.TensorProto(name="c", data_type=1, dims=[64, 10], data_location=1)
    elsewhere.external_data.add(key="location", value="../photos/0.png")
    return [
        helper.make_node("Constant", [], ["c"], value=elsewhere),
        helper.make_node("Flatten", ["images"], ["flat"]),
        helper.make_node("MatMul", ["flat", "c"], ["logits"]),
    ]


def huge(found: Any) -> None:
    weight = found.graph.initializer[0]
    weight.ClearField("raw_data")
    weight.dims[0] = 10**12


def custom(helper: Any) -> list[Any]:
    return [helper.make_node("Shell", ["images"], ["logits"], domain="attacker", command=f"touch {MARK}")]


def loop(helper: Any) -> list[Any]:
    """For ever."""
    true = helper.make_tensor("t", 9, [], [True])
    inside = helper.make_graph(
        [helper.make_node("Identity", ["go"], ["on"]), helper.make_node("Identity", ["x"], ["y"])],
        "for ever",
        [helper.make_tensor_value_info(name, kind, shape) for name, kind, shape in LOOPED],
        [helper.make_tensor_value_info("on", 9, []), helper.make_tensor_value_info("y", 1, ["batch", 10])],
    )
    return [
        helper.make_node("Constant", [], ["true"], value=true),
        helper.make_node("Flatten", ["images"], ["flat"]),
        helper.make_node("MatMul", ["flat", "w"], ["start"]),
        helper.make_node("Loop", ["", "true", "start"], ["logits"], body=inside),
    ]


LOOPED: list[tuple[str, int, list[Any]]] = [("i", 7, []), ("go", 9, []), ("x", 1, ["batch", 10])]


def branches() -> bytes:
    """An operator within a graph within an operator, fifty deep."""
    graph = b""
    for _ in range(50):
        operator = field(4, b"If") + field(5, field(6, graph))
        graph = field(1, operator)
    return field(7, graph)


def many_fields() -> bytes:
    """The sides of a tensor one by one, as old writers laid them out."""
    return field(7, field(5, b"\x08\x01" * 450_000))


def field(number: int, value: bytes) -> bytes:
    size, length = len(value), bytearray()
    while True:
        length.append(size & 127 | (128 if size > 127 else 0))
        size >>= 7
        if not size:
            return bytes([number << 3 | 2]) + bytes(length) + value


def four_terabytes(helper: Any) -> list[Any]:
    sides = helper.make_tensor("s", 7, [2], [10**6, 10**6])
    return [
        helper.make_node("Constant", [], ["sides"], value=sides),
        helper.make_node("ConstantOfShape", ["sides"], ["large"]),
        helper.make_node("ReduceSum", ["large"], ["sum"], keepdims=0),
        helper.make_node("Flatten", ["images"], ["flat"]),
        helper.make_node("MatMul", ["flat", "w"], ["part"]),
        helper.make_node("Add", ["part", "sum"], ["logits"]),
    ]


def onnx(**how: Any) -> Callable[[Path], object]:
    return lambda place: of_run("model.onnx", network(**how))(place)


NANS = np.full((64, 10), np.nan, np.float32)
IN_MODEL_JSON = "run/model.json cannot be"

# fmt: off
MODELS = [
    # pickles and other disguises
    Hostile("pickle as model.onnx", PREDICT, "not a readable ONNX model",
        of_run("model.onnx", lambda: pickle.dumps(Payload()))),
    Hostile("torch's zip as model.onnx", PREDICT, "not a readable ONNX model", of_run("model.onnx", torch_file)),
    Hostile("pickle as model.safetensors", EXPORT, "not a readable .safetensors file",
        of_run("model.safetensors", lambda: pickle.dumps(Payload()))),
    Hostile("pickle as .safetensors", FILE, "not a readable .safetensors file",
        raw("w.safetensors", lambda: pickle.dumps(Payload()))),
    Hostile("torch's zip as .safetensors", FILE, "not a readable .safetensors file", raw("w.safetensors", torch_file)),
    Hostile("safetensors that are a zip too", FILE, "not a readable .safetensors file",
        raw("w.safetensors", lambda: body()() + torch_file())),
    Hostile("pickle as weights", (*TRAIN, "w.pth"),
        "a pickle, which can run code when it is loaded; it was not read", raw("w.pth", torch_file)),
    Hostile("pickle without a telling name", (*TRAIN, "w.dat"), "only .safetensors files are read",
        raw("w.dat", torch_file)),
    Hostile("pickle to import", ("import", "w.pkl"), "It was not read. It imports posix.system.",
        raw("w.pkl", lambda: pickle.dumps(Payload())), 2),
    Hostile("torch's zip to import", ("import", "w.pth"), "It was not read. It imports posix.system.",
        raw("w.pth", torch_file), 2),
    Hostile("pickle as model.json", PREDICT, IN_MODEL_JSON, raw("run/model.json", lambda: pickle.dumps(Payload()))),
    Hostile("named pipe", FILE, "no such file", pipe),
    # safetensors
    Hostile("header of 2**63 bytes", FILE, "its header would have 9,223,372,036,854,775,808 bytes",
        raw("w.safetensors", lambda: tensors({}, 0, 2**63))),
    Hostile("header of 100 MB", FILE, "its header would have 100,000,000 bytes", sparse),
    Hostile("header longer than the file", FILE, "not a readable .safetensors file",
        raw("w.safetensors", lambda: tensors({}, 0, 4000))),
    Hostile("header nested deeply", FILE, "not a readable .safetensors file",
        raw("w.safetensors", lambda: tensors(nested()))),
    Hostile("100,000 tensors", FILE, "its header would have",
        raw("w.safetensors", lambda: tensors({f"{i}": tensor(0, 0, [0]) for i in range(100_000)}))),
    Hostile("20,000 tensors", FILE, "does not fit squeezenet1_0",
        raw("w.safetensors", lambda: tensors({f"{i}": tensor(0, 0, [0]) for i in range(20_000)}))),
    Hostile("overlapping tensors", FILE, "not a readable .safetensors file",
        raw("w.safetensors", lambda: tensors({"a": tensor(0, 4), "b": tensor(0, 4)}, 8))),
    Hostile("a gap between tensors", FILE, "not a readable .safetensors file",
        raw("w.safetensors", lambda: tensors({"a": tensor(0, 4), "b": tensor(8, 12)}, 12))),
    Hostile("offsets beyond the end", FILE, "not a readable .safetensors file",
        raw("w.safetensors", lambda: tensors({"a": tensor(0, 4 * 10**12, [10**12])}, 4))),
    Hostile("a shape that overflows", FILE, "not a readable .safetensors file",
        raw("w.safetensors", lambda: tensors({"a": tensor(0, 4, [2**62, 2**62])}, 4))),
    Hostile("bytes behind the last tensor", FILE, "not a readable .safetensors file",
        raw("w.safetensors", lambda: tensors({"a": tensor(0, 4)}, 400))),
    Hostile("other shapes", FILE, "does not fit squeezenet1_0", raw("w.safetensors", body(turned))),
    Hostile("integers for weights", FILE, "is torch.int32 instead of torch.float32",
        raw("w.safetensors", body(every(dtype="I32")))),
    Hostile("weights that are not numbers", FILE, "contains NaN or infinite values", not_a_number),
    Hostile("metadata that divides by nothing", FILE, "divides by std",
        raw("w.safetensors",
        lambda: body(lambda header: header.update(__metadata__={"preprocessing": json.dumps({"mode": "RGB",
        "method": "", "resize": None, "size": None, "mean": [0, 0, 0], "std": [0, 0, 0]})}))())),
    Hostile("metadata nested deeply", FILE, "metadata's preprocessing cannot be read",
        raw("w.safetensors",
        lambda: body(lambda header: header.update(__metadata__={"preprocessing": "[" * 100_000}))())),
    Hostile("weights of another run", EXPORT, "is not the file that its run wrote",
        of_another_run("model.safetensors")),
    Hostile("weights of another run, to start from", (*TRAIN, "run"), "is not the file that its run wrote",
        of_another_run("model.safetensors")),
    # ONNX
    Hostile("network of another run", PREDICT, "is not the file that its run wrote", of_another_run("model.onnx")),
    Hostile("network of another run, reported on", REPORT, "is not the file that its run wrote",
        of_another_run("model.onnx")),
    Hostile("weights in a file above the run", PREDICT, "it stores weights in another file",
        onnx(spoil=external("../photos/0.png"))),
    Hostile("weights in /dev/zero", PREDICT, "it stores weights in another file", onnx(spoil=external("/dev/zero"))),
    Hostile("weights of a constant elsewhere", PREDICT, "it stores weights in another file",
        onnx(nodes=external_constant)),
    Hostile("operator of its own", PREDICT, "not a readable ONNX model", onnx(nodes=custom)),
    Hostile("weights of 256 TB", PREDICT, "not a readable ONNX model", onnx(spoil=huge)),
    Hostile("result of 4 TB", PREDICT, "run/model.onnx", onnx(nodes=four_terabytes)),
    Hostile("endless loop", PREDICT, "it contains a loop (Loop), which may not end", onnx(nodes=loop)),
    Hostile("branches within branches", PREDICT, "its graphs are nested too deeply", of_run("model.onnx", branches)),
    Hostile("half a million fields", PREDICT, "it has more than 400,000 parts", of_run("model.onnx", many_fields)),
    Hostile("half an ONNX file", PREDICT, "not a readable ONNX model",
        of_run("model.onnx", lambda: network()()[:1500])),
    Hostile("empty ONNX file", PREDICT, "not a readable ONNX model", of_run("model.onnx", bytes)),
    Hostile("network for colours", PREDICT, "expects ['batch', 3, 8, 8], but model.json prepares",
        onnx(image=("batch", 3, 8, 8), weights=np.zeros((192, 10), np.float32))),
    Hostile("network for text", PREDICT, "run/model.onnx", onnx(kind=8)),
    Hostile("network of more classes", PREDICT, "but model.json has 10 classes",
        onnx(weights=np.zeros((64, 11), np.float32), classes=11)),
    Hostile("network that answers no numbers", PREDICT, "its outputs are NaN or infinite", onnx(weights=NANS)),
    # model.json
    Hostile("a billion classes", PREDICT, "Expected array, got int at classes", model(classes=10**9)),
    Hostile("classes for 20 MB", PREDICT, "it is larger than 16 MB",
        raw("run/model.json", lambda: b'{"classes": [' + b'"c",' * 5_000_000 + b'"c"]}')),
    Hostile("a number of a million digits", PREDICT, "a number of 1,000,001 digits",
        raw("run/model.json", lambda: b'{"parameters": 1' + b"0" * 1_000_000 + b"}")),
    Hostile("JSON nested deeply", PREDICT, "it is nested too deeply", raw("run/model.json", nested)),
    Hostile("run.json nested deeply", REPORT, "it is nested too deeply", raw("run/run.json", nested)),
    Hostile("lists where objects belong", REPORT, "Expected object, got array at data",
        lambda place: change(place / "run" / "run.json", data=[])),
    Hostile("images of a million pixels a side", PREDICT, "instead of a height and a width from 1 to 4096",
        prepared(method="squish", resize=[10**6, 10**6], size=[8, 8])),
    Hostile("images of no pixels", PREDICT, "instead of a height and a width from 1 to 4096",
        prepared(method="crop", resize=[8, 0], size=[8, 8])),
    Hostile("images of another size", PREDICT, "but model.json prepares [1, 4096, 4096]",
        prepared(method="squish", resize=[4096, 4096], size=[4096, 4096])),
    Hostile("normalised by nothing", PREDICT, "divides by std [0.0]", prepared(std=[0.0])),
    Hostile("normalised by three million numbers", PREDICT, "instead of one number per channel",
        prepared(mean=[0.5] * 1000)),
    Hostile("images in CMYK", PREDICT, "Invalid enum value 'CMYK' at preprocessing.mode", prepared(mode="CMYK")),
    Hostile("a file elsewhere", PREDICT, "it names '../photos/0.png', a file that is not in the same folder",
        model(sha256={"../photos/0.png": "0" * 64})),
    Hostile("300,000 classes, one of them twice", PREDICT, "it has the class 'c299999' twice",
        lambda place: change(place / "run" / "model.json", classes=[*(f"c{i}" for i in range(300_000)), "c299999"])),
    Hostile("a class twice", PREDICT, "it has the class '0' twice", model(classes=["0"] * 10)),
    Hostile("half a character in a class", PREDICT, IN_MODEL_JSON,
        raw("run/model.json", lambda: b'{"classes": ["\\ud800"]}')),
    Hostile("temperature of nothing", (*PREDICT, "--calibrated"), "temperature is 0", model(temperature=0)),
]
# fmt: on


# ---- archives


def tar(*members: tuple[str, Mapping[str, Any], bytes], mode: str = "w") -> Callable[[Path], object]:
    """Members as (name, attributes of TarInfo, content)."""

    def make(place: Path) -> None:
        with tarfile.open(place / "archive", mode) as bundle:
            for name, attributes, content in members:
                info = tarfile.TarInfo(name)
                info.size = len(content)
                for key, value in attributes.items():
                    setattr(info, key, value)
                bundle.addfile(info, io.BytesIO(content))

    return make


def zip_(*members: tuple[str, Mapping[str, Any], bytes]) -> Callable[[Path], object]:
    def make(place: Path) -> None:
        with zipfile.ZipFile(place / "archive", "w") as bundle:
            for name, attributes, content in members:
                info = zipfile.ZipInfo("x")
                info.filename = name
                for key, value in attributes.items():
                    setattr(info, key, value)
                bundle.writestr(info, content)

    return make


def header_only(name: str, size: int, kind: bytes = tarfile.REGTYPE) -> Callable[[], bytes]:
    """A tar archive that ends after the header of a member that says it has so many bytes."""

    def data() -> bytes:
        info = tarfile.TarInfo(name)
        info.size, info.type = size, kind
        return info.tobuf(tarfile.GNU_FORMAT) + bytes(10240)

    return data


def bomb(place: Path) -> None:
    """A zip whose members, 200 of them, are the same compressed gigabyte (after Fifield 2019)."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as bundle:
        bundle.writestr("0", bytes(10_000))
        first = bundle.infolist()[0]
        first.file_size = 2**30
        for i in range(1, 200):
            twin = zipfile.ZipInfo(str(i))
            for key in ("header_offset", "compress_size", "file_size", "CRC", "compress_type"):
                setattr(twin, key, getattr(first, key))
            bundle.filelist.append(twin)
            bundle.NameToInfo[str(i)] = twin
        bundle._didModify = True
    (place / "archive").write_bytes(buffer.getvalue())


def liar(place: Path) -> None:
    """A zip that says its member has ten bytes, of which there are ten million."""
    zip_(("a.png", {"compress_type": zipfile.ZIP_DEFLATED}, bytes(10_000_000)))(place)
    data = (place / "archive").read_bytes()
    (place / "archive").write_bytes(data.replace(struct.pack("<L", 10_000_000), struct.pack("<L", 10)))


def locked(place: Path) -> None:
    """A zip whose member is marked as encrypted."""
    zip_(("a.png", {}, b"pixels"))(place)
    data = bytearray((place / "archive").read_bytes())
    for signature, offset in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        data[data.index(signature) + offset] |= 1
    (place / "archive").write_bytes(data)


LINK, HARD = {"type": tarfile.SYMTYPE}, {"type": tarfile.LNKTYPE}
UNIX_LINK = {"external_attr": 0o120777 << 16, "create_system": 3}

# fmt: off
ARCHIVES = [
    Hostile("tar that climbs out", UNPACK, "leaves the folder with '..'", tar(("../escaped", {}, b"x")), 3),
    Hostile("tar that climbs out further in", UNPACK, "leaves the folder with '..'",
        tar(("a/b/../../../escaped", {}, b"x")), 3),
    Hostile("zip that climbs out", UNPACK, "leaves the folder with '..'", zip_(("../escaped", {}, b"x")), 3),
    Hostile("zip that climbs out of Windows", UNPACK, "leaves the folder with '..'",
        zip_(("..\\escaped", {}, b"x")), 3),
    Hostile("tar with an absolute path", UNPACK, "its path is absolute", tar(("/tmp/escaped", {}, b"x")), 3),
    Hostile("zip with an absolute path", UNPACK, "its path is absolute", zip_(("/tmp/escaped", {}, b"x")), 3),
    Hostile("zip with a drive", UNPACK, "its path is absolute", zip_(("C:/escaped", {}, b"x")), 3),
    Hostile("symbolic link, and a file through it", UNPACK, "it is a symbolic link",
        tar(("a", {**LINK, "linkname": ".."}, b""), ("a/escaped", {}, b"x")), 3),
    Hostile("symbolic link in a zip", UNPACK, "it is a symbolic link", zip_(("a", UNIX_LINK, b"../../escaped")), 3),
    Hostile("hard link out", UNPACK, "it links to '../run/model.json'",
        tar(("a", {**HARD, "linkname": "../run/model.json"}, b"")), 3),
    Hostile("device", UNPACK, "it is a device or pipe",
        tar(("zero", {"type": tarfile.CHRTYPE, "devmajor": 1, "devminor": 5}, b"")), 3),
    Hostile("named pipe in a tar", UNPACK, "it is a device or pipe", tar(("pipe", {"type": tarfile.FIFOTYPE}, b"")), 3),
    Hostile("tar of 200 GB", UNPACK, "unpacks to more than", raw("archive", header_only("zeros", 200 * 2**30)), 3),
    Hostile("tar of 5 GB in 11 kB", UNPACK, "times its own size", raw("archive", header_only("zeros", 5 * 2**30)), 3),
    Hostile("zip of 200 GB in itself", UNPACK, "unpacks to more than", bomb, 3),
    Hostile("zip that says it is small", UNPACK, "damaged or has an unknown format", liar, 3),
    Hostile("zip in a zip that climbs out", UNPACK, "leaves the folder with '..'",
        zip_(("inner.zip", {}, zipped("../escaped", b"x")), ("a/../../escaped", {}, b"x")), 3),
    Hostile("name of a gigabyte", UNPACK, "it is 1,073,741",
        raw("archive", header_only("././@LongLink", 2**30, tarfile.GNUTYPE_LONGNAME)), 3),
    Hostile("name with a NUL", UNPACK, "its name contains a NUL", zip_(("a\0.png", {}, b"x")), 3),
    Hostile("file and folder of one name", UNPACK, "it contradicts another member",
        tar(("a", {}, b"x"), ("a/b", {}, b"x")), 3),
    Hostile("name of 5,000 letters", UNPACK, "cannot be written: File name too long", tar(("a" * 5000, {}, b"x")), 4),
    Hostile("pickle as an archive", UNPACK, "damaged or has an unknown format",
        raw("archive", lambda: pickle.dumps(Payload())), 3),
    Hostile("zip with a password", UNPACK, "is encrypted, password required", locked, 3),
    Hostile("half a tar", UNPACK, "damaged or has an unknown format",
        raw("archive", lambda: header_only("a.png", 4000)()[:700]), 3),
]
# fmt: on
