"""Training: the recipe's schedule, runs that are resumed or shared, and folders that are kept from harm."""

from __future__ import annotations

import argparse
import copy
import gc
import itertools
import math
import os
import resource
import shutil
import signal
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from gkm_ops import GKMNet, photos, training
from gkm_ops.cli import main
from gkm_ops.cli.train import add_arguments
from gkm_ops.data.pairs import find_pairs
from gkm_ops.data.training_data import TrainingData
from gkm_ops.training import Recipe, loss_of, train
from gkm_ops.weights import save_weights

CROP = 48


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Two sharp photos, one of them with a depth, and one real pair."""
    folder = tmp_path_factory.mktemp("photos")
    draw = np.random.default_rng(0)
    for name in ("sharp/a", "sharp/b", "pairs/c_blur", "pairs/c_sharp"):
        path = folder / f"{name}.png"
        path.parent.mkdir(exist_ok=True)
        Image.fromarray(draw.integers(0, 256, (64, 56, 3), dtype=np.uint8)).save(path)
    Image.fromarray(draw.integers(0, 256, (32, 28), dtype=np.uint8)).save(folder / "sharp/a_depth.png")
    return folder


@pytest.fixture
def data(folder):
    return TrainingData(find_pairs([folder / "pairs"]), photos.find([folder / "sharp"]), crop=CROP)


RECIPE = Recipe(epochs=4, batch=2, learning_rate=1e-3)  # 6 steps over 3 samples


def fresh_net():
    torch.manual_seed(0)
    return GKMNet()


class InterruptedData(TrainingData):
    """Asks the process to stop while it loads one of its samples."""

    def draw(self, numbers, **options):
        if 5 in numbers:
            os.kill(os.getpid(), signal.SIGTERM)
        return super().draw(numbers, **options)


def test_an_interrupted_run_goes_on_as_if_it_had_not_been(folder, data, tmp_path):
    whole = fresh_net()
    assert train(whole, data, tmp_path / "whole", RECIPE, progress=False)

    parted = fresh_net()
    broken = InterruptedData(data.pairs, data.sharp, crop=CROP)
    assert not train(parted, broken, tmp_path / "parted", RECIPE, progress=False)
    resumed = GKMNet()
    assert train(resumed, data, tmp_path / "parted", RECIPE, progress=False)

    for name, value in whole.state_dict().items():
        assert torch.equal(value, resumed.state_dict()[name]), name
    logs = [(tmp_path / run / training.LOG).read_text() for run in ("whole", "parted")]
    assert logs[0] == logs[1]
    assert logs[0].count("\n") == 1 + 6


def test_a_folder_of_another_run_is_left_alone(data, tmp_path):
    train(fresh_net(), data, tmp_path, Recipe(epochs=1, batch=3), progress=False)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    with pytest.raises(ValueError, match=r"batch 3, wanted 1"):
        train(fresh_net(), data, tmp_path, Recipe(epochs=1, batch=1), progress=False)
    assert before == {path.name: path.read_bytes() for path in tmp_path.iterdir()}


@pytest.fixture
def one_step(data, tmp_path):
    """A finished run of one step, and how it was trained."""
    recipe = Recipe(epochs=1, batch=3)
    train(fresh_net(), data, tmp_path / "run", recipe, progress=False)
    return tmp_path / "run", recipe


@pytest.mark.parametrize(("release", "mode", "told"), [("v2", "TR", "mode FG, wanted TR"), ("v1", "FG", "release v2")])
def test_a_run_of_another_net_is_left_alone(release, mode, told, data, one_step):
    with pytest.raises(ValueError, match=f"got a run with {told}"):
        train(GKMNet(release, mode), data, *one_step, progress=False)


def test_a_run_goes_on_with_photos_that_were_moved_but_not_with_others(folder, one_step, tmp_path):
    shutil.copytree(folder, tmp_path / "moved")
    run, recipe = one_step

    def resume():
        pairs, sharp = find_pairs([tmp_path / "moved/pairs"]), photos.find([tmp_path / "moved/sharp"])
        assert train(fresh_net(), TrainingData(pairs, sharp, crop=CROP), run, recipe, progress=False)

    resume()
    depth = tmp_path / "moved/sharp/a_depth.png"
    depth.write_bytes(depth.read_bytes() + b"more")
    with pytest.raises(ValueError, match=r"got a run with photos 5 files \(\d+ bytes, digest \w+\), wanted 5 files"):
        resume()


def test_a_run_from_before_net_and_photos_were_recorded_goes_on_where_it_fits(data, one_step):
    path = one_step[0] / training.CHECKPOINT
    state = torch.load(path, weights_only=True)
    for name in ("mode", "photos"):
        del state["signature"][name]
    torch.save(state, path)
    with pytest.warns(UserWarning, match="earlier version goes on, unchecked for mode, photos"):
        assert train(fresh_net(), data, *one_step, progress=False)
    with pytest.raises(ValueError, match="got a run of another net, wanted one of release v2 in mode TG"):
        train(GKMNet(mode="TG"), data, *one_step, progress=False)


@pytest.mark.parametrize(
    "changes",
    [{"net": {1: torch.zeros(1)}}, {"optimizer": {}}, {"optimizer": {"state": [1], "param_groups": [1]}}],
    ids=["net", "optimizer", "parts of the optimizer"],
)
def test_a_checkpoint_of_something_else_is_told(changes, data, one_step):
    path = one_step[0] / training.CHECKPOINT
    torch.save(torch.load(path, weights_only=True) | changes, path)
    with pytest.raises(ValueError, match=f"{one_step[0]}: got a run of another net"):
        train(fresh_net(), data, *one_step, progress=False)


def test_a_run_in_a_files_place_and_photos_without_pairs_are_told_what_is_wanted(folder, tmp_path, capsys):
    path = tmp_path / "photo.png"
    path.write_bytes(b"a photo")
    options = ["--device=cpu", f"--crop={CROP}"]
    assert main(["train", str(folder / "pairs"), "-o", str(path), *options]) == 1
    assert capsys.readouterr().err == f"gkm train: error: {path}: got a file, wanted a folder for the run\n"
    assert path.read_bytes() == b"a photo"
    assert main(["train", str(folder / "sharp"), "-o", str(tmp_path / "run"), *options]) == 1
    assert capsys.readouterr().err.endswith("_sharp.png; sharp photos alone are trained on as such (--sharp)\n")


@pytest.mark.parametrize("seed", [-1, 2**64])
def test_a_seed_that_cannot_serve_is_named_before_anything_is_made(seed, folder, tmp_path, capsys):
    run = tmp_path / "run"
    assert main(["train", str(folder / "pairs"), "-o", str(run), f"--crop={CROP}", f"--seed={seed}"]) == 1
    assert capsys.readouterr().err.startswith(f"gkm train: error: seed: got {seed}, wanted an integer from 0")
    assert not run.exists()


class Code:
    """Would leave a file behind when it is loaded."""

    def __reduce__(self):
        return os.mkdir, ("it-ran",)


GOOD = {"net": {}, "optimizer": {}, "signature": {}, "step": 1, "done": 0.5}


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ("part", "damaged or holds more than tensors, which is never run; wanted tensors that torch.save wrote"),
        (Code(), "damaged or holds more than tensors, which is never run; wanted tensors that torch.save wrote"),
        ({"net": {}, "step": 1}, "without usable optimizer, signature, done, wanted the checkpoint of a run"),
        ([1], "without usable net, optimizer, signature, step, done, wanted the checkpoint of a run"),
        (GOOD | {"net": [1]}, "without usable net, wanted the checkpoint of a run"),
        (GOOD | {"optimizer": [1]}, "without usable optimizer, wanted the checkpoint of a run"),
        (GOOD | {"signature": [1]}, "without usable signature, wanted the checkpoint of a run"),
        (GOOD | {"step": -1}, "without usable step, wanted the checkpoint of a run"),
        (GOOD | {"step": "1"}, "without usable step, wanted the checkpoint of a run"),
        (GOOD | {"done": math.nan}, "without usable done, wanted the checkpoint of a run"),
        (GOOD | {"done": 2.0}, "without usable done, wanted the checkpoint of a run"),
    ],
)
def test_what_is_no_checkpoint_is_named_and_left_alone(content, told, folder, tmp_path, capfd, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = tmp_path / training.CHECKPOINT
    if content == "part":
        torch.save(fresh_net().state_dict(), path)
        path.write_bytes(path.read_bytes()[:5000])
    else:
        torch.save(content, path)
    before = path.read_bytes()
    assert main(["train", str(folder / "pairs"), "-o", str(tmp_path), "--device=cpu", f"--crop={CROP}"]) == 1
    advice = "; move it away, and weights.safetensors and log.csv, to begin anew, or choose another folder"
    lines = capfd.readouterr().err.splitlines()
    assert len(lines) == 1
    assert lines[0].startswith(f"gkm train: error: {path}: got a file ")
    assert lines[0].endswith(told + advice)
    assert [(file.name, file.read_bytes()) for file in tmp_path.iterdir()] == [(path.name, before)]


@pytest.mark.parametrize("name", [training.WEIGHTS, training.LOG])
def test_files_in_a_folder_without_a_checkpoint_are_left_alone(name, folder, tmp_path, capsys):
    path = tmp_path / name
    save_weights(fresh_net(), path) if name == training.WEIGHTS else path.write_text("mine")
    before = path.read_bytes()
    options = ["--device=cpu", f"--crop={CROP}", "--epochs=1"]
    options += [f"--weights={path}"] if name == training.WEIGHTS else []
    assert main(["train", str(folder / "pairs"), "-o", str(tmp_path), *options]) == 1
    told = "exists already, without a checkpoint.pt to go on from; choose another folder, or move it away"
    assert capsys.readouterr().err == f"gkm train: error: {path}: {told}\n"
    assert [(file.name, file.read_bytes()) for file in tmp_path.iterdir()] == [(name, before)]


def test_a_start_that_fails_writes_nothing_and_one_that_is_cut_off_is_gone_on_with(folder, tmp_path, capsys):
    command = ["train", str(folder / "pairs"), "-o", str(tmp_path), "--device=cpu", "--epochs=3", "--batch=1"]
    assert main([*command, "--crop=128"]) == 1
    assert "wanted at least the crop's 128" in capsys.readouterr().err
    assert not any(tmp_path.iterdir())

    class CutOff(TrainingData):
        def draw(self, numbers, **options):
            if 2 in numbers:
                raise KeyboardInterrupt  # as little is written as by a process that is killed
            return super().draw(numbers, **options)

    with pytest.raises(KeyboardInterrupt):
        train(fresh_net(), CutOff(find_pairs([folder / "pairs"]), [], crop=CROP), tmp_path, Recipe(3, batch=1))
    assert main([*command, f"--crop={CROP}"]) == 0
    assert (tmp_path / training.LOG).read_text().count("\n") == 1 + 3


class FullDisk(TrainingData):
    """Lets no file grow past the limit from the second step on, as `RLIMIT_FSIZE` does."""

    def draw(self, numbers, **options):
        if 3 in numbers:
            resource.setrlimit(resource.RLIMIT_FSIZE, (self.limit, resource.getrlimit(resource.RLIMIT_FSIZE)[1]))
        return super().draw(numbers, **options)


@pytest.mark.parametrize(
    ("limit", "full"), [(100, training.LOG), (1000, training.CHECKPOINT), (16_000_000, training.CHECKPOINT)]
)
def test_a_full_disk_is_told_and_leaves_the_last_checkpoint(limit, full, data, tmp_path, capfd):
    disk = FullDisk(data.pairs, data.sharp, crop=CROP)
    disk.limit, before = limit, resource.getrlimit(resource.RLIMIT_FSIZE)
    try:
        with pytest.raises(OSError, match=rf"^\[Errno 27\] File too large: '{tmp_path / full}'$"):
            train(fresh_net(), disk, tmp_path, Recipe(epochs=2, batch=3), save_every=1, progress=False)
        gc.collect()  # a file that is still open would complain here
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert capfd.readouterr().err == ""
    assert torch.load(tmp_path / training.CHECKPOINT, weights_only=True)["step"] == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == ["checkpoint.pt", "log.csv", "weights.safetensors"]


def test_a_run_whose_first_step_cannot_be_kept_is_begun_again(data, tmp_path, monkeypatch):
    for name in ("save_weights", "_Log.write"):
        with monkeypatch.context() as broken:
            broken.setattr(f"gkm_ops.training.{name}", raising(ConnectionError))
            with pytest.raises(ConnectionError):
                train(fresh_net(), data, tmp_path / name, RECIPE, progress=False)
        assert (tmp_path / name / training.CHECKPOINT).exists()
        assert train(fresh_net(), data, tmp_path / name, RECIPE, progress=False)


def raising(error):
    def raises(*arguments):
        raise error

    return raises


def test_one_run_at_a_time_has_a_folder(data, tmp_path):
    class Nested(TrainingData):
        def draw(self, numbers, **options):
            if 0 in numbers:
                with pytest.raises(BlockingIOError, match="another process trains here"):
                    train(fresh_net(), data, tmp_path, RECIPE, progress=False)
            return super().draw(numbers, **options)

    assert train(fresh_net(), Nested(data.pairs, data.sharp, crop=CROP), tmp_path, RECIPE, progress=False)
    assert train(fresh_net(), data, tmp_path, RECIPE, progress=False)  # it is free again


def test_what_a_killed_run_has_left_goes(data, one_step):
    run, recipe = one_step
    left, fresh, mine = run / ".0123456789abcdef.part", run / ".0123456789abcdee.part", run / "notes.part"
    for path in (left, fresh, mine):
        path.touch()
    for path in (left, mine):
        os.utime(path, (0, 0))
    train(fresh_net(), data, run, recipe, progress=False)
    assert mine.exists()
    assert fresh.exists()  # another command may be at it
    assert not left.exists()


def test_lines_of_the_log_are_known_by_their_steps(data, tmp_path):
    broken = InterruptedData(data.pairs, data.sharp, crop=CROP)
    assert not train(fresh_net(), broken, tmp_path, RECIPE, progress=False)
    log = tmp_path / training.LOG
    head, first, *_, last = log.read_text().splitlines()
    beyond = [line.replace(last.partition(",")[0], str(step), 1) for step, line in ((8, last), (9, last))]
    log.write_text("\n".join((head, last, *beyond, "10,")) + "\n")  # whose first lines somebody has deleted
    assert train(fresh_net(), data, tmp_path, RECIPE, progress=False)
    steps = [int(line.partition(",")[0]) for line in log.read_text().splitlines()[1:]]
    assert steps == list(range(int(last.partition(",")[0]), 7))
    assert first.startswith("1,")


def test_a_run_that_began_with_other_weights_is_left_alone(folder, tmp_path, capsys):
    for number in range(2):
        torch.manual_seed(number)
        save_weights(GKMNet(), tmp_path / f"{number}.safetensors")
    command = ["train", str(folder / "pairs"), "-o", str(tmp_path / "run"), "--device=cpu", f"--crop={CROP}"]
    command += ["--epochs=1"]
    assert main([*command, f"--weights={tmp_path / '0.safetensors'}"]) == 0
    assert main([*command, f"--weights={tmp_path / '0.safetensors'}"]) == 0
    assert main([*command, f"--weights={tmp_path / '1.safetensors'}"]) == 1
    assert "got a run with weights " in capsys.readouterr().err
    assert main(command) == 1


# Each process in a folder of its own, as on machines that share no disk.
APART = """
import os, sys
from pathlib import Path
from gkm_ops.cli import main

