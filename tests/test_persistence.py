"""Estimators that are saved and loaded come back as they were."""

import json
import os
import pickle
import sys
import zipfile
from importlib.metadata import version

import numpy as np
import pytest
import sklearn
import torch
from changed_models import change_model
from numpy.testing import assert_array_equal
from same_ensembles import assert_same_ensembles
from scipy.stats import loguniform, randint, uniform
from sklearn.base import BaseEstimator, clone
from sklearn.compose import TransformedTargetRegressor
from sklearn.ensemble import RandomForestRegressor
from sklearn.exceptions import ConvergenceWarning
from sklearn.feature_selection import SelectKBest, f_regression
from sklearn.frozen import FrozenEstimator
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.model_selection import GridSearchCV, KFold, RandomizedSearchCV
from sklearn.pipeline import FeatureUnion, make_pipeline
from sklearn.preprocessing import FunctionTransformer, StandardScaler
from skorch.exceptions import DeviceWarning

import sklearn_stndt
from sklearn_stndt import (
    BaggingEnsemble,
    BinwiseClassifier,
    BinwiseRegressor,
    MultiSessionEstimator,
    STNDTEstimator,
    load,
    save,
)
from sklearn_stndt.metrics import co_smoothing_scorer, velocity_scorer
from sklearn_stndt.persistence import CannotSaveError, ModelFileError, model_card
from sklearn_stndt.persistence.registry import register
from sklearn_stndt.streaming import RateStream

pytest.importorskip("safetensors")
pytest.importorskip("skops")


@pytest.fixture(scope="module")
def network(small, spikes):
    """A fitted network with held-out neurons; tests do not change it."""
    return small(heldout_neurons=2, n_layers=1).fit(spikes)


@pytest.fixture
def again(tmp_path):
    """Save an estimator, and load it."""

    def save_and_load(estimator, **params):
        save(estimator, tmp_path / "model.stndt")
        return load(tmp_path / "model.stndt", **params)

    return save_and_load


class OwnClass(BaseEstimator):
    """An estimator that is not part of any package."""


# ---- networks

FORMS = {
    "banded": {"context": (4, 1), "input_scaling": "standardized", "forecast_bins": 2},
    "published": {"d_model": None, "spatial_layers": "all", "contrastive_weight": 0.1},
    "temporal": {"attention": "temporal", "local_attention": False},
    "causal": {"causal": True, "forecast_bins": 2},
    "causal in every layer": {"causal": True, "spatial_layers": "all", "d_model": None},
}


def test_a_network_comes_back_with_the_same_bits(network, again, spikes):
    loaded = again(network)
    assert type(loaded) is STNDTEstimator
    assert_array_equal(loaded.transform(spikes), network.transform(spikes))
    assert loaded.score(spikes) == network.score(spikes)


def test_all_attributes_of_a_network_come_back(network, again):
    loaded = again(network)
    assert vars(loaded).keys() == vars(network).keys()
    for name, value in vars(network).items():
        assert type(getattr(loaded, name)) is type(value), name
        if name != "net_":
            np.testing.assert_equal(getattr(loaded, name), value)
    assert loaded.history_ is loaded.net_.history
    for epoch, expected in zip(loaded.history_, network.history_, strict=True):
        assert list(epoch) == list(expected)
        assert [type(value) for value in epoch.values()] == [type(v) for v in expected.values()]


def test_an_unfitted_estimator_comes_back(again):
    params = {
        "mask_ratio": (0.1, 0.5),
        "context": [3, 4],
        "heldout_neurons": np.array([True, False]),
        "n_layers": np.int64(2),
        "net_params": {"optimizer": torch.optim.SGD, "optimizer__momentum": 0.9},
    }
    loaded = again(STNDTEstimator(**params))
    assert not hasattr(loaded, "net_")
    np.testing.assert_equal(loaded.get_params(), STNDTEstimator(**params).get_params())
    assert type(loaded.mask_ratio) is tuple
    assert type(loaded.n_layers) is np.int64


