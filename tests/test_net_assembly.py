"""Assembly of the net: schedule, clipping, interruptions, and parameters to override."""

import pytest
import torch
from skorch.callbacks import Callback
from small_nets import draw_counts_with_gaps, small_net, windows_of

from sklearn_stndt.network import STNDT
from sklearn_stndt.training.callbacks import WarmupCosine

pytestmark = pytest.mark.usefixtures("torch_seed")


@pytest.fixture
def batch():
    return draw_counts_with_gaps()


class Fail(Callback):
    """Raises an error in an epoch."""

    def __init__(self, error, epoch):
        self.error = error
        self.epoch = epoch

    def on_batch_begin(self, net, training=False, **kwargs):
        if training and len(net.history) == self.epoch:
            raise self.error


def test_the_learning_rate_follows_the_schedule(batch):
    net = small_net(max_epochs=5, n_train=6, batch_size=4)
    net.partial_fit(windows_of(batch))
    rates = [b["event_lr"] for epoch in net.history for b in epoch["batches"] if "event_lr" in b]
    schedule = WarmupCosine(10, 0.3)
    assert rates == pytest.approx([0.01 * schedule(update) for update in range(10)])


def test_gradients_are_clipped(batch):
    class LastNorm(Callback):
        def on_grad_computed(self, net, **kwargs):
            gradients = [p.grad for p in net.module_.parameters() if p.grad is not None]
            self.norm_ = torch.stack([g.norm() for g in gradients]).norm().item()

    callback = LastNorm()
    net = small_net([("last_norm", callback)])
    net.partial_fit(windows_of(1000 * batch))
    assert dict(net.callbacks_)["last_norm"].norm_ == pytest.approx(1, rel=1e-3)


@pytest.mark.parametrize("with_validation", [True, False])
def test_interruptions_are_recorded(batch, with_validation):
    windows = windows_of(batch)
    net = small_net([Fail(KeyboardInterrupt(), 2)], validation=windows if with_validation else None)
    net.partial_fit(windows)
    assert net.interrupted_
    assert len(net.history) == 2


@pytest.mark.parametrize("with_validation", [True, False])
def test_training_for_all_epochs_is_not_an_interruption(batch, with_validation):
    windows = windows_of(batch)
    net = small_net(validation=windows if with_validation else None)
    net.partial_fit(windows)
    assert not net.interrupted_
    assert len(net.history) == 2
    assert ("valid_bits" in net.history[-1]) == with_validation


def test_other_errors_are_raised(batch):
    net = small_net([Fail(ValueError("of a callback"), 1)])
    with pytest.raises(ValueError, match="of a callback"):
        net.partial_fit(windows_of(batch))


def test_every_training_window_is_seen_once_an_epoch_in_random_order(batch):
    class Order(Callback):
        def initialize(self):
            self.seen_ = []
            return self

        def on_batch_begin(self, net, batch=None, training=False, **kwargs):
            if training:
                self.seen_ += batch[0][:, 0, 0].tolist()

    batch[:, 0, 0] = torch.arange(6)
    net = small_net([("order", Order())])
    net.partial_fit(windows_of(batch))
    seen = dict(net.callbacks_)["order"].seen_
    assert sorted(seen[:6]) == sorted(seen[6:]) == list(range(6))
    assert seen[:6] != seen[6:]


@pytest.mark.parametrize(
    "optimizer", [torch.optim.SGD, torch.optim.Adam, torch.optim.RMSprop, torch.optim.RAdam]
)
def test_any_optimizer_can_replace_adamw(batch, optimizer):
    net = small_net(net_params={"optimizer": optimizer})
    net.partial_fit(windows_of(batch))
    assert type(net.optimizer_) is optimizer
    assert net.optimizer_.param_groups[0]["weight_decay"] == 0.01


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("max_epochs", 3),
        ("batch_size", 2),
        ("optimizer__weight_decay", 0.2),
        ("optimizer__betas", (0.5, 0.9)),
        ("callbacks__clipping__gradient_clip_value", 0.01),
        ("verbose", 0),
    ],
)
def test_parameters_of_the_net_can_be_overridden(name, value):
    assert small_net(net_params={name: value}).get_params()[name] == value


@pytest.mark.parametrize(("name", "value"), [("mask_ratio", 0.4), ("contrastive_weight", 0.2)])
def test_parameters_of_the_objective_can_be_overridden(name, value):
    net = small_net(mask_ratio=0.3, contrastive_weight=0.0, net_params={name: value})
    assert getattr(net.objective, name) == value


def test_the_network_can_be_overridden():
    class Wider(STNDT):
        pass

    assert type(small_net(net_params={"module": Wider}).module_) is Wider
    assert small_net(net_params={"module__d_model": 5}).module_.embed.out_features == 5


@pytest.mark.parametrize("net_params", [{"max_epochs": 6}, {"batch_size": 2}])
def test_the_schedule_follows_overridden_parameters(batch, net_params):
    # otherwise the learning rate would be 0 for the rest of a longer training
    net = small_net(n_train=6, net_params=net_params)
    net.partial_fit(windows_of(batch))
    rates = [b["event_lr"] for epoch in net.history for b in epoch["batches"] if "event_lr" in b]
    assert min(rates) > 0


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("a", "no parameter 'a'. It has batch_size, "),
        ("optimiser", "no parameter 'optimiser'. Did you mean 'optimizer'"),
        ("optimiser__eps", "Did you mean 'optimizer__eps'"),
        ("temperatures", "Did you mean 'temperature'"),
        ("d_model", "d_model is a parameter of the estimator: pass it there"),
        (3, "no parameter 3"),
    ],
)
def test_names_that_the_net_does_not_have_are_refused(batch, name, words):
    with pytest.raises(ValueError, match=r"net_params=\{.*module__, criterion__, ") as caught:
        small_net(net_params={name: 1})
    assert words in str(caught.value)


def test_net_params_are_unchanged(batch):
    net_params = {"callbacks": [Callback()], "max_epochs": 1}
    net = small_net(net_params=net_params)
    net.partial_fit(windows_of(batch))
    net.trim_for_prediction()
    assert len(net_params["callbacks"]) == 1
