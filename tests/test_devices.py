"""Networks on a device other than the CPU, on a stand-in for machines without a GPU; its errors."""

import copy
import json
import os
import sys

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose
from subprocesses import output_of

from sklearn_stndt import BaggingEnsemble
from sklearn_stndt.network import STNDT
from sklearn_stndt.network.isolation import device_errors

CHECKS = [
    *(
        f"{what}, {form}"
        for what in ("fit", "infer")
        for form in (
            "default",
            "held out",
            "published",
            "causal",
            "causal in every layer",
            "negative binomial",
            "gaussian",
            "temporal",
        )
    ),
    "saved",
    "adapted",
    "several",
    "ensemble",
    "diverged",
]


@pytest.fixture(scope="module")
def errors():
    """What went wrong in each check: nothing if all tensors were on the right device."""
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(p for p in sys.path if p)}
    script = os.path.join(os.path.dirname(__file__), "fits_elsewhere.py")
    return json.loads(output_of(script, env=environment))


@pytest.mark.slow
@pytest.mark.skipif(
    not hasattr(torch.utils.backend_registration, "_setup_privateuseone_for_python_backend"),
    reason="this version of torch cannot have a device in Python",
)
@pytest.mark.parametrize("check", CHECKS)
def test_tensors_are_on_one_device_which_is_waited_for_once_a_batch(errors, check):
    assert errors[check] == ""
    assert errors.keys() == set(CHECKS)


# ---- errors of a device

OUT_OF_MEMORY = (
    "CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total capacity of 4 GiB"
)
CPU_MEMORY = "[enforce fail at alloc_cpu.cpp:127] DefaultCPUAllocator: not enough memory: you tried"


@pytest.mark.parametrize(
    ("error", "device", "kind", "words"),
    [
        (
            torch.cuda.OutOfMemoryError(OUT_OF_MEMORY),
            "cuda",
            MemoryError,
            r"'cuda' ran out of memory .*: CUDA out of memory\. .* batch_size.* device='cpu'",
        ),
        (
            RuntimeError("CUDA error: no kernel image is available\nmore"),
            "cuda:1",
            RuntimeError,
            r"'cuda:1' failed: CUDA error: no kernel image is available\. .*device='cpu'",
        ),
        (
            RuntimeError("cuDNN error: CUDNN_STATUS_NOT_INITIALIZED"),
            "cuda",
            RuntimeError,
            "'cuda' failed: cuDNN error",
        ),
        (
            RuntimeError("MPS backend out of memory (MPS allocated: 9 GB)"),
            "mps",
            MemoryError,
            "'mps' ran out of memory",
        ),
        (
            RuntimeError(CPU_MEMORY),
            "cpu",
            MemoryError,
            r"ran out of memory .*DefaultCPUAllocator.* batch_size",
        ),
    ],
)
def test_an_error_of_the_device_says_so(error, device, kind, words):
    with pytest.raises(kind, match=words) as caught, device_errors(device):
        raise error
    assert caught.value.__cause__ is error
    assert "\n" not in str(caught.value)
    with pytest.raises(kind) as again, device_errors(device), device_errors(device):
        raise caught.value
    assert again.value is caught.value


@pytest.mark.parametrize(
    "error", [ValueError("CUDA"), RuntimeError("CUDA error"), RuntimeError("lr is too large")]
)
def test_other_errors_stay_as_they_are(error):
    device = "cuda" if "lr" in str(error) else "cpu"
    with pytest.raises(type(error)) as caught, device_errors(device):
        raise error
    assert caught.value is error


@pytest.mark.parametrize("method", ["fit", "transform"])
def test_fit_and_transform_name_the_device_that_failed(small, spikes, monkeypatch, method):
    estimator = small(max_epochs=1).fit(spikes)
    before = dict(vars(estimator))

    def full(*args, **kwargs):
        raise torch.cuda.OutOfMemoryError(OUT_OF_MEMORY)

    monkeypatch.setattr(STNDT, "forward", full)
    with pytest.raises(MemoryError, match=r"'cpu' ran out of memory .*batch_size or window\. "):
        getattr(estimator, method)(spikes)
    assert vars(estimator) == before


# ---- with a GPU


@pytest.mark.gpu
def test_a_gpu_infers_the_rates_of_the_cpu(small, spikes):
    here = small().fit(spikes)
    there = copy.deepcopy(here)
    there.net_.module_.to("cuda")
    there.net_.device = there.device_ = "cuda"
    assert_allclose(there.transform(spikes), here.transform(spikes), rtol=1e-3)


@pytest.mark.gpu
def test_an_ensemble_shares_a_gpu(small, spikes):
    ensemble = BaggingEnsemble(small(device="cuda"), 2, n_jobs=2, random_state=0).fit(spikes)
    assert np.isfinite(ensemble.transform(spikes)).all()


@pytest.mark.gpu
def test_a_finished_training_on_a_gpu_is_read(small, spikes, tmp_path):
    first = small(device="cuda", checkpoint_dir=tmp_path).fit(spikes)
    again = small(device="cuda", checkpoint_dir=tmp_path).fit(spikes)
    assert_allclose(again.transform(spikes), first.transform(spikes), rtol=1e-5)
