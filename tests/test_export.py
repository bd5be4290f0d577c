"""Networks as files: the same rates outside of this package."""

import subprocess
import sys

import numpy as np
import pytest
import torch
from conftest import FORMS
from numpy.testing import assert_allclose
from sklearn.linear_model import Ridge
from sklearn.pipeline import make_pipeline

from sklearn_stndt import BaggingEnsemble, export
from sklearn_stndt.export import to_onnx, to_torch
from sklearn_stndt.network import LatentPosterior

N_NEURONS = 12
# as a rig would run it
LOOP = """
import sys
import numpy as np
import onnxruntime

session = onnxruntime.InferenceSession("step.onnx")
names = [i.name for i in session.get_inputs()]
memory = [np.zeros(i.shape, np.float32) for i in session.get_inputs()[1:]]
rates = []
for counts in np.load("bins.npy"):
    rates_of_bin, *memory = session.run(None, dict(zip(names, [counts[None], *memory])))
    rates.append(rates_of_bin[0])
assert "torch" not in sys.modules
np.save("rates.npy", rates)
"""


@pytest.fixture(scope="module")
def causal(small, perturbed, spikes):
    return perturbed(small(causal=True, max_epochs=1, heldout_neurons=[3]).fit(spikes))


@pytest.fixture
def bins(rows):
    """Bins of a stream, some of them with lost channels or lost altogether."""
    counts = rows[:60].astype(np.float32)
    counts[10:20, 2] = np.nan
    counts[30] = np.nan
    return counts


@pytest.mark.parametrize("form", ["default", "banded", "all layers", "recording"])
def test_a_step_written_by_torch_infers_the_rates_of_transform(
    small, perturbed, spikes, rows, bins, form, tmp_path
):
    params = {"all layers": {"spatial_layers": "all"}, "recording": {"window": 9}}
    params = FORMS.get(form, params.get(form, {}))
    X = rows if form == "recording" else spikes
    estimator = perturbed(small(causal=True, max_epochs=1, **params).fit(X))
    path = to_torch(estimator, tmp_path / "step.pt2", step=True, n_streams=2)
    step = torch.export.load(path).module()
    _, inputs, _ = export._module_of(estimator, True, 2)
    memory, rates = inputs[1:], []
    for counts in np.stack([bins, bins[::-1]], axis=1):
        of_bin, *memory = step(torch.from_numpy(counts), *memory)
        rates.append(of_bin.numpy())
    rates = np.array(rates)
    assert_allclose(rates[:, 0], estimator.transform(bins), rtol=1e-4)
    assert_allclose(rates[:, 1], estimator.transform(bins[::-1]), rtol=1e-4)


@pytest.mark.parametrize(
    "params",
    [{"forecast_bins": 3, "heldout_neurons": [1, 5]}, FORMS["published"], {"causal": True}],
    ids=["forecast", "published", "causal"],
)
def test_a_window_written_by_torch_infers_the_rates_of_transform(
    small, perturbed, ragged, params, tmp_path
):
    estimator = perturbed(small(max_epochs=1, **params).fit(ragged))
    if not estimator.causal:
        estimator.net_.module_.smoothing.width.fill_(0.8)
    path = to_torch(estimator, tmp_path / "window.pt2", n_streams=4)
    X = ragged[4:8].astype(np.float32)
    rates = torch.export.load(path).module()(torch.from_numpy(X)).numpy()
    assert_allclose(rates, estimator.transform(X), rtol=1e-4)


def test_a_step_of_onnx_runs_without_this_package_and_torch(causal, bins, tmp_path):
    pytest.importorskip("onnxscript")
    pytest.importorskip("onnxruntime")
    to_onnx(causal, tmp_path / "step.onnx", step=True)
    np.save(tmp_path / "bins.npy", bins)
    subprocess.run([sys.executable, "-c", LOOP], check=True, cwd=tmp_path, timeout=300)
    assert_allclose(np.load(tmp_path / "rates.npy"), causal.transform(bins), rtol=1e-4)


def test_a_window_of_onnx_infers_the_rates_of_transform(fitted, spikes, tmp_path):
    pytest.importorskip("onnxscript")
    onnxruntime = pytest.importorskip("onnxruntime")
    path = to_onnx(fitted, tmp_path / "window.onnx", n_streams=3)
    session = onnxruntime.InferenceSession(str(path))
    X = spikes[:3].astype(np.float32)
    (rates,) = session.run(["rates"], {"counts": X})
    assert_allclose(rates, fitted.transform(X), rtol=1e-4)


def test_a_posterior_with_dispersions_is_part_of_the_file(small, spikes, tmp_path):
    params = {"likelihood": "negative_binomial", "net_params": {"inference_passes": 1}}
    estimator = small(max_epochs=1, **params).fit(spikes)
    module, n_bins = estimator.net_.module_, spikes.shape[1]
    readout = torch.randn(20, n_bins, N_NEURONS, generator=torch.Generator().manual_seed(0))
    known = torch.ones_like(readout, dtype=torch.bool)
    module.posterior = LatentPosterior.of(readout, known, module.likelihood.of(...))
    module.posterior.weight.fill_(0.5)
    path = to_torch(estimator, tmp_path / "window.pt2", n_streams=3)
    X = spikes[:3].astype(np.float32)
    rates = torch.export.load(path).module()(torch.from_numpy(X)).detach().numpy()
    assert_allclose(rates, estimator.transform(X), rtol=1e-4)
    module.posterior = None
    assert np.abs(rates / estimator.transform(X) - 1).max() > 0.01


def test_an_export_leaves_the_estimator_as_it_was(causal, spikes, tmp_path):
    before = causal.transform(spikes)
    to_torch(causal, tmp_path / "step.pt2", step=True)
    assert (causal.transform(spikes) == before).all()
    assert (causal.fit_transform(spikes) > 0).all()


def test_a_file_that_infers_other_rates_is_refused(causal, tmp_path):
    module, inputs, _ = export._module_of(causal, True, 1)

    def run(*values):
        rates, *memory = module(*map(torch.from_numpy, values))
        return [1.001 * rates.numpy(), *(part.numpy() for part in memory)]

    with pytest.raises(RuntimeError, match=r"step\.onnx infers other rates .* is 0\.001"):
        export._check(run, module, inputs, tmp_path / "step.onnx")


def test_what_cannot_be_exported_is_said(small, fitted, causal, spikes, rows, tmp_path):
    with pytest.raises(ValueError, match="causal network only"):
        to_torch(fitted, tmp_path / "x", step=True)
    pipeline = make_pipeline(causal, Ridge().fit(rows, rows))
    with pytest.raises(TypeError, match="other steps: Ridge"):
        to_torch(pipeline, tmp_path / "x")
    ensemble = BaggingEnsemble(small(max_epochs=1), 1, random_state=0).fit(spikes)
    with pytest.raises(TypeError, match="Export each of its estimators_"):
        to_torch(ensemble, tmp_path / "x")
    assert not (tmp_path / "x").exists()


def test_missing_packages_are_named(causal, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(ImportError, match=r'pip install "sklearn-stndt\[onnx\]"'):
        to_onnx(causal, tmp_path / "x.onnx")
