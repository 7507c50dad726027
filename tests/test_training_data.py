"""The stream of training samples."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from gkm_ops import photos
from gkm_ops.data.pairs import Pair
from gkm_ops.data.training_data import TrainingData


@pytest.fixture(scope="module")
def pairs(tmp_path_factory):
    """Pairs that tell which they are by their blue, and which side by their red; green counts the columns."""
    folder = tmp_path_factory.mktemp("pairs")
    made = []
    for number in range(5):
        sides = []
        for side in (0, 1):
            image = np.zeros((70, 90, 3), np.uint8)
            image[..., 0], image[..., 1], image[..., 2] = 200 * side, np.arange(90), number
            path = folder / f"{number}_{side}.png"
            Image.fromarray(image).save(path)
            sides.append(path)
        made.append(Pair(str(number), *sides))
    return made


def number_of(sample):
    return round(sample[1][2, 0, 0].item() * 255)


def test_every_pair_has_its_turn_before_any_has_its_second(pairs):
    data = TrainingData(pairs, [], crop=48)
    seen = [number_of(data[j]) for j in range(15)]
    for epoch in range(3):
        assert sorted(seen[5 * epoch : 5 * epoch + 5]) == [0, 1, 2, 3, 4]
    assert len({tuple(seen[5 * epoch : 5 * epoch + 5]) for epoch in range(3)}) > 1


def test_both_sides_are_cropped_flipped_and_turned_alike(pairs):
    data = TrainingData(pairs, [], crop=48)
    layouts = set()
    for j in range(40):
        blurred, sharp = data[j]
        assert blurred.shape == sharp.shape == (3, 48, 48)
        assert torch.equal(blurred[1:], sharp[1:])
        assert blurred[0].max() == 0
        assert sharp[0].min() > 0.7
        step_x, step_y = (
            round(255 * float(d)) for d in (sharp[1, 0, 1] - sharp[1, 0, 0], sharp[1, 1, 0] - sharp[1, 0, 0])
        )
        layouts.add((step_x, step_y))
    assert layouts == {(1, 0), (-1, 0), (0, 1), (0, -1)}


def test_samples_follow_from_seed_and_number(pairs):
    first, again, other = (TrainingData(pairs, [pairs[0].sharp], crop=48, seed=seed) for seed in (1, 1, 2))
    for j in (0, 3, 7):
        for got, want in zip(again[j], first[j], strict=True):
            assert torch.equal(got, want)
    assert any(not torch.equal(first[j][0], other[j][0]) for j in range(4))


def test_the_synthetic_share_is_kept(pairs):
    data = TrainingData(pairs, [pairs[0].sharp], crop=48, synthetic_share=0.25)
    real = [bool(data[j][0][0].max() == 0) for j in range(20)]
    assert real.count(False) == 5
    assert TrainingData(pairs, [pairs[0].sharp], crop=48).synthetic_share == pytest.approx(1 / 6)


def test_a_depth_map_beside_a_photo_is_used(tmp_path):
    photo = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    Image.fromarray(photo).save(tmp_path / "x.png")
    Image.fromarray(np.zeros((32, 32), np.uint8)).save(tmp_path / "x_depth.png")
    flat = TrainingData([], photos.find([tmp_path]), crop=48)
    assert len(flat) == 1
    before = flat[0]
    Image.fromarray(np.tile(np.arange(32, dtype=np.uint8), (32, 1))).save(tmp_path / "x_depth.png")
    assert not torch.equal(before[0], flat[0][0])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"crop": 50}, "crop: got 50"),
        ({"crop": 32}, "crop: got 32"),
        ({"synthetic_share": 2.0}, "synthetic_share: got 2.0"),
        ({"synthetic_share": 0.5}, "without any sharp"),
        ({"pairs": []}, "got no photos"),
    ],
)
def test_settings_that_cannot_serve_are_refused(pairs, changes, message):
    with pytest.raises(ValueError, match=message):
        TrainingData(changes.pop("pairs", pairs), [], **changes)


def test_photos_smaller_than_the_crop_are_named(pairs):
    with pytest.raises(ValueError, match=r"_0.png: got 90 x 70 pixels"):
        TrainingData(pairs, [], crop=80)[0]