@pytest.mark.parametrize("form", FORMS)
def test_every_form_of_the_network_comes_back(form, small, again, spikes):
    network = small(max_epochs=1, **FORMS[form]).fit(spikes[:6])
    assert_array_equal(again(network).transform(spikes), network.transform(spikes))


@pytest.mark.parametrize(
    "params",
    [
        {"optimizer": "muon", "lr": "auto", "n_iter_no_change": "auto"},
        {"optimizer": "adamw", "lr": 1e-3, "n_iter_no_change": 2},
        {"optimizer": "muon", "early_stopping": False},
    ],
)
def test_settings_of_training_and_its_directory_come_back(params, small, again, spikes, tmp_path):
    directory = tmp_path / "training"
    network = small(max_epochs=2, checkpoint_dir=directory, **params).fit(spikes)
    loaded = again(network)
    assert loaded.get_params() == network.get_params()
    assert loaded.settings_ == network.settings_
    assert_array_equal(loaded.transform(spikes), network.transform(spikes))
    (file,) = directory.glob("*.zip")
    written = file.stat().st_mtime_ns
    refitted = clone(loaded).fit(spikes)  # reads the finished training
    assert file.stat().st_mtime_ns == written
    assert_array_equal(refitted.transform(spikes), network.transform(spikes))


def test_a_stream_continues_with_a_loaded_network(small, again, spikes):
    network = small(max_epochs=1, n_layers=1, causal=True).fit(spikes[:6])
    streams = RateStream(again(network)), RateStream(network)
    for counts in spikes[0]:
        assert_array_equal(*(stream.step(counts) for stream in streams))


def test_networks_of_several_sessions_come_back(small, again, spikes):
    sessions = [spikes[:8], spikes[8:16, :, :7]]
    fitted = MultiSessionEstimator(small(max_epochs=1, n_layers=1, causal=True)).fit(sessions)
    loaded = again(fitted)
    for one, other in zip(loaded.transform(sessions), fitted.transform(sessions), strict=True):
        assert_array_equal(one, other)


def test_smoothing_of_rates_comes_back(network, again, spikes):
    smoothed = pickle.loads(pickle.dumps(network))
    smoothed.net_.module_.smoothing.width.fill_(1.5)
    rates = smoothed.transform(spikes)
    assert not np.array_equal(rates, network.transform(spikes))
    assert_array_equal(again(smoothed).transform(spikes), rates)


def test_what_is_said_of_divergence_comes_back(small, again, spikes):
    with pytest.warns(ConvergenceWarning, match="Training diverged"):
        network = small(lr=1e5).fit(spikes)
    assert "Training diverged" in network.net_.diverged_
    assert again(network).net_.diverged_ == network.net_.diverged_


@pytest.mark.parametrize("optimizer", ["muon", "adamw"])
def test_training_continues_as_after_a_pickle(optimizer, small, again, spikes):
    network = small(warm_start=True, max_epochs=1, optimizer=optimizer).fit(spikes)
    loaded, unpickled = again(network), pickle.loads(pickle.dumps(network))
    for estimator in (loaded, unpickled):
        estimator.set_params(random_state=1).fit(spikes)
    assert_array_equal(loaded.transform(spikes), unpickled.transform(spikes))
    assert [e["epoch"] for e in loaded.history_] == [1, 2]


def test_a_random_state_continues_its_numbers(again):
    state = np.random.RandomState(3)
    state.normal(size=7)
    loaded = again(STNDTEstimator(random_state=state)).random_state
    assert_array_equal(loaded.normal(size=5), state.normal(size=5))


