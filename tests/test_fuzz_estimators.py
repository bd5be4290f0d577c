"""Any parameters, data and containers: finite rates in the container that came, or words."""

import numpy as np
import pandas as pd
import pynapple as nap
import pytest
import xarray as xr
from hypothesis import example, given
from hypothesis import strategies as st
from odd_values import ODD_VALUES, examples, outcome

from sklearn_stndt import STNDTEstimator
from sklearn_stndt.metrics import (
    bits_per_spike,
    co_bps,
    fp_bps,
    psth_r2,
    tp_corr,
    velocity_r2,
)

pytestmark = pytest.mark.filterwarnings("ignore")

TINY = {
    "d_model": 8,
    "n_heads": 2,
    "n_layers": 1,
    "dim_feedforward": 8,
    "d_spatial": 4,
    "max_epochs": 1,
    "random_state": 0,
}
N_NEURONS = 4
ODD = st.sampled_from(sorted(ODD_VALUES)).map(ODD_VALUES.get)


# -- parameters ----------

share = st.floats(0, 0.95)
PARAMS = {
    "n_layers": st.integers(1, 2),
    "n_heads": st.integers(1, 3),
    "d_model": st.none() | st.integers(1, 12),
    "dim_feedforward": st.none() | st.integers(1, 12),
    "dropout": share | st.just("auto"),
    "dropout_embedding": st.none() | share,
    "dropout_rates": st.none() | share,
    "attention": st.sampled_from(["spatiotemporal", "temporal"]),
    "context": st.none() | st.tuples(st.integers(-1, 30), st.integers(-1, 30)),
    "causal": st.booleans(),
    "local_attention": st.booleans(),
    "spatial_layers": st.sampled_from(["last", "all"]),
    "stochastic_depth": share | st.just("auto"),
    "n_spatial_heads": st.integers(1, 3),
    "d_spatial": st.none() | st.integers(1, 6),
    "input_scaling": st.sampled_from(["sqrt", "standardized", "counts"]),
    "likelihood": st.sampled_from(
        ["poisson", "negative_binomial", "gaussian", "zero_inflated_gamma"]
    ),
    "mask_ratio": st.floats(0, 1) | st.tuples(st.floats(0, 1), st.floats(0, 1)),
    "neuron_mask_ratio": share | st.tuples(share, share),
    "token_ratio": st.floats(0, 1),
    "random_ratio": st.floats(0, 1),
    "heldout_neurons": st.none()
    | st.integers(0, 5)
    | share
    | st.lists(st.integers(-1, 5), max_size=3)
    | st.lists(st.booleans(), min_size=N_NEURONS, max_size=N_NEURONS),
    "forecast_bins": st.integers(0, 6),
    "contrastive_weight": st.sampled_from([0.0, 0.1, 10.0]),
    "contrastive_at": st.sampled_from(["encoder", "embedding"]),
    "temperature": st.floats(0.01, 10),
    "window": st.none() | st.integers(1, 40),
    "batch_size": st.integers(1, 8) | st.just("auto"),
    "optimizer": st.sampled_from(["muon", "adamw"]),
    "lr": st.floats(1e-6, 0.1),
    "warmup": share,
    "weight_decay": st.floats(0, 1),
    "early_stopping": st.booleans(),
    "validation_fraction": st.floats(0.01, 0.99),
    "n_iter_no_change": st.integers(1, 3) | st.just("auto"),
    "calibration": st.booleans(),
    "refit": st.booleans(),
    "inference_passes": st.integers(1, 5) | st.just("auto"),
    "precision": st.sampled_from(["float32", "bfloat16"]),
    "device": st.sampled_from(["cpu", "auto", "nowhere"]),
}
some_params = st.lists(st.sampled_from(sorted(PARAMS)), max_size=5, unique=True).flatmap(
    lambda names: st.fixed_dictionaries({name: PARAMS[name] for name in names})
)


@st.composite
def counts(draw):
    """Counts of 1 to 8 trials, or a recording, with silent neurons and entries that are NaN."""
    rng = np.random.default_rng(draw(st.integers(0, 2**16)))
    shape = draw(
        st.tuples(st.integers(1, 8), st.integers(1, 12), st.just(N_NEURONS))
        | st.tuples(st.integers(1, 60), st.just(N_NEURONS))
    )
    X = rng.poisson(draw(st.sampled_from([0.02, 0.5, 20.0])), size=shape).astype(np.float64)
    X[..., : draw(st.integers(0, 2))] = 0
    X[rng.random(shape) < draw(st.sampled_from([0.0, 0.0, 0.2, 0.95]))] = np.nan
    return X


@examples(25)
@given(params=some_params, X=counts())
def test_rates_are_finite_or_the_error_is_in_words(params, X):
    estimator = STNDTEstimator(**(TINY | params))
    fitted = outcome(estimator.fit, X)
    if isinstance(fitted, Exception):
        assert not hasattr(estimator, "net_")
        return
    rates = estimator.transform(X)
    assert rates.shape == X.shape
    assert np.isfinite(rates).all()
    assert (rates >= 0).all() or params.get("likelihood") == "gaussian"
    again = STNDTEstimator(**(TINY | params)).fit(X)
    np.testing.assert_array_equal(again.transform(X), rates)


