"""Files that are truncated, altered or made to do harm: an error in words, and nothing else."""

import io
import json
import os
import pickle
import stat
import zipfile

import joblib
import numpy as np
import pytest
import sklearn
import torch
from changed_models import change_model, parts_of, rewrite
from numpy.testing import assert_array_equal
from sklearn.linear_model import Ridge
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from sklearn_stndt import BinwiseRegressor, STNDTEstimator, load, save
from sklearn_stndt.persistence import ModelFileError, archive, model_card

pytest.importorskip("safetensors")
skops_io = pytest.importorskip("skops.io")


@pytest.fixture(scope="module")
def pipeline(small, spikes, reaches):
    """A fitted pipeline with weights, arrays and a step of scikit-learn."""
    network = small(max_epochs=1, n_layers=1, heldout_neurons=1)
    decoder = BinwiseRegressor(make_pipeline(StandardScaler(), Ridge()))
    return make_pipeline(network, decoder).fit(spikes, reaches.velocity)


@pytest.fixture(scope="module")
def content(pipeline, tmp_path_factory):
    """Bytes of the file of this pipeline."""
    path = tmp_path_factory.mktemp("saved") / "model.stndt"
    save(pipeline, path)
    return path.read_bytes()


@pytest.fixture
def path(content, tmp_path):
    """A file of this pipeline that a test may change."""
    (tmp_path / "model.stndt").write_bytes(content)
    return tmp_path / "model.stndt"


