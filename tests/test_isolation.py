"""The seed and the thread count of torch are set for a block only."""

import threading

import pytest
import torch
from subprocesses import LIMIT

from sklearn_stndt.network.isolation import isolated_torch


@pytest.fixture(autouse=True)
def four_threads():
    """Set a thread count that no test uses inside a block."""
    before = torch.get_num_threads()
    torch.set_num_threads(4)
    yield
    torch.set_num_threads(before)


def draw(seed, n=5):
    with isolated_torch(1, seed):
        return torch.rand(n).tolist()


def test_the_seed_determines_the_numbers():
    first = draw(3)
    torch.rand(7)
    assert draw(3) == first
    assert draw(4) != first


@pytest.mark.parametrize("seed", [0, None])
def test_the_thread_count_holds_only_inside_the_block(seed):
    with isolated_torch(2, seed):
        assert torch.get_num_threads() == 2
    assert torch.get_num_threads() == 4


def test_the_global_generator_is_unchanged():
    before = torch.random.get_rng_state()
    draw(0)
    assert torch.equal(torch.random.get_rng_state(), before)


def raise_inside(error):
    with isolated_torch(2, 0):
        torch.rand(3)
        raise error


@pytest.mark.parametrize("error", [ValueError("in the block"), KeyboardInterrupt()])
def test_state_is_restored_after_an_exception(error):
    before = torch.random.get_rng_state()
    with pytest.raises(type(error)):
        raise_inside(error)
    assert torch.equal(torch.random.get_rng_state(), before)
    assert torch.get_num_threads() == 4
    # the lock is released, so that another thread can enter
    thread = threading.Thread(target=draw, args=(0,), daemon=True)
    thread.start()
    thread.join(LIMIT)
    assert not thread.is_alive()


def test_blocks_can_be_nested():
    expected_outer, expected_inner = draw(1, 6), draw(2, 3)
    with isolated_torch(3, 1):
        outer = torch.rand(3).tolist()
        with isolated_torch(2, 2):
            assert torch.get_num_threads() == 2
            inner = torch.rand(3).tolist()
        assert torch.get_num_threads() == 3
        outer += torch.rand(3).tolist()
    assert inner == expected_inner
    assert outer == expected_outer


def test_python_threads_wait_for_each_other():
    second_is_inside = threading.Event()
    drawn = {}

    def first():
        with isolated_torch(1, 1):
            numbers = torch.rand(3).tolist()
            second.start()
            # without a lock, the second thread would enter now and seed the common generator
            second_is_inside.wait(0.3)
            drawn[1] = numbers + torch.rand(3).tolist()

    def enter_second():
        with isolated_torch(1, 2):
            second_is_inside.set()
            drawn[2] = torch.rand(6).tolist()

    second = threading.Thread(target=enter_second)
    before = torch.random.get_rng_state()
    first()
    second.join(LIMIT)
    assert drawn == {1: draw(1, 6), 2: draw(2, 6)}
    assert torch.equal(torch.random.get_rng_state(), before)


@pytest.mark.gpu
@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_the_generator_of_the_gpu_is_unchanged(device):
    # torch.manual_seed seeds every CUDA device, also for a block on the CPU
    before = torch.cuda.get_rng_state()
    with isolated_torch(1, 0, device):
        torch.rand(3, device=device)
    assert torch.equal(torch.cuda.get_rng_state(), before)
