"""``gkm deblur`` from end to end, with weights from files: what is written, what is refused, and what is left alone."""

from __future__ import annotations

import errno
import os
import pickle
import subprocess
import sys

import numpy as np
import pytest
import torch

pytest.importorskip("PIL")
pytest.importorskip("cv2")
pytest.importorskip("tifffile")
pytest.importorskip("tqdm")
pytest.importorskip("safetensors")
import safetensors.torch
from PIL import Image

from gkm_ops import GKMNet, photos
from gkm_ops.cli import main, network
from gkm_ops.photos import Photo
from gkm_ops.weights import load_net, load_weights, save_weights


@pytest.fixture(scope="module")
def net():
    torch.manual_seed(0)
    net = GKMNet(release="v2").eval()
    torch.nn.init.normal_(net.SumLayer.conv.bias, 0.5, 0.1)  # so that the output is mid-grey, not black
    return net


@pytest.fixture(scope="module")
def weights(net, tmp_path_factory):
    path = tmp_path_factory.mktemp("weights") / "weights.safetensors"
    save_weights(net, path)
    return path


@pytest.fixture
def deblur(weights, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    return lambda *arguments: main(["deblur", "--device", "cpu", "--weights", str(weights), *map(str, arguments)])


def photo(channels: int = 3, bits: int = 8, height: int = 20, width: int = 26) -> Photo:
    drawn = np.random.default_rng(height * width).integers(0, 2**bits, (height, width, channels))
    return Photo(drawn.astype(f"uint{bits}"))


def files(folder) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize(("suffix", "bits"), [(".png", 8), (".png", 16), (".tif", 16), (".jpg", 8), (".webp", 8)])
def test_one_photo_becomes_what_the_network_makes_of_it(deblur, net, suffix, bits):
    photos.write(f"photo{suffix}", photo(bits=bits))
    assert deblur(f"photo{suffix}", "-o", f"new/out{suffix}") == 0
    source, got = photos.read(f"photo{suffix}"), photos.read(f"new/out{suffix}")
    want = source.with_image(net.deblur(source.image))
    assert got.pixels.dtype == source.pixels.dtype
    if suffix in (".png", ".tif"):
        np.testing.assert_array_equal(got.pixels, want.pixels)
    else:
        assert np.abs(got.pixels.astype(int) - want.pixels).mean() < 8
    assert np.abs(got.pixels.astype(int) - source.pixels).mean() > 10


@pytest.mark.parametrize("channels", [1, 2, 4])
def test_grey_stays_grey_and_alpha_stays_as_it_is(deblur, net, channels):
    photos.write("photo.png", photo(channels))
    assert deblur("photo.png", "-o", "out.png") == 0
    got, source = photos.read("out.png"), photo(channels)
    assert got.pixels.shape == source.pixels.shape
    if channels in (2, 4):
        np.testing.assert_array_equal(got.pixels[..., -1], source.pixels[..., -1])
    if channels < 3:
        grey = torch.from_numpy(source.pixels[..., 0] / np.float32(255))
        want = net.deblur(grey.expand(3, -1, -1)).mean(0).clamp(0, 1) * 255
        np.testing.assert_allclose(got.pixels[..., 0], want, atol=0.51)


def test_folders_and_files_go_into_a_folder_and_bad_ones_are_reported(deblur, tmp_path, capsys):
    (tmp_path / "in").mkdir()
    photos.write("in/a.png", photo())
    photos.write("in/b.jpg", photo())
    photos.write("c.tif", photo())
    (tmp_path / "in/broken.png").write_text("not a photo")
    Image.new("CMYK", (4, 4)).save("in/cmyk.jpg")
    (tmp_path / "empty").mkdir()
    assert deblur("in", "absent.png", "c.tif", "empty", "-o", "out") == 1
    assert sorted(os.listdir("out")) == ["a.png", "b.jpg", "c.tif"]
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("gkm deblur: error: ")]
    assert len(lines) == 4
    for name in ("in/broken.png: cannot identify", "mode CMYK", "absent.png", "empty: got a folder without photos"):
        assert sum(name in line for line in lines) == 1


