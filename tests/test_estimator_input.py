"""Input that STNDTEstimator refuses, the error messages, and unusual counts that it accepts."""

import numpy as np
import pytest
import scipy.sparse
import torch
from numpy.testing import assert_array_equal
from skorch.callbacks import Callback

SHAPE = (24, 20, 12)


def never_visible(spikes):
    counts = spikes.copy()
    counts[..., [2, 3]] = np.nan
    return counts


def with_infinity(spikes):
    counts = spikes.copy()
    counts[5, 5, 5] = np.inf
    return counts


def unequal_lists(spikes):
    return [spikes[0].tolist(), spikes[1, :5].tolist()]


# name: (function of trials, error, part of the message)
BAD_COUNTS = {
    "negative": (lambda s: s - 2, ValueError, r"Negative values.*smallest is -2,"),
    "negative integers": (lambda s: s.astype(int) - 1, ValueError, "smallest is -1,"),
    "infinite": (with_infinity, ValueError, "X contains infinity"),
    "1D": (lambda s: s[0, 0], ValueError, "got 1D array"),
    "4D": (lambda s: s[None], ValueError, r"n_trials, n_bins, n_neurons.*4 dimensions: \(1, 24"),
    "a number": (lambda s: 3.0, ValueError, "got scalar array"),
    "nothing": (lambda s: None, ValueError, "array=None"),
    "no trials": (lambda s: s[:0], ValueError, r"shape=\(0, 20, 12\).*minimum of 1"),
    "no bins": (lambda s: s[:, :0], ValueError, r"shape=\(24, 0, 12\).*minimum of 1"),
    "no neurons": (lambda s: s[..., :0], ValueError, r"shape=\(24, 20, 0\).*minimum of 1"),
    "no rows": (lambda s: s[0, :0], ValueError, r"0 sample\(s\) \(shape=\(0, 12\)\)"),
    "all NaN": (lambda s: s * np.nan, ValueError, "NaN everywhere.*at least one spike count"),
    "strings": (lambda s: s.astype(str), ValueError, "arrays of bytes/strings.*numeric"),
    "words": (lambda s: [["many", "few"]], ValueError, "arrays of bytes/strings.*numeric"),
    "objects": (lambda s: np.array([["a", 1]], object), ValueError, "could not convert string"),
    "complex": (lambda s: s * 1j, ValueError, "Complex data not supported"),
    "sparse matrix": (lambda s: scipy.sparse.csr_matrix(s[0]), TypeError, "[Ss]parse"),
    "sparse array": (lambda s: scipy.sparse.coo_array(s[0]), TypeError, "[Ss]parse"),
    "unequal lists": (unequal_lists, ValueError, "trials of 5 to 20 bins.*Pad .* NaN"),
    "unequal arrays": (lambda s: [s[0], s[1, :5]], ValueError, "trials of 5 to 20 bins.*Pad"),
    "unequal objects": (
        lambda s: np.array([s[0], s[1, :5]], dtype=object),
        ValueError,
        "trials of 5 to 20 bins.*Pad",
    ),
    "other neurons": (lambda s: [s[0], s[1, :, :5]], ValueError, "numbers of neurons.*same neur"),
}


@pytest.mark.parametrize("case", BAD_COUNTS)
@pytest.mark.parametrize("method", ["fit", "fit_transform", "transform", "score", "forecast"])
def test_bad_counts_are_refused(small, fitted, spikes, case, method):
    make, error, message = BAD_COUNTS[case]
    estimator = small() if method.startswith("fit") else fitted
    arguments = (3,) if method == "forecast" else ()
    with pytest.raises(error, match=f"(?s){message}"):
        getattr(estimator, method)(make(spikes), *arguments)


@pytest.mark.parametrize("method", ["transform", "score", "forecast"])
@pytest.mark.parametrize("n_neurons", [5, 13])
def test_another_number_of_neurons_than_in_fit_is_refused(fitted, spikes, method, n_neurons):
    counts = np.concatenate([spikes, spikes], axis=2)[..., :n_neurons]
    arguments = (3,) if method == "forecast" else ()
    message = rf"X has {n_neurons} features, but STNDTEstimator is expecting 12"
    for X in (counts, counts[0]):
        with pytest.raises(ValueError, match=message):
            getattr(fitted, method)(X, *arguments)


@pytest.mark.parametrize("heldout", [None, [2, 3]])
def test_a_neuron_never_visible_in_fit_is_refused(small, spikes, heldout):
    with pytest.raises(ValueError, match=r"Neurons \[2, 3\] are NaN everywhere"):
        small(heldout_neurons=heldout).fit(never_visible(spikes))


