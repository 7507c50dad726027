"""The stream of training samples."""

from __future__ import annotations

import shutil
from pathlib import Path

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


def sample(data, number):
    blurred, sharp = data.batch([number])
    return blurred[0], sharp[0]


def number_of(sharp):
    return round(sharp[2, 0, 0].item() * 255)


def test_every_pair_has_its_turn_before_any_has_its_second(pairs):
    data = TrainingData(pairs, [], crop=48)
    seen = [number_of(sharp) for sharp in data.batch(range(15))[1]]
    for epoch in range(3):
        assert sorted(seen[5 * epoch : 5 * epoch + 5]) == [0, 1, 2, 3, 4]
    assert len({tuple(seen[5 * epoch : 5 * epoch + 5]) for epoch in range(3)}) > 1


def test_both_sides_are_cropped_flipped_and_turned_alike(pairs):
    data = TrainingData(pairs, [], crop=48)
    layouts = set()
    for j in range(40):
        blurred, sharp = sample(data, j)
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
        for got, want in zip(sample(again, j), sample(first, j), strict=True):
            assert torch.equal(got, want)
    assert not torch.equal(first.batch(range(4))[0], other.batch(range(4))[0])


def test_samples_are_the_same_in_any_company(pairs):
    data = TrainingData(pairs, [pairs[0].sharp, pairs[1].sharp], crop=48, synthetic_share=0.5)
    together = data.batch(range(8))
    for j in range(8):
        for got, want in zip(sample(data, j), together, strict=True):
            torch.testing.assert_close(got, want[j], rtol=0, atol=1.01 / 255)  # 8 bits may round the other way
            assert (got != want[j]).float().mean() < 1e-3


def test_threads_and_memory_make_no_difference(pairs, tmp_path):
    photo = np.random.default_rng(0).integers(0, 2**16, (64, 64), dtype=np.uint16)
    Image.fromarray(photo).save(tmp_path / "grey.png")
    Image.fromarray(photo[:32, :32]).save(tmp_path / "grey_depth.png")
    plain, held = (TrainingData(pairs, photos.find([tmp_path]), crop=48, synthetic_share=0.5) for _ in range(2))
    numbers = [[4 * step + i for i in range(4)] for step in range(6)]
    want = list(plain.batches(numbers))
    assert held.hold(1.0, threads=2) == 11
    for path in tmp_path.iterdir():
        path.unlink()
    for got, one in zip(held.batches(numbers, threads=2), want, strict=True):
        assert all(map(torch.equal, got, one))


def test_no_more_memory_is_taken_than_there_is(pairs):
    data = TrainingData(pairs, [], crop=48)
    assert data.hold(3.5 * 70 * 90 * 3 / 2**30) == 3
    assert data.batch(range(5))[0].shape == (5, 3, 48, 48)


def test_a_photo_that_a_thread_cannot_read_is_reported(pairs, tmp_path):
    (tmp_path / "broken.png").write_bytes(b"nothing")
    data = TrainingData([], [tmp_path / "broken.png"], crop=48)
    with pytest.raises(ValueError, match=r"broken\.png"):
        next(data.batches([[0], [1]], threads=2))
    with pytest.raises(ValueError, match=r"broken\.png"):
        data.hold(1.0)


def save(path, height, width, channels=1):
    pixels = np.random.default_rng(0).integers(0, 256, (height, width, channels), dtype=np.uint8)
    Image.fromarray(pixels.squeeze()).save(path)
    return path


def test_what_no_sample_can_be_cut_from_is_told_beforehand(pairs, tmp_path):
    TrainingData(pairs, [pairs[0].sharp], crop=64).check(threads=2)
    with pytest.raises(ValueError, match=r"0_0\.png: got 90 x 70 pixels, wanted at least the crop's 80 a side"):
        TrainingData(pairs, [], crop=80).check()
    small = save(tmp_path / "small.png", 64, 40)
    with pytest.raises(ValueError, match=r"small\.png: got 40 x 64 pixels, wanted at least the crop's 48 a side"):
        TrainingData([], [pairs[0].sharp, small], crop=48).check()
    other = Pair("other", pairs[0].blurred, save(tmp_path / "wider.png", 70, 91))
    data = TrainingData([*pairs, other], [], crop=48)
    with pytest.raises(ValueError, match=r"0_0\.png: got a size unlike that of .*wider\.png"):
        data.check()
    with pytest.raises(ValueError, match="got a size unlike"):
        data.batch(range(6))
    TrainingData([other], [pairs[0].sharp], crop=48, synthetic_share=1.0).check()  # of which no sample is cut
    TrainingData(pairs, [small], crop=48, synthetic_share=0.0).check()
    (tmp_path / "none.png").touch()
    with pytest.raises(ValueError, match=r"none\.png: cannot identify the file"):
        TrainingData([], [tmp_path / "none.png"], crop=48).check()


