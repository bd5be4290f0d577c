"""Values of parameters and attributes as JSON and arrays, and back."""

import dataclasses
import inspect
from pathlib import Path, PurePath
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.stats import distributions
from sklearn.base import BaseEstimator
from sklearn.utils.metadata_routing import MetadataRequest
from skorch.history import History

from sklearn_stndt.estimator import STNDTEstimator
from sklearn_stndt.persistence import networks, steps
from sklearn_stndt.persistence.archive import Archive, ArchiveWriter
from sklearn_stndt.persistence.extras import extra
from sklearn_stndt.persistence.refusals import refusal
from sklearn_stndt.persistence.registry import (
    NotRestoredError,
    class_of_name,
    distribution_of_name,
    function_of_name,
    is_ours,
    is_sklearn,
    name_of_class,
    name_of_function,
    replaced,
)
from sklearn_stndt.training.net import MaskedModellingNet

MODEL = "model.json"
ARRAYS = "arrays.safetensors"
_MISSING = inspect.Parameter.empty
# settings of networks have the names of these parameters
_DEFAULTS = {n: p.default for n, p in inspect.signature(STNDTEstimator).parameters.items()}
KIND = "$"  # key of the kind of everything that is not a plain value of JSON


class Encoder:
    """Turns an estimator into JSON, and writes its arrays, weights and scikit-learn steps.

    Parameters
    ----------
    writer : ArchiveWriter or None
        Receives weights and steps; None: only find out whether everything can be saved.
    """

    def __init__(self, writer: ArchiveWriter | None):
        self.writer = writer
        self.arrays: dict[str, NDArray] = {}
        self._n_parts = 0
        self._numbers: dict[int, int] = {}  # number of each object, by its id
        self._kept: list[Any] = []  # so that no id is used twice
        self._holds_ours: dict[int, bool] = {}

    def encode(self, value: Any, where: str) -> Any:
        """Return a value as JSON.

        Parameters
        ----------
        value : object
        where : str
            What is to be said of the place of the value in an error.

        Raises
        ------
        CannotSaveError
            If it cannot be saved without pickle.
        """
        kind = type(value)
        if value is None or kind in (bool, int, str):
            return value
        if kind is float:
            return value if np.isfinite(value) else {KIND: "float", "value": repr(value)}
        if kind is list:
            return [self.encode(one, f"{where}[{i}]") for i, one in enumerate(value)]
        if kind in (tuple, set, frozenset):
            items = [self.encode(one, f"{where}[{i}]") for i, one in enumerate(value)]
            return {KIND: kind.__name__, "items": items}
        if kind is dict:
            return self._dict(value, where)
        if kind in (slice, range):
            parts = [self.encode(p, where) for p in (value.start, value.stop, value.step)]
            return {KIND: kind.__name__, "items": parts}
        if isinstance(value, np.generic):
            return self._scalar(value, where)
        if isinstance(value, np.dtype) and not value.hasobject and value.names is None:
            return {KIND: "dtype", "name": value.str}
        if isinstance(value, PurePath):
            return {KIND: "path", "path": str(value)}
        if kind is np.random.RandomState:
            return {KIND: "RandomState", "state": self.encode(_state_of(value), where)}
        name = name_of_function(value)
        if name is not None:
            return {KIND: "name", "name": name}
        return self._object(value, where)

    def add_part(self, folder: str, ending: str, content: bytes) -> str:
        """Write a part, and return its name."""
        name = f"{folder}/{self._n_parts}.{ending}"
        self._n_parts += 1
        if self.writer is not None:
            self.writer.add(name, content)
        return name

    def finish(self) -> None:
        """Write the arrays."""
        if self.arrays and self.writer is not None:
            content = extra("safetensors.numpy").save(self.arrays)
            self.writer.add(ARRAYS, content)

    def _object(self, value: Any, where: str) -> Any:
        """Encode what may occur in several places, once."""
        if id(value) in self._numbers:
            return {KIND: "same", "id": self._numbers[id(value)]}
        number = self._numbers[id(value)] = len(self._numbers)
        self._kept.append(value)
        encoded = self._encoded(replaced(value), where)
        return {KIND: encoded.pop(KIND), "id": number} | encoded

    def _encoded(self, value: Any, where: str) -> dict[str, Any]:
        kind = type(value)
        if kind is np.ma.MaskedArray:
            mask = np.ma.getmaskarray(value)
            parts = {"data": value.data, "mask": mask}
            return {KIND: "masked"} | {k: self.encode(v, where) for k, v in parts.items()}
        if kind is np.ndarray or kind is np.memmap:
            return self._array(np.asarray(value), where)
        if kind is History:
            return {KIND: "history", "epochs": self._history(value, where)}
        if isinstance(value, MaskedModellingNet) and name_of_class(kind) is not None:
            return {KIND: "net"} | networks.encode(value, self, where)
        frozen = distributions.rv_frozen
        if isinstance(value, frozen) and _is_named(value.dist):
            parts = {"args": list(value.args), "kwds": dict(value.kwds)}
            encoded = {k: self.encode(v, f"{where}.{k}") for k, v in parts.items()}
            return {KIND: "distribution", "name": value.dist.name} | encoded
        if is_sklearn(kind) and not self._has_ours(value):
            part = self.add_part("steps", "skops", steps.dump(value, where))
            return {KIND: "step", "class": f"{kind.__module__}.{kind.__qualname__}", "part": part}
        if isinstance(value, torch.Tensor):
            numbers = value.detach().cpu().numpy()
            return {KIND: "tensor", "numbers": self.encode(numbers, where)}
        name = name_of_class(kind)
        if name is None or not (is_ours(kind) or is_sklearn(kind)):
            raise refusal(value, where)
        return {KIND: "object", "class": name} | self._attributes(value, where)

    def _attributes(self, value: Any, where: str) -> dict[str, Any]:
        if dataclasses.is_dataclass(value):
            state = {f.name: getattr(value, f.name) for f in dataclasses.fields(value)}
        else:
            state = dict(value.__getstate__() or {})
        encoded = {n: self.encode(v, f"{where}.{n}") for n, v in state.items()}
        if not isinstance(value, BaseEstimator):
            return {"attributes": encoded}
        params = value.get_params(deep=False)
        return {
            "parameters": {n: v for n, v in encoded.items() if n in params},
            "fitted": {n: v for n, v in encoded.items() if n not in params},
        }

    def _dict(self, value: dict, where: str) -> dict[str, Any]:
        if all(type(key) is str for key in value):
            return {
                KIND: "dict",
                "items": {k: self.encode(v, f"{where}[{k!r}]") for k, v in value.items()},
            }
        pairs = [
            [self.encode(k, where), self.encode(v, f"{where}[{k!r}]")] for k, v in value.items()
        ]
        return {KIND: "pairs", "items": pairs}

    def _scalar(self, value: np.generic, where: str) -> dict[str, Any]:
        kind, size = value.dtype.kind, value.dtype.itemsize
        if kind != "U" and (kind not in "biuf" or size > 8):
            raise refusal(value, where)
        return {KIND: "scalar", "dtype": value.dtype.str, "value": self.encode(value.item(), where)}

    def _array(self, value: NDArray, where: str) -> dict[str, Any]:
        shape = list(value.shape)
        if value.dtype.kind in "UO":
            items = value.ravel().tolist()
            kind = "strings" if value.dtype.kind == "U" else "objects"
            return {KIND: kind, "shape": shape, "items": self.encode(items, where)}
        if value.dtype.kind in "mM":
            numbers = self.encode(value.view(np.int64), where)
            return {KIND: "times", "dtype": value.dtype.str, "numbers": numbers}
        if value.dtype.kind not in "biuf" or value.dtype.itemsize > 8:
            raise refusal(value, where)
        name = where
        while name in self.arrays:
            name += "'"
        in_columns = value.ndim > 1 and value.flags.f_contiguous and not value.flags.c_contiguous
        stored = value.T if in_columns else value
        native = stored.dtype.newbyteorder("=")
        self.arrays[name] = np.ascontiguousarray(stored, native).reshape(stored.shape)
        return {KIND: "array", "name": name} | ({"order": "F"} if in_columns else {})

    def _history(self, history: History, where: str) -> list[Any]:
        """Encode epochs; batches, of which there are many, as columns."""
        epochs = []
        for i, epoch in enumerate(history):
            place = f"{where}[{i}]"
            batches = [
                {key: self.encode(column, place) for key, column in columns.items()}
                for columns in _columns(epoch["batches"])
            ]
            rest = {k: v for k, v in epoch.items() if k != "batches"}
            epochs.append({"batches": batches, "epoch": self.encode(rest, place)})
        return epochs

    def _has_ours(self, value: Any) -> bool:
        """Whether an object of scikit-learn holds one that skops cannot save."""
        known = self._holds_ours.get(id(value))
        if known is not None:
            return known
        kind = type(value)
        self._holds_ours[id(value)] = False  # while it is searched
        self._kept.append(value)
        if kind in (list, tuple, set, frozenset):
            inner = list(value)
        elif kind is dict:
            inner = list(value.values())
        elif isinstance(value, np.ndarray) and value.dtype.hasobject:
            inner = np.asarray(value, dtype=object).ravel().tolist()
        elif is_sklearn(kind) and isinstance(getattr(value, "__dict__", None), dict):
            inner = list(vars(value).values())
        else:
            inner = []
        # a request refers to its estimator, and skops follows circles for ever
        found = is_ours(kind) or kind is MetadataRequest
        found = found or any([self._has_ours(one) for one in inner])
        self._holds_ours[id(value)] = found
        return found