def test_a_photo_of_one_pixel(deblur):
    photos.write("photo.png", photo(height=1, width=1))
    assert deblur("photo.png", "-o", "out.png") == 0
    assert photos.read("out.png").pixels.shape == (1, 1, 3)


def test_compare_shows_both_side_by_side(deblur):
    photos.write("photo.tif", photo(bits=16))
    assert deblur("photo.tif", "-o", "out", "--compare") == 0
    both = photos.read("out/photo_compare.tif").pixels
    np.testing.assert_array_equal(both, np.hstack([photo(bits=16).pixels, photos.read("out/photo.tif").pixels]))


@pytest.mark.parametrize("release", ["v1", "v2"])
def test_coefficients_are_drawn(deblur, tmp_path, release):
    pytest.importorskip("matplotlib")
    save_weights(GKMNet(release=release), "other.safetensors")
    photos.write("photo.png", photo())
    assert deblur("photo.png", "-o", "out.png", "--weights", "other.safetensors", "--coefficients", 0, 14, 21) == 0
    assert photos.read("out_coefficients.png").image.std() > 0.05
    assert sorted(files(tmp_path)) == ["other.safetensors", "out.png", "out_coefficients.png", "photo.png"]


def test_maps_of_the_drawing_are_those_of_the_last_step(net, monkeypatch):
    """At a size that needs no padding, they are what the steps give by hand."""
    image = torch.rand(3, 48, 64)
    seen = []
    step = net.step
    monkeypatch.setattr(net, "step", lambda *arguments: seen.append(step(*arguments)) or seen[-1])
    x, coeffs = net.deblur_with_coefficients(image)
    assert torch.equal(coeffs, seen[-1][2][0])
    assert torch.equal(x, seen[-1][0][0])
    assert net.deblur_with_coefficients(image[None, :, :5])[1].shape == (1, 44, 5, 64)


@pytest.mark.parametrize(("dtype", "tolerance"), [("bfloat16", 0.05), ("float16", 0.01)])
def test_other_types_come_near(deblur, dtype, tolerance):
    photos.write("photo.png", photo(bits=16))
    assert deblur("photo.png", "-o", "wide.png") == 0
    assert deblur("photo.png", "-o", "narrow.png", "--dtype", dtype) == 0
    wide, narrow = photos.read("wide.png").image, photos.read("narrow.png").image
    assert 0 < (wide - narrow).abs().max() < tolerance


@pytest.mark.parametrize("way", ["same name", "hard link", "symbolic link", "folder"])
def test_an_input_is_never_replaced(deblur, tmp_path, capsys, way):
    photos.write("photo.png", photo())
    before = files(tmp_path)
    if way == "hard link":
        os.link("photo.png", "out.png")
    elif way == "symbolic link":
        os.symlink("photo.png", "out.png")
    out = {"same name": "./photo.png", "folder": "."}.get(way, "out.png")
    assert deblur("photo.png", "-o", out, "--overwrite") == 1
    assert "is an input" in capsys.readouterr().err
    assert set(files(tmp_path).values()) == set(before.values())


def test_the_other_input_is_never_replaced(deblur, tmp_path):
    """The comparison of one photo would be the next photo."""
    os.mkdir("in")
    photos.write("in/a.png", photo())
    photos.write("in/a_compare.png", photo(height=9))
    before = (tmp_path / "in/a_compare.png").read_bytes()
    assert deblur("in/a.png", "in/a_compare.png", "-o", "in", "--compare", "--overwrite") == 1
    assert (tmp_path / "in/a_compare.png").read_bytes() == before


def test_photos_of_one_name_do_not_replace_each_other(deblur, capsys):
    for folder in ("one", "two"):
        os.mkdir(folder)
        photos.write(f"{folder}/photo.png", photo(height=len(folder) if folder == "one" else 9))
    assert deblur("one", "two", "-o", "out", "--overwrite") == 1
    assert "another photo's output" in capsys.readouterr().err
    assert photos.read("out/photo.png").pixels.shape[0] == 3


