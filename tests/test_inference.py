"""Rates of windows, and how overlapping windows are blended."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from small_nets import (
    HIDING,
    N_BINS,
    N_NEURONS,
    draw_counts,
    draw_counts_with_gaps,
    may_be_shown,
    small_net,
    spying_net,
    windows_of,
)
from small_segments import lengths_of_segments, numbered, padded_and_not, segments_of

from sklearn_stndt.inference.rates import infer, iterate_rates
from sklearn_stndt.inference.stitching import Stitcher
from sklearn_stndt.network import cost
from sklearn_stndt.windows.cutting import cut
from sklearn_stndt.windows.segments import Segments, as_segments

pytestmark = pytest.mark.usefixtures("torch_seed")

# ---- stitching


@settings(deadline=None, max_examples=100)
@given(lengths=lengths_of_segments, window=st.integers(1, 13), data=st.data())
def test_stitched_windows_equal_the_rows_that_were_cut(lengths, window, data):
    hidden_tail = data.draw(st.integers(0, window - 1))
    segments = segments_of(lengths)
    windows = cut(segments, window, max((window - hidden_tail) // 2, 1))
    stitcher = Stitcher(windows, hidden_tail=hidden_tail)
    for indices in np.array_split(range(len(windows)), data.draw(st.integers(1, 4))):
        if len(indices):
            batch, _ = windows.__getitems__(indices)
            # rates of padding are not used
            stitcher.add(indices, np.nan_to_num(batch.numpy(), nan=1e9))
    np.testing.assert_allclose(stitcher.result(), segments.rows, rtol=1e-5)


def rates_with_offsets(windows, window):
    """A smooth time course, with an offset of 1 in every other window."""
    offsets = np.arange(len(windows)) % 2
    course = np.sin(0.05 * (windows.starts[:, None] + np.arange(window)))
    return (course + offsets[:, None])[..., None]


def largest_jump(rates):
    return np.abs(np.diff(rates[:, 0])).max()


SEAMS = pytest.mark.parametrize(
    ("n_bins", "window"), [(100, 20), (95, 20), (101, 21), (64, 32), (150, 50)]
)


@SEAMS
def test_overlapping_windows_are_blended_without_jumps(n_bins, window):
    windows = cut(as_segments(numbered(n_bins, 1)), window, window // 2)
    rates = rates_with_offsets(windows, window)
    stitcher = Stitcher(windows)
    stitcher.add(range(len(windows)), rates)
    naive = np.zeros((n_bins, 1))
    for start, window_rates in zip(windows.starts, rates, strict=True):
        naive[start : start + window] = window_rates
    assert largest_jump(naive) > 0.9
    # blending over half a window, plus 0.05 per bin of the time course
    assert largest_jump(stitcher.result()) < 2.2 / window + 0.06


# if the tail is longer than half of the shown bins, the tails of the last windows overlap
@pytest.mark.parametrize(
    ("n_bins", "window", "hidden_tail"), [(100, 20, 4), (100, 20, 10), (90, 30, 20)]
)
def test_windows_with_hidden_tails_are_blended_without_jumps(n_bins, window, hidden_tail):
    shown = window - hidden_tail
    windows = cut(as_segments(numbered(n_bins, 1)), window, shown // 2)
    stitcher = Stitcher(windows, hidden_tail=hidden_tail)
    stitcher.add(range(len(windows)), rates_with_offsets(windows, window))
    assert largest_jump(stitcher.result()) < 2.2 / shown + 0.06


def test_hidden_tails_are_replaced_by_windows_that_saw_the_bins():
    window, hidden_tail, n_bins = 20, 4, 100
    windows = cut(as_segments(numbered(n_bins, 1)), window, 8)
    rates = np.ones((len(windows), window, 1))
    rates[:, -hidden_tail:] = 100
    stitcher = Stitcher(windows, hidden_tail=hidden_tail)
    stitcher.add(range(len(windows)), rates)
    stitched = stitcher.result()[:, 0]
    np.testing.assert_allclose(stitched[:-hidden_tail], 1, rtol=1e-3)
    np.testing.assert_allclose(stitched[-hidden_tail:], 100, rtol=1e-6)


def test_rows_without_windows_get_no_rates():
    segments = Segments(numbered(10), np.array([2]), np.array([8]))
    windows = cut(segments, 4, 2)
    stitcher = Stitcher(windows)
    stitcher.add(range(len(windows)), windows.__getitems__(range(len(windows)))[0].numpy())
    stitched = stitcher.result()
    np.testing.assert_allclose(stitched[2:8], segments.rows[2:8], rtol=1e-6)
    assert not stitched[:2].any()
    assert not stitched[8:].any()


def test_bins_near_the_middle_of_a_window_have_the_largest_weight():
    windows = cut(as_segments(numbered(30, 1)), 20, 10)
    stitcher = Stitcher(windows)
    stitcher.add([0, 1], np.stack([np.zeros((20, 1)), np.ones((20, 1))]))
    # weights 10 ... 1 of the first window against 1 ... 10 of the second
    expected = np.arange(1, 11) / 11
    np.testing.assert_allclose(stitcher.result()[10:20, 0], expected, rtol=1e-6)


# ---- rates of windows


@pytest.fixture
def batch():
    return draw_counts_with_gaps()


@HIDING
def test_inference_shows_all_visible_entries(batch, heldout, n_forecast, monkeypatch):
    monkeypatch.setattr("sklearn_stndt.inference.rates.inference_batch_size", lambda *args: 100)
    net = spying_net(heldout_neurons=tuple(heldout), forecast_bins=n_forecast)
    ((indices, rates),) = iterate_rates(net, windows_of(batch))
    assert indices.tolist() == list(range(6))
    np.testing.assert_allclose(rates, np.full(batch.shape, math.exp(0.5)), rtol=1e-6)
    ((spikes, visible, training, grad),) = net.module_.calls
    assert torch.equal(visible, may_be_shown(batch, heldout, n_forecast))
    assert torch.equal(spikes[visible], batch[visible])
    assert not training
    assert not grad


def test_gradients_are_enabled_between_batches(batch, monkeypatch):
    monkeypatch.setattr(cost, "MAX_INFERENCE_ENTRIES", 1)
    net = small_net()
    n_batches = 0
    for _ in iterate_rates(net, windows_of(batch)):
        assert torch.is_grad_enabled()
        n_batches += 1
    assert n_batches == 6


@pytest.mark.parametrize("bound", [1, 3000])
def test_batches_of_any_size_give_the_same_rates(batch, monkeypatch, bound):
    net = small_net(heldout_neurons=(1,))
    ((_, together),) = iterate_rates(net, windows_of(batch))
    monkeypatch.setattr(cost, "MAX_INFERENCE_ENTRIES", bound)
    indices, rates = zip(*iterate_rates(net, windows_of(batch)), strict=True)
    assert len(indices) > 1
    assert np.concatenate(indices).tolist() == list(range(6))
    assert rates[0].dtype == np.float32
    np.testing.assert_allclose(np.concatenate(rates), together, rtol=1e-5)


# ---- rates of trials


@pytest.fixture
def net():
    """An untrained net with random weights, none of which is 0."""
    net = small_net(inference_passes=1)
    with torch.no_grad():
        for weights in net.module_.parameters():
            weights += 0.3 * torch.randn_like(weights)
    return net


def rates_of(net, X):
    return infer(net, as_segments(X), N_BINS, 1).reshape(X.shape)


def test_a_trial_of_one_window_has_the_rates_of_the_network(net):
    spikes = draw_counts_with_gaps()
    visible = ~spikes.isnan()
    with torch.no_grad():
        expected = net.module_.eval()(spikes.nan_to_num(0), visible).log_rates.exp()
    rates = rates_of(net, spikes.numpy())
    assert rates.dtype == np.float32
    np.testing.assert_allclose(rates, expected.numpy(), rtol=1e-5)


@pytest.mark.parametrize("n_bins", [13, 18, 44])
def test_bins_that_one_window_covers_have_its_rates(net, n_bins):
    X = draw_counts(4, n_bins).numpy()
    rates = rates_of(net, X)
    assert np.isfinite(rates).all()
    first = rates_of(net, np.ascontiguousarray(X[:, :N_BINS]))
    n_alone = min(N_BINS // 2, n_bins - N_BINS)
    np.testing.assert_allclose(rates[:, :n_alone], first[:, :n_alone], rtol=1e-5)


def test_padding_of_long_trials_changes_no_rate(net):
    lengths = [5, 12, 25, 31, 18, 40]
    padded, rows = padded_and_not(draw_counts(len(lengths), 45).numpy(), lengths)
    rates = infer(net, padded, N_BINS, 1).reshape(len(lengths), -1, N_NEURONS)
    assert np.isfinite(rates).all()
    assert (rates > 0).all()
    visible = np.concatenate([trial[:n] for trial, n in zip(rates, lengths, strict=True)])
    np.testing.assert_allclose(visible, infer(net, rows, N_BINS, 1), rtol=1e-5)


@pytest.mark.parametrize("n_threads", [1, 2])
def test_torch_runs_on_the_given_number_of_threads(monkeypatch, net, n_threads):
    used = []

    def remember(*args):
        used.append(torch.get_num_threads())
        return iter(())

    monkeypatch.setattr("sklearn_stndt.inference.rates.iterate_rates", remember)
    infer(net, as_segments(draw_counts().numpy()), N_BINS, n_threads)
    assert used == [n_threads]
