"""Networks as files that run without this package, and without Python."""

import copy
import importlib
import logging
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from sklearn_stndt._rates import rate_steps
from sklearn_stndt.estimator import STNDTEstimator
from sklearn_stndt.network import STNDT, CausalSTNDT, inference_masks
from sklearn_stndt.network.causal import decays
from sklearn_stndt.network.isolation import isolated_torch
from sklearn_stndt.network.temporal import distances, look_back

__all__ = ["to_onnx", "to_torch"]

_N_CHECKED = 30  # steps, or trials, by which a file is compared with the network
_TOLERANCE = 1e-4  # relative difference of rates, for rounding in another order


def to_onnx(
    estimator: Any, path: str | PathLike, *, step: bool = False, n_streams: int = 1
) -> Path:
    """Write a fitted network to an ONNX file, and check it with onnxruntime.

    Parameters
    ----------
    estimator : STNDTEstimator
        Fitted; with ``causal=True`` if `step`.
    path : str or PathLike
        File to write, such as ``"network.onnx"``.
    step : bool, default=False
        True: one bin of a stream, with its memory as further inputs and outputs. False: a whole
        window, as long as in fit.
    n_streams : int, default=1
        Number of streams, or of windows, that the file takes at once.

    Returns
    -------
    pathlib.Path
        The file.

    Raises
    ------
    ImportError
        If onnx, onnxscript or onnxruntime is missing; ``pip install "sklearn-stndt[onnx]"`` brings
        them.
    TypeError
        If `estimator` is an ensemble or a pipeline.
    ValueError
        If `step` is requested of a network that is not causal.
    RuntimeError
        If onnxruntime infers other rates than the network.

    See Also
    --------
    sklearn_stndt.streaming.RateStream : The same in Python.

    Notes
    -----
    The first input, `counts`, has the shape (n_streams, n_neurons) or, of a window, (n_streams,
    n_bins, n_neurons): float32, NaN where hidden. The first output, `rates`, has the same shape.
    A step has further inputs, all float32 and 0 before the first bin, and as many further outputs:
    the inputs of the next step, in the same order. In Python, without this package::

        session = onnxruntime.InferenceSession("step.onnx")
        names = [i.name for i in session.get_inputs()]
        memory = [np.zeros(i.shape, np.float32) for i in session.get_inputs()[1:]]
        for counts in bins:
            rates, *memory = session.run(None, dict(zip(names, [counts, *memory])))

    To write a step takes seconds, and a window of 128 bins of a causal network about a minute.

    Held-out neurons stay hidden. Forecasts are windows, or steps, of which all counts are NaN; the
    memory that such a step returns is to be thrown away.
    """
    for package in ("onnx", "onnxscript"):
        _import(package)
    onnxruntime = _import("onnxruntime")
    module, inputs, names = _module_of(estimator, step, n_streams)
    path = Path(path)
    with _exporting():
        torch.onnx.export(
            torch.export.export(module, inputs),
            f=str(path),
            dynamo=True,
            external_data=False,
            input_names=["counts", *names],
            output_names=["rates", *(f"next {name}" for name in names)],
            verbose=False,
        )
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])

    def run(*values: NDArray) -> list:
        return session.run(None, dict(zip(["counts", *names], values, strict=True)))

    _check(run, module, inputs, path)
    return path


def to_torch(
    estimator: Any, path: str | PathLike, *, step: bool = False, n_streams: int = 1
) -> Path:
    """Write a fitted network to a file of `torch.export`, and check it.

    Parameters
    ----------
    estimator, path, step, n_streams
        As for :func:`to_onnx`; the path is usually one such as ``"network.pt2"``.

    Returns
    -------
    pathlib.Path
        The file. ``torch.export.load(path).module()`` is a function of `counts` and, of a step, of
        the memory, as described in :func:`to_onnx`.

    Raises
    ------
    TypeError, ValueError, RuntimeError
        As of :func:`to_onnx`.
    """
    module, inputs, _ = _module_of(estimator, step, n_streams)
    path = Path(path)
    with _exporting():
        torch.export.save(torch.export.export(module, inputs), path)
    loaded = torch.export.load(path).module()

    def run(*values: NDArray) -> list:
        with isolated_torch(1), torch.inference_mode():
            found = loaded(*map(torch.from_numpy, values))
        return [value.numpy() for value in (found if isinstance(found, tuple) else (found,))]

    _check(run, module, inputs, path)
    return path