BAD_PARAMETERS = [
    ({"forecast_bins": np.timedelta64("NaT")}, "forecast_bins.*takes a number"),
    ({"heldout_neurons": np.timedelta64(1)}, "heldout_neurons.*takes a number"),
    ({"heldout_neurons": 12}, "heldout_neurons=12 would hide 12 of 12 neurons"),
    ({"heldout_neurons": 0.99}, "heldout_neurons=0.99 would hide 12 of 12 neurons"),
    ({"heldout_neurons": [12]}, "between 0 and 11.*12 neurons, got 12"),
    ({"heldout_neurons": [0, -1]}, "between 0 and 11.*got -1"),
    ({"heldout_neurons": [1, 1]}, r"heldout_neurons names a neuron twice, got \[1, 1\]"),
    ({"heldout_neurons": np.array([2, 7, 7])}, "heldout_neurons names a neuron twice"),
    ({"heldout_neurons": list(range(12))}, "names all 12 neurons"),
    ({"heldout_neurons": [True] * 12}, "names all 12 neurons"),
    ({"heldout_neurons": [True] * 5}, r"mask of shape \(12,\).*got \[True"),
    ({"heldout_neurons": [0.5]}, r"list of indices, got \[0.5\]"),
    ({"heldout_neurons": [[0]]}, r"list of indices, got \[\[0\]\]"),
    ({"heldout_neurons": ["a"]}, r"list of indices, got \['a'\]"),
    ({"heldout_neurons": True}, "boolean mask.*got True"),
    ({"heldout_neurons": 0}, "'heldout_neurons' parameter.*Got 0"),
    ({"heldout_neurons": 1.5}, "'heldout_neurons' parameter.*Got 1.5"),
    ({"heldout_neurons": "all"}, "'heldout_neurons' parameter.*Got 'all'"),
    ({"mask_ratio": 0}, r"'mask_ratio' parameter.*\(0.0, 1.0\).*Got 0"),
    ({"mask_ratio": 1.0}, r"'mask_ratio' parameter.*\(0.0, 1.0\).*Got 1.0"),
    ({"mask_ratio": -0.1}, "'mask_ratio' parameter.*Got -0.1"),
    ({"mask_ratio": np.nan}, "'mask_ratio' parameter.*Got nan"),
    ({"mask_ratio": "half"}, "'mask_ratio' parameter.*Got 'half'"),
    ({"mask_ratio": (0.5, 0.2)}, r"0 <= low < high <= 1, got \(0.5, 0.2\)"),
    ({"mask_ratio": (0, 1.2)}, r"0 <= low < high <= 1, got \(0, 1.2\)"),
    ({"mask_ratio": (-0.2, 0.5)}, r"0 <= low < high <= 1, got \(-0.2, 0.5\)"),
    ({"mask_ratio": (0.1, 0.2, 0.3)}, r"range \(low, high\).*got \(0.1, 0.2, 0.3\)"),
    ({"neuron_mask_ratio": 1.0}, r"'neuron_mask_ratio' parameter.*\[0.0, 1.0\).*Got 1.0"),
    ({"neuron_mask_ratio": (0.9, 0)}, r"neuron_mask_ratio .*0 <= low < high <= 1, got \(0.9, 0\)"),
    ({"mask_ratio": ("a", "b")}, r"range \(low, high\).*got \('a', 'b'\)"),
    ({"window": 0}, "'window' parameter.*Got 0"),
    ({"window": -5}, "'window' parameter.*Got -5"),
    ({"window": 2.5}, "'window' parameter.*Got 2.5"),
    ({"forecast_bins": -1}, "'forecast_bins' parameter.*Got -1"),
    ({"forecast_bins": 20}, "forecast_bins=20 leaves nothing of a window of 20 bins"),
    ({"forecast_bins": 5, "window": 5}, "forecast_bins=5 leaves nothing of a window of 5 bins"),
    ({"context": 3}, "'context' parameter.*Got 3"),
    ({"context": (1,)}, r"\(back, ahead\), each >= 0, got \(1,\)"),
    ({"context": (-1, 2)}, r"\(back, ahead\), each >= 0, got \(-1, 2\)"),
    ({"context": (1.5, 2)}, r"\(back, ahead\), each >= 0, got \(1.5, 2\)"),
    ({"context": ("a", "b")}, r"\(back, ahead\), each >= 0, got \('a', 'b'\)"),
    ({"n_layers": 0}, "'n_layers' parameter"),
    ({"n_heads": 0}, "'n_heads' parameter"),
    ({"d_model": 0}, "'d_model' parameter"),
    ({"dropout": 1.0}, "'dropout' parameter.*Got 1.0"),
    ({"attention": "spatial"}, "'attention' parameter.*Got 'spatial'"),
    ({"lr": 0}, "'lr' parameter"),
    ({"lr": np.nan}, "'lr' parameter"),
    ({"temperature": 0}, "'temperature' parameter"),
    ({"contrastive_weight": -1}, "'contrastive_weight' parameter"),
    ({"contrastive_at": "decoder"}, "'contrastive_at' parameter"),
    ({"contrastive_mask_ratio": (0.5, 0.2)}, "contrastive_mask_ratio must be"),
    ({"contrastive_token_ratio": 2}, "'contrastive_token_ratio' parameter"),
    ({"contrastive_random_ratio": -1}, "'contrastive_random_ratio' parameter"),
    ({"warmup": 1}, "'warmup' parameter"),
    ({"max_epochs": 0}, "'max_epochs' parameter"),
    ({"max_epochs": "many"}, "'max_epochs' parameter.*Got 'many'"),
    ({"batch_size": 0}, "'batch_size' parameter"),
    ({"validation_fraction": 1.0}, "'validation_fraction' parameter"),
    ({"n_iter_no_change": 0}, "'n_iter_no_change' parameter"),
    ({"n_threads": 0}, "'n_threads' parameter"),
    ({"random_state": -1}, "'random_state' parameter"),
    ({"callbacks": "print"}, "'callbacks' parameter"),
    ({"net_params": []}, "'net_params' parameter"),
    ({"device": "abacus"}, "device.*abacus"),
    ({"batch_size": 2**70}, "'batch_size' parameter.*range"),
    ({"d_model": 2**70}, "'d_model' parameter.*range"),
    ({"mask_ratio": [0.1, [0.2, 0.3]]}, "mask_ratio must be"),
    ({"context": [1, [2, 3]]}, "context must be"),
]