def test_tables_and_names_of_neurons_come_back(small, again, rows):
    pd = pytest.importorskip("pandas")
    table = pd.DataFrame(rows, columns=[f"unit {i}" for i in range(rows.shape[1])])
    network = small(max_epochs=1).fit(table).set_output(transform="pandas")
    loaded = again(network)
    assert_array_equal(loaded.feature_names_in_, network.feature_names_in_)
    pd.testing.assert_frame_equal(loaded.transform(table), network.transform(table))


def test_a_network_of_a_gpu_is_loaded_on_a_cpu(network, tmp_path, spikes):
    if torch.cuda.is_available():
        pytest.skip("this machine has a CUDA device")
    save(network, tmp_path / "model.stndt")

    def on_a_gpu(model):
        net = model["fitted"]["net_"]
        net["params"]["items"]["device"] = model["fitted"]["device_"] = "cuda"

    change_model(tmp_path / "model.stndt", on_a_gpu)
    with pytest.warns(DeviceWarning, match="no CUDA devices are available"):
        loaded = load(tmp_path / "model.stndt")
    assert loaded.device_ == "cpu"
    assert_array_equal(loaded.transform(spikes), network.transform(spikes))


@pytest.mark.gpu
def test_a_network_on_a_gpu_comes_back_on_it(small, again, spikes):
    network = small(device="cuda").fit(spikes)
    loaded = again(network)
    assert loaded.device_ == "cuda"
    assert_array_equal(loaded.transform(spikes), network.transform(spikes))


# ---- ensembles


def test_an_ensemble_comes_back(small, again, spikes):
    params = {"dropout": uniform(0, 0.4), "lr": loguniform(1e-3, 1e-2), "n_heads": randint(1, 3)}
    ensemble = BaggingEnsemble(
        small(max_epochs=1),
        2,
        param_distributions=params,
        bootstrap=True,
        oob_score=True,
        n_best=1,
        random_state=0,
        warm_start=True,
    ).fit(spikes)
    loaded = again(ensemble)
    assert_same_ensembles(loaded, ensemble, spikes)
    assert vars(loaded).keys() == vars(ensemble).keys()
    assert loaded.results_.keys() == ensemble.results_.keys()
    np.testing.assert_equal(loaded.results_, ensemble.results_)
    assert loaded[0] is loaded._run.outcomes[0].member  # members are in the file once
    for one in (loaded, ensemble):
        one.set_params(n_estimators=3).fit(spikes)
    assert_same_ensembles(loaded, ensemble, spikes)


def test_an_ensemble_on_disk_is_saved_with_its_members(small, again, spikes, tmp_path):
    ensemble = BaggingEnsemble(small(max_epochs=1), 2, checkpoint_dir=tmp_path / "run").fit(spikes)
    member = load(tmp_path / "run" / "member-00001.zip")
    assert_array_equal(member.transform(spikes), ensemble[1].transform(spikes))
    loaded = again(ensemble)
    with zipfile.ZipFile(tmp_path / "model.stndt") as archive:
        assert sum(name.startswith("weights/") for name in archive.namelist()) == 2
    assert type(loaded.estimators_) is type(ensemble.estimators_)
    rates = ensemble.transform(spikes)
    for path in (tmp_path / "run").glob("member-*"):
        path.unlink()
    assert_array_equal(loaded.transform(spikes), rates)


# ---- decoders, pipelines, searches


@pytest.mark.parametrize(
    "decoder",
    [
        None,
        Ridge(),
        make_pipeline(StandardScaler(), FunctionTransformer(np.tanh), Ridge()),
        GridSearchCV(Ridge(), {"alpha": [0.1, 1.0]}, cv=KFold(3)),
        TransformedTargetRegressor(Ridge(), transformer=StandardScaler()),
        make_pipeline(SelectKBest(f_regression, k=3), Ridge()),
    ],
    ids=lambda d: type(d).__name__,
)
def test_a_regressor_comes_back(decoder, again, spikes, reaches):
    y = reaches.velocity[..., 0] if "SelectKBest" in str(decoder) else reaches.velocity
    fitted = BinwiseRegressor(decoder, lag=1, history=1).fit(spikes, y)
    loaded = again(fitted)
    assert_array_equal(loaded.predict(spikes), fitted.predict(spikes))
    assert loaded.score(spikes, y) == fitted.score(spikes, y)
    assert type(loaded.estimator_) is type(fitted.estimator_)