os.chdir(os.environ["RANK"])
status = main(sys.argv[1:])
left = [name for name in (path.read_text() for path in Path("/proc/self/task").glob("*/comm")) if "gloo" in name]
assert not left, f"{left} may want the interpreter when it is gone, which aborts the process"
sys.exit(status)
"""


def test_two_processes_go_on_from_the_first_ones_folder_by_the_mean_of_two_gradients(folder, data, tmp_path):
    for rank in range(2):
        (tmp_path / str(rank)).mkdir()
    run = tmp_path / "0/run"
    broken = InterruptedData(data.pairs, data.sharp, crop=CROP)
    assert not train(fresh_net(), broken, run, Recipe(epochs=5, batch=4, learning_rate=1e-3), progress=False)
    state = torch.load(run / training.CHECKPOINT, weights_only=True)
    assert state["step"] == 2

    script = tmp_path / "apart.py"
    script.write_text(APART)
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", str(script)]
    command += ["train", str(folder / "pairs"), "--sharp", str(folder / "sharp"), "-o", "run", "--device=cpu"]
    command += ["--epochs=5", "--batch=4", f"--crop={CROP}", "--learning-rate=1e-3"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("finished: run") == 1
    assert not any((tmp_path / "1").iterdir())

    net = fresh_net().train()
    net.load_state_dict(state["net"])
    optimizer = torch.optim.Adam(net.parameters(), lr=1e-3)
    optimizer.load_state_dict(state["optimizer"])
    losses = []
    for step in range(2, 4):
        optimizer.zero_grad()
        for part in range(2):
            loss = loss_of(net, *data.batch([4 * step + 2 * part + i for i in range(2)]), "mse")
            (loss / 2).backward()
            losses.append(loss.item())
        optimizer.step()
    logged = [float(line.split(",")[3]) for line in (run / training.LOG).read_text().splitlines()[3:]]
    assert logged == pytest.approx([(a + b) / 2 for a, b in zip(losses[::2], losses[1::2], strict=True)], rel=1e-3)


def test_one_step_lowers_the_loss_of_its_batch(data):
    net = fresh_net().train()
    batch = data.batch([0, 1])
    for kind in ("mse", "ssim", "psnr"):
        moved = copy.deepcopy(net)
        before = loss_of(moved, *batch, kind)
        before.backward()
        with torch.no_grad():
            for parameter in moved.parameters():
                parameter -= 1e-3 * parameter.grad / (parameter.grad.norm() + 1e-8)
        assert loss_of(moved, *batch, kind) < before


def test_bfloat16_stays_near_float32(data):
    net = fresh_net().train()
    batch = data.batch([0, 1])
    exact, rough = (loss_of(copy.deepcopy(net), *batch, "mse", amp=amp).item() for amp in (False, True))
    assert rough != exact
    assert rough == pytest.approx(exact, rel=0.02)


def test_the_loss_in_decibels_is_that_of_each_sample(data):
    blurred, sharp = data.batch([0, 1])

    class Untouched(torch.nn.Module):
        def forward(self, *levels):
            return levels

    errors = [
        (ours - theirs).square().mean((1, 2, 3))
        for ours, theirs in zip(training.pyramid(blurred), training.pyramid(sharp), strict=True)
    ]
    wanted = sum(10 * torch.log10(error + 1e-4).mean() for error in errors)
    torch.testing.assert_close(loss_of(Untouched(), blurred, sharp, "psnr"), wanted)


@pytest.mark.parametrize("frozen", [False, True])
def test_gradients_do_not_depend_on_what_is_made_again(data, frozen):
    batch, results = data.batch([0, 1]), []
    for recompute in (True, False):
        net = fresh_net()
        loss = training.Passes(net, torch.device("cpu"), False, recompute)(*batch, "psnr", frozen)
        results.append([loss, *(parameter.grad for parameter in net.parameters()), *net.buffers()])
    for one, other in zip(*results, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-5)


def test_norms_are_frozen_for_the_last_share_of_a_run(data, tmp_path):
    running, seen = [], []

    class Watched(TrainingData):
        def draw(self, numbers, **options):
            seen.append(running[0].clone())
            return super().draw(numbers, **options)

    net = fresh_net()
    running.append(net.in_block.res_block.conv[1].running_mean)
    watched = Watched(data.pairs, data.sharp, crop=CROP)
    assert train(net, watched, tmp_path, replace(RECIPE, freeze_norm=0.5), progress=False)
    seen.append(running[0].clone())
    assert [not torch.equal(a, b) for a, b in itertools.pairwise(seen)] == [True] * 3 + [False] * 3


def test_time_ends_a_run_and_takes_the_rate_to_nothing(data, tmp_path, monkeypatch):
    clock = itertools.count()  # a second for every look at it
    monkeypatch.setattr(training.time, "monotonic", lambda: float(next(clock)))
    recipe = Recipe(minutes=10 / 60, batch=1, schedule="cosine", loss="mse", learning_rate=1e-3)
    assert train(fresh_net(), data, tmp_path, recipe, progress=False)
    lines = [line.split(",") for line in (tmp_path / training.LOG).read_text().splitlines()[1:]]
    assert len(lines) == 10
    wanted = [recipe.learning_rate_at(0, done) for done in (0, *(i / 9 for i in range(9)))]
    assert [float(line[4]) for line in lines] == pytest.approx(wanted)
    assert train(fresh_net(), data, tmp_path, recipe, progress=False)
    assert (tmp_path / training.LOG).read_text().count("\n") == 11  # what is finished stays so


def test_an_interrupted_run_by_time_has_the_rest_of_it(data, tmp_path, monkeypatch):
    clock = itertools.count()
    monkeypatch.setattr(training.time, "monotonic", lambda: float(next(clock)))
    recipe = Recipe(minutes=10 / 60, batch=1, schedule="cosine", loss="mse")
    broken = InterruptedData(data.pairs, data.sharp, crop=CROP)
    assert not train(fresh_net(), broken, tmp_path, recipe, progress=False)
    done = torch.load(tmp_path / training.CHECKPOINT, weights_only=True)["done"]
    assert done == pytest.approx(5 / 9)  # after the sixth step, that of sample 5
    assert train(GKMNet(), data, tmp_path, recipe, progress=False)
    assert (tmp_path / training.LOG).read_text().count("\n") == 1 + 6 + 5


def test_a_graph_wants_a_gpu(data, tmp_path):
    with pytest.raises(ValueError, match=r"graph: got 1 process\(es\) on cpu"):
        train(fresh_net(), data, tmp_path, graph=True, progress=False)


@pytest.mark.parametrize(
    ("device", "wished", "graph", "recompute"),
    [
        ("cpu", {}, False, True),
        ("cpu", {"recompute": False}, False, False),
        ("cuda", {}, True, False),
        ("cuda", {"graph": False, "recompute": True}, False, True),
        ("cuda", {"graph": True, "recompute": True}, True, True),
    ],
)
def test_defaults_go_by_the_device_and_wishes_win(device, wished, graph, recompute):
    passes = training.passes_of(fresh_net(), torch.device(device), False, **wished)
    assert (isinstance(passes, training.GraphedPasses), passes.recompute) == (graph, recompute)
    assert not graph or passes.insist == ("graph" in wished)


def test_a_step_that_cannot_be_recorded_is_launched_or_an_error(data, monkeypatch):
    def refuse(self, *args):
        raise RuntimeError("operation not permitted when stream is capturing")

    monkeypatch.setattr(training.GraphedPasses, "_record", refuse)
    batch, cpu = data.batch([0, 1]), torch.device("cpu")
    wanted = training.Passes(fresh_net(), cpu, False, False)(*batch, "mse", False)
    passes = training.GraphedPasses(fresh_net(), cpu, False, False, insist=False)
    with pytest.warns(UserWarning, match="kernel by kernel: operation not permitted"):
        assert passes(*batch, "mse", False) == wanted
    passes(*batch, "mse", True)  # it has said so
    with pytest.raises(RuntimeError, match="not permitted"):
        training.GraphedPasses(fresh_net(), cpu, False, False)(*batch, "mse", False)


def test_running_out_of_memory_is_told_with_what_takes_less(folder, tmp_path, capsys, monkeypatch):
    def greedy(self, *args):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB. And more.")

    monkeypatch.setattr(training.Passes, "__call__", greedy)
    assert main(["train", str(folder / "pairs"), "-o", str(tmp_path), "--device=cpu", f"--crop={CROP}"]) == 1
    assert "gkm train: error: CUDA out of memory; --recompute, a smaller --batch" in capsys.readouterr().err


def test_a_backend_that_cannot_serve_is_told_in_a_line(folder, tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("GKM_OPS_BACKEND", "cuda")
    assert main(["train", str(folder / "pairs"), "-o", str(tmp_path), "--device=cpu", f"--crop={CROP}"]) == 1
    assert capsys.readouterr().err.startswith("gkm train: error: backend 'cuda' was asked for and cannot serve ")


def test_help_explains_every_option_and_what_a_run_holds():
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    told = {action.dest: action.help for action in parser._actions}
    assert all(told.values())
    assert all(name in told["output"] for name in (training.CHECKPOINT, training.WEIGHTS, training.LOG))
    for name in ("mode", "schedule", "loss"):
        [choices] = [action.choices for action in parser._actions if action.dest == name]
        assert all(choice in told[name] for choice in choices)


def test_options_that_cannot_serve_are_named_before_a_folder_is_made(folder, tmp_path, capsys):
    for options, told in (
        (["--workers=-1"], "workers: got -1, wanted 0 or more"),
        (["--memory=nan"], "gib (--memory): got nan, wanted 0 or more"),
        (["--memory=-1"], "gib (--memory): got -1.0, wanted 0 or more"),
        (["--weights=absent.pth"], "--weights: [Errno 2] No such file or directory: 'absent.pth'"),
    ):
        command = ["train", str(folder / "pairs"), "-o", str(tmp_path / "run"), "--device=cpu", f"--crop={CROP}"]
        assert main([*command, *options]) == 1
        assert capsys.readouterr().err == f"gkm train: error: {told}\n"
        assert not (tmp_path / "run").exists()


@pytest.mark.skipif(torch.cuda.is_available(), reason="wants a torch without a GPU")
def test_a_device_that_is_not_there_is_named(folder, tmp_path, capsys):
    assert main(["train", str(folder / "pairs"), "-o", str(tmp_path / "run"), "--device=cuda", f"--crop={CROP}"]) == 1
    assert capsys.readouterr().err.startswith("gkm train: error: --device: got 'cuda', which torch cannot use: ")
    assert not (tmp_path / "run").exists()


def test_libraries_are_asked_for_at_the_start_if_at_all(folder, tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "torchmetrics.functional.image", None)
    command = ["train", str(folder / "pairs"), "-o", str(tmp_path / "run"), "--device=cpu", f"--crop={CROP}"]
    assert main(command) == 1
    assert 'pip install "gkm-ops[train]" brings what this command wants' in capsys.readouterr().err
    assert not (tmp_path / "run").exists()
    assert main([*command, "--epochs=1"]) == 0  # the squared error alone


wants_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="wants a GPU")


@wants_gpu
@pytest.mark.parametrize("loss", ["psnr", "released"])
def test_a_graph_trains_on_cuda_as_single_launches_do(loss, data, tmp_path, monkeypatch):
    monkeypatch.setattr(training, "_SSIM_FROM", 4)
    monkeypatch.setattr(training, "_SSIM_TURN", 4)
    recipe, logged = replace(RECIPE, batch=4, epochs=16, loss=loss, freeze_norm=0.5, amp=True), []
    for graph in (False, True):
        run = tmp_path / str(graph)
        assert train(fresh_net(), data, run, recipe, device="cuda", graph=graph, workers=2, progress=False)
        logged.append([float(line.split(",")[3]) for line in (run / training.LOG).read_text().splitlines()[1:]])
    near, far = (0.05, 1) if loss == "psnr" else (0.01, 0.2)  # dB or not, of three scales
    assert logged[1][0] == pytest.approx(logged[0][0], abs=near)
    assert logged[1] == pytest.approx(logged[0], abs=far)  # rounding grows from step to step


@wants_gpu
def test_a_step_that_waits_cannot_be_recorded_on_cuda(data, tmp_path, monkeypatch):
    loss_of = training.loss_of

    def waiting(*args, **options):
        loss = loss_of(*args, **options)
        assert loss.item() > 0
        return loss

    monkeypatch.setattr(training, "loss_of", waiting)
    with pytest.warns(UserWarning, match="launched kernel by kernel"):
        assert train(fresh_net(), data, tmp_path, replace(RECIPE, batch=3), device="cuda", progress=False)


def test_the_released_schedule():
    recipe = Recipe(epochs=4000, batch=4)
    kinds = {epoch: recipe.loss_kind_at(epoch) for epoch in (0, 999, 1000, 1099, 1100, 1199, 1200, 3999)}
    assert kinds == {
        0: "mse", 999: "mse", 1000: "ssim", 1099: "ssim", 1100: "mse", 1199: "mse", 1200: "ssim", 3999: "mse",
    }  # fmt: skip
    rates = [recipe.learning_rate_at(epoch, epoch / 4000) for epoch in (0, 2999, 3000)]
    assert rates == pytest.approx([1e-4, 1e-4, 1e-5])
    assert recipe.steps(350) == 350_000
    assert recipe.epoch_at(175, 350) == 2


def test_the_cosine_schedule_ends_at_nothing():
    recipe = Recipe(schedule="cosine", learning_rate=1e-3, loss="mse")
    rates = [recipe.learning_rate_at(0, done / 1000) for done in range(1001)]
    assert rates[0] < 1e-4
    assert max(rates) == pytest.approx(1e-3, rel=1e-3)
    assert rates[-1] < 1e-8
    assert {recipe.loss_kind_at(epoch) for epoch in range(0, 3000, 50)} == {"mse"}


@pytest.mark.parametrize(
    ("changes", "name"),
    [
        ({"epochs": 0}, "epochs"),
        ({"batch": 0}, "batch"),
        ({"learning_rate": 0.0}, "learning_rate"),
        ({"learning_rate": 1e39}, "learning_rate"),
        ({"learning_rate": math.nan}, "learning_rate"),
        ({"schedule": "steps"}, "schedule"),
        ({"loss": "l1"}, "loss"),
        ({"minutes": 0.0}, "minutes"),
        ({"freeze_norm": 1.5}, "freeze_norm"),
    ],
)
def test_bad_recipes_are_refused(changes, name):
    with pytest.raises(ValueError, match=name):
        Recipe(**changes)
