"""The benchmark's HDF5 files: data, hidden entries, and errors of broken files."""

import sys

import h5py
import numpy as np
import pytest

from sklearn_stndt.datasets import (
    evaluate,
    load_nlb,
    load_submission,
    make_submission,
    save_submission,
)

RNG = np.random.default_rng(0)


def counts(*shape, dtype=np.float16):
    return RNG.poisson(0.3, size=shape).astype(dtype)


def train_input(n_trials=6, n_bins=35, heldin=107, heldout=35, forward=10, **more):
    arrays = {
        "train_spikes_heldin": counts(n_trials, n_bins, heldin),
        "train_spikes_heldout": counts(n_trials, n_bins, heldout),
    }
    if forward:
        arrays["train_spikes_heldin_forward"] = counts(n_trials, forward, heldin)
        arrays["train_spikes_heldout_forward"] = counts(n_trials, forward, heldout)
    return arrays | more


def eval_input(n_trials=4, n_bins=35, heldin=107, **more):
    return {"eval_spikes_heldin": counts(n_trials, n_bins, heldin)} | more


def target_of(key="mc_maze_small_20", n_train=6, n_eval=4, n_bins=35, heldin=107, heldout=35):
    trials = np.empty(2, dtype=object)
    trials[:] = [np.array([0, 2]), np.array([3])]
    return {
        key: {
            "eval_spikes_heldout": counts(n_eval, n_bins, heldout),
            "eval_spikes_heldin_forward": counts(n_eval, 10, heldin),
            "eval_spikes_heldout_forward": counts(n_eval, 10, heldout),
            "train_behavior": RNG.normal(size=(n_train, n_bins, 2)),
            "eval_behavior": RNG.normal(size=(n_eval, n_bins, 2)),
            "psth": RNG.gamma(1.0, size=(2, n_bins, heldin + heldout)),
            "eval_cond_idx": trials,
        }
    }


def write(path, arrays):
    with h5py.File(path, "w") as file:
        for key, value in arrays.items():
            if isinstance(value, dict):
                for inner, array in value.items():
                    put(file, f"{key}/{inner}", array)
            else:
                put(file, key, value)
    return path


def put(file, key, array):
    if array.dtype == object:
        rows = file.create_dataset(key, (len(array),), dtype=h5py.vlen_dtype(np.int32))
        for row, values in enumerate(array):
            rows[row] = values
    else:
        file[key] = array


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("nlb")
    contents = {"train": train_input(), "eval": eval_input(), "target": target_of()}
    paths = {name: write(folder / f"{name}.h5", arrays) for name, arrays in contents.items()}
    return contents, paths


def test_the_three_files_become_one_bunch(files):
    contents, paths = files
    data = load_nlb(list(paths.values()))
    target = contents["target"]["mc_maze_small_20"]
    assert (data.name, data.bin_width, data.lag, data.n_forward) == (
        "mc_maze_small",
        0.02,
        0.12,
        10,
    )
    np.testing.assert_array_equal(data.heldout, np.arange(107, 142))
    assert data.X_train.shape == (6, 45, 142)
    assert data.X_train.dtype == data.X_eval.dtype == np.float32
    np.testing.assert_array_equal(
        data.X_train[:, :35, :107], contents["train"]["train_spikes_heldin"]
    )
    np.testing.assert_array_equal(
        data.X_train[:, 35:, 107:], contents["train"]["train_spikes_heldout_forward"]
    )
    hidden = np.isnan(data.X_eval)
    assert hidden[..., 107:].all()
    assert hidden[:, 35:].all()
    assert not hidden[:, :35, :107].any()
    np.testing.assert_array_equal(data.spikes_eval[~hidden], data.X_eval[~hidden])
    np.testing.assert_array_equal(data.spikes_eval[:, :35, 107:], target["eval_spikes_heldout"])
    np.testing.assert_array_equal(
        data.spikes_eval[:, 35:, :107], target["eval_spikes_heldin_forward"]
    )
    np.testing.assert_array_equal(data.y_train, target["train_behavior"])
    np.testing.assert_array_equal(data.y_eval, target["eval_behavior"])
    np.testing.assert_array_equal(data.conditions_eval, [0, -1, 0, 1])
    assert data.conditions_train is data.decode_mask_train is data.jitter_eval is None
    assert list(data.target) == ["mc_maze_small_20"]