def test_maps_of_photos_that_differ_in_their_suffix(deblur, tmp_path):
    pytest.importorskip("matplotlib")
    os.mkdir("in")
    for name in ("photo.png", "photo.tif", "other.png"):
        photos.write(f"in/{name}", photo())
    assert deblur("in", "-o", "out", "--coefficients", 3) == 0
    assert {name for name in files(tmp_path / "out") if "coefficients" in name} == {
        "photo.png_coefficients.png", "photo.tif_coefficients.png", "other_coefficients.png",
    }  # fmt: skip


def test_a_format_that_cannot_be_written_is_no_folder(deblur, capsys):
    photos.write("photo.png", photo())
    assert deblur("photo.png", "-o", "out.bmp") == 1
    assert "--output: got 'out.bmp', wanted a folder, or a name that ends in .png" in capsys.readouterr().err


def test_a_mistyped_suffix_is_no_folder_unless_it_is_one(deblur, capsys):
    photos.write("photo.png", photo())
    assert deblur("photo.png", "-o", "sharper.jepg") == 1
    assert "--output: got 'sharper.jepg', wanted a folder, or a name that ends in .png" in capsys.readouterr().err
    assert not os.path.exists("sharper.jepg")
    for out in ("sharper.jepg/", "sharper.jepg"):
        assert deblur("photo.png", "-o", out, "--overwrite") == 0
    assert os.listdir("sharper.jepg") == ["photo.png"]


@pytest.mark.parametrize("out", ["notes", "notes/", "notes.txt", "notes/new", "notes/new.png"])
def test_a_folder_that_cannot_be_made_is_told_once_and_before_any_work(deblur, net, tmp_path, capsys, out):
    for name in ("a.png", "b.png"):
        photos.write(name, photo())
    for name in ("notes", "notes.txt"):
        (tmp_path / name).write_text("mine")
    before = files(tmp_path)
    assert deblur("a.png", *(["b.png"] if out != "notes/new.png" else []), "-o", out) == 1
    error = capsys.readouterr().err
    assert error.startswith("gkm deblur: error: --output: ")
    assert len(error.splitlines()) == 1
    assert files(tmp_path) == before


@pytest.mark.parametrize(("channels", "bits"), [(3, 16), (4, 8)])
def test_a_photo_that_the_format_cannot_hold_is_refused_before_the_work(deblur, monkeypatch, capsys, channels, bits):
    monkeypatch.setattr(GKMNet, "deblur_with_coefficients", None)
    photos.write("photo.png", photo(channels, bits))
    assert deblur("photo.png", "-o", "out.jpg") == 1
    assert f"out.jpg: got a photo with {bits} bits, {channels} channels, which a JPEG" in capsys.readouterr().err


def test_a_backend_that_is_not_there_is_told_once(deblur, monkeypatch, capsys):
    monkeypatch.setenv("GKM_OPS_BACKEND", "abacus")
    for name in ("a.png", "b.png"):
        photos.write(name, photo())
    assert deblur("a.png", "b.png", "-o", "out") == 1
    error = capsys.readouterr().err
    assert error.startswith("gkm deblur: error: GKM_OPS_BACKEND: got 'abacus', wanted one of ")
    assert len(error.splitlines()) == 1


def test_existing_files_are_replaced_only_when_asked(deblur, tmp_path, capsys):
    photos.write("photo.png", photo())
    (tmp_path / "out.png").write_text("something else")
    assert deblur("photo.png", "-o", "out.png") == 1
    assert "out.png: exists already; name another OUT, or give --overwrite" in capsys.readouterr().err
    assert (tmp_path / "out.png").read_text() == "something else"
    assert deblur("photo.png", "-o", "out.png", "--overwrite") == 0
    assert photos.read("out.png").pixels.shape == (20, 26, 3)


