"""The JAX checkpoint folder: `config.json`, and `params/` with every parameter by its path (orbax)."""

import json
import logging
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import fields
from pathlib import Path
from typing import Any, get_args

import jax
import numpy as np
import orbax.checkpoint as ocp
import tensorstore
from flax import nnx
from jax import Array
from jax.tree_util import GetAttrKey, keystr, tree_flatten_with_path

from nautile.errors import NautileError
from nautile.model.architecture import Architecture
from nautile.model.vocabulary import Layout
from nautile.pretraining.model import NautileLM

MODEL_TYPE = "nautile-jax"
CONFIG, PARAMS = "config.json", "params"
AGAIN = "copy or convert the checkpoint again"


def named(tree: Any) -> dict[str, Any]:
    """The leaves of a tree by their paths, "blocks/0/sca/in_proj/kernel", in the tree's order; empty ones left out.

    Leaves may be arrays, shapes or shardings; the tree may hold nnx variables and optax states.
    """
    leaves, _ = tree_flatten_with_path(tree)
    names = {_name(path): leaf for path, leaf in leaves}
    assert len(names) == len(leaves), "two leaves have the same path"
    return {name: leaf for name, leaf in names.items() if getattr(leaf, "size", 1)}


def _name(path: tuple[Any, ...]) -> str:
    """The path without the step from an nnx variable to its value."""
    inner = path[:-1] if path and path[-1] == GetAttrKey("value") else path
    return keystr(inner, simple=True, separator="/")


def unnamed(names: Mapping[str, Array | np.ndarray], like: Any) -> Any:
    """The tree of `like` with these arrays as its leaves; `like` has arrays or `jax.ShapeDtypeStruct`s.

    Raises:
        NautileError: with every leaf that is missing, unexpected or of another shape or dtype named.
    """
    expected = named(like)
    problems = [f"missing {name}" for name in expected if name not in names]
    problems += [f"unexpected {name}" for name in names if name not in expected]
    problems += [
        f"{name} is {_kind(names[name])}, expected {_kind(leaf)}"
        for name, leaf in expected.items()
        if name in names and _kind(names[name]) != _kind(leaf)
    ]
    if problems:
        raise NautileError(f"these arrays do not fit: {'; '.join(problems)}")
    leaves, structure = tree_flatten_with_path(like)
    found = [names[_name(path)] if leaf.size else np.zeros(leaf.shape, leaf.dtype) for path, leaf in leaves]
    return jax.tree.unflatten(structure, found)


def _kind(leaf: Any) -> str:
    return f"{leaf.dtype} {leaf.shape}"


def parameter_shapes(architecture: Architecture) -> nnx.State:
    """The parameters of a model as `jax.ShapeDtypeStruct`s, without its memory."""
    return nnx.eval_shape(lambda: nnx.state(NautileLM(architecture, nnx.Rngs(0)), nnx.Param))


def save_folder(params: nnx.State, architecture: Architecture, layout: str, folder: Path) -> None:
    """Write a checkpoint folder; each process of a run calls this. `config.json` comes last: without it, none is whole.

    Raises:
        NautileError: parameters that do not fit the architecture, a folder that holds some already, a failed write.
    """
    place = folder.resolve() / PARAMS
    arrays = named(fitting(named(params), architecture, folder))
    config = {
        "model_type": MODEL_TYPE,
        "architecture": architecture.architecture(),
        "tokenizer_layout": _layout(layout, folder),
    }
    if place.exists():
        raise NautileError(f"{folder}: holds parameters already; give a new or empty folder")
    folder.mkdir(parents=True, exist_ok=True)
    needed, free = sum(array.nbytes for array in arrays.values()), shutil.disk_usage(folder).free
    if needed > free:  # found out here: orbax goes on writing in the background after a failure
        raise NautileError(f"{folder}: needs {needed / 1e6:,.1f} MB, {free / 1e6:,.1f} MB are free; make room")
    try:
        with _silent(), ocp.StandardCheckpointer() as checkpointer:
            checkpointer.save(place, arrays)
    except ValueError as error:
        raise NautileError(f"{place}: cannot be written ({_line(error)})") from None
    if jax.process_index() == 0:
        (folder / CONFIG).write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")


