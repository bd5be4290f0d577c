"""Displays: contents, axes, and legibility of texts."""

import sys

import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from sklearn.cluster import KMeans
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.pipeline import make_pipeline

from sklearn_stndt import BaggingEnsemble, BinwiseClassifier, BinwiseRegressor
from sklearn_stndt import plotting as shown
from sklearn_stndt.inspection import attention_maps, neuron_dropping_curve

mpl = pytest.importorskip("matplotlib")
mpl.use("Agg")
import matplotlib.pyplot as plt  # noqa: E402

HELDOUT = [1, 5, 9]


@pytest.fixture(scope="module")
def pipeline(small, spikes, reaches):
    pipeline = make_pipeline(small(heldout_neurons=HELDOUT), BinwiseRegressor(Ridge()))
    return pipeline.fit(spikes, reaches.velocity)


@pytest.fixture(scope="module")
def ensemble(small, spikes):
    return BaggingEnsemble(small(), n_estimators=3, random_state=0).fit(spikes)


@pytest.fixture(scope="module")
def curve(pipeline, spikes, reaches):
    return neuron_dropping_curve(
        pipeline, spikes, reaches.velocity, n_steps=3, n_random=3, random_state=0
    )


@pytest.fixture
def draw(pipeline, ensemble, curve, spikes, reaches):
    """Functions that plot each display, by name."""
    velocity, conditions = reaches.velocity, reaches.conditions
    width = {"bin_width": 0.02}
    hidden = spikes.copy()
    hidden[..., HELDOUT] = np.nan
    return {
        "rates": lambda ax: shown.RatesDisplay.from_estimator(pipeline, hidden, ax=ax, **width),
        "condition": lambda ax: shown.RatesDisplay.from_estimator(
            pipeline, spikes, conditions=conditions, condition=3, ax=ax
        ),
        "psth": lambda ax: shown.PSTHDisplay.from_estimator(
            pipeline, spikes, conditions % 4, ax=ax, **width
        ),
        "many conditions": lambda ax: shown.PSTHDisplay.from_estimator(
            pipeline, spikes, conditions, ax=ax
        ),
        "attention": lambda ax: shown.AttentionDisplay.from_estimator(
            pipeline, spikes, ax=ax, **width
        ),
        "dropping": lambda ax: shown.NeuronDroppingDisplay.from_curves(
            {"STNDT": curve, "NDT": curve}, ax=ax
        ),
        "ensemble": lambda ax: shown.EnsembleCurveDisplay.from_estimator(ensemble, spikes, ax=ax),
        "simulation": lambda ax: shown.SimulationDisplay.from_estimator(
            pipeline, spikes, n_samples=3, random_state=0, ax=ax, **width
        ),
        "history": lambda ax: shown.TrainingHistoryDisplay.from_estimator(pipeline, ax=ax),
        "decoding": lambda ax: shown.DecodingDisplay.from_estimator(
            pipeline, spikes, velocity, ax=ax, **width
        ),
    }


NAMES = [
    "rates",
    "condition",
    "psth",
    "many conditions",
    "attention",
    "dropping",
    "ensemble",
    "simulation",
    "history",
    "decoding",
]
N_PANELS = {"rates": 3, "condition": 3, "psth": 6, "many conditions": 6, "attention": 2}
N_PANELS |= {"dropping": 2, "ensemble": 1, "simulation": 3, "history": 2, "decoding": 3}


def texts_of(figure):
    """Visible texts, with their bounding boxes in pixels."""
    figure.canvas.draw()
    found = figure.findobj(lambda a: isinstance(a, mpl.text.Text) and a.get_visible())
    found = [t for t in found if t.get_text().strip() and is_drawn(t)]
    return [(t, t.get_window_extent()) for t in found]