# values that the checks of scikit-learn or of the estimator refuse, or that are right
@examples(40)
@given(
    name=st.sampled_from(sorted(PARAMS.keys() - {"batch_size", "d_model", "dim_feedforward"})),
    value=st.sampled_from(sorted(ODD_VALUES.keys() - {"ragged", "2**70", "1e300", "True"})),
)
def test_odd_parameters(name, value):
    X = np.ones((4, 6, N_NEURONS))
    params = TINY | {name: ODD_VALUES[value]}
    result = outcome(lambda: STNDTEstimator(**params).fit(X).transform(X))
    assert isinstance(result, Exception) or np.isfinite(result).all()


def test_lists_of_unequal_lengths_name_no_neurons():
    with pytest.raises(ValueError, match=r"heldout_neurons holds lists of unequal lengths, \[1, "):
        STNDTEstimator(**TINY, heldout_neurons=[1, [2, 3]]).fit(np.ones((4, 6, N_NEURONS)))


# -- data ----------


@examples(40)
@given(value=ODD, as_groups=st.booleans())
def test_odd_data(value, as_groups):
    X = np.ones((24, N_NEURONS))
    arguments = (X, None, value) if as_groups else (value,)
    estimator = STNDTEstimator(**TINY)
    result = outcome(estimator.fit, *arguments)
    if isinstance(result, Exception):
        assert not hasattr(estimator, "net_")
    else:
        assert np.isfinite(np.asarray(estimator.transform(arguments[0]))).all()


CONTAINERS = {
    "list": lambda X: X.tolist(),
    "DataFrame": pd.DataFrame,
    "TsdFrame": lambda X: nap.TsdFrame(t=np.arange(len(X)) * 0.02, d=X),
    "DataArray": lambda X: xr.DataArray(X),
    "masked": lambda X: np.ma.masked_invalid(X),
    "Fortran": np.asfortranarray,
    "float16": lambda X: X.astype(np.float16),
    "uint8": lambda X: np.nan_to_num(X).astype(np.uint8),
    "read only": lambda X: np.frombuffer(X.tobytes()).reshape(X.shape),
}


@pytest.fixture(scope="module")
def tiny():
    X = np.random.default_rng(0).poisson(0.7, size=(60, N_NEURONS)).astype(np.float64)
    return STNDTEstimator(**TINY, window=10).fit(X)


@pytest.mark.parametrize("container", CONTAINERS)
@examples(4)
@given(X=counts())
def test_rates_do_not_depend_on_the_container(tiny, container, X):
    if X.ndim == 3:
        X = X[0]
    if container == "uint8":
        X = np.nan_to_num(X)
    if np.isnan(X).all():
        return
    expected = tiny.transform(X)
    rates = tiny.transform(CONTAINERS[container](X))
    np.testing.assert_array_equal(np.asarray(rates), expected)


# -- metrics ----------

RNG = np.random.default_rng(0)
RATES = RNG.gamma(1.0, size=(12, 5, N_NEURONS))
SPIKES = RNG.poisson(3 * RATES).astype(np.float64)
HALF = slice(6), slice(6, None)
SCORES = {
    bits_per_spike: {"spikes": SPIKES, "rates": RATES},
    co_bps: {"spikes": SPIKES, "rates": RATES, "neurons": [3]},
    fp_bps: {"spikes": SPIKES, "rates": RATES, "n_bins": 2},
    psth_r2: {
        "psth": RATES[:2],
        "rates": RATES,
        "conditions": [np.arange(6), np.arange(6, 12)],
        "jitter": np.zeros(12, dtype=int),
    },
    tp_corr: {
        "produced": 100 * RATES[:, 0, 0],
        "rates": RATES,
        "conditions": np.arange(36).reshape(12, 3) % 2,
        "mask": np.ones((12, 5), dtype=bool),
    },
    velocity_r2: {
        "velocity": RATES[HALF[0], :, :2],
        "rates": RATES[HALF[0]],
        "train_velocity": RATES[HALF[1], :, :2],
        "train_rates": RATES[HALF[1]],
        "decode_mask": np.ones((6, 1), dtype=bool),
        "train_decode_mask": np.ones((6, 1), dtype=bool),
    },
}


@pytest.mark.parametrize("score", SCORES, ids=lambda score: score.__name__)
@examples(30)
@given(data=st.data())
def test_scores_of_odd_values(score, data):
    name = data.draw(st.sampled_from(sorted(SCORES[score])))
    result = outcome(score, **(SCORES[score] | {name: data.draw(ODD)}))
    assert isinstance(result, Exception | float)


@examples(40)
@given(X=counts(), scale=st.floats(1e-3, 1e3))
@example(np.zeros((2, 3, N_NEURONS)), 1.0)
def test_bits_of_the_mean_rates_are_0(X, scale):
    known = ~np.isnan(X)
    flat = np.where(known, X, 0).reshape(-1, N_NEURONS)
    means = flat.sum(0) / np.maximum(known.reshape(-1, N_NEURONS).sum(0), 1)
    score = outcome(bits_per_spike, X, np.broadcast_to(means, X.shape))
    assert isinstance(score, ValueError) or np.isnan(score) or abs(score) < 1e-9
    lower = outcome(bits_per_spike, X, np.broadcast_to(scale * means, X.shape))
    assert isinstance(lower, ValueError) or np.isnan(lower) or lower < 1e-9