def test_the_order_of_files_does_not_matter(files):
    _, paths = files
    a, b = load_nlb(paths.values()), load_nlb(list(paths.values())[::-1])
    np.testing.assert_array_equal(a.X_train, b.X_train)
    np.testing.assert_array_equal(a.spikes_eval, b.spikes_eval)


def test_without_a_target_the_truth_is_unknown_and_inputs_name_the_set(files):
    _, paths = files
    data = load_nlb([paths["train"], paths["eval"]])
    assert (data.name, data.bin_width) == ("mc_maze_small", 0.02)
    assert np.isnan(data.spikes_eval[..., 107:]).all()
    assert data.target == {}
    assert data.y_train is None
    alone = load_nlb(paths["train"])
    assert alone.X_eval is alone.spikes_eval is None
    assert alone.X_train.shape == (6, 45, 142)
    only_eval = load_nlb([paths["eval"], paths["target"]])
    assert only_eval.X_train is None
    assert only_eval.X_eval.shape == (4, 45, 142)


def test_validation_files_contain_held_out_neurons():
    heldout = counts(4, 35, 35)
    data = load_nlb([train_input(), eval_input(eval_spikes_heldout=heldout)])
    np.testing.assert_array_equal(data.spikes_eval[:, :35, 107:], heldout)
    assert np.isnan(data.X_eval[..., 107:]).all()


def test_nan_at_the_start_stays_hidden():
    train = train_input(n_bins=75, heldin=40, heldout=14)
    train["train_spikes_heldin"][0, :20] = np.nan
    data = load_nlb(train)
    assert (data.name, data.bin_width) == ("dmfc_rsg", 0.02)
    assert np.isnan(data.X_train[0, :20, :40]).all()
    assert not np.isnan(data.X_train[1:]).any()


@pytest.mark.parametrize(
    ("name", "n_bins", "heldin", "heldout", "lag"),
    [
        ("mc_maze", 140, 137, 45, 0.1),
        ("mc_rtt", 120, 98, 32, 0.14),
        ("area2_bump", 120, 49, 16, -0.02),
        ("dmfc_rsg", 300, 40, 14, 0.0),
        ("mc_maze_large", 140, 122, 40, 0.12),
        ("mc_maze_medium", 140, 114, 38, 0.12),
        ("mc_maze_small", 140, 107, 35, 0.12),
    ],
)
def test_every_data_set_is_recognised_by_its_neurons(name, n_bins, heldin, heldout, lag):
    for bin_ms in (5, 20):
        data = load_nlb(train_input(2, n_bins * 5 // bin_ms, heldin, heldout, 200 // bin_ms))
        assert (data.name, data.bin_width, data.lag) == (name, bin_ms / 1000, lag)


def test_other_populations_get_the_given_name():
    train = train_input(n_bins=140, heldin=9, heldout=3, forward=40)
    assert load_nlb(train, name="mc_maze").bin_width == 0.005
    assert load_nlb(train_input(heldin=9, heldout=3), name="mc_maze_20").bin_width == 0.02
    odd = train_input(n_bins=17, heldin=9, heldout=3)
    assert load_nlb(odd, name="mc_maze", bin_width=0.01).bin_width == 0.01


@pytest.mark.parametrize(
    ("sources", "params", "message"),
    [
        ([{"train_behavior": np.zeros((6, 35, 2))}], {}, "neither train_spikes_heldin nor"),
        ([train_input(heldin=9)], {}, "no data set .* has 9 held-in and 35 held-out .* name="),
        ([train_input(n_bins=17)], {}, "17 bins of 5 or 20 ms .* bin_width"),
        ([train_input()], {"name": "mc_mase"}, "no data set 'mc_mase' .* pass one of mc_maze"),
        ([train_input()], {"name": "mc_maze_scaling"}, "three data sets, mc_maze_large"),
        ([train_input()], {"bin_width": 5e-4}, "whole number of milliseconds"),
        ([train_input(), train_input()], {}, "train_spikes_heldin is in .* and in"),
        ([{"train_spikes_heldin": counts(6, 35, 107)}], {}, "without train_spikes_heldout"),
        (
            [eval_input(), {"train_spikes_heldout": counts(6, 35, 35)}],
            {},
            "train_spikes_heldout comes without train_spikes_heldin",
        ),
        (
            [train_input(), {"eval_spikes_heldin_forward": counts(4, 10, 107)}],
            {},
            "eval_spikes_heldin_forward comes without eval_spikes_heldin",
        ),
        (
            [train_input(train_spikes_heldout=counts(5, 35, 35))],
            {},
            r"train_spikes_heldout has shape \(5, 35, 35\), which does not fit",
        ),
        (
            [train_input(train_spikes_heldin=counts(35, 107))],
            {},
            r"train_spikes_heldin has shape \(35, 107\).*\(n_trials, n_bins, n_neurons\)",
        ),
        ([train_input(), eval_input(heldin=98)], {}, "eval_spikes_heldin has 98 neurons"),
        ([train_input(), eval_input(5), target_of()], {}, "to match the inputs|trials"),
        ([train_input(), eval_input(), target_of(n_train=7)], {}, "train_behavior has 7 trials"),
        (
            [train_input(n_bins=140), eval_input(n_bins=140), target_of()],
            {"name": "mc_maze_small", "bin_width": 0.005},
            "there is a target for .*mc_maze_small_20",
        ),
    ],
)
def test_arrays_that_do_not_match_are_refused(sources, params, message):
    with pytest.raises(ValueError, match=message):
        load_nlb(sources, **params)


# ---- files that are broken


@pytest.mark.parametrize("read", [load_nlb, load_submission, lambda path: evaluate(path, {})])
def test_errors_name_a_missing_file(read, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"There is no file .*nowhere\.h5"):
        read(tmp_path / "nowhere.h5")


@pytest.mark.parametrize("read", [load_nlb, load_submission, lambda path: evaluate(path, {})])
def test_errors_name_a_truncated_file(files, read, tmp_path):
    whole = files[1]["train"].read_bytes()
    path = tmp_path / "half.h5"
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ValueError, match=r"half\.h5 is not an HDF5 file, or is truncated"):
        read(path)


def test_errors_name_a_damaged_key(tmp_path):
    path = tmp_path / "damaged.h5"
    with h5py.File(path, "w") as file:
        values = RNG.normal(size=10_000)
        file.create_dataset("train_spikes_heldin", data=values, compression="gzip", chunks=(1000,))
        offset = file["train_spikes_heldin"].id.get_chunk_info(0).byte_offset
    content = bytearray(path.read_bytes())
    content[offset : offset + 200] = bytes(200)
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"damaged\.h5: /train_spikes_heldin cannot be read"):
        load_nlb(path)