def is_drawn(text):
    """Whether a text is drawn: tick labels are only drawn within the axis limits."""
    for ax in text.figure.axes if text.figure else []:
        for axis in (ax.xaxis, ax.yaxis):
            ticks = axis.get_major_ticks() + axis.get_minor_ticks()
            if any(text in (tick.label1, tick.label2) for tick in ticks):
                low, high = sorted(axis.get_view_interval())
                values = [
                    t.get_loc() for t in ticks if text in (t.label1, t.label2) and t.get_visible()
                ]
                width = 1e-9 * (high - low)
                return any(low - width <= value <= high + width for value in values)
    return True


@pytest.mark.parametrize("style", ["default", "dark_background"])
@pytest.mark.parametrize("width", [None, 3.5], ids=["own size", "column"])
@pytest.mark.parametrize("name", NAMES)
def test_texts_are_neither_clipped_nor_overlapping(draw, name, width, style):
    with plt.style.context(style):
        figure = draw[name](None).figure_
        if width is not None:
            own, height = figure.get_size_inches()
            figure.set_size_inches(width, height * max(width / own, 0.8))
        texts = texts_of(figure)
        pixels = figure.bbox
        for text, box in texts:
            assert box.x0 >= -1, text
            assert box.y0 >= -1, text
            assert box.x1 <= pixels.x1 + 1, text
            assert box.y1 <= pixels.y1 + 1, text
        boxes = [(t, b.shrunk(0.9, 0.9)) for t, b in texts]
        for i, (text, box) in enumerate(boxes):
            for other, its_box in boxes[:i]:
                assert not box.overlaps(its_box), (text, other)


@pytest.mark.parametrize("name", NAMES)
def test_every_panel_names_its_axes(draw, name):
    display = draw[name](None)
    axes = np.ravel(display.axes_)
    assert len(axes) == N_PANELS[name]
    assert display.ax_ is axes[0]
    assert all(ax.figure is display.figure_ for ax in axes)
    grid = np.atleast_2d(display.axes_) if name != "decoding" else None
    for ax in axes:
        shares_x = any(o is not ax and ax.get_shared_x_axes().joined(ax, o) for o in axes)
        assert ax.get_xlabel() or shares_x or not ax.xaxis.get_tick_params()["labelbottom"]
        shares_y = grid is not None and len(grid) == 2 and ax not in grid[:, 0]
        assert ax.get_ylabel() or shares_y


@pytest.mark.parametrize("name", NAMES)
def test_one_axes_is_divided_and_an_array_of_axes_is_used(draw, name):
    figure, (left, _) = plt.subplots(1, 2)
    display = draw[name](left)
    assert display.figure_ is figure
    if N_PANELS[name] > 1:
        assert left not in display.axes_
    panels = plt.figure().subplots(N_PANELS[name], 1, squeeze=False)
    assert_array_equal(np.ravel(draw[name](panels).axes_), panels.ravel())
    with pytest.raises(ValueError, match=f"{N_PANELS[name]} panels, got 7 axes"):
        draw[name](plt.figure().subplots(7, 1))


@pytest.mark.parametrize("name", NAMES)
def test_no_dark_lines_are_drawn_on_black(draw, name):
    with plt.style.context("dark_background"):
        for ax in np.ravel(draw[name](None).axes_):
            for line in ax.lines:
                assert max(mpl.colors.to_rgb(line.get_color())) > 0.3


def test_plot_draws_again(pipeline, spikes):
    display = shown.AttentionDisplay.from_estimator(pipeline, spikes)
    first = display.figure_
    assert display.plot().figure_ is not first


