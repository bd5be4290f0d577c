"""Common mistakes in X: the error or the warning says what came, what was wanted, what to do."""

import warnings

import numpy as np
import pytest

from sklearn_stndt import BaggingEnsemble
from sklearn_stndt._mistakes import warn_of_mistakes
from sklearn_stndt.datasets import make_reaches

pandas = pytest.importorskip("pandas")


def found(X, names=None, counts=True):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        warn_of_mistakes(X, names, counts=counts, stacklevel=1)
    return [str(warning.message) for warning in caught]


@pytest.fixture(scope="module")
def hz(spikes):
    return spikes / 0.02


def test_counts_are_no_mistake(spikes, rows, ragged):
    for X in (spikes, rows, ragged, rows.astype(np.int8), rows > 0, 3 * rows, 0 * rows):
        assert found(X) == []
    few = rows.copy()
    few[:3] = 0.5  # artefacts
    assert found(few) == []


def test_rates_in_hz_are_noticed(hz):
    (message,) = found(hz)
    assert "multiples of 50" in message
    assert "bins of 0.02 s" in message
    assert "X / 50" in message
    assert found(hz.astype(np.float32)) == [message]
    assert found(hz, counts=False) == []


@pytest.mark.parametrize("change", [lambda s: s + 0.5, lambda s: np.sqrt(2 * s), lambda s: s * 0.3])
def test_values_that_are_no_counts_are_noticed(spikes, change):
    (message,) = found(change(spikes))
    for hint in ("not whole numbers, such as", "bin width in seconds", "bin_spikes", "gaussian"):
        assert hint in message
    assert found(change(spikes), counts=False) == []


def test_a_clock_among_the_neurons_is_noticed(rows):
    clock = 0.02 * np.arange(len(rows))
    X = np.column_stack([rows, clock])
    assert [m for m in found(X) if m.startswith("Column 12 of X rises from every row")]
    names = [*(f"n{i}" for i in range(12)), "time"]
    assert [m for m in found(X, names) if m.startswith("Column 'time' of X rises")]
    assert found(X[None]) == []


def test_a_transposed_recording_is_noticed(rows):
    (message,) = found(rows.T)
    assert "12 rows, which are bins, and 480 columns, which are neurons" in message
    assert "pass X.T" in message
    assert found(rows[:, :5].T[:, :100]) == []


def test_a_fit_warns_where_it_was_called(small, hz):
    estimator = small(max_epochs=1)
    with pytest.warns(UserWarning, match="multiples of 50") as caught:
        estimator.fit(hz)
    assert caught[0].filename == __file__
    estimator.transform(hz)  # has been said


def test_a_table_with_a_clock_names_the_column(small, rows):
    table = pandas.DataFrame(rows, columns=[f"n{i}" for i in range(12)])
    table.insert(0, "time", np.arange(len(rows)) * 5)
    with pytest.warns(UserWarning, match="Column 'time' of X rises"):
        small(max_epochs=1).fit(table)


TIMES = [np.sort(np.random.default_rng(n).uniform(0, 10, n)) for n in (50, 80, 33)]
REFUSED = {
    "spike times": (lambda: TIMES, ValueError, r"3 vectors of 33 to 80 values.*bin_spikes\(X, "),
    "lists of times": (lambda: [list(t) for t in TIMES], ValueError, "33 to 80.*bin_spikes"),
    "objects": (lambda: np.array(TIMES, dtype=object), ValueError, "33 to 80.*bin_spikes"),
    "times by name": (lambda: dict(enumerate(TIMES)), TypeError, "dict with 3 items.*bin_spikes"),
    "a data set": (lambda: make_reaches(4, random_state=0), TypeError, r"Pass X\['spikes'\]"),
    "one neuron": (lambda: np.ones(30), ValueError, r"\(30,\).*asarray\(X\).reshape\(-1, 1\)"),
    "a series": (lambda: pandas.Series(np.ones(30)), ValueError, "got 1D array.*bin_spikes"),
    "a file": (lambda: "counts.npy", TypeError, "'counts.npy'.*load it first.*load_nwb"),
    "durations": (lambda: np.ones((9, 3), "m8[s]"), TypeError, r"timedelta64\[s\].*bin_spikes"),
}


@pytest.mark.parametrize("case", REFUSED)
@pytest.mark.parametrize("make", ["estimator", "ensemble"])
def test_what_is_no_array_of_counts_is_refused(small, case, make):
    counts, error, message = REFUSED[case]
    estimator = small() if make == "estimator" else BaggingEnsemble(small(), 2)
    with pytest.raises(error, match=f"(?s){message}"):
        estimator.fit(counts())


def test_behaviour_among_the_neurons_is_noticed(rows):
    random = np.random.default_rng(0)
    X = np.column_stack([rows, random.uniform(0, 9, size=(len(rows), 2))])
    names = [*(f"n{i}" for i in range(12)), "vx", "vy"]
    (message,) = found(X)
    assert message.startswith("Columns [12, 13] of X hold no whole numbers")
    (message,) = found(X, names)
    assert message.startswith("Columns ['vx', 'vy'] of X")
    assert found(X, names, counts=False) == []
    many = np.column_stack([rows, *(random.uniform(0, 9, size=len(rows)) for _ in range(11))])
    assert "21] and 1 more of X" in found(many)[0]


@pytest.mark.parametrize("column", [["N", "S"], pandas.to_datetime(["2026-01-01", "2026-01-02"])])
def test_columns_without_numbers_are_named(small, rows, column):
    table = pandas.DataFrame(rows[:40], columns=[f"n{i}" for i in range(12)])
    with pytest.raises(ValueError, match=r"no numbers, \['target'\].*every column for a neuron"):
        small().fit(table.assign(target=list(column) * 20))
