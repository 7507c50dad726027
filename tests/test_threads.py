"""Equal bits from equal inputs: on any number of threads, and call after call."""

import pytest
import torch
from problems import DTYPES, IMAGE_OPS, OPS, Problem, call


@pytest.fixture
def threads():
    yield torch.set_num_threads
    torch.set_num_threads(1)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("outputs", [None, 2], ids=["no_mix", "mix"])
@pytest.mark.parametrize("op", OPS)
def test_equal_bits_on_any_number_of_threads(serving, threads, op, outputs, dtype):
    check_equal_bits(serving, threads, op, Problem(2, 3, 150, 140, bank="per_colour", outputs=outputs), dtype)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("op", IMAGE_OPS)
def test_equal_bits_of_wide_images_on_any_number_of_threads(serving, threads, op, dtype):
    check_equal_bits(serving, threads, op, Problem(2, 3, 150, 280, bank="per_colour"), dtype)


def check_equal_bits(serving, threads, op, problem, dtype):
    if serving.backend == "eager":
        pytest.skip("plain PyTorch's convolutions and sums make no such promise")
    arguments = problem.arguments(dtype, serving.device)
    threads(1)
    alone = call(op, arguments)
    for count in (2, 3, 5):
        threads(count)
        for _ in range(2):
            assert torch.equal(call(op, arguments), alone)


def test_calls_from_several_python_threads_at_once(serving):
    """Scratch belongs to a thread, so concurrent calls do not meet."""
    from concurrent.futures import ThreadPoolExecutor

    arguments = Problem(1, 3, 90, 100, outputs=2).arguments(torch.float32, serving.device)
    alone = {op: call(op, arguments) for op in OPS}
    with ThreadPoolExecutor(4) as pool:
        futures = [(op, pool.submit(call, op, arguments)) for op in OPS * 4]
    for op, future in futures:
        torch.testing.assert_close(future.result(), alone[op], rtol=0 if serving.backend == "cpu" else 1e-5, atol=0)
