"""Scores equal those of the benchmark's own code, nlb-tools, for random data of every shape."""

import copy

import h5py
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import config_context

from sklearn_stndt.datasets import (
    evaluate,
    load_nlb,
    load_submission,
    make_submission,
    save_submission,
)
from sklearn_stndt.metrics import bits_per_spike, psth_r2, tp_corr, velocity_r2

reference = pytest.importorskip(
    "nlb_tools.evaluation", reason="nlb-tools is not installed (pip install --no-deps nlb-tools)"
)

# bins of 5 ms, held-in and held-out neurons, decoders
SHAPES = {
    "mc_maze": (140, 137, 45, 0),
    "mc_rtt": (120, 98, 32, 0),
    "area2_bump": (120, 49, 16, 2),
    "dmfc_rsg": (300, 40, 14, 0),
    "mc_maze_large": (140, 122, 40, 0),
    "mc_maze_medium": (140, 114, 38, 0),
    "mc_maze_small": (140, 107, 35, 0),
}
KEYS = [(name, bin_ms) for name in SHAPES for bin_ms in (5, 20)]


@pytest.fixture(scope="module", autouse=True)
def fewer_checks():
    """Turn off scikit-learn's checks for speed: thousands of ridge regressions are fitted."""
    with config_context(skip_parameter_validation=True, assume_finite=True):
        yield