def load_folder(folder: Path) -> tuple[Architecture, str, nnx.State]:
    """The architecture, the tokenizer's layout and the parameters (float32, on the host) of a checkpoint folder.

    Raises:
        NautileError: a folder that is none, partial or damaged, arrays that do not fit, values that are not finite.
    """
    if not (folder / CONFIG).is_file():
        raise NautileError(f"{folder}: {CONFIG} is missing: no JAX checkpoint, or not written to its end")
    config = _read_config(folder)
    if (kind := config.get("model_type")) != MODEL_TYPE:
        raise NautileError(f"{folder}: holds a model of type {kind!r}, not a JAX checkpoint ({MODEL_TYPE!r})")
    layout = _layout(config.get("tokenizer_layout"), folder)
    architecture = _architecture(config.get("architecture"), folder / CONFIG)
    if not (folder / PARAMS).is_dir():
        raise NautileError(f"{folder}: {PARAMS}/ is missing; {AGAIN}")
    params = fitting(read_arrays(folder / PARAMS), architecture, folder)
    if odd := [name for name, array in named(params).items() if not np.isfinite(array).all()]:
        raise NautileError(f"{folder / PARAMS}: values that are not finite in {', '.join(odd)}")
    return architecture, layout, params


def is_jax_folder(path: Path) -> bool:
    """Whether a path is a JAX checkpoint folder, by its `config.json`; raises NautileError where that is damaged."""
    return (path / CONFIG).is_file() and _read_config(path).get("model_type") == MODEL_TYPE


def _read_config(folder: Path) -> dict[str, Any]:
    try:
        config = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
    except (ValueError, OSError) as error:
        raise NautileError(f"{folder / CONFIG}: not a readable JSON file ({error})") from None
    if not isinstance(config, dict):
        raise NautileError(f"{folder / CONFIG}: holds a JSON {type(config).__name__}, not an object")
    return config


def _layout(given: Any, folder: Path) -> str:
    if given not in get_args(Layout):
        raise NautileError(f"{folder}: tokenizer_layout must be 'nautile' or 'released', not {given!r}")
    return str(given)


def _architecture(given: Any, file: Path) -> Architecture:
    """All fields must be there: a default in place of a lost one would be another model."""
    names = {field.name for field in fields(Architecture)}
    if not isinstance(given, dict) or given.keys() != names:
        odd = sorted(names ^ given.keys()) if isinstance(given, dict) else sorted(names)
        raise NautileError(f"{file}: missing or unknown in architecture: {', '.join(odd)}")
    for field in fields(Architecture):
        if field.type is bool and type(given[field.name]) is not bool:
            raise NautileError(f"{file}: {field.name} must be true or false, not {given[field.name]!r}")
    architecture = Architecture(**given)
    architecture.check()
    return architecture


def fitting(arrays: Mapping[str, Any], architecture: Architecture, folder: Path) -> nnx.State:
    """Named arrays as the parameters of a model; raises NautileError, with the folder's name, where they don't fit."""
    try:
        return unnamed(arrays, parameter_shapes(architecture))
    except NautileError as error:
        raise NautileError(f"{folder}: {error}") from None


def read_arrays(place: Path) -> dict[str, np.ndarray]:
    """What orbax wrote, by name, one array after the other, so that a damaged one is one plain error.

    Orbax itself would read all at once, place them on devices, and silently pad, cut or cast what differs.
    """
    store = {"driver": "ocdbt", "base": {"driver": "file", "path": f"{place.resolve()}/"}}
    spec = {"driver": "zarr", "fill_missing_data_reads": False}
    try:
        keys = tensorstore.KvStore.open(store).result().list().result()
        names = [key.decode().removesuffix("/.zarray") for key in keys if key.endswith(b"/.zarray")]
        arrays = {
            name: tensorstore.open({**spec, "kvstore": {**store, "path": f"{name}/"}}).result().read().result()
            for name in names
        }
    except ValueError as error:
        raise NautileError(f"{place}: damaged ({_line(error)}); {AGAIN}") from None
    if not arrays:
        raise NautileError(f"{place}: holds no arrays; {AGAIN}")
    return arrays


def _line(error: ValueError) -> str:
    """The first sentence of a message of tensorstore's, which goes on with sources and specifications."""
    return " ".join(str(error).split()).partition(" [source ")[0].partition(" [tensorstore_spec=")[0]


@contextmanager
def _silent() -> Iterator[None]:
    """Without orbax's log, which tells a failed write many times over."""
    log = logging.getLogger("absl")
    level = log.level
    log.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        log.setLevel(level)