@pytest.mark.parametrize(("params", "message"), BAD_PARAMETERS, ids=lambda p: str(p)[:50])
def test_bad_parameters_are_refused(small, spikes, params, message):
    with pytest.raises(ValueError, match=f"(?s){message}"):
        small(**params).fit(spikes)


@pytest.mark.parametrize("callbacks", [[1], ["a"], [Callback], [("name", 1)]])
def test_callbacks_that_are_none_are_refused(small, spikes, callbacks):
    with pytest.raises(TypeError, match="skorch callbacks, but contains"):
        small(callbacks=callbacks).fit(spikes)


def test_an_unknown_parameter_is_refused(small):
    with pytest.raises(TypeError, match="n_epochs"):
        small(n_epochs=3)


@pytest.mark.parametrize("method", ["fit", "fit_transform", "transform", "score"])
@pytest.mark.parametrize(
    ("n_rows", "groups", "message"),
    [
        (None, np.arange(480), r"shape \(480,\), but X is 3D with 24 trials.*one group per trial"),
        (480, np.zeros(5), r"\b480\b.*\b5\b"),
        (480, np.zeros((480, 2)), r"groups.*1d array.*\(480, 2\)"),
        (480, 7, r"groups.*1d array.*\(\)"),
        (480, np.full(480, np.nan), "groups.*NaN"),
    ],
    ids=["3D", "length", "2D groups", "a number", "NaN"],
)
def test_bad_groups_are_refused(small, fitted, spikes, rows, method, n_rows, groups, message):
    estimator = small() if method.startswith("fit") else fitted
    with pytest.raises(ValueError, match=f"(?s){message}"):
        getattr(estimator, method)(spikes if n_rows is None else rows, groups=groups)


@pytest.mark.parametrize("n_bins", [0, -1, 20, 21, 2.0, "three", None])
def test_bad_numbers_of_bins_to_forecast_are_refused(fitted, spikes, n_bins):
    with pytest.raises(
        ValueError, match=rf"from 1 to 19, below the window of 20 bins, got {n_bins!r}"
    ):
        fitted.forecast(spikes, n_bins)


@pytest.mark.parametrize("library", ["pandas", "polars"])
def test_trials_cannot_be_returned_as_a_table(small, spikes, rows, groups, library):
    pytest.importorskip(library)
    estimator = small().set_output(transform=library).fit(spikes)
    with pytest.raises(ValueError, match=rf"{library} output is for a 2D X.*\(24, 20, 12\)"):
        estimator.transform(spikes)
    assert estimator.transform(rows, groups=groups).shape == rows.shape