def test_errors_name_file_and_missing_key(files, tmp_path):
    target = target_of()
    del target["mc_maze_small_20"]["eval_behavior"]
    path = write(tmp_path / "target.h5", target)
    submission = rates_like(target_of())
    with pytest.raises(ValueError, match=r"target\.h5: mc_maze_small_20 lacks eval_behavior"):
        evaluate(path, submission)
    del submission["mc_maze_small_20"]["train_rates_heldin"]
    with pytest.raises(
        ValueError, match="the submission: mc_maze_small_20 lacks train_rates_heldin"
    ):
        evaluate(files[1]["target"], submission)
    del submission["mc_maze_small_20"]["eval_rates_heldout"]
    with pytest.raises(ValueError, match=r"lacks eval_rates_heldout.* make_submission"):
        evaluate(files[1]["target"], submission)


def test_without_h5py_the_error_names_the_extra(files, monkeypatch):
    monkeypatch.setitem(sys.modules, "h5py", None)
    with pytest.raises(ImportError, match=r'pip install "sklearn-stndt\[io\]"'):
        load_nlb(files[1]["train"])


# ---- submissions


def rates_like(target, factor=1.0):
    (key, arrays), *_ = target.items()
    n_eval, n_bins, heldout = arrays["eval_spikes_heldout"].shape
    heldin = arrays["psth"].shape[-1] - heldout
    shapes = {
        "train_rates_heldin": (len(arrays["train_behavior"]), n_bins, heldin),
        "train_rates_heldout": (len(arrays["train_behavior"]), n_bins, heldout),
        "eval_rates_heldin": (n_eval, n_bins, heldin),
        "eval_rates_heldout": (n_eval, n_bins, heldout),
    }
    return {key: {k: factor * RNG.gamma(1.0, 0.3, size=shape) for k, shape in shapes.items()}}


class Recorder:
    """Returns one rate everywhere and records its input."""

    def __init__(self, rate=0.3):
        self.rate = rate
        self.shown = []

    def transform(self, X):
        self.shown.append(X.copy())
        return np.full(X.shape, self.rate)