def random_problem(
    name, bin_ms, seed, *, conditions=True, forward=True, n_trials=(4, 5), n_known=60
):
    """Random target and submission of one data set, including all special cases."""
    rng = np.random.default_rng(seed)
    n_bins, n_heldin, n_heldout, n_decoders = SHAPES[name]
    n_bins, n_forward = n_bins * 5 // bin_ms, 200 // bin_ms
    n_neurons = n_heldin + n_heldout
    n_train, n_eval = n_trials if name != "dmfc_rsg" else (4, 12)

    def rates(n, bins):
        values = rng.gamma(1.0, bin_ms / 100, size=(n, bins, n_neurons))
        values[rng.random(values.shape) < 0.001] = 0  # rates of zero
        return values

    def counts(values):
        spikes = rng.poisson(values + 0.01).astype(np.float16)
        spikes[..., rng.random(n_neurons) < 0.05] = 0  # silent neurons
        return spikes

    train, test = rates(n_train, n_bins), rates(n_eval, n_bins)
    submission = {
        "train_rates_heldin": train[..., :n_heldin],
        "train_rates_heldout": train[..., n_heldin:],
        "eval_rates_heldin": test[..., :n_heldin],
        "eval_rates_heldout": test[..., n_heldin:],
    }
    spikes = counts(test)[..., n_heldin:]
    if name == "dmfc_rsg":
        empty = rng.integers(0, n_bins // 2, size=n_eval)
        spikes[np.arange(n_bins) < empty[:, None]] = np.nan
        behavior = rng.integers(0, 2, size=(n_eval, 5)).astype(float)
        behavior[:, :3] = np.arange(n_eval)[:, None] % 2  # two conditions of six trials
        behavior[:, 4] = rng.uniform(0.5, 1.5, size=n_eval)
        behavior[rng.random(n_eval) < 0.1] = np.nan  # outliers
        target = {"train_behavior": rng.normal(size=(n_train, 5)), "eval_behavior": behavior}
    else:
        weights = rng.normal(size=(n_neurons, 2))
        target = {}
        for part, values in (("train", train), ("eval", test)):
            velocity = values @ weights + rng.normal(size=(*values.shape[:2], 2))
            # few bins with known velocity, so that 45 ridge regressions per decoder are fast
            velocity[rng.random(velocity.shape[:2]) > n_known / (len(values) * n_bins)] = np.nan
            target[f"{part}_behavior"] = velocity
            if n_decoders:
                mask = np.arange(len(values)) % 2 == 0
                target[f"{part}_decode_mask"] = np.column_stack([mask, ~mask])
        spikes[rng.random(spikes.shape[:2]) < 0.02] = np.nan
    target["eval_spikes_heldout"] = spikes
    if conditions and name != "mc_rtt":
        psth = rng.gamma(1.0, 0.05, size=(3, n_bins, n_neurons))
        trials = np.empty(3, dtype=object)
        trials[:] = [np.arange(0, n_eval, 2), np.arange(1, n_eval, 2), np.array([], dtype=int)]
        if name == "dmfc_rsg":
            target["eval_jitter"] = rng.integers(-3, 4, size=n_eval)
            psth[:, :3] = np.nan
            psth[:, -3:] = np.nan
        psth[0, : n_bins // 4] = np.nan
        target |= {"psth": psth, "eval_cond_idx": trials}
    if forward:
        ahead = rates(n_eval, n_forward)
        submission["eval_rates_heldin_forward"] = ahead[..., :n_heldin]
        submission["eval_rates_heldout_forward"] = ahead[..., n_heldin:]
        ahead = counts(ahead)
        target["eval_spikes_heldin_forward"] = ahead[..., :n_heldin]
        target["eval_spikes_heldout_forward"] = ahead[..., n_heldin:]
    key = name if bin_ms == 5 else f"{name}_20"
    return {key: target}, {key: submission}


def assert_same_scores(ours, theirs):
    assert [list(entry) for entry in ours] == [list(entry) for entry in theirs]
    for our_entry, their_entry in zip(ours, theirs, strict=True):
        for split in our_entry:
            assert list(our_entry[split]) == list(their_entry[split])
            for score, value in our_entry[split].items():
                assert value == pytest.approx(float(their_entry[split][score]), rel=1e-9, abs=1e-9)


def by_reference(target, submission):
    """Scores of nlb-tools, called with copies because it modifies its arguments."""
    return reference.evaluate(copy.deepcopy(target), copy.deepcopy(submission))


# 14 x 12 cases; with the 32 below, 200 in all
@pytest.mark.parametrize(("name", "bin_ms"), KEYS)
@settings(max_examples=12, deadline=None, derandomize=True)
@given(
    seed=st.integers(0, 2**32 - 1),
    conditions=st.booleans(),
    forward=st.booleans(),
    n_trials=st.tuples(st.integers(2, 5), st.integers(2, 5)),
)
def test_evaluate_returns_what_the_benchmark_returns(name, bin_ms, seed, **options):
    target, submission = random_problem(name, bin_ms, seed, **options)
    ours = evaluate(target, submission, check=False)
    theirs = by_reference(target, submission)
    assert_same_scores(ours, theirs)
    assert len(ours) == 1


def test_arguments_are_unchanged():
    target, submission = random_problem("area2_bump", 20, 0, conditions=False)
    before = copy.deepcopy((target, submission))
    evaluate(target, submission, check=False)
    np.testing.assert_equal((target, submission), before)


@settings(max_examples=32, deadline=None, derandomize=True)
@given(
    seed=st.integers(0, 2**32 - 1),
    shape=st.tuples(st.integers(3, 8), st.integers(5, 12), st.integers(1, 6)),
)
def test_scores_agree_on_small_shapes(seed, shape):
    rng = np.random.default_rng(seed)
    n_trials, n_bins, _ = shape
    rates = rng.gamma(1.0, size=shape)
    spikes = rng.poisson(rates).astype(float)
    spikes.flat[0] = 1
    velocity = rng.normal(size=(n_trials, n_bins, 2))
    mask = np.ones((n_trials, 1), dtype=bool)
    conditions = [np.arange(n_trials)]
    jitter = rng.integers(-1, 2, size=n_trials)
    psth = rng.gamma(1.0, size=(1, *shape[1:]))
    psth[:, [0, -1]] = np.nan
    pairs = [
        (bits_per_spike(spikes, rates), reference.bits_per_spike(rates.copy(), spikes)),
        (
            velocity_r2(velocity, rates, velocity[::-1], rates),
            reference.velocity_decoding(rates, velocity[::-1], mask, rates, velocity, mask),
        ),
        (
            psth_r2(psth, rates, conditions, jitter=jitter),
            reference.eval_psth(psth, rates, conditions, jitter=jitter),
        ),
    ]
    for ours, theirs in pairs:
        assert ours == pytest.approx(theirs, rel=1e-9, abs=1e-9)
    behavior = np.zeros((n_trials, 5))
    behavior[:, 4] = rng.normal(size=n_trials)
    theirs = reference.speed_tp_correlation(spikes, rates, behavior)
    assert tp_corr(behavior[:, 4], rates, behavior[:, :3]) == pytest.approx(theirs, abs=1e-9)


def all_problems(seed=0):
    targets, submissions = {}, {}
    for number, (name, bin_ms) in enumerate(KEYS):
        target, submission = random_problem(name, bin_ms, seed + number, n_known=2000)
        targets |= target
        submissions |= submission
    return targets, submissions


def test_the_scaling_group_is_one_entry_and_all_sets_come_in_the_same_order():
    targets, submissions = all_problems()
    ours = evaluate(targets, submissions, check=False)
    assert_same_scores(ours, by_reference(targets, submissions))
    assert len(ours) == 10
    assert [next(iter(entry)) for entry in ours[-2:]] == [
        "mc_maze_scaling_split",
        "mc_maze_scaling_20_split",
    ]
    assert "[250] psth R2" in ours[-2]["mc_maze_scaling_split"]


def write_target(targets, path):
    """Write a target file in the layout of the benchmark, with conditions of unequal length."""
    with h5py.File(path, "w") as file:
        for name, arrays in targets.items():
            for key, array in arrays.items():
                if array.dtype == object:
                    dataset = file.create_dataset(
                        f"{name}/{key}", (len(array),), dtype=h5py.vlen_dtype(np.int32)
                    )
                    for row, trials in enumerate(array):
                        dataset[row] = trials
                else:
                    file[f"{name}/{key}"] = array


def test_our_files_get_the_same_scores_from_both(tmp_path):
    targets, submissions = all_problems(seed=100)
    keep = ["mc_rtt", "dmfc_rsg_20", "area2_bump_20", "mc_maze_small_20"]
    targets = {key: targets[key] for key in keep}
    submissions = {key: submissions[key] for key in keep}
    write_target(targets, tmp_path / "target.h5")
    save_submission(submissions, tmp_path / "ours.h5")
    theirs = reference.evaluate(str(tmp_path / "target.h5"), str(tmp_path / "ours.h5"))
    ours = evaluate(tmp_path / "target.h5", tmp_path / "ours.h5", check=False)
    assert_same_scores(ours, theirs)
    # files are in single precision
    for ours, exact in zip(theirs, evaluate(targets, submissions, check=False), strict=True):
        for split, scores in exact.items():
            assert ours[split] == pytest.approx(scores, abs=1e-4)


def test_files_of_nlb_tools_get_the_same_scores_from_both(tmp_path):
    pytest.importorskip("pynwb")  # imported by the module with nlb-tools' writer
    tensors = pytest.importorskip("nlb_tools.make_tensors")
    target, submission = random_problem("mc_maze_small", 20, 7)
    tensors.save_to_h5(copy.deepcopy(target), str(tmp_path / "target.h5"))
    tensors.save_to_h5(copy.deepcopy(submission), str(tmp_path / "theirs.h5"))
    ours = evaluate(tmp_path / "target.h5", tmp_path / "theirs.h5", check=False)
    paths = str(tmp_path / "target.h5"), str(tmp_path / "theirs.h5")
    assert_same_scores(ours, reference.evaluate(*paths))
    read = load_submission(tmp_path / "theirs.h5")["mc_maze_small_20"]
    assert sorted(read) == sorted(submission["mc_maze_small_20"])


def test_a_submission_of_an_estimator_gets_the_same_scores_from_both(small, tmp_path):
    target, _ = random_problem("area2_bump", 20, 3, n_trials=(6, 5))
    target = target["area2_bump_20"]
    rng = np.random.default_rng(0)
    data = load_nlb(
        [
            {
                "train_spikes_heldin": rng.poisson(0.2, size=(6, 30, 49)),
                "train_spikes_heldout": rng.poisson(0.2, size=(6, 30, 16)),
                "train_spikes_heldin_forward": rng.poisson(0.2, size=(6, 10, 49)),
                "train_spikes_heldout_forward": rng.poisson(0.2, size=(6, 10, 16)),
                "eval_spikes_heldin": rng.poisson(0.2, size=(5, 30, 49)),
            },
            {"area2_bump_20": target},
        ]
    )
    network = small(heldout_neurons=data.heldout, forecast_bins=data.n_forward)
    submission = make_submission(network.fit(data.X_train), data)
    save_submission(submission, tmp_path / "ours.h5")
    ours = evaluate(data, tmp_path / "ours.h5", check=False)
    assert_same_scores(
        ours, reference.evaluate(copy.deepcopy(data.target), str(tmp_path / "ours.h5"))
    )
    assert list(ours[0]["area2_bump_20_split"]) == ["co-bps", "vel R2", "psth R2", "fp-bps"]
