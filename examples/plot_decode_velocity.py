"""
Decode hand velocity from trials
================================

Hand velocity is decoded from spikes of motor cortex by one scikit-learn pipeline:
:class:`~sklearn_stndt.STNDTEstimator` infers rates, and
:class:`~sklearn_stndt.BinwiseRegressor` lets ``Ridge`` decode the velocity from them, bin by bin.
The input is trials, so folds are trials, and the pipeline is tuned like any other.
"""

# %%
# The data
# --------
# Generated centre-out reaches, in trials of one second. The hand movement differs in every trial,
# even between reaches to the same target, and so do the spikes. (This example always runs on
# generated data, because no recording used in the other examples has hand velocity in enough
# trials.)
import tempfile

# sphinx_gallery_thumbnail_number = 3
import matplotlib.pyplot as plt
import numpy as np
from scipy.ndimage import gaussian_filter1d
from sklearn.linear_model import Ridge
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer

from sklearn_stndt import BinwiseRegressor, STNDTEstimator
from sklearn_stndt.datasets import make_reaches
from sklearn_stndt.plotting import DecodingDisplay, RatesDisplay

data = make_reaches(n_trials=140, random_state=0)
train, test = slice(0, 60), slice(60, None)

# %%
# Search over the pipeline
# ------------------------
# ``GridSearchCV`` treats trials as samples: each fold holds whole trials, and no trial is split
# between training and test sets. Two parameters are chosen: the penalty, and the delay from the
# neurons to the hand, ``lag``, in bins of 20 ms. Do not set ``scoring``: the pipeline's own score
# works on trials, ``scoring="r2"`` does not.
grid = {
    "binwiseregressor__estimator__alpha": [0.001, 0.1, 10, 1000],
    "binwiseregressor__lag": [0, 2, 4],
}

# %%
# The search has 12 candidates and 3 folds, but the network does not depend on the parameters that
# are searched. ``memory`` caches each fitted network, so the search trains 4 instead of 37: one per
# fold, and one on all training trials. This needs an integer ``random_state``, because otherwise no
# two fits are the same.
folder = tempfile.TemporaryDirectory()
stndt = make_pipeline(STNDTEstimator(random_state=0), BinwiseRegressor(Ridge()), memory=folder.name)
stndt = GridSearchCV(stndt, grid, cv=3).fit(data.spikes[train], data.velocity[train])
folder.cleanup()

# %%
# The baselines have the same decoder and the same grid. The width of the Gaussian is chosen too.
counts = make_pipeline(FunctionTransformer(), BinwiseRegressor(Ridge()))
counts = GridSearchCV(counts, grid, cv=3).fit(data.spikes[train], data.velocity[train])

widths = [1, 2, 3, 4, 6]  # bins
smoothing = make_pipeline(FunctionTransformer(gaussian_filter1d), BinwiseRegressor(Ridge()))
smoothing = GridSearchCV(
    smoothing,
    grid
    | {
        "functiontransformer__kw_args": [
            {"sigma": width, "axis": 1, "output": float} for width in widths
        ]
    },
    cv=3,
).fit(data.spikes[train], data.velocity[train])

# %%
# R2 in test trials, over all bins, averaged over x and y.
searches = {"counts": counts, "Gaussian smoothing": smoothing, "STNDT": stndt}
velocity = {"truth": data.velocity[test]}
print(f"{'':20}{'R2':>6}{'penalty':>10}{'lag':>8}")
for name, search in searches.items():
    velocity[name] = search.predict(data.spikes[test])
    score = search.score(data.spikes[test], data.velocity[test])
    alpha = search.best_params_["binwiseregressor__estimator__alpha"]
    lag = search.best_params_["binwiseregressor__lag"]
    print(f"{name:20}{score:6.3f}{alpha:10g}{1000 * lag * data.bin_width:5.0f} ms")

# %%
# Velocity in one test trial, the one with the median R2.
true, decoded = velocity["truth"], velocity["STNDT"]
unexplained = ((true - decoded) ** 2).sum(axis=(1, 2)) / (true**2).sum(axis=(1, 2))
median_trial = np.argsort(unexplained)[len(unexplained) // 2]
DecodingDisplay.from_predictions(true, decoded, trial=median_trial, bin_width=data.bin_width)

# %%
# The paths of sixteen reaches, coloured by target: true paths, and paths decoded from smoothed
# counts and from the rates of STNDT. Paths are the cumulative sum of the velocity, so errors
# accumulate.
methods = ("truth", "Gaussian smoothing", "STNDT")
fig, axes = plt.subplots(1, 3, figsize=(7, 2.8), layout="constrained")
hues = plt.get_cmap("twilight")(np.arange(8) / 8)  # one per target
for ax, name in zip(axes, methods, strict=True):
    paths = np.cumsum(velocity[name][:16], axis=1) * data.bin_width
    for path, condition in zip(paths, data.conditions[test], strict=False):
        ax.plot(*path.T, color=hues[condition], lw=1.2)
    ax.set(title=name, xlabel="x (cm)", aspect="equal", xlim=(-16, 16), ylim=(-16, 16))
    ax.label_outer()
axes[0].set_ylabel("y (cm)")

# %%
# One figure of spikes, rates and velocity
# ----------------------------------------
# Displays can also draw into existing axes: spikes and rates of the trial on the left, hand
# velocity on the right.
fig, axes = plt.subplots(3, 2, figsize=(9, 7), layout="constrained")
RatesDisplay.from_estimator(
    stndt.best_estimator_,
    data.spikes[test],
    trial=median_trial,
    bin_width=data.bin_width,
    ax=axes[:, 0],
)
DecodingDisplay.from_predictions(
    true, decoded, trial=median_trial, bin_width=data.bin_width, ax=axes[:, 1]
)
plt.show()