class Bomb:
    """Makes a folder if a pickle of it is loaded."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


@pytest.fixture
def bomb(tmp_path):
    """A pickle that must not be loaded."""
    yield pickle.dumps(Bomb(tmp_path / "exploded"))
    assert not (tmp_path / "exploded").exists()


# ---- damage


def test_altered_bytes_are_found(content, path, pipeline, spikes):
    expected = pipeline.predict(spikes)
    rng = np.random.default_rng(0)
    n_refused = 0
    for place in rng.integers(len(content), size=150):
        altered = bytearray(content)
        altered[place] ^= 1 << int(rng.integers(8))
        path.write_bytes(altered)
        try:
            loaded = load(path)
        except ModelFileError:
            n_refused += 1
        else:  # dates and other fields of a zip file that mean nothing here
            assert_array_equal(loaded.predict(spikes), expected)
    assert n_refused > 100


@pytest.mark.parametrize("part", [0, 1, 30, 0.3, 0.7, 0.99])
def test_truncated_files_are_refused(content, path, part):
    path.write_bytes(content[: int(part * len(content)) if part < 1 else part])
    for read in (load, model_card):
        with pytest.raises(ModelFileError, match=r"model\.stndt is damaged: .*another copy"):
            read(path)


def test_other_files_are_refused(tmp_path, bomb):
    (tmp_path / "folder").mkdir()
    (tmp_path / "pickle").write_bytes(bomb)
    (tmp_path / "text").write_text("no model")
    joblib.dump(Bomb(tmp_path / "exploded"), tmp_path / "joblib")
    np.savez(tmp_path / "arrays.npz", X=np.zeros(3))
    for name, reason in {
        "folder": "it is a folder",
        "pickle": "not a zip file.* A pickle is read by joblib.load",
        "text": "not a zip file",
        "joblib": "not a zip file",
        "arrays.npz": "no part 'manifest.json'",
    }.items():
        with pytest.raises(ModelFileError, match=reason):
            load(tmp_path / name)


def test_a_part_of_another_file_is_refused(path):
    with zipfile.ZipFile(path) as source:
        parts = {name: source.read(name) for name in source.namelist()}
    parts["model.json"] = parts["model.json"].replace(b'"lag": 0', b'"lag": 1')
    with zipfile.ZipFile(path, "w") as target:
        for name, part in parts.items():
            target.writestr(name, part)
    with pytest.raises(ModelFileError, match=r"'model\.json' is not the one that was written"):
        load(path)
    assert "Pipeline" in model_card(path)


# ---- other versions


def test_a_newer_format_is_refused(path, pipeline, monkeypatch):
    monkeypatch.setattr(archive, "FORMAT", 2)
    save(STNDTEstimator(), path)
    monkeypatch.undo()
    with pytest.raises(ModelFileError, match=r"in format 2 by a newer version .*Update"):
        load(path)


def test_an_unknown_class_is_named(path):
    change_model(path, lambda model: model.update({"class": "RecurrentNetwork"}))
    with pytest.raises(ModelFileError, match=r"cannot be loaded: .*'RecurrentNetwork'"):
        load(path)


def test_parameters_of_other_versions(path):
    save(STNDTEstimator(d_model=8), path)
    change_model(path, lambda model: model["parameters"].pop("calibration"))
    assert load(path).calibration is True  # an earlier version did not have it
    change_model(path, lambda model: model["parameters"].update({"n_experts": 3}))
    with pytest.raises(ModelFileError, match="'n_experts' of STNDTEstimator, which this version"):
        load(path)


def test_settings_of_other_versions(path, pipeline, spikes):
    def settings_of(model):
        network = model["parameters"]["steps"][0]["items"][1]
        return network["fitted"]["settings_"]["attributes"]["training"]["attributes"]

    change_model(path, lambda model: settings_of(model).pop("precision"))
    loaded = load(path)
    assert loaded[0].settings_ == pipeline[0].settings_
    assert_array_equal(loaded.predict(spikes), pipeline.predict(spikes))
    change_model(path, lambda model: settings_of(model).update({"n_experts": 3}))
    with pytest.raises(ModelFileError, match="'n_experts' of TrainingSettings, which this version"):
        load(path)


def test_a_file_of_the_first_format_can_be_read(path):
    step = {"$": "tuple", "items": ["rates", {"$": "same", "id": 1}]}
    network = {
        "$": "object",
        "id": 1,
        "class": "STNDTEstimator",
        "parameters": {
            "d_model": 16,
            "mask_ratio": {"$": "tuple", "items": [0.1, 0.5]},
            "net_params": {
                "$": "dict",
                "items": {"optimizer": {"$": "name", "name": "torch.optim.SGD"}},
            },
            "temperature": {"$": "float", "value": "inf"},
        },
        "fitted": {},
    }
    model = {
        "$": "object",
        "id": 0,
        "class": "sklearn.pipeline.Pipeline",
        "parameters": {"steps": [{"$": "tuple", "items": ["first", network]}, step]},
        "fitted": {"_sklearn_version": sklearn.__version__},
    }
    parts = {"model.json": json.dumps(model).encode(), "MODEL_CARD.md": b"a card"}
    rewrite(path, parts, {"class": "Pipeline", "saved": "", "versions": {}})
    loaded = load(path)
    assert loaded["rates"] is loaded["first"]
    params = loaded["rates"].get_params()
    changed = {"d_model": 16, "mask_ratio": (0.1, 0.5), "temperature": np.inf}
    changed |= {"net_params": {"optimizer": torch.optim.SGD}}
    assert params == STNDTEstimator(**changed).get_params()
    assert model_card(path) == "a card"


# ---- harm: nothing is executed


NAMES = [
    "os.system",
    "posix.system",
    "builtins.eval",
    "numpy.load",
    "numpy.testing._private.utils.runstring",
    "torch.load",
    "torch.nn._reduction",
    "sklearn.metrics.make_scorer",
    "sklearn.datasets.fetch_openml",
    "sklearn.externals.joblib",
    "sklearn_stndt.load",
    "joblib.load",
]


@pytest.mark.parametrize("name", NAMES)
def test_functions_are_not_looked_up_by_any_name(path, name):
    save(STNDTEstimator(), path)
    made_up = {"$": "name", "name": name}
    change_model(path, lambda model: model["parameters"].update({"net_params": made_up}))
    with pytest.raises(ModelFileError, match=f"cannot be loaded: it names '{name}'"):
        load(path)


@pytest.mark.parametrize(
    "name",
    [*NAMES, "MemberFile", "CheckpointDirectory", "sklearn.utils.Bunch", "load", "", None, [1]],
)
def test_objects_of_other_classes_are_not_made(path, name):
    made_up = {"$": "object", "id": 99, "class": name, "attributes": {}}
    change_model(path, lambda model: model["fitted"].update({"x_": made_up}))
    with pytest.raises(ModelFileError, match="which is not among those"):
        load(path)


@pytest.mark.parametrize("name", ["transform", "__class__", "__dict__", "fit"])
def test_methods_are_not_replaced(path, name):
    save(STNDTEstimator(), path)
    change_model(path, lambda model: model["fitted"].update({name: 1}))
    with pytest.raises(ModelFileError, match=f"an attribute '{name}'"):
        load(path)


def as_skops(node):
    """Write a file of skops with this content."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as file:
        file.writestr("schema.json", json.dumps({"protocol": 2, "_skops_version": "0"} | node))
    return buffer.getvalue()


def steps_of(parts):
    """Names of the parts for skops; the last one is fitted and has arrays."""
    return sorted(name for name in parts if name.endswith(".skops"))


def text(value):
    return {
        "__class__": "str",
        "__module__": "builtins",
        "__loader__": "JsonNode",
        "content": json.dumps(value),
    }


def node(module, name, loader, **content):
    return {"__module__": module, "__class__": name, "__loader__": loader, **content}


