"""Training: the recipe's schedule, runs that are resumed or shared, and folders that are kept from harm."""

from __future__ import annotations

import copy
import os
import signal
import subprocess
import sys

import numpy as np
import pytest
import torch
from PIL import Image

from gkm_ops import GKMNet, photos, training
from gkm_ops.data.pairs import find_pairs
from gkm_ops.data.training_data import TrainingData
from gkm_ops.training import Recipe, loss_of, train

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

    def __getitem__(self, number):
        if number == 5:
            os.kill(os.getpid(), signal.SIGTERM)
        return super().__getitem__(number)


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


def test_a_full_disk_leaves_the_last_checkpoint(data, tmp_path, monkeypatch):
    recipe = Recipe(epochs=2, batch=3)
    save = torch.save

    def full(state, file):
        if state["step"] == 2:
            file.write(b"half")
            raise OSError(28, "No space left on device")
        save(state, file)

    monkeypatch.setattr(torch, "save", full)
    with pytest.raises(OSError, match="No space left"):
        train(fresh_net(), data, tmp_path, recipe, save_every=1, progress=False)
    assert torch.load(tmp_path / training.CHECKPOINT, weights_only=True)["step"] == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == ["checkpoint.pt", "log.csv", "weights.safetensors"]


def test_two_processes_equal_one_with_the_mean_of_two_gradients(folder, data, tmp_path):
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", "-m", "gkm_ops"]
    command += ["train", str(folder / "pairs"), "--sharp", str(folder / "sharp"), "-o", str(tmp_path), "--device=cpu"]
    command += ["--epochs=4", "--batch=4", f"--crop={CROP}", "--learning-rate=1e-3"]
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"})
    assert done.returncode == 0, done.stderr

    net = fresh_net().train()
    optimizer = torch.optim.Adam(net.parameters(), lr=1e-3)
    losses = []
    for step in range(3):
        optimizer.zero_grad()
        for part in range(2):
            samples = [data[4 * step + 2 * part + i] for i in range(2)]
            loss = loss_of(net, *map(torch.stack, zip(*samples, strict=True)), "mse")
            (loss / 2).backward()
            losses.append(loss.item())
        optimizer.step()
    logged = [float(line.split(",")[3]) for line in (tmp_path / training.LOG).read_text().splitlines()[1:]]
    assert logged == pytest.approx([(a + b) / 2 for a, b in zip(losses[::2], losses[1::2], strict=True)], rel=1e-3)


def test_one_step_lowers_the_loss_of_its_batch(data):
    net = fresh_net().train()
    batch = [torch.stack(side) for side in zip(data[0], data[1], strict=True)]
    for kind in ("mse", "ssim"):
        moved = copy.deepcopy(net)
        before = loss_of(moved, *batch, kind)
        before.backward()
        with torch.no_grad():
            for parameter in moved.parameters():
                parameter -= 1e-3 * parameter.grad / (parameter.grad.norm() + 1e-8)
        assert loss_of(moved, *batch, kind) < before


def test_bfloat16_stays_near_float32(data):
    net = fresh_net().train()
    batch = [torch.stack(side) for side in zip(data[0], data[1], strict=True)]
    exact, rough = (loss_of(copy.deepcopy(net), *batch, "mse", amp=amp).item() for amp in (False, True))
    assert rough != exact
    assert rough == pytest.approx(exact, rel=0.02)


def test_the_released_schedule():
    recipe = Recipe(epochs=4000, batch=4)
    step_of = lambda epoch: epoch * 350 // 4 + 1  # noqa: E731
    kinds = {epoch: recipe.loss_kind_at(step_of(epoch), 350) for epoch in (0, 999, 1000, 1099, 1100, 1199, 1200, 3999)}
    assert kinds == {
        0: "mse", 999: "mse", 1000: "ssim", 1099: "ssim", 1100: "mse", 1199: "mse", 1200: "ssim", 3999: "mse",
    }  # fmt: skip
    rates = [recipe.learning_rate_at(step_of(epoch), 350) for epoch in (0, 2999, 3000)]
    assert rates == pytest.approx([1e-4, 1e-4, 1e-5])


def test_the_cosine_schedule_ends_at_nothing():
    recipe = Recipe(epochs=100, batch=4, schedule="cosine", learning_rate=1e-3, loss="mse")
    rates = [recipe.learning_rate_at(step, 400) for step in range(recipe.steps(400))]
    assert rates[0] < 1e-4
    assert max(rates) == pytest.approx(1e-3, rel=1e-3)
    assert rates[-1] < 1e-8
    assert {recipe.loss_kind_at(step, 400) for step in range(0, recipe.steps(400), 50)} == {"mse"}


@pytest.mark.parametrize(
    ("changes", "name"),
    [
        ({"epochs": 0}, "epochs"),
        ({"batch": 0}, "batch"),
        ({"learning_rate": 0.0}, "learning_rate"),
        ({"schedule": "steps"}, "schedule"),
        ({"loss": "l1"}, "loss"),
    ],
)
def test_bad_recipes_are_refused(changes, name):
    with pytest.raises(ValueError, match=name):
        Recipe(**changes)