class Decoder:
    """Restores an estimator from JSON and the other parts of an archive.

    Parameters
    ----------
    archive : Archive
    trusted : bool, default=False
        Also restore objects of scikit-learn that can crash Python if they were altered.

    Notes
    -----
    Anything may be in an altered file. What is not as expected raises an error of some kind,
    which `load` turns into words.
    """

    def __init__(self, archive: Archive, trusted: bool = False):
        self.archive = archive
        self.trusted = trusted
        self._objects: dict[int, Any] = {}
        self._arrays: dict[str, NDArray] = {}
        if ARRAYS in archive.names:
            self._arrays = extra("safetensors.numpy").load(archive.read(ARRAYS))

    def decode(self, node: Any) -> Any:
        """Return the value of some JSON."""
        if isinstance(node, list):
            return [self.decode(one) for one in node]
        if not isinstance(node, dict):
            return node
        return getattr(self, f"_{_KINDS[node[KIND]]}")(node)

    def _keep(self, node: dict[str, Any], value: Any) -> Any:
        self._objects[node["id"]] = value
        return value

    def _same(self, node):
        return self._objects[node["id"]]

    def _float(self, node):
        return {"nan": np.nan, "inf": np.inf, "-inf": -np.inf}[node["value"]]

    def _items(self, node):
        kinds = {"tuple": tuple, "set": set, "frozenset": frozenset}
        return kinds[node[KIND]](self.decode(node["items"]))

    def _steps(self, node):
        kinds = {"slice": slice, "range": range}
        return kinds[node[KIND]](*self.decode(node["items"]))

    def _dict(self, node):
        return {str(key): self.decode(value) for key, value in node["items"].items()}

    def _pairs(self, node):
        return {self.decode(key): self.decode(value) for key, value in node["items"]}

    def _scalar(self, node):
        dtype = _plain_dtype(node["dtype"], "biufU")
        return dtype.type(self.decode(node["value"]))

    def _dtype(self, node):
        return _plain_dtype(node["name"], "biufcSUmM")

    def _path(self, node):
        return Path(node["path"])

    def _random_state(self, node):
        state = np.random.RandomState()
        state.set_state(self.decode(node["state"]))
        return state

    def _name(self, node):
        return function_of_name(node["name"])

    def _distribution(self, node):
        distribution = distribution_of_name(node["name"])
        frozen = distribution(*self.decode(node["args"]), **self.decode(node["kwds"]))
        return self._keep(node, frozen)

    def _masked(self, node):
        data, mask = self.decode(node["data"]), self.decode(node["mask"])
        return self._keep(node, np.ma.MaskedArray(data, mask=mask))

    def _array(self, node):
        # a copy has the memory layout that an array of numpy usually has
        value = np.array(self._arrays.pop(node["name"]))
        return self._keep(node, value.T if node.get("order") == "F" else value)

    def _strings(self, node):
        items = [str(one) for one in node["items"]]
        dtype = None if items else "<U1"
        return self._keep(node, np.array(items, dtype=dtype).reshape(node["shape"]))

    def _object_array(self, node):
        items = self.decode(node["items"])
        value = np.empty(len(items), dtype=object)
        for i, item in enumerate(items):  # one by one: a list is an item
            value[i] = item
        return self._keep(node, value.reshape(node["shape"]))

    def _times(self, node):
        numbers = self.decode(node["numbers"])
        return self._keep(node, numbers.view(_plain_dtype(node["dtype"], "mM")))

    def _history(self, node):
        history = History()
        for epoch in node["epochs"]:
            batches = []
            for columns in epoch["batches"]:
                decoded = {key: self.decode(column) for key, column in columns.items()}
                rows = zip(*decoded.values(), strict=True)
                batches += [dict(zip(decoded, row, strict=True)) for row in rows]
            history.append({"batches": batches} | self.decode(epoch["epoch"]))
        return self._keep(node, history)

    def _tensor(self, node):
        return self._keep(node, torch.from_numpy(self.decode(node["numbers"])))

    def _net(self, node):
        return self._keep(node, networks.decode(node, self))

    def _step(self, node):
        return self._keep(node, steps.load(self.archive.read(node["part"]), self.trusted))

    def _object(self, node):
        cls: Any = class_of_name(node["class"])
        is_dataclass = dataclasses.is_dataclass(cls)
        if is_dataclass:
            known = {f.name: _DEFAULTS.get(f.name, _MISSING) for f in dataclasses.fields(cls)}
            state = self._with_defaults(cls, node["attributes"], known)
            return self._keep(node, cls(**state))
        value: Any = self._keep(node, cls.__new__(cls))
        if isinstance(value, BaseEstimator):
            known = {n: p.default for n, p in inspect.signature(cls).parameters.items()}
            state = self._with_defaults(cls, node["parameters"], known)
            state |= self._state(node["fitted"])
        else:
            state = self._state(node["attributes"])
        for name in state:
            # names of methods and special names are never attributes of an object
            if name.startswith("__") or callable(getattr(cls, name, None)):
                raise ValueError(f"it holds an attribute {name!r} of {cls.__name__}")
        if hasattr(value, "__setstate__"):
            value.__setstate__(state)
        else:
            vars(value).update(state)
        return value

    def _state(self, nodes: dict[str, Any]) -> dict[str, Any]:
        return {name: self.decode(node) for name, node in nodes.items()}

    def _with_defaults(
        self, cls: type, nodes: dict[str, Any], known: dict[str, Any]
    ) -> dict[str, Any]:
        """Restore parameters; those that an earlier version did not have get their default."""
        unknown = sorted(nodes.keys() - known.keys())
        if unknown:
            raise NotRestoredError(
                f"it sets the parameter {unknown[0]!r} of {cls.__name__}, which this version "
                "does not have"
            )
        added = {n: default for n, default in known.items() if default is not _MISSING}
        return added | self._state(nodes)