def several(name, *values):
    return node("builtins", name, f"{name.title()}Node", content=list(values))


@pytest.mark.parametrize("trusted", [False, True])
@pytest.mark.parametrize(
    "make",
    [
        lambda x: node("os", "mkdir", "ConstructorFromReduceNode", content=several("tuple", x)),
        lambda x: node("os", "mkdir", "FunctionNode", content=x),
        lambda x: node("os", "mkdir", "TypeNode"),
        lambda x: node("os", "mkdir", "ListNode", content=[x]),
        lambda x: node("os", "mkdir", "ObjectNode", content=x),
        lambda x: node("operator", "methodcaller", "OperatorFuncNode", attrs=several("tuple", x)),
        lambda x: node(
            "functools",
            "partial",
            "PartialNode",
            content={"func": x, "args": x, "kwds": x, "namespace": x},
        ),
        lambda x: node("builtins", "str", "MethodNode", content={"func": "upper", "obj": x}),
        lambda x: node("numpy", "bytes_", "NdArrayNode", type="json", content=[x], shape=x),
        lambda x: node("scipy.sparse", "csr_matrix", "SparseMatrixNode", type="scipy", file="x"),
        lambda x: node("os", "mkdir", "NoSuchNode", content=x),
        lambda x: node(
            "numpy.testing", "runstring", "ConstructorFromReduceNode", content=several("tuple", x)
        ),
        lambda x: node("os", "mkdir", "ConstructorFromReduceNode", protocol=0, content=x),
    ],
)
def test_steps_of_scikit_learn_run_no_code(path, tmp_path, make, trusted):
    target = tmp_path / "exploded"
    parts, manifest = parts_of(path)
    step = steps_of(parts)[-1]
    rewrite(path, parts | {step: as_skops(make(text(str(target))))}, manifest)
    with pytest.raises(ModelFileError, match=r"model\.stndt (is damaged|cannot be loaded): "):
        load(path, trusted=trusted)
    assert not target.exists()


def test_pickles_in_any_part_are_not_loaded(path, bomb):
    parts, manifest = parts_of(path)
    assert len(parts) >= 5
    objects = io.BytesIO()
    np.lib.format.write_array_header_1_0(
        objects, {"descr": "|O", "fortran_order": False, "shape": (1,)}
    )
    as_array = b"\x93NUMPY\x01\x00" + objects.getvalue()[8:] + bomb
    for name in parts.keys() - {"MODEL_CARD.md"}:
        inner = bomb
        if name == steps_of(parts)[-1]:
            buffer = io.BytesIO(parts[name])
            with zipfile.ZipFile(buffer) as file:
                steps = {n: file.read(n) for n in file.namelist()}
            (first, *_) = [n for n in steps if n.endswith(".npy")]
            buffer = io.BytesIO()
            with zipfile.ZipFile(buffer, "w") as file:
                for n, step in steps.items():
                    file.writestr(n, as_array if n == first else step)
            inner = buffer.getvalue()
        rewrite(path, parts | {name: inner}, manifest)
        with pytest.raises(ModelFileError, match="is damaged: "):
            load(path)


# ---- harm: nothing outside of the file is read or written, and memory is bounded


@pytest.mark.parametrize("name", ["../escaped", "/tmp/escaped", "a/../../b", "C:\\x", "a//b", ".x"])
def test_parts_with_paths_are_refused(path, name):
    with zipfile.ZipFile(path, "a") as file:
        file.writestr(name, "x")
    with pytest.raises(ModelFileError, match="a part has the name"):
        load(path)


def test_links_are_not_followed(path, tmp_path):
    (tmp_path / "secret").write_text('{"secret": 1}')
    parts, manifest = parts_of(path)
    parts["model.json"] = str(tmp_path / "secret").encode()
    rewrite(path, parts, manifest)
    with zipfile.ZipFile(path) as file:
        entries = [(entry, file.read(entry)) for entry in file.infolist()]
    with zipfile.ZipFile(path, "w") as file:
        for entry, part in entries:
            if entry.filename == "model.json":
                entry.external_attr = (stat.S_IFLNK | 0o777) << 16
            file.writestr(entry, part)
    with pytest.raises(ModelFileError, match=r"'model\.json' is not JSON"):
        load(path)


def test_compressed_parts_are_refused(path):
    parts, _ = parts_of(path)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        for name, part in parts.items():
            file.writestr(name, part + bytes(1 << 20))
    with pytest.raises(ModelFileError, match="is compressed"):
        load(path)


def test_compressed_parts_of_steps_are_refused(path):
    parts, manifest = parts_of(path)
    step = steps_of(parts)[0]
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("schema.json", bytes(1 << 20))
    rewrite(path, parts | {step: buffer.getvalue()}, manifest)
    with pytest.raises(ModelFileError, match="is compressed"):
        load(path)