def _import(package: str) -> Any:
    try:
        return importlib.import_module(package)
    except ImportError as error:
        raise ImportError(
            f'to_onnx needs {package}. Install it with: pip install "sklearn-stndt[onnx]"'
        ) from error


class _Exported(nn.Module):
    """A network with what hides its held-out neurons."""

    shown: Tensor

    def __init__(self, network: Any, heldout_neurons: NDArray):
        super().__init__()
        self.network = network
        shown = torch.ones(network.readout.out_features)
        shown[torch.as_tensor(heldout_neurons, dtype=torch.long)] = 0
        self.register_buffer("shown", shown)

    def visible(self, counts: Tensor) -> Tensor:
        return ~torch.isnan(counts) & (self.shown > 0)


class _Unsmoothed(nn.Module):
    """Stands for smoothing by a width of 0, which an export cannot decide by its value."""

    def forward(self, x: Tensor, bin_visible: Tensor) -> Tensor:
        return x


class _Window(_Exported):
    """Counts of windows, NaN where hidden, to rates."""

    masks: Tensor

    def __init__(self, network: STNDT, heldout_neurons: NDArray, n_hidden: int, masks: Tensor):
        super().__init__(network, heldout_neurons)
        self.n_hidden = n_hidden  # forecast bins at the end
        self.register_buffer("masks", masks)  # (n_passes, n_bins, n_neurons)

    def forward(self, counts: Tensor) -> Tensor:
        visible = self.visible(counts)
        if self.n_hidden:
            bins = torch.arange(counts.shape[1])
            visible = visible & (bins < counts.shape[1] - self.n_hidden)[:, None]
        log_rates = self.network.infer(counts.nan_to_num(0.0), visible, self.masks).log_rates
        return self.network.likelihood.mean(log_rates)


class _Step(_Exported):
    """Counts of one bin, and the memory of the bins before, to rates and the next memory."""

    def __init__(self, network: CausalSTNDT, heldout_neurons: NDArray, names: list[str]):
        super().__init__(network, heldout_neurons)
        self.names = names

    def forward(self, counts: Tensor, *memory: Tensor) -> tuple[Tensor, ...]:
        counts = counts[:, None]  # (n_streams, 1, n_neurons)
        passed = _PassedMemory(dict(zip(self.names, memory, strict=True)))
        log_rates = self.network.advance(counts, self.visible(counts), passed)
        rates = self.network.likelihood.mean(log_rates)[:, 0]
        return rates, *(passed.after[name] for name in self.names)


class _PassedMemory:
    """The memory of a stream as tensors that come in and go out, instead of buffers."""

    def __init__(self, before: dict[str, Tensor]):
        self.before = before
        self.after: dict[str, Tensor] = {}
        self._age = before["age"]

    @property
    def age(self) -> Tensor:
        return self._age.long()

    @age.setter
    def age(self, age: Tensor) -> None:
        self._age = self.after["age"] = age.float()

    def extend(self, name: str, new: Tensor, n_kept: int) -> Tensor:
        if name not in self.before:  # the network does not reach back
            return new
        if not new.shape[-2]:
            return self.before[name]
        everything = torch.cat([self.before[name], new], dim=-2)
        self.after[name] = everything[..., new.shape[-2] :, :]
        return everything