def test_a_full_disk_loses_nothing(deblur, tmp_path, capsys, monkeypatch):
    def full(descriptor):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    photos.write("photo.png", photo())
    (tmp_path / "out.png").write_text("something else")
    before = files(tmp_path)
    monkeypatch.setattr(os, "fsync", full)
    assert deblur("photo.png", "-o", "out.png", "--overwrite") == 1
    assert "photo.png: [Errno 28] No space left on device" in capsys.readouterr().err
    assert files(tmp_path) == before


def test_a_large_photo_is_refused_and_the_option_named(deblur, capsys):
    photos.write("photo.png", photo())
    assert deblur("photo.png", "-o", "out.png", "--max-megapixels", "0.0005") == 1
    assert "--max-megapixels" in capsys.readouterr().err
    assert not os.path.exists("out.png")


def test_a_photo_larger_than_memory_is_refused_unless_it_is_asked_for(deblur, monkeypatch, capsys):
    photos.write("photo.png", photo(height=20, width=26))  # takes some 270 KB
    monkeypatch.setattr(network, "_free_memory", lambda: 2e5)
    assert deblur("photo.png", "-o", "out.png") == 1
    assert "got 0.00052 megapixels, wanted at most 0.000384615; to allow more" in capsys.readouterr().err
    assert deblur("photo.png", "-o", "out.png", "--max-megapixels", "inf") == 0


def test_free_memory_is_what_the_system_tells():
    assert 1e6 < network._free_memory() < 1e15


def test_several_photos_want_a_folder(deblur, capsys):
    assert deblur("a.png", "b.png", "-o", "out.png") == 1
    assert "wanted a folder for several photos" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--coefficients", "22"], "got '22', wanted a kernel's number from 0 to 21"),
        (["--max-megapixels", "nan"], "got 'nan', wanted a number > 0"),
        (["--dtype", "int8"], "invalid choice: 'int8'"),
    ],
)
def test_arguments_that_do_not_parse(deblur, capsys, arguments, message):
    with pytest.raises(SystemExit) as stop:
        deblur("photo.png", "-o", "out.png", *arguments)
    assert stop.value.code == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize("device", ["nonsense", "xpu", "hpu", "meta"])
def test_a_device_that_is_not_there_is_named(deblur, capsys, device):
    photos.write("photo.png", photo())
    assert deblur("photo.png", "-o", "out.png", "--device", device) == 1
    assert f"--device: got '{device}', which torch cannot use" in capsys.readouterr().err


def test_numbers_that_are_none_are_not_written(deblur, net, capsys):
    state = {name: value.clone() for name, value in net.state_dict().items()}
    state["SumLayer.conv.weight"].fill_(3e38)
    torch.save(state, "broken.pth")
    photos.write("photo.png", photo())
    assert deblur("photo.png", "-o", "out.png", "--weights", "broken.pth", "--release", "v2") == 1
    assert "photo.png: the network gave NaN or infinite values in float32" in capsys.readouterr().err
    assert not os.path.exists("out.png")


@pytest.mark.parametrize("release", ["v1", "v2"])
@pytest.mark.parametrize("mode", ["FG", "TG", "TR"])
def test_saved_weights_make_the_same_network(tmp_path, release, mode):
    net = GKMNet(release, mode).eval()
    save_weights(net, tmp_path / "weights.safetensors")
    again = load_net(tmp_path / "weights.safetensors")
    image = torch.rand(3, 48, 48)
    assert (again.gcm.release, again.training) == (release, False)
    assert torch.equal(again.deblur(image), net.deblur(image))


@pytest.mark.parametrize(
    "wrap", [dict, lambda s: {"state_dict": s}, lambda s: {f"module.{k}": v for k, v in s.items()}]
)
def test_torch_checkpoints_load_wrapped_or_not(tmp_path, net, wrap):
    torch.save(wrap(net.state_dict()), tmp_path / "net.pth")
    other = GKMNet()
    load_weights(other, tmp_path / "net.pth")
    for name, value in net.state_dict().items():
        assert torch.equal(other.state_dict()[name], value), name
    with pytest.raises(ValueError, match="do not say their release"):
        load_net(tmp_path / "net.pth")
    assert load_net(tmp_path / "net.pth", "v1").gcm.release == "v1"


