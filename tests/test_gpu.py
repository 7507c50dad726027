"""What holds on a GPU beside the results themselves, which test_ops.py and test_answers.py check there too.

Every test has cuda in its name: `pytest -k cuda` is the part of the suite that a GPU decides.
"""

import pytest
import torch
from problems import OPS, Problem, call, positional

import gkm_ops

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="torch finds no GPU")

BANK = gkm_ops.GaussianBank.gkmnet()


def inputs(dtype=torch.float32, size=(70, 90), device="cuda"):
    return torch.rand(2, 3, *size, dtype=dtype, device=device), torch.rand(2, 22, *size, dtype=dtype, device=device)


def test_the_best_backend_serves_on_cuda():
    answers = gkm_ops.available_backends("cuda")
    assert answers["triton"] == "available"
    assert "float64" in gkm_ops.available_backends("cuda", torch.float64)["triton"]


@pytest.mark.parametrize("op", OPS)
def test_opcheck_on_cuda(op):
    arguments = Problem(height=20, width=34, bank="skew", outputs=2).arguments(torch.float32, "cuda")
    tests = ("test_schema", "test_faketensor", "test_autograd_registration")
    torch.library.opcheck(getattr(torch.ops.gkm_ops, op), positional(op, arguments), test_utils=tests)


def test_gradients_on_cuda_equal_those_in_float64():
    bank = BANK.to("cuda")

    tensors = inputs()

    def gradients(dtype):
        x, coeffs = (tensor.to(dtype).requires_grad_() for tensor in tensors)
        return torch.autograd.grad(gkm_ops.gkm_blur(x, coeffs, bank).square().sum(), (x, coeffs))

    for got, want in zip(gradients(torch.float32), gradients(torch.float64), strict=True):
        torch.testing.assert_close(got.double(), want, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_autocast_on_cuda(dtype):
    x, coeffs = inputs()
    with torch.autocast("cuda", dtype):
        y = gkm_ops.gkm_blur(x, coeffs, BANK.to("cuda"))
    assert y.dtype == dtype


def test_compiled_on_cuda():
    bank = BANK.to("cuda")
    compiled = torch.compile(lambda x, coeffs: gkm_ops.gkm_blur(x * 2, coeffs, bank).clamp(0, 1), fullgraph=True)
    x, coeffs = inputs()
    torch.testing.assert_close(compiled(x, coeffs), gkm_ops.gkm_blur(x * 2, coeffs, bank).clamp(0, 1))


@pytest.mark.parametrize("op", OPS)
def test_captured_into_a_graph_on_cuda(op):
    arguments = Problem(height=40, width=50, bank="shared", outputs=2).arguments(torch.float32, "cuda")
    call(op, arguments)
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        result = call(op, arguments)
    for name in ("x", "y", "coeffs"):
        arguments[name].normal_()
    graph.replay()
    assert torch.equal(result, call(op, arguments))


@pytest.mark.parametrize("op", OPS)
def test_no_waiting_on_cuda(op):
    arguments = Problem(bank="shared", outputs=2).arguments(torch.float32, "cuda")
    call(op, arguments)
    torch.cuda.set_sync_debug_mode("error")
    try:
        call(op, arguments)
    finally:
        torch.cuda.set_sync_debug_mode("default")


def test_runs_on_the_current_stream_on_cuda():
    x, coeffs = inputs(size=(500, 600))
    bank = BANK.to("cuda")
    gkm_ops.gkm_blur(x, coeffs, bank)
    want = gkm_ops.gkm_blur(torch.ones_like(x), coeffs, bank)
    stream = torch.cuda.Stream()
    torch.cuda.synchronize()
    with torch.cuda.stream(stream):
        torch.cuda._sleep(100_000_000)  # what the blur has to wait for
        x.fill_(1)
        got = gkm_ops.gkm_blur(x, coeffs, bank)
    stream.synchronize()
    assert torch.equal(got, want)


def test_runs_where_the_image_is_on_cuda():
    if torch.cuda.device_count() < 2:
        pytest.skip("there is one GPU alone")
    x, coeffs = inputs(device="cuda:1")
    got = gkm_ops.gkm_blur(x, coeffs, BANK.to("cuda:1"))
    want = gkm_ops.gkm_blur(x.to("cuda:0"), coeffs.to("cuda:0"), BANK.to("cuda:0"))
    assert torch.equal(got.cpu(), want.cpu())


def test_no_extra_memory_on_cuda():
    x, coeffs = inputs(size=(1000, 1000))
    bank = BANK.to("cuda")
    y = gkm_ops.gkm_blur(x, coeffs, bank)
    torch.cuda.synchronize()
    before = torch.cuda.memory_allocated()
    torch.cuda.reset_peak_memory_stats()
    gkm_ops.gkm_blur(x, coeffs, bank)
    assert torch.cuda.max_memory_allocated() - before <= y.nbytes + (1 << 20)


@pytest.mark.parametrize("release", ["v1", "v2"])
def test_the_network_on_cuda_equals_that_on_the_cpu(release, monkeypatch):
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)
    net = gkm_ops.GKMNet(release).eval()
    image = torch.rand(3, 70, 90)
    want = net.deblur(image)
    torch.testing.assert_close(net.cuda().deblur(image.cuda()).cpu(), want, rtol=1e-4, atol=1e-4)