def test_two_parts_of_one_name_are_refused(path):
    with zipfile.ZipFile(path, "a") as file, pytest.warns(UserWarning, match="Duplicate name"):
        file.writestr("model.json", "{}")
    with pytest.raises(ModelFileError, match="two parts of one name"):
        load(path)


def test_parts_that_are_not_listed_are_refused(path):
    with zipfile.ZipFile(path, "a") as file:
        file.writestr("more.json", "{}")
    with pytest.raises(ModelFileError, match=r"differ in 'more\.json'"):
        load(path)


HUGE = 10**12


@pytest.mark.parametrize(
    ("name", "value"), [("n_layers", 10**9), ("d_model", HUGE), ("dim_feedforward", 2**70)]
)
def test_networks_larger_than_their_weights_are_refused(path, name, value):
    def change(model):
        network = model["parameters"]["steps"][0]["items"][1]
        settings = network["fitted"]["net_"]["params"]["items"]["module__settings"]
        if settings["$"] == "same":
            settings = network["fitted"]["settings_"]["attributes"]["network"]
        settings["attributes"][name] = value

    change_model(path, change)
    with pytest.raises(ModelFileError, match="is damaged: "):
        load(path)


def test_arrays_larger_than_the_file_are_refused(path):
    parts, manifest = parts_of(path)
    header = json.dumps(
        {"x": {"dtype": "F64", "shape": [HUGE], "data_offsets": [0, 8 * HUGE]}}
    ).encode()
    huge = len(header).to_bytes(8, "little") + header
    for name in [n for n in parts if n.endswith(".safetensors")]:
        rewrite(path, parts | {name: huge}, manifest)
        with pytest.raises(ModelFileError, match="is damaged: "):
            load(path)


def test_arrays_of_steps_larger_than_the_file_are_refused(path):
    parts, manifest = parts_of(path)
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(
        header, {"descr": "<f8", "fortran_order": False, "shape": (HUGE,)}
    )
    step, buffer = steps_of(parts)[-1], io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(parts[step])) as old, zipfile.ZipFile(buffer, "w") as new:
        for n in old.namelist():
            new.writestr(n, header.getvalue() if n.endswith(".npy") else old.read(n))
    rewrite(path, parts | {step: buffer.getvalue()}, manifest)
    with pytest.raises(ModelFileError, match="declares float64"):
        load(path)


@pytest.mark.parametrize("name", ["model.json", "manifest.json"])
def test_json_of_another_form_is_refused(path, name):
    deep = b"[" * 100_000 + b"]" * 100_000
    forms = [b"", b"\xff", b"null", b"3", b"[]", b'"x"', b"{}", b'{"$": "object"}', deep]
    forms += [b'{"$": "tuple", "items": 3}', b'{"$": []}', b'{"$": "range", "items": [0, "x", 1]}']
    parts, manifest = parts_of(path)
    for form in forms:
        if name == "model.json":
            rewrite(path, parts | {name: form}, manifest)
        else:
            with zipfile.ZipFile(path, "w") as file:
                for other, part in (parts | {name: form}).items():
                    file.writestr(other, part)
        with pytest.raises(ModelFileError, match="is damaged: "):
            load(path)


def test_values_of_other_forms_are_refused(path):
    save(STNDTEstimator(), path)
    for value in [
        {"$": "array", "id": 1, "name": "x"},
        {"$": "same", "id": 77},
        {"$": "scalar", "dtype": "O", "value": 1},
        {"$": "scalar", "dtype": "V1000000000", "value": 1},
        {"$": "dtype", "name": "O"},
        {"$": "strings", "id": 1, "shape": [HUGE], "items": ["a"]},
        {"$": "objects", "id": 1, "shape": [HUGE], "items": []},
        {"$": "float", "value": "1e400"},
        {"$": "distribution", "id": 1, "name": "rv_frozen", "args": [], "kwds": {}},
        {"$": "pairs", "items": [[[], 1]]},
        {"$": "step", "id": 1, "class": "x", "part": "../../etc/passwd"},
        {"$": "net", "id": 1, "class": "History", "module": "STNDT"},
        {"$": "RandomState", "state": {"$": "dict", "items": {}}},
        {"$": "history", "id": 1, "epochs": [{"batches": [{"a": [1], "b": []}], "epoch": {}}]},
    ]:
        change_model(path, lambda model, v=value: model["parameters"].update({"callbacks": v}))
        with pytest.raises(ModelFileError, match=r"model\.stndt (is damaged|cannot be loaded): "):
            load(path)