class Code:
    """Unpickling this would make a file."""

    def __reduce__(self):
        return os.mkdir, ("run",)


ODD = {
    "shape": lambda weight: weight[:, :66],
    "vast": lambda weight: torch.zeros(1).expand(10**12),
    "list": lambda weight: weight.tolist(),
    "sparse": lambda weight: weight.to_sparse(),
    "nested": lambda weight: torch.nested.nested_tensor(list(weight)),
    "meta": lambda weight: weight.to("meta"),
    "quantized": lambda weight: torch.quantize_per_tensor(weight, 0.1, 0, torch.qint8),
    "float8_e4m3": lambda weight: weight.to(torch.float8_e4m3fn),
    "float8_e5m2": lambda weight: weight.to(torch.float8_e5m2),
    "int": lambda weight: weight.long(),
    "bool": lambda weight: weight.bool(),
}


def misfit(path, kind, net):
    state = dict(net.state_dict())
    if kind == "code":
        path.write_bytes(pickle.dumps(Code(), protocol=2))
    elif kind == "code in a checkpoint":
        torch.save({"state_dict": Code()}, path)
    elif kind == "not a dict":
        torch.save(torch.zeros(3), path)
    elif kind == "names":
        torch.save({"layer.weight": torch.zeros(3)}, path)
    elif kind == "numbers for names":
        torch.save({1: torch.zeros(3)}, path)
    elif kind in ("nan", "complex"):
        weight = state["SumLayer.conv.weight"]
        torch.save(state | {"SumLayer.conv.weight": weight * torch.nan if kind == "nan" else weight + 1j}, path)
    elif kind == "within itself":
        state["state_dict"] = state
        torch.save(state, path)
    elif kind == "vast and unknown":
        torch.save(state | {"other": torch.zeros(1).expand(10**12)}, path)
    elif kind in ODD:
        torch.save(state | {"SumLayer.conv.weight": ODD[kind](state["SumLayer.conv.weight"])}, path)
    else:
        path.write_bytes(b"nothing of the kind" if kind == "corrupt" else b"")


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("code", "holds more than tensors, which is never run"),
        ("code in a checkpoint", "holds more than tensors, which is never run"),
        ("corrupt", "damaged"),
        ("empty", "damaged"),
        ("not a dict", "got a Tensor, wanted the state dict of a GKMNet"),
        ("names", r"got other weights than a GKMNet's 240 entries: no .*; and 238 more"),
        ("numbers for names", "1, unknown|and 238 more"),
        ("nan", "SumLayer.conv.weight with NaN or infinity"),
        ("complex", "SumLayer.conv.weight of torch.complex64"),
        ("shape", r"SumLayer.conv.weight of shape \(3, 66, 1, 1\), not \(3, 132, 1, 1\)"),
        ("vast", r"SumLayer.conv.weight of shape \(1000000000000,\), not \(3, 132, 1, 1\)"),
        ("vast and unknown", "240 entries: other, unknown$"),
        ("within itself", "240 entries: state_dict, unknown$"),
        ("list", "SumLayer.conv.weight as a list"),
        ("sparse", "SumLayer.conv.weight not as a dense tensor with values"),
        ("nested", "SumLayer.conv.weight not as a dense tensor with values"),
        ("meta", "SumLayer.conv.weight not as a dense tensor with values"),
        ("quantized", "SumLayer.conv.weight of torch.qint8"),
        ("float8_e4m3", "SumLayer.conv.weight of torch.float8_e4m3fn"),
        ("float8_e5m2", "SumLayer.conv.weight of torch.float8_e5m2"),
        ("int", "SumLayer.conv.weight of torch.int64"),
        ("bool", "SumLayer.conv.weight of torch.bool"),
    ],
)
def test_files_that_are_no_weights_are_named(deblur, tmp_path, net, capsys, kind, message):
    path = tmp_path / "weights.pth"
    misfit(path, kind, net)
    other = GKMNet()
    before = {name: value.clone() for name, value in other.state_dict().items()}
    with pytest.raises(ValueError, match=message) as caught:
        load_weights(other, path)
    assert str(path) in str(caught.value)
    assert all(torch.equal(value, before[name]) for name, value in other.state_dict().items())
    assert not os.path.exists("run")

    photos.write("photo.png", photo())
    assert deblur("photo.png", "-o", "out.png", "--weights", path, "--release", "v1") == 1
    assert str(path) in capsys.readouterr().err