@pytest.mark.parametrize("name", NAMES)
def test_without_matplotlib_the_error_names_the_extra(draw, name, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(ImportError, match=r'pip install "sklearn-stndt\[plot\]"'):
        draw[name](None)


# ---- contents


def test_rates_of_a_trial(pipeline, spikes):
    display = shown.RatesDisplay.from_estimator(pipeline, spikes, trial=4, bins=(2, 15))
    rates = pipeline[:-1].transform(spikes)
    assert_array_equal(display.spikes, spikes[4, 2:15])
    assert_array_equal(display.rates, rates[4, 2:15])
    image = display.axes_[2].images[0].get_array()
    order = np.argsort(rates[4, 2:15].argmax(0), kind="stable")
    expected = (rates[4, 2:15] / rates[4, 2:15].max(0))[:, order].T
    assert_allclose(image, expected)


def test_rates_of_a_condition_are_means(pipeline, spikes, reaches):
    display = shown.RatesDisplay.from_estimator(
        pipeline, spikes, conditions=reaches.conditions, condition=3
    )
    assert_allclose(display.spikes, spikes[reaches.conditions == 3].mean(0))
    with pytest.raises(ValueError, match=r"condition=99 needs conditions"):
        shown.RatesDisplay.from_estimator(
            pipeline, spikes, conditions=reaches.conditions, condition=99
        )
    with pytest.raises(ValueError, match=r"trial=24, but there are 24 trials"):
        shown.RatesDisplay.from_estimator(pipeline, spikes, trial=24)


def test_smoothing_averages_what_is_visible(spikes):
    counts = np.ones((20, 3))
    counts[5:8, 0] = np.nan
    counts[:, 2] = np.nan
    display = shown.RatesDisplay(counts, np.ones((20, 3)), smoothing=2)
    assert_allclose(display.smoothed[:, :2], 1)
    assert np.isnan(display.smoothed[:, 2]).all()
    raw = shown.RatesDisplay(spikes[0], spikes[0], smoothing=0)
    assert_array_equal(raw.smoothed, spikes[0])


def test_psth_is_the_mean_over_a_condition_in_hertz(pipeline, spikes, reaches):
    display = shown.PSTHDisplay.from_estimator(
        pipeline, spikes, reaches.conditions, neurons=[7], smoothing=0, bin_width=0.02
    )
    rates = pipeline[:-1].transform(spikes)
    for i, condition in enumerate(np.unique(reaches.conditions)):
        trials = reaches.conditions == condition
        above, below = (ax.lines[i].get_ydata() for ax in display.axes_[:, 0])
        assert_allclose(above, spikes[trials][..., 7].mean(0) / 0.02)
        assert_allclose(below, rates[trials][..., 7].mean(0) / 0.02)
    for wrong in ([12], [], 3):
        with pytest.raises(ValueError, match="from 0 to 11"):
            shown.PSTHDisplay.from_estimator(pipeline, spikes, reaches.conditions, neurons=wrong)
    with pytest.raises(ValueError, match="condition of each of the 24 trials"):
        shown.PSTHDisplay.from_estimator(pipeline, spikes, [1, 2])


@pytest.mark.parametrize("missing", [None, np.nan, pd.NA])
@pytest.mark.parametrize("names", [["a", "b", "c"], [0, 1, 2], [0, "b", 2.5]])
def test_trials_without_a_condition_are_left_out(spikes, names, missing):
    kept = np.arange(24) >= 6
    labels = np.arange(24) % 3
    conditions = [
        names[label] if keep else missing for label, keep in zip(labels, kept, strict=True)
    ]
    for form in (conditions, np.array(conditions, dtype=object), pd.Series(conditions)):
        display = shown.PSTHDisplay.from_predictions(spikes, spikes, form)
        order = [names.index(name) for name in display.conditions]
        assert sorted(order) == [0, 1, 2]
        expected = [spikes[kept & (labels == label)].mean(0) for label in order]
        assert_allclose(display.mean_rates, expected)
        one = shown.RatesDisplay.from_predictions(
            spikes, spikes, conditions=form, condition=names[1]
        )
        assert_allclose(one.spikes, spikes[kept & (labels == 1)].mean(0))


def test_bad_conditions_are_refused(spikes):
    for missing in (None, np.nan):
        with pytest.raises(ValueError, match="None or NaN for each of the 24 trials"):
            shown.PSTHDisplay.from_predictions(spikes, spikes, [missing] * 24)
    with pytest.raises(ValueError, match="string 'nan'"):
        shown.PSTHDisplay.from_predictions(spikes, spikes, np.array(["a", np.nan] * 12))
    with pytest.raises(ValueError, match="condition=3 needs conditions"):
        shown.RatesDisplay.from_predictions(spikes, spikes, condition=3)


def test_attention_is_that_of_attention_maps(pipeline, small, spikes):
    maps = attention_maps(pipeline, spikes)
    display = shown.AttentionDisplay.from_estimator(pipeline, spikes, layer=1, head=1)
    assert_array_equal(display.temporal, maps.temporal[1][1])
    assert_array_equal(display.spatial, maps.spatial[0])
    assert (np.diff(display.spatial.sum(0)[display.order]) <= 0).all()
    temporal = small(attention="temporal").fit(spikes)
    assert len(shown.AttentionDisplay.from_estimator(temporal, spikes).axes_) == 1
    with pytest.raises(ValueError, match="head=2, but there are 2 heads"):
        shown.AttentionDisplay.from_estimator(pipeline, spikes, head=2)
    with pytest.raises(ValueError, match="no map to show"):
        shown.AttentionDisplay()
    with pytest.raises(ValueError, match="must be a square map"):
        shown.AttentionDisplay(np.ones((2, 3)))


def test_dropping_curves_show_scores_and_errors(curve, pipeline, spikes):
    display = shown.NeuronDroppingDisplay.from_curves({"STNDT": curve})
    important, random = display.ax_.lines
    assert_array_equal(important.get_ydata(), curve.scores["bits_per_spike"])
    assert_array_equal(random.get_ydata(), curve.random_mean["bits_per_spike"])
    band = display.ax_.collections[0].get_paths()[0].vertices[:, 1]
    expected = curve.random_mean["bits_per_spike"] + curve.random_2se["bits_per_spike"]
    assert band.max() == pytest.approx(expected.max())
    other = shown.NeuronDroppingDisplay.from_estimator(
        pipeline, spikes, ranking=curve, scorers="bits_per_spike"
    )
    assert_array_equal(other.ax_.lines[0].get_ydata(), curve.scores["bits_per_spike"])
    (computed,) = other.curves.values()
    with pytest.raises(ValueError, match="need the same scorers"):
        shown.NeuronDroppingDisplay({"a": curve, "b": computed})
    with pytest.raises(ValueError, match="no curve to show"):
        shown.NeuronDroppingDisplay({})


def test_ensemble_curve_shows_members_too(ensemble, spikes):
    display = shown.EnsembleCurveDisplay.from_estimator(ensemble, spikes)
    assert_allclose(display.scores, ensemble.score_curve(spikes))
    assert_allclose(display.member_scores, [member.score(spikes) for member in ensemble])
    alone = shown.EnsembleCurveDisplay.from_estimator(ensemble, spikes, members=False)
    assert alone.member_scores is None
    assert len(alone.ax_.lines) == 1
    with pytest.raises(TypeError, match="STNDTEstimator has no score_curve"):
        shown.EnsembleCurveDisplay.from_estimator(ensemble.estimators_[0], spikes)
    with pytest.raises(ValueError, match=r"shape \(n_members,\), got \(3,\) and \(2,\)"):
        shown.EnsembleCurveDisplay([1, 2, 3], [1, 2])


def test_history_shows_each_epoch(pipeline, ensemble, small, spikes):
    history = pipeline[0].history_
    display = shown.TrainingHistoryDisplay.from_estimator(pipeline)
    assert_array_equal(display.ax_.lines[0].get_ydata(), history[:, "train_loss"])
    bits, kept = display.axes_[1].lines
    assert_array_equal(bits.get_ydata(), history[:, "valid_bits"])
    assert kept.get_ydata() == max(history[:, "valid_bits"])
    assert len(shown.TrainingHistoryDisplay.from_estimator(ensemble).ax_.lines) == 6
    blind = small(early_stopping=False).fit(spikes)
    assert len(shown.TrainingHistoryDisplay.from_estimator(blind).axes_) == 1
    with pytest.raises(ValueError, match="no epoch to show"):
        shown.TrainingHistoryDisplay([])


def test_decoding_shows_time_courses_and_paths(pipeline, spikes, reaches):
    decoded, velocity = pipeline.predict(spikes), reaches.velocity
    display = shown.DecodingDisplay.from_estimator(
        pipeline, spikes, velocity, trial=3, path_trials=[2, 5], bin_width=0.02
    )
    assert display.r2 == pytest.approx(pipeline.score(spikes, velocity))
    true, predicted = display.axes_[1].lines
    assert_array_equal(true.get_ydata(), velocity[3, :, 1])
    assert_array_equal(predicted.get_ydata(), decoded[3, :, 1])
    paths = display.axes_[2].lines
    assert len(paths) == 4
    assert_allclose(paths[1].get_xydata(), reaches.position[5], atol=1e-9)
    positions = shown.DecodingDisplay.from_predictions(
        reaches.position, reaches.position, integrate=False, path_trials=[5]
    )
    assert_array_equal(positions.axes_[2].lines[0].get_xydata(), reaches.position[5])


def test_unknown_behaviour_leaves_gaps(reaches):
    velocity = reaches.velocity.copy()
    velocity[0, 4:8] = np.nan
    display = shown.DecodingDisplay.from_predictions(velocity, reaches.velocity)
    assert np.isnan(display.axes_[0].lines[0].get_ydata()[4:8]).all()
    assert display.r2 == 1


def test_a_single_target_of_a_recording_is_decoded(small, rows, reaches):
    speed = np.linalg.norm(reaches.velocity, axis=-1).ravel()
    pipeline = make_pipeline(small(window=20), Ridge()).fit(rows, speed)
    display = shown.DecodingDisplay.from_estimator(pipeline, rows, speed, names=["speed"])
    assert len(display.axes_) == 1
    assert display.ax_.get_ylabel() == "speed (cm/s)"
    assert display.r2 == pytest.approx(pipeline.score(rows, speed))


def test_wrong_arguments_are_refused(fitted, spikes, reaches):
    with pytest.raises(TypeError, match="STNDTEstimator has no predict"):
        shown.DecodingDisplay.from_estimator(fitted, spikes, reaches.velocity)
    labels = np.arange(24) % 2
    classifier = BinwiseClassifier(LogisticRegression(max_iter=500)).fit(spikes, labels)
    for estimator in (classifier, make_pipeline(fitted, classifier), KMeans()):
        name = type(estimator).__name__
        with pytest.raises(TypeError, match=f"DecodingDisplay compares numbers, but {name}"):
            shown.DecodingDisplay.from_estimator(estimator, spikes, labels)
    with pytest.raises(TypeError, match="y_true has dtype"):
        shown.DecodingDisplay.from_predictions(np.full((2, 3, 1), "a"), np.ones((2, 3, 1)))
    with pytest.raises(TypeError, match="Ridge has no transform"):
        shown.RatesDisplay.from_estimator(Ridge(), spikes)
    with pytest.raises(ValueError, match="no trial 24 among 24"):
        shown.DecodingDisplay(reaches.velocity, reaches.velocity, trial=24)
    with pytest.raises(ValueError, match="must name 2 targets"):
        shown.DecodingDisplay(reaches.velocity, reaches.velocity, names=["x"])
    with pytest.raises(ValueError, match=r"two arrays of the same shape"):
        shown.RatesDisplay(spikes[0], spikes[0, :5])
    with pytest.raises(ValueError, match="bin_width must be a number of seconds above 0"):
        shown.RatesDisplay(spikes[0], spikes[0], bin_width=0)