def _module_of(
    estimator: Any, step: bool, n_streams: int
) -> tuple[nn.Module, tuple[Tensor, ...], list[str]]:
    """The module to export, its inputs before the first bin, and the names of its memory."""
    before, source, after = rate_steps(estimator)
    if before or after:
        names = ", ".join(type(one).__name__ for one in [*before, *after])
        raise TypeError(
            f"Only a network can be exported, and the pipeline has other steps: {names}. Pass the "
            f"{type(source).__name__}, and apply them to its rates where it runs."
        )
    if not isinstance(source, STNDTEstimator):
        raise TypeError(
            f"{type(source).__name__} cannot be exported as one file. Export each of its "
            "estimators_, and average their rates where they run."
        )
    network = copy.deepcopy(source.net_.module_).cpu().eval().requires_grad_(False)
    if not network.smoothing.width:
        network.smoothing = _Unsmoothed()
    n_neurons, settings = network.readout.out_features, source.settings_
    if not step:
        n_hidden = 0 if settings.network.causal else settings.objective.forecast_bins
        counts = torch.zeros(n_streams, source.window_, n_neurons)
        masks = inference_masks(source.window_, n_neurons, source.net_.inference_passes)
        return _Window(network, source.heldout_neurons_, n_hidden, masks).eval(), (counts,), []
    if not isinstance(network, CausalSTNDT):
        raise ValueError(
            "One bin at a time can be exported of a causal network only. Fit "
            "STNDTEstimator(causal=True), or pass step=False to export a whole window."
        )
    memory = network.new_memory(n_streams)
    kept = {name: reach for name, reach in memory.reach.items() if reach}
    inputs = [memory.buffers[name][..., :reach, :].clone() for name, reach in kept.items()]
    names = ["age", *kept]
    module = _Step(network, source.heldout_neurons_, names).eval()
    return module, (torch.zeros(n_streams, n_neurons), torch.zeros(n_streams), *inputs), names


@contextmanager
def _exporting() -> Iterator[None]:
    """Keep cached tensors of the network apart from those of an export, which hold no values."""
    caches = (look_back, distances, decays)
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)  # it warns of other packages that are not installed
    try:
        for cached in caches:
            cached.cache_clear()
        with isolated_torch(1), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of torch, about its own functions
            yield
    finally:
        logger.setLevel(level)
        for cached in caches:
            cached.cache_clear()


def _check(
    run: Callable[..., list], module: nn.Module, inputs: tuple[Tensor, ...], path: Path
) -> None:
    """Compare what a file infers with what the network infers, from random counts."""
    network: Any = module.network
    likelihood = network.likelihood
    center, scale, least = np.float32(0), np.float32(1), np.float32(0)
    if likelihood.lowest is None:
        at = [likelihood.mean(torch.full((len(likelihood.start_mean),), r)) for r in (0.0, 1.0)]
        center, scale = at[0].numpy(), (at[1] - at[0]).numpy()
        least = np.abs(scale)
    draw = np.random.RandomState(0)
    there = [value.numpy() for value in inputs]
    here = list(inputs)
    for _ in range(_N_CHECKED if len(inputs) > 1 else 3):
        counts = center + scale * draw.poisson(0.5, inputs[0].shape).astype(np.float32)
        counts[draw.rand(*counts.shape) < 0.2] = np.nan
        with isolated_torch(1), torch.inference_mode():
            found = module(torch.from_numpy(counts), *here[1:])
        found = found if isinstance(found, tuple) else (found,)
        there = run(counts, *there[1:])
        here = list(found)
        expected = here[0].numpy()
        difference = np.inf  # of other shapes
        if there[0].shape == expected.shape:
            # relative to the rates, or to the spread of signals of any sign
            difference = float((np.abs(there[0] - expected) / (np.abs(expected) + least)).max())
        if not difference < _TOLERANCE:
            raise RuntimeError(
                f"{path} infers other rates than the network: the relative difference is "
                f"{difference:.1g}. Do not use it; try other versions of torch and onnxruntime."
            )