def test_a_submission_shows_nothing_that_is_hidden(files):
    data = load_nlb(files[1].values())
    before = data.X_train.tobytes()
    recorder = Recorder()
    submission = make_submission(recorder, data)["mc_maze_small_20"]
    for shown in recorder.shown:
        assert np.isnan(shown[..., data.heldout]).all()
        assert np.isnan(shown[:, 35:]).all()
        assert not np.isnan(shown[:, :35, :107]).any()
    assert data.X_train.tobytes() == before
    assert {key: array.shape for key, array in submission.items()} == {
        "train_rates_heldin": (6, 35, 107),
        "train_rates_heldout": (6, 35, 35),
        "eval_rates_heldin": (4, 35, 107),
        "eval_rates_heldout": (4, 35, 35),
        "eval_rates_heldin_forward": (4, 10, 107),
        "eval_rates_heldout_forward": (4, 10, 35),
    }


def test_a_submission_can_be_saved_and_loaded(tmp_path):
    submission = rates_like(target_of())
    save_submission(submission, tmp_path / "s.h5")
    read = load_submission(tmp_path / "s.h5")
    for key, array in submission["mc_maze_small_20"].items():
        assert read["mc_maze_small_20"][key].dtype == np.float32
        np.testing.assert_array_equal(read["mc_maze_small_20"][key], array.astype(np.float32))
    with pytest.raises(FileExistsError, match="overwrite=True"):
        save_submission(submission, tmp_path / "s.h5")
    save_submission(rates_like(target_of(), 2.0), tmp_path / "s.h5", overwrite=True)
    assert load_submission(tmp_path / "s.h5")["mc_maze_small_20"]["eval_rates_heldin"].mean() > 0.5


@pytest.mark.parametrize("rate", [-1.0, np.nan, np.inf])
def test_negative_and_infinite_rates_are_refused(files, rate):
    with pytest.raises(ValueError, match="negative or not finite"):
        make_submission(Recorder(rate), load_nlb(files[1].values()))


def test_a_submission_needs_evaluation_trials_and_held_out_neurons(files):
    with pytest.raises(ValueError, match="no X_eval"):
        make_submission(Recorder(), load_nlb(files[1]["train"]))
    data = load_nlb(files[1].values())
    data.heldout = data.heldout[:0]
    with pytest.raises(ValueError, match="no held-out neurons"):
        make_submission(Recorder(), data)


def test_rates_in_hz_get_a_warning():
    target = target_of()
    with pytest.warns(UserWarning, match="look like Hz"):
        evaluate(target, rates_like(target, 50))
    evaluate(target, rates_like(target, 50), check=False)


def test_sets_without_a_target_get_a_warning():
    target = target_of()
    both = rates_like(target) | rates_like(target_of("mc_maze_20"))
    with pytest.warns(UserWarning, match="no target for mc_maze_20"):
        scores = evaluate(target, both)
    assert len(scores) == 1


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"mc_mase": {}}, "'mc_mase', which is not a data set"),
        ({"mc_maze": np.ones(3)}, "'mc_maze', which is not a data set"),
    ],
)
def test_unknown_groups_of_a_file_are_refused(change, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        save_submission(change, tmp_path / "s.h5")
    with pytest.raises(ValueError, match=message):
        evaluate(target_of(), change)
    assert not (tmp_path / "s.h5").exists()


def test_rates_of_other_bins_are_refused():
    with pytest.raises(ValueError, match="no data set in common"):
        evaluate(target_of(), rates_like(target_of("mc_maze_small")))
    submission = rates_like(target_of())
    fine = submission["mc_maze_small_20"]["eval_rates_heldout"].repeat(4, axis=1)
    submission["mc_maze_small_20"]["eval_rates_heldout"] = fine
    with pytest.raises(ValueError, match=r"\(4, 140, 35\).* \(4, 35, 35\).* bin width"):
        evaluate(target_of(), submission)


@pytest.mark.parametrize("array", [None, "eval_spikes"])
def test_a_file_without_inputs_is_named(tmp_path, array):
    path = tmp_path / "empty.h5"
    with h5py.File(path, "w") as file:
        if array is not None:
            file.create_group("mc_maze")[array] = np.zeros((2, 3, 4))
    with pytest.raises(ValueError, match=rf"empty\.h5.*(but no array|{array})"):
        load_nlb(path)
