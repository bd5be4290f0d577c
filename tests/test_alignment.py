"""Latents of another day, mapped to the axes of the first without labels."""

import numpy as np
import pytest
from sklearn.base import clone
from sklearn.exceptions import ConvergenceWarning, NotFittedError

from sklearn_stndt import load, save
from sklearn_stndt.decoding import LatentAligner
from sklearn_stndt.decoding.alignment import _plan, _squared_distances


def trajectories(n_trials, n_latents=6, n_bins=8, seed=0):
    """Trajectories of a task whose conditions differ in size, time course and number of trials."""
    rng = np.random.default_rng(seed)
    t = np.linspace(0, 1, n_bins)[:, None]
    shapes = np.random.default_rng(99).normal(size=(4, 3, n_latents))
    condition = rng.choice(4, size=n_trials, p=[0.4, 0.3, 0.2, 0.1])
    basis = np.hstack([t, t**2, np.sin(3 * t)])  # (n_bins, 3)
    size = rng.uniform(0.7, 1.3, n_trials)[:, None, None]
    return basis @ (size * shapes[condition]) + 0.05 * rng.normal(
        size=(n_trials, n_bins, n_latents)
    )


def turn(latents, seed=0):
    """Turn, stretch and shift latents; the same for the same seed."""
    rng = np.random.default_rng(seed)
    n = latents.shape[-1]
    q = np.linalg.qr(rng.normal(size=(n, n)))[0]
    return latents @ (q * rng.uniform(0.8, 1.25, n)) + rng.normal(size=n)


@pytest.fixture(scope="module")
def fitted():
    return LatentAligner(trajectories(120), n_starts=8, random_state=0).fit(
        turn(trajectories(100, seed=1))
    )


def test_other_trials_are_mapped_to_the_axes_of_the_first_session(fitted):
    new = trajectories(30, seed=2)
    aligned = fitted.transform(turn(new))
    spread = ((new - new.mean((0, 1))) ** 2).mean()
    assert ((aligned - new) ** 2).mean() < 0.1 * spread
    assert ((turn(new) - new) ** 2).mean() > spread


def test_a_clearly_best_map_is_found_without_a_warning(fitted):
    assert fitted.distance_ < 0.9 * fitted.next_distance_
    assert fitted.n_bins_ == 8


def test_numbers_of_trials_bins_and_latents_may_differ():
    reference = trajectories(40)
    other = np.pad(trajectories(30, n_bins=10, seed=1), [(0, 0), (0, 0), (0, 2)])
    aligner = LatentAligner(reference, n_starts=3, random_state=0)
    with pytest.warns(ConvergenceWarning, match="Only 30 trials were compared, so the map may"):
        aligner.fit(other)
    assert aligner.n_bins_ == 8
    assert aligner.transform(other).shape == (30, 10, 6)
    assert aligner.transform(other[0]).shape == (10, 6)
    assert np.allclose(aligner.transform(other[0]), aligner.transform(other)[0])


def test_results_repeat(fitted):
    X = turn(trajectories(100, seed=1))
    again = clone(fitted).fit(X)
    assert np.array_equal(again.transform(X), fitted.transform(X))


def test_a_saved_map_is_the_same(fitted, tmp_path):
    pytest.importorskip("skops")
    save(fitted, tmp_path / "aligner")
    X = turn(trajectories(5, seed=3))
    assert np.array_equal(load(tmp_path / "aligner").transform(X), fitted.transform(X))


def test_symmetric_trajectories_are_warned_of():
    angle = np.arange(160) * 2 * np.pi / 8  # eight directions, all alike
    direction = np.stack([np.cos(angle), np.sin(angle)], axis=1)
    courses = np.linspace(0, 1, 6)[:, None] * direction[:, None]
    first, second = (
        courses + 0.1 * np.random.default_rng(seed).normal(size=courses.shape) for seed in (0, 1)
    )
    with pytest.warns(ConvergenceWarning, match="Two different maps"):
        LatentAligner(first, random_state=0).fit(second)


def test_a_plan_moves_every_trial_as_a_whole():
    plan = _plan(_squared_distances(trajectories(7), trajectories(5, seed=1)), 1.0)
    assert plan.sum(1) == pytest.approx(1 / 7)
    assert plan.sum(0) == pytest.approx(1 / 5, rel=1e-3)


def test_one_latent():
    x = np.random.default_rng(0).exponential(size=(100, 1, 1)) * np.arange(1, 6)[:, None]
    aligned = LatentAligner(x, random_state=0).fit_transform(-x)
    slope, _ = np.polyfit(x.ravel(), aligned.ravel(), 1)
    assert slope == pytest.approx(1, abs=0.25)


@pytest.mark.parametrize("wrong", [np.zeros((30, 4)), np.zeros((1, 30, 4))])
def test_what_is_not_several_trials_is_refused(wrong):
    with pytest.raises(ValueError, match=r"X must be latents of at least two trials"):
        LatentAligner(trajectories(5)).fit(wrong)
    with pytest.raises(ValueError, match=r"reference must be latents of at least two trials"):
        LatentAligner(wrong).fit(trajectories(5))


def test_other_latents_and_no_fit_are_refused(fitted):
    with pytest.raises(ValueError, match="X has 5 latents, but LatentAligner was fitted with 6"):
        fitted.transform(np.zeros((2, 8, 5)))
    with pytest.raises(NotFittedError):
        LatentAligner(trajectories(5)).transform(trajectories(5))
    with pytest.raises(ValueError, match="NaN"):
        fitted.transform(np.full((2, 8, 6), np.nan))