def test_table_output_of_trials_is_refused_before_training(small, spikes):
    pytest.importorskip("pandas")
    estimator = small().set_output(transform="pandas")
    with pytest.raises(ValueError, match="pandas output is for a 2D X"):
        estimator.fit_transform(spikes)
    assert not hasattr(estimator, "net_")


@pytest.mark.parametrize("where", ["fit", "transform"])
def test_a_count_beyond_float32_is_refused(small, fitted, spikes, where):
    counts = spikes.copy()
    counts[0, 0, 0] = 1e39
    with pytest.raises(ValueError, match=r"infinity or a value too large|1e\+39"):
        getattr(small() if where == "fit" else fitted, where)(counts)


# ---- unusual counts that are accepted


@pytest.mark.parametrize("ndim", [2, 3])
@pytest.mark.parametrize("scaling", ["sqrt", "standardized", "counts"])
def test_silent_and_constant_neurons_get_finite_rates(small, spikes, ndim, scaling):
    counts = spikes.copy()
    counts[..., 1] = 0
    counts[..., 2] = 3
    counts = counts if ndim == 3 else counts.reshape(-1, 12)
    rates = small(input_scaling=scaling).fit_transform(counts)
    assert np.isfinite(rates).all()
    assert (rates > 0).all()
    assert rates[..., 1].max() < 0.05
    assert np.abs(rates[..., 2] - 3).mean() < 0.5


def test_no_spike_at_all_gets_rates_near_zero(small):
    rates = small().fit_transform(np.zeros(SHAPE))
    assert (rates > 0).all()
    assert rates.max() < 0.05


@pytest.mark.parametrize("scale", [100, 4e5])
def test_large_counts_get_finite_rates(small, spikes, scale):
    counts = scale * spikes + (spikes > 0)  # no common factor
    rates = small().fit_transform(counts)
    assert np.isfinite(rates).all()
    assert 0.3 < rates.mean() / counts.mean() < 3


@pytest.mark.parametrize("shape", [(1, 1, 1), (1, 1), (5, 1), (1, 5), (2, 1, 3), (3, 4, 1)])
def test_the_smallest_data_can_be_fitted(small, shape):
    rates = small().fit_transform(np.ones(shape))
    assert rates.shape == shape
    assert np.isfinite(rates).all()


@pytest.mark.parametrize("dtype", [np.float64, np.float32, np.int64, np.uint32])
def test_counts_above_the_largest_rate_are_refused(small, fitted, spikes, dtype):
    counts = spikes.astype(dtype)
    counts[3, 4, 5] = 3_269_018
    for call in (small().fit, fitted.transform):
        with pytest.raises(ValueError, match=r"a count of 3\.26902e\+06 in one bin.*3,269,017"):
            call(counts)
    counts[3, 4, 5] = 3_269_017
    assert np.isfinite(fitted.transform(counts)).all()


@pytest.mark.parametrize("name", ["max_epochs", "lr", "d_model"])
def test_booleans_are_no_numbers(small, spikes, name):
    with pytest.raises(ValueError, match=f"'{name}' parameter.*takes a number, got True"):
        small(**{name: True}).fit(spikes)
    small(verbose=False, warm_start=True, max_epochs=1).fit(spikes)


def test_tensors_are_counts(small, fitted, spikes):
    tensor = torch.tensor(spikes, requires_grad=True)
    rates = fitted.transform(spikes)
    assert_array_equal(small().fit_transform(tensor), rates)
    assert_array_equal(fitted.transform(list(tensor)), rates)
    assert tensor.requires_grad
    assert_array_equal(fitted.transform(tensor.bfloat16()), fitted.transform(spikes))


def test_nested_lists_are_counts(small, spikes):
    assert_array_equal(small().fit_transform(spikes.tolist()), small().fit_transform(spikes))


def test_memory_order_does_not_matter(small, fitted, spikes):
    counts = np.asfortranarray(spikes)
    assert_array_equal(small().fit_transform(counts), fitted.transform(spikes))
    strided = np.repeat(spikes, 2, axis=1)[:, ::2]
    assert_array_equal(fitted.transform(strided), fitted.transform(spikes))


def test_a_memory_map_is_read(small, fitted, rows, groups, spikes, tmp_path):
    np.save(tmp_path / "counts.npy", rows)
    counts = np.load(tmp_path / "counts.npy", mmap_mode="r")
    rates = fitted.transform(spikes).reshape(rows.shape)
    assert_array_equal(small().fit_transform(counts, groups=groups), rates)