# kinds of values, and the method of Decoder that restores them
_KINDS = {
    "same": "same",
    "float": "float",
    "tuple": "items",
    "set": "items",
    "frozenset": "items",
    "slice": "steps",
    "range": "steps",
    "dict": "dict",
    "pairs": "pairs",
    "scalar": "scalar",
    "dtype": "dtype",
    "path": "path",
    "RandomState": "random_state",
    "name": "name",
    "distribution": "distribution",
    "masked": "masked",
    "array": "array",
    "strings": "strings",
    "objects": "object_array",
    "times": "times",
    "history": "history",
    "tensor": "tensor",
    "net": "net",
    "step": "step",
    "object": "object",
}


def _columns(rows: list[dict[str, Any]]) -> list[dict[str, list[Any]]]:
    """Group consecutive rows with the same keys, each group as columns."""
    groups: list[dict[str, list[Any]]] = []
    for row in rows:
        if not groups or list(groups[-1]) != list(row):
            groups.append({key: [] for key in row})
        for key, value in row.items():
            groups[-1][key].append(value)
    return groups


def _plain_dtype(name: str, kinds: str) -> np.dtype:
    dtype = np.dtype(str(name))
    if dtype.kind not in kinds or dtype.hasobject or dtype.names is not None:
        raise ValueError(f"it names the dtype {name!r}")
    return dtype


def _state_of(random_state: np.random.RandomState) -> dict[str, Any]:
    return random_state.get_state(legacy=False)


def _is_named(distribution: Any) -> bool:
    try:
        return type(distribution_of_name(distribution.name)) is type(distribution)
    except NotRestoredError:
        return False