def test_a_classifier_comes_back(again, spikes):
    labels = np.tile(["left", "right"], len(spikes) // 2)
    fitted = BinwiseClassifier(LogisticRegression(max_iter=20)).fit(spikes[:, :3], labels)
    loaded = again(fitted)
    assert_array_equal(loaded.predict_proba(spikes), fitted.predict_proba(spikes))
    assert_array_equal(loaded.classes_, fitted.classes_)


def test_trees_are_loaded_if_the_file_is_trusted(again, spikes, reaches):
    fitted = BinwiseRegressor(RandomForestRegressor(2, max_depth=3, random_state=0))
    fitted.fit(spikes, reaches.velocity)
    with pytest.raises(ModelFileError, match=r"Tree, .* crash Python.* pass\s+trusted=True"):
        again(fitted)
    assert_array_equal(again(fitted, trusted=True).predict(spikes), fitted.predict(spikes))


@pytest.mark.parametrize(
    "wrap",
    [
        FrozenEstimator,
        lambda network: make_pipeline(FunctionTransformer(), network),
        lambda network: make_pipeline(FunctionTransformer(), make_pipeline(network)),
    ],
)
def test_an_estimator_around_a_network_comes_back(wrap, network, again, spikes):
    wrapped = wrap(network)
    assert_array_equal(again(wrapped).transform(spikes), wrapped.transform(spikes))


def test_a_union_and_a_decoder_come_back(small, again, rows, groups):
    union = FeatureUnion([("rates", small(max_epochs=1)), ("counts", StandardScaler())])
    pipeline = make_pipeline(union, BinwiseRegressor()).fit(rows, rows[:, 0])
    assert_array_equal(again(pipeline).predict(rows), pipeline.predict(rows))


@pytest.mark.parametrize("scoring", [None, "velocity"])
def test_a_search_comes_back(scoring, small, again, spikes, reaches):
    pipeline = make_pipeline(small(max_epochs=1), BinwiseRegressor(Ridge()))
    search = GridSearchCV(
        pipeline,
        {"binwiseregressor__estimator": [Ridge(0.1), Ridge(10.0)]},
        cv=KFold(2),
        scoring=scoring and velocity_scorer(neurons=[1]),
    ).fit(spikes, reaches.velocity)
    loaded = again(search)
    assert_array_equal(loaded.predict(spikes), search.predict(spikes))
    assert loaded.score(spikes, reaches.velocity) == search.score(spikes, reaches.velocity)
    assert loaded.cv_results_.keys() == search.cv_results_.keys()
    assert repr(loaded.best_params_) == repr(search.best_params_)
    clone(loaded).fit(spikes, reaches.velocity)


def test_a_random_search_comes_back(small, again, spikes):
    search = RandomizedSearchCV(
        small(max_epochs=1),
        {"lr": loguniform(1e-3, 1e-2), "n_heads": [1, 2]},
        n_iter=2,
        cv=2,
        scoring=co_smoothing_scorer([3]),
        random_state=0,
    ).fit(spikes)
    loaded = again(search)
    assert_array_equal(loaded.transform(spikes), search.transform(spikes))
    again_fitted = clone(loaded).fit(spikes)
    assert again_fitted.best_params_ == search.best_params_


def test_requests_of_metadata_come_back(again):
    with sklearn.config_context(enable_metadata_routing=True):
        network = STNDTEstimator().set_score_request(groups=False)
        decoder = BinwiseRegressor(Ridge().set_fit_request(sample_weight=True))
        loaded = again(make_pipeline(network, decoder))
        assert loaded[0].get_metadata_routing().score.requests["groups"] is False
        inner = loaded[1].estimator.get_metadata_routing()
        assert inner.fit.requests["sample_weight"] is True


def test_every_public_estimator_can_be_saved(again):
    public = [getattr(sklearn_stndt, name) for name in sklearn_stndt.__all__]
    classes = [cls for cls in public if isinstance(cls, type) and issubclass(cls, BaseEstimator)]
    assert len(classes) >= 4
    for cls in classes:
        try:
            estimator = cls()
        except TypeError:  # has parameters without a default
            continue
        loaded = again(estimator)
        assert type(loaded) is cls
        assert repr(loaded) == repr(estimator)


# ---- what cannot be saved


@pytest.mark.parametrize(
    ("estimator", "place"),
    [
        (STNDTEstimator(callbacks=[print]), r"STNDTEstimator\.callbacks\[0\] is builtins\.print"),
        (STNDTEstimator(net_params={"x": OwnClass}), r"net_params\['x'\] is .*OwnClass"),
        (STNDTEstimator(random_state=np.random), r"random_state is an object .*module"),
        (BinwiseRegressor(OwnClass()), r"BinwiseRegressor\.estimator is .*OwnClass"),
        (BaggingEnsemble([OwnClass()]), r"BaggingEnsemble\.estimator\[0\] is .*OwnClass"),
        (make_pipeline(OwnClass(), STNDTEstimator()), r"Pipeline\.steps\[0\]\[1\] is .*OwnClass"),
        (
            make_pipeline(FunctionTransformer(lambda X: X), STNDTEstimator()),
            r"steps\[0\]\[1\], a FunctionTransformer, holds .*<lambda>",
        ),
        (OwnClass(), r"OwnClass is an object of the class .*OwnClass"),
        ("network", r"Only estimators are saved, got 'network'"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_would_run_code_cannot_be_saved(estimator, place, tmp_path):
    with pytest.raises(CannotSaveError, match=place) as info:
        save(estimator, tmp_path / "model.stndt")
    assert "joblib.dump" in str(info.value) or estimator == "network"
    assert not list(tmp_path.iterdir())


def test_a_public_class_that_is_no_estimator_can_be_saved(network, again, monkeypatch, spikes):
    class Stream:
        def __init__(self, estimator):
            self.estimator = estimator
            self.seen = torch.arange(6.0).reshape(2, 3)

    Stream.__module__ = "sklearn_stndt.made_up"
    monkeypatch.setattr(sklearn_stndt, "Stream", Stream, raising=False)
    with pytest.raises(CannotSaveError, match="Stream"):
        again(Stream(network))
    monkeypatch.setattr(sklearn_stndt, "__all__", [*sklearn_stndt.__all__, "Stream"])
    loaded = again(Stream(network))
    assert torch.equal(loaded.seen, torch.arange(6.0).reshape(2, 3))
    assert_array_equal(loaded.estimator.transform(spikes), network.transform(spikes))


def test_a_class_of_a_parameter_can_be_registered(again, monkeypatch):
    from sklearn_stndt.persistence import registry

    monkeypatch.setattr(OwnClass, "__module__", "sklearn_stndt.made_up")
    monkeypatch.setattr(registry, "_OURS", dict(registry._OURS))
    with pytest.raises(CannotSaveError, match="OwnClass"):
        again(STNDTEstimator(net_params={"own": OwnClass()}))
    register(OwnClass)
    loaded = again(STNDTEstimator(net_params={"own": OwnClass()}))
    assert type(loaded.net_params["own"]) is OwnClass


# ---- writing


def test_a_failure_keeps_the_old_file(network, tmp_path, monkeypatch):
    path = tmp_path / "model.stndt"
    save(network, path)
    before = path.read_bytes()
    with pytest.raises(CannotSaveError):
        save(clone(network).set_params(callbacks=[print]), path)
    monkeypatch.setattr(zipfile.ZipFile, "writestr", disk_full)
    with pytest.raises(OSError, match=r"No space left on device.*model\.stndt") as info:
        save(network, path)
    assert info.value.errno == 28
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def disk_full(*args):
    raise OSError(28, "No space left on device")


def test_a_folder_that_is_missing_is_named(network, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"missing.model\.stndt"):
        save(network, tmp_path / "missing" / "model.stndt")
    with pytest.raises(FileNotFoundError, match=r"other\.stndt"):
        load(tmp_path / "other.stndt")


@pytest.mark.skipif(os.name != "posix", reason="permissions of POSIX")
def test_others_can_read_the_file_like_any_new_file(network, tmp_path):
    save(network, tmp_path / "model.stndt")
    (tmp_path / "other").write_text("")
    modes = {path.stat().st_mode for path in tmp_path.iterdir()}
    assert len(modes) == 1


def test_a_missing_extra_is_named(network, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "safetensors.torch", None)
    with pytest.raises(ImportError, match=r'safetensors.*pip install "sklearn-stndt\[save\]"'):
        save(network, tmp_path / "model.stndt")
    save(STNDTEstimator(), tmp_path / "model.stndt")  # has no weights
    assert load(tmp_path / "model.stndt").get_params() == STNDTEstimator().get_params()


# ---- what is in the file


def test_parts_can_be_read_by_other_tools(network, tmp_path):
    from safetensors.torch import load_file

    save(network, tmp_path / "model.stndt")
    with zipfile.ZipFile(tmp_path / "model.stndt") as archive:
        assert archive.testzip() is None
        archive.extractall(tmp_path / "parts")
    weights = load_file(tmp_path / "parts" / "weights" / "0.safetensors")
    assert weights.keys() == network.net_.module_.state_dict().keys()
    model = json.loads((tmp_path / "parts" / "model.json").read_text())
    assert model["parameters"]["d_model"] == network.d_model
    manifest = json.loads((tmp_path / "parts" / "manifest.json").read_text())
    assert manifest["format"] == 1
    assert manifest["versions"]["torch"] == version("torch")


def test_the_model_card_says_what_the_model_was_trained_on(network, tmp_path, spikes, monkeypatch):
    path = tmp_path / "model.stndt"
    save(make_pipeline(network, BinwiseRegressor(Ridge(alpha=3.0))), path)
    monkeypatch.setitem(sys.modules, "safetensors.torch", None)  # is not needed
    card = model_card(path)
    (kept,) = [row for row in network.history_ if row.get("kept")]
    for line in (
        "# Model card: Pipeline",
        f"counts of shape {spikes.shape}, (n_trials, n_bins, n_neurons)",
        f"mean count per neuron and bin: {spikes.mean():.4g}",
        f"heldout_neurons_: {network.heldout_neurons_.tolist()}",
        f"validation score: {kept['valid_bits']:.4f} bits per spike, in epoch {kept['epoch']}, ",
        f"epochs: {len(network.history_)}; updates: ",
        f"torch {version('torch')}",  # torch.__version__ may name the build too
        "estimator=Ridge(alpha=3.0)",
    ):
        assert line in card
    with zipfile.ZipFile(path) as archive:
        assert archive.read("MODEL_CARD.md").decode() == card


def test_the_card_of_an_ensemble_describes_a_member(small, spikes, tmp_path):
    ensemble = BaggingEnsemble(small(max_epochs=1), 2, random_state=0).fit(spikes)
    save(ensemble, tmp_path / "model.stndt")
    card = model_card(tmp_path / "model.stndt")
    assert card.count("## ") == 2
    assert "BaggingEnsemble.estimators_[0] (fitted)" in card


def test_loading_leaves_the_random_numbers_of_torch_as_they_are(network, again):
    state = torch.get_rng_state()
    again(network)
    assert torch.equal(torch.get_rng_state(), state)