@pytest.mark.parametrize("content", [b"", b"nothing of the kind", b"\xff" * 64])
def test_damaged_safetensors_are_named(tmp_path, content):
    path = tmp_path / "weights.safetensors"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"damaged.*wanted an intact safetensors file"):
        load_net(path)


def test_a_folder_in_the_place_of_weights_is_named(tmp_path):
    (tmp_path / "weights.safetensors").mkdir()
    with pytest.raises(OSError, match=r"weights\.safetensors"):
        load_net(tmp_path / "weights.safetensors")


def test_weights_of_the_other_release_are_refused(weights, net, tmp_path):
    with pytest.raises(ValueError, match="got weights of release 'v2', wanted 'v1'"):
        load_weights(GKMNet("v1"), weights)
    with pytest.raises(ValueError, match="got weights of release 'v2', wanted 'v1'"):
        load_net(weights, "v1")
    safetensors.torch.save_file(dict(net.state_dict()), tmp_path / "silent.safetensors")
    load_weights(GKMNet("v1"), tmp_path / "silent.safetensors")


def test_weights_are_saved_whole_or_not_at_all(tmp_path, net, monkeypatch):
    def full(descriptor):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    path = tmp_path / "weights.safetensors"
    path.write_text("older weights")
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        save_weights(net, path)
    assert files(tmp_path) == {"weights.safetensors": b"older weights"}
    with pytest.raises(ValueError, match=r"wanted a name that ends in \.safetensors"):
        save_weights(net, tmp_path / "weights.pth")


def test_the_module_is_the_command_line(tmp_path):
    command = [sys.executable, "-m", "gkm_ops", "deblur", "absent.png", "-o", "out.png", "--weights", "absent.pth"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert done.returncode == 1
    assert done.stderr == "gkm deblur: error: --weights: [Errno 2] No such file or directory: 'absent.pth'\n"


BARE = """
import sys

sys.modules |= dict.fromkeys(["PIL", "cv2", "matplotlib", "tifffile", "torchmetrics", "tqdm"])
from gkm_ops.cli import main

sys.exit(main(sys.argv[1:]))
"""


@pytest.mark.parametrize(
    ("arguments", "extra"),
    [
        (["info"], None),
        (["--help"], None),
        (["deblur", "a.png", "-o", "b.png"], "photos"),
        (["evaluate", "a"], "evaluate"),
        (["fit", "a.png", "b.png", "-o", "c"], "evaluate"),
        (["render", "a.png", "b.png", "-o", "c.png", "--aperture", "9", "--focus", "1"], "photos,video"),
        (["train", "a", "-o", "b"], "train"),
    ],
)
def test_the_bare_package_tells_what_a_command_lacks(tmp_path, arguments, extra):
    command = [sys.executable, "-c", BARE, *arguments]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120)
    if extra is None:
        assert (done.returncode, done.stderr) == (0, "")
        return
    assert (done.returncode, len(done.stderr.splitlines())) == (1, 1)
    assert f'pip install "gkm-ops[{extra}]" brings what' in done.stderr


def test_an_interruption_is_no_traceback_wherever_it_comes(monkeypatch):
    def interrupt(*arguments):
        raise KeyboardInterrupt

    monkeypatch.setattr("importlib.import_module", interrupt)
    assert main(["info"]) == 130
