"""What holds on a GPU beside the results themselves, which test_ops.py and test_answers.py check there too.

Every test has cuda in its name: `pytest -k cuda` is the part of the suite that a GPU decides.
"""

import importlib.util

import pytest
import torch
from conftest import CUDA_KERNELS
from problems import IMAGE_OPS, OPS, Problem, call, expected, positional
from tolerances import assert_image_close, assert_sum_close

import gkm_ops

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="torch finds no GPU")

BANK = gkm_ops.GaussianBank.gkmnet()


def inputs(dtype=torch.float32, size=(70, 90), device="cuda"):
    return torch.rand(2, 3, *size, dtype=dtype, device=device), torch.rand(2, 22, *size, dtype=dtype, device=device)


@pytest.fixture(params=["cuda", "triton"])
def gpu_backend(request):
    """Each backend that is made for GPUs."""
    answer = gkm_ops.available_backends("cuda")[request.param]
    if answer != "available":
        pytest.skip(f"{request.param}: {answer}")
    with gkm_ops.use_backend(request.param):
        yield request.param


def test_the_best_backend_serves_on_cuda():
    answers = gkm_ops.available_backends("cuda")
    assert answers["triton"] == "available"
    assert "float64" in gkm_ops.available_backends("cuda", torch.float64)["triton"]
    if importlib.util.find_spec("gkm_ops._cuda") is not None:
        assert answers["cuda"] == gkm_ops.available_backends("cuda", torch.float64)["cuda"] == "available"
        assert gkm_ops.backends.choose(torch.device("cuda"), torch.float32).name == "cuda"


@pytest.mark.parametrize("op", OPS)
def test_opcheck_on_cuda(op, gpu_backend):
    arguments = Problem(height=20, width=34, bank="skew", outputs=2).arguments(torch.float32, "cuda")
    tests = ("test_schema", "test_faketensor", "test_autograd_registration")
    torch.library.opcheck(getattr(torch.ops.gkm_ops, op), positional(op, arguments), test_utils=tests)


@pytest.mark.parametrize("outputs", [None, 2], ids=["no_mix", "mix"])
@pytest.mark.parametrize("op", OPS)
def test_backends_agree_with_the_oracle_on_a_photo_on_cuda(op, outputs, gpu_backend):
    """Many tiles, and the published bank."""
    arguments = Problem(1, 3, 230, 310, bank="gkmnet", outputs=outputs).arguments(torch.float32, "cuda")
    got, want = call(op, arguments), expected(op, arguments)
    (assert_image_close if op in IMAGE_OPS else assert_sum_close)(got, want, torch.float32)
    assert torch.equal(got, call(op, arguments))


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
def test_captured_into_a_graph_on_cuda(op, gpu_backend):
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
def test_no_waiting_on_cuda(op, gpu_backend):
    arguments = Problem(bank="shared", outputs=2).arguments(torch.float32, "cuda")
    call(op, arguments)
    torch.cuda.set_sync_debug_mode("error")
    try:
        call(op, arguments)
    finally:
        torch.cuda.set_sync_debug_mode("default")


def test_runs_on_the_current_stream_on_cuda(gpu_backend):
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


def test_runs_where_the_image_is_on_cuda(gpu_backend):
    if torch.cuda.device_count() < 2:
        pytest.skip("there is one GPU alone")
    x, coeffs = inputs(device="cuda:1")
    got = gkm_ops.gkm_blur(x, coeffs, BANK.to("cuda:1"))
    want = gkm_ops.gkm_blur(x.to("cuda:0"), coeffs.to("cuda:0"), BANK.to("cuda:0"))
    assert torch.equal(got.cpu(), want.cpu())


def test_no_extra_memory_on_cuda(gpu_backend):
    x, coeffs = inputs(size=(1000, 1000))
    bank = BANK.to("cuda")
    y = gkm_ops.gkm_blur(x, coeffs, bank)
    torch.cuda.synchronize()
    before = torch.cuda.memory_allocated()
    torch.cuda.reset_peak_memory_stats()
    gkm_ops.gkm_blur(x, coeffs, bank)
    assert torch.cuda.max_memory_allocated() - before <= y.nbytes + (1 << 20)


def test_offsets_beyond_31_bits_on_cuda(gpu_backend):
    height, width, shown = 66_000, 33_000, 40
    if torch.cuda.mem_get_info()[0] < 16 << 30:
        pytest.skip("an image of 2 gigapixels wants 16 GiB")
    bank = gkm_ops.GaussianBank([1.0]).to("cuda")
    x = torch.zeros(1, 1, height, width, dtype=torch.float16, device="cuda")
    x[..., -shown:, :] = torch.rand(shown, width, device="cuda")
    coeffs = torch.rand(width, dtype=torch.float16, device="cuda").expand(1, 1, height, width)
    for op in (gkm_ops.gkm_blur, gkm_ops.gkm_blur_adjoint):
        got, want = op(x, coeffs, bank), op(x[..., -shown:, :], coeffs[..., -shown:, :], bank)
        torch.testing.assert_close(got[..., -shown // 2 :, :], want[..., -shown // 2 :, :], rtol=2e-3, atol=1e-3)


@pytest.mark.parametrize("kernels", ["", *CUDA_KERNELS])
def test_a_wrong_name_of_kernels_is_refused_on_cuda(kernels, monkeypatch):
    if gkm_ops.available_backends("cuda")["cuda"] != "available":
        pytest.skip("the CUDA kernels are not there")
    x, coeffs = inputs()
    bank = BANK.to("cuda")
    monkeypatch.setenv("GKM_OPS_CUDA_KERNELS", kernels)
    gkm_ops.gkm_blur(x, coeffs, bank)
    monkeypatch.setenv("GKM_OPS_CUDA_KERNELS", "fast")
    names = ", ".join(f"'{name}'" for name in CUDA_KERNELS)
    with pytest.raises(RuntimeError, match=f"GKM_OPS_CUDA_KERNELS: got 'fast', wanted {names} or nothing"):
        gkm_ops.gkm_blur(x, coeffs, bank)


@pytest.mark.parametrize("release", ["v1", "v2"])
def test_the_network_on_cuda_equals_that_on_the_cpu(release, monkeypatch):
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)
    net = gkm_ops.GKMNet(release).eval()
    image = torch.rand(3, 70, 90)
    want = net.deblur(image)
    torch.testing.assert_close(net.cuda().deblur(image.cuda()).cpu(), want, rtol=1e-4, atol=1e-4)
