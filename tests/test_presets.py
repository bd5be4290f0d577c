import pickle

import numpy as np
import pytest
from sklearn.model_selection import ParameterSampler, RandomizedSearchCV
from skorch.callbacks import regularization

from sklearn_stndt import STNDTEstimator, presets
from sklearn_stndt.datasets import make_reaches

NAMES = ["mc_maze", "mc_rtt", "area2_bump", "dmfc_rsg"]


@pytest.fixture(scope="module")
def spikes():
    return make_reaches(24, 12, 7, random_state=0).spikes


@pytest.mark.parametrize("name", NAMES)
def test_the_published_model_trains(name, spikes):
    params = presets.paper(name) | {"max_epochs": 2}
    estimator = STNDTEstimator(**params, heldout_neurons=2, forecast_bins=3, random_state=0)
    estimator.fit(spikes)
    network = estimator.net_.module_
    assert len(network.layers) == len(network.mix_every.mixings) == params["n_layers"]
    assert network.embed.weight.shape == (7, 7)  # one channel per neuron
    assert np.isfinite(estimator.transform(spikes)).all()
    assert {"train_nll", "train_contrast"} <= set(estimator.history_[-1])


def test_published_training_parameters_reach_the_training(spikes, monkeypatch):
    norms = []
    clip = regularization.clip_grad_norm_
    monkeypatch.setattr(
        regularization,
        "clip_grad_norm_",
        lambda parameters, max_norm, norm_type: (
            norms.append(max_norm) or clip(parameters, max_norm=max_norm, norm_type=norm_type)
        ),
    )
    net = STNDTEstimator(**presets.paper("mc_maze") | {"max_epochs": 1}).fit(spikes).net_
    assert set(norms) == {200.0}
    objective = net.objective
    assert (objective.contrastive_at, objective.contrastive_mask_ratio) == ("embedding", 0.05)
    assert (objective.contrastive_token_ratio, objective.contrastive_random_ratio) == (0.5, 0.5)
    assert net.module_.bands == [(8, 4)] * 4


@pytest.mark.parametrize("name", NAMES)
def test_the_search_space_is_that_of_the_paper(name):
    space = presets.paper_search_space(name)
    draws = list(ParameterSampler(space, n_iter=200, random_state=0))
    n_layers = presets.paper(name)["n_layers"]
    for draw in draws:
        STNDTEstimator(**draw)._validate_params()
        assert all(bins % n_layers == 0 for bins in draw["context"])
        assert 0.5 <= draw["token_ratio"] <= 1
    # 200 draws come near both ends of each range
    low, high = {"area2_bump": (0.1, 0.6)}.get(name, (0.1, 0.4))
    ratios = [draw["mask_ratio"] for draw in draws]
    assert low <= min(ratios) < low + 0.02
    assert high - 0.02 < max(ratios) <= high
    rates = [draw["lr"] for draw in draws]
    assert max(rates) <= {"mc_rtt": 1e-1, "dmfc_rsg": 5e-3}.get(name, 1e-2)
    bands = [bins // n_layers for draw in draws for bins in draw["context"]]
    assert (min(bands), max(bands)) >= {"dmfc_rsg": (40, 200)}.get(name, (1, 90))
    assert max(bands) <= {"dmfc_rsg": 240}.get(name, 100)


def test_draws_are_repeatable_and_survive_pickling():
    context = presets.paper_search_space("mc_maze")["context"]
    copy = pickle.loads(pickle.dumps(context))
    assert context.rvs(random_state=3) == copy.rvs(random_state=3)
    assert len({context.rvs(random_state=seed) for seed in range(20)}) > 15


def test_a_randomized_search_draws_from_the_space(spikes):
    search = RandomizedSearchCV(
        STNDTEstimator(max_epochs=1, random_state=0),
        presets.paper_search_space("mc_maze"),
        n_iter=2,
        cv=2,
        random_state=0,
    ).fit(spikes)
    assert search.best_estimator_.contrastive_at == "embedding"
    assert search.best_params_.keys() == presets.paper_search_space("mc_maze").keys()


@pytest.mark.parametrize("function", [presets.paper, presets.paper_search_space])
def test_an_unknown_data_set_is_refused(function):
    with pytest.raises(ValueError, match=r"mc_maze, mc_rtt, area2_bump, dmfc_rsg.*'mc_lab'"):
        function("mc_lab")
