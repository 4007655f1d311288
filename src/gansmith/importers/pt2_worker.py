"""The process in which torch reads one .pt2 file for ONNX Runtime: `python -m gansmith.importers.pt2_worker`.

`torch.export.load` unpickles example inputs, evaluates sizes as Python and imports what a file names. So it gets a copy
without any of these: the graph, checked here, its weights, which are plain numbers, and no examples. Nothing of the
graph runs in torch; what `onnx_worker` allows and bounds holds for it. All functions raise DataError with a reason that
completes "... cannot be read".
"""

import ast
import json
import re
import sys
import zipfile
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import torch

from gansmith.errors import DataError
from gansmith.importers import onnx_worker
from gansmith.importers.from_torch import as_onnx
from gansmith.importers.worker import serve

MAX_ENTRIES = 10_000
_OPERATORS = re.compile(
    r"torch\.ops\.aten\.\w+\.\w+|_operator\.(add|sub|mul|floordiv|mod|neg|getitem|eq|ne|lt|le|gt|ge)"
)
_ARGUMENTS = frozenset(  # of operators; others hold graphs, objects or names of functions
    """
    as_bool as_bools as_device as_float as_floats as_int as_ints as_layout as_memory_format as_none as_optional_tensor
    as_optional_tensors as_scalar_type as_string as_sym_bool as_sym_bools as_sym_float as_sym_floats as_sym_int
    as_sym_ints as_tensor as_tensors
    """.split()
)
_SIZES = frozenset(
    ("Symbol", "Integer", "Add", "Mul", "Pow", "FloorDiv", "Mod", "Min", "Max")
)  # sizes are written as calls of these
_CONTAINERS = (None, "builtins.tuple", "builtins.list", "builtins.dict")
_VERSIONS = ("archive_format", "archive_version", "byteorder", ".data/version")
_LISTS = ("data/weights/model_weights_config.json", "data/constants/model_constants_config.json")


def read(path: str, folder: str, threads: str, num_classes: str) -> onnx_worker.OnnxGenerator:
    """Return the generator in a file; DataError, or what torch, ONNX and ONNX Runtime raise, for anything else."""
    copy = Path(folder) / "checked.pt2"
    metadata = write_checked(Path(path), copy)
    proto = as_onnx(torch.export.load(copy))
    if metadata:
        proto.metadata_props.add(key="gansmith", value=metadata)
    return onnx_worker.generator_of(proto, int(threads), int(num_classes))


def write_checked(path: Path, copy: Path) -> str:
    """Write what is safe of a file, and return the metadata that Gansmith stored in it ("" otherwise).

    Example inputs, guards and descriptions of operators are left out. Raises DataError where G needs more than is safe.
    """
    try:
        archive = zipfile.ZipFile(path)
    except (OSError, zipfile.BadZipFile):
        raise DataError("it is no archive of torch.export.save") from None
    with archive, zipfile.ZipFile(copy, "w") as checked:
        entries = {entry.filename.partition("/")[2]: entry for entry in archive.infolist()}
        if len(entries) > MAX_ENTRIES or sum(entry.file_size for entry in entries.values()) > onnx_worker.MAX_BYTES:
            raise DataError(f"it holds more than {onnx_worker.MAX_BYTES:,} bytes")
        if not {"models/model.json", *_LISTS} <= entries.keys():
            raise DataError(
                "its weights are pickled, or it has no graph; write it by torch.export.save of torch 2.9 or later"
            )
        contents = {name: archive.read(entries[name]) for name in ("models/model.json", *_LISTS)}
        contents["models/model.json"] = json.dumps(_checked_graph(json.loads(contents["models/model.json"]))).encode()
        for name in _LISTS:
            listed = json.loads(contents[name])
            contents[name] = json.dumps(_on_cpu(listed)).encode()
            for weight in _weights(listed):
                place = f"{name.rpartition('/')[0]}/{weight}"
                contents[place] = archive.read(entries[place])
        contents |= {name: archive.read(entries[name]) for name in _VERSIONS if name in entries}
        contents["data/sample_inputs/model.pt"] = b""
        for name, content in contents.items():
            checked.writestr(f"checked/{name}", content)
        return archive.read(entries["extra/gansmith"]).decode() if "extra/gansmith" in entries else ""


def _weights(listed: dict[str, Any]) -> Iterator[str]:
    """Yield the entries of plain numbers that a list of weights or constants names."""
    for name, facts in listed["config"].items():
        if facts["use_pickle"] is not False or not re.fullmatch(r"(weight|tensor)_\d+", facts["path_name"]):
            raise DataError(f"its weight {name} is pickled")
        yield facts["path_name"]


def _checked_graph(program: dict[str, Any]) -> dict[str, Any]:
    """Return the description of a graph without what torch would run of it; DataError where more than plain is left."""
    module = program["graph_module"]
    for node in module["graph"]["nodes"]:
        if not _OPERATORS.fullmatch(node["target"]):
            raise DataError(f"it has the operator {node['target']}, which is not allowed")
        node["metadata"] = {}
        for kind in (kind for entry in node["inputs"] for kind in entry["arg"]):
            if kind not in _ARGUMENTS:
                raise DataError(f"its operator {node['target']} takes {kind.removeprefix('as_')}, which is not allowed")
    module["module_call_graph"] = [entry for entry in module["module_call_graph"] if not entry["fqn"]]
    module["metadata"], module["treespec_namedtuple_fields"] = {}, {}
    for text in (entry["signature"][key] for entry in module["module_call_graph"] for key in ("in_spec", "out_spec")):
        if any(found.get("type") not in _CONTAINERS for found in _dicts(json.loads(text))):
            raise DataError("it takes or gives something else than tensors")
    for text in (found["expr_str"] for found in _dicts(program) if "expr_str" in found):
        if not all(map(_is_size, ast.walk(ast.parse(text, mode="eval")))):
            raise DataError(f"its size {text} is no arithmetic of sizes")
    program["guards_code"] = []
    return _on_cpu(program)


def _is_size(part: ast.AST) -> bool:
    """Return whether a part of a written size is what sizes are written of."""
    if isinstance(part, ast.Name):
        return part.id in _SIZES
    if isinstance(part, ast.Constant):
        return isinstance(part.value, int) or bool(re.fullmatch(r"[su]\d+", str(part.value)))
    plain = (ast.Expression, ast.Call, ast.keyword, ast.Load, ast.UnaryOp, ast.USub)
    return isinstance(part, plain)


def _dicts(value: Any) -> Iterator[dict[str, Any]]:
    """Yield every object in parsed JSON, outer ones first."""
    if isinstance(value, dict):
        yield value
    for inner in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        yield from _dicts(inner)


def _on_cpu(value: dict[str, Any]) -> dict[str, Any]:
    """Put every device that parsed JSON names to the CPU, in place, and return it."""
    for found in _dicts(value):
        if found.keys() == {"type", "index"}:
            found.update(type="cpu", index=None)
    return value


if __name__ == "__main__":
    _, time_limit, folder, path, *arguments = sys.argv
    serve(time_limit, partial(read, path, folder, *arguments))