def test_depth_maps_that_are_none_are_told(tmp_path):
    photo = save(tmp_path / "scene.png", 64, 96, 3)
    data = TrainingData([], [photo], crop=48)
    save(tmp_path / "scene_depth.png", 32, 48)
    data.check()
    data.batch([0])
    save(tmp_path / "scene_depth.png", 96, 64)
    for ask in (data.check, lambda: data.batch([0]), lambda: data.hold(1)):
        with pytest.raises(
            ValueError, match=r"scene_depth\.png: got 64 x 96 pixels, wanted the photo's 96 x 64 or its"
        ):
            ask()
    save(tmp_path / "scene_depth.png", 64, 96, 3)
    with pytest.raises(ValueError, match=r"scene_depth\.png: got colours, wanted grey: one depth per pixel"):
        data.hold(1)


def test_colours_are_shuffled_on_request(pairs):
    data = TrainingData(pairs, [], crop=48, shuffle_colours=True)
    blurred, sharp = data.batch(range(40))
    reds = []  # 200 in the sharp one alone
    for one, other in zip(blurred, sharp, strict=True):
        changed = [c for c in range(3) if not torch.equal(one[c], other[c])]
        assert len(changed) == 1
        reds += changed
    assert set(reds) == {0, 1, 2}


def test_the_synthetic_share_is_kept(pairs):
    data = TrainingData(pairs, [pairs[0].sharp], crop=48, synthetic_share=0.25)
    assert sum(scene is not None for scene in data.draw(range(20)).scenes) == 5
    assert TrainingData(pairs, [pairs[0].sharp], crop=48).synthetic_share == pytest.approx(1 / 6)


def test_a_depth_map_beside_a_photo_is_used(tmp_path):
    photo = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    Image.fromarray(photo).save(tmp_path / "x.png")
    Image.fromarray(np.zeros((32, 32), np.uint8)).save(tmp_path / "x_depth.png")
    flat = TrainingData([], photos.find([tmp_path]), crop=48)
    assert len(flat) == 1
    before = sample(flat, 0)
    Image.fromarray(np.tile(np.arange(32, dtype=np.uint8), (32, 1))).save(tmp_path / "x_depth.png")
    assert not torch.equal(before[0], sample(flat, 0)[0])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"crop": 50}, "crop: got 50"),
        ({"crop": 32}, "crop: got 32"),
        ({"seed": -1}, "seed: got -1, wanted an integer from 0"),
        ({"seed": 2**64}, "seed: got 18446744073709551616"),
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
        TrainingData(pairs, [], crop=80).batch([0])


def test_the_fingerprint_goes_by_names_sizes_order_and_sides(pairs, tmp_path):
    def fingerprint(pairs, sharp=()):
        return TrainingData(pairs, sharp, crop=48).fingerprint()

    paths = [path for pair in pairs for path in pair[1:]]
    renamed = pairs[0]._replace(blurred=Path(shutil.copy(pairs[0].blurred, tmp_path / "other.png")))
    others = [pairs[::-1], pairs[:4], [renamed, *pairs[1:]]]
    assert len({fingerprint(pairs), fingerprint([], paths), *map(fingerprint, others)}) == 5
    moved = [Path(shutil.copy(path, tmp_path)) for path in paths]
    assert fingerprint([], moved) == fingerprint([], paths)
    shutil.copy(pairs[0].sharp, tmp_path / f"{moved[0].stem}_depth.png")
    assert fingerprint([], moved) != fingerprint([], paths)
