"""Which photos belong together, found by folders, names and numbers, and what is said when some do not."""

from __future__ import annotations

import pytest

from gkm_ops.data.pairs import find_pairs


@pytest.fixture
def photos(tmp_path):
    """Makes empty files of the given names in a folder, which it returns."""

    def make(*names):
        for name in names:
            path = tmp_path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch()
        return tmp_path

    return make


def relative(pairs, folder):
    return [(pair.name, str(pair.blurred.relative_to(folder)), str(pair.sharp.relative_to(folder))) for pair in pairs]


def test_pairs_by_suffix_at_any_depth(photos):
    folder = photos("b_blur.png", "b_sharp.PNG", "in/a_sharp.tif", "in/a_blur.jpg", "other.png", "notes_blur.txt")
    assert relative(find_pairs([folder]), folder) == [
        ("b", "b_blur.png", "b_sharp.PNG"),
        ("in/a", "in/a_blur.jpg", "in/a_sharp.tif"),
    ]


def test_other_suffixes(photos):
    folder = photos("x_A.png", "x_B.png", "x_fused.png")
    pairs = find_pairs([folder], blur_suffix="_A", sharp_suffix="_fused")
    assert relative(pairs, folder) == [("x", "x_A.png", "x_fused.png")]


@pytest.mark.parametrize(("blur", "sharp"), [("", "_sharp"), ("_blur", ""), ("_blur", "_not_blur")])
def test_the_longer_suffix_decides(photos, blur, sharp):
    folder = photos(f"x{blur}.png", f"x{sharp}.png")
    assert relative(find_pairs([folder], blur_suffix=blur, sharp_suffix=sharp), folder) == [
        ("x", f"x{blur}.png", f"x{sharp}.png")
    ]


def test_files_are_paired_by_suffix(photos):
    folder = photos("a_blur.png", "a_sharp.png", "b_blur.png", "b_sharp.png")
    pairs = find_pairs([folder / "a_sharp.png", folder / "a_blur.png"])
    assert relative(pairs, folder) == [("a", "a_blur.png", "a_sharp.png")]


@pytest.mark.parametrize("split", ["train", "val", "test"])
def test_dpdd_layout(photos, split):
    folder = photos(
        *(f"{each}_c/{side}/{each}1.png" for each in ("train", "val", "test") for side in ("source", "target"))
    )
    assert relative(find_pairs([folder], split=split), folder) == [
        (f"{split}1", f"{split}_c/source/{split}1.png", f"{split}_c/target/{split}1.png")
    ]


@pytest.mark.parametrize(
    ("blurred", "sharp"),
    [
        (("a.png", "b.png"), ("a.tif", "b.tif")),
        (("wide_9.png", "wide_10.png"), ("f22_09.png", "f22_10.png")),
        (("1P0A0917.png", "1P0A0984.png"), ("1P0A0916.png", "1P0A0983.png")),
        (("1P0A0917.png", "1P0A0984.png"), ("1P0A0916.png", "1P0A0985.png")),
    ],
    ids=["equal names", "numbers", "camera's numbers", "camera's numbers, either first"],
)
def test_source_and_target(photos, blurred, sharp):
    folder = photos(
        *(f"source/{name}" for name in blurred), *(f"target/{name}" for name in sharp), "source/.hidden.png"
    )
    pairs = find_pairs([folder])
    assert {(pair.blurred.name, pair.sharp.name) for pair in pairs} == set(zip(blurred, sharp, strict=True))
    assert {pair.name for pair in pairs} == {name.removesuffix(".png") for name in blurred}


def test_hidden_folders_are_passed_over(photos):
    folder = photos("seen/a_blur.png", "seen/a_sharp.png", ".trash/b_blur.png", "seen/.cache/c_sharp.png")
    assert [pair.name for pair in find_pairs([folder])] == ["a"]


@pytest.mark.parametrize(
    ("blurred", "sharp", "named"),
    [
        (("a", "b"), ("a",), "source/b.png"),
        (("a",), ("a", "b"), "target/b.png"),
        (("001", "002", "003"), ("001", "002", "004"), "source/003.png"),
        (("x_2", "x_6", "x_8"), ("x_1", "x_3", "x_5"), "source/x_2.png"),
        (("x_1", "x_4"), ("x_2", "y_5"), "source/x_1.png"),
        (("cat", "dog"), ("bench", "tree"), "source/cat.png"),
    ],
    ids=["no target", "no source", "numbers differ", "pairs overlap", "two cameras", "names differ"],
)
def test_source_and_target_that_do_not_fit(photos, blurred, sharp, named):
    folder = photos(*(f"source/{name}.png" for name in blurred), *(f"target/{name}.png" for name in sharp))
    with pytest.raises(ValueError, match=rf"{named}.*name the two of a pair alike"):
        find_pairs([folder])


@pytest.mark.parametrize(("there", "wanted"), [("a_blur.png", "a_sharp.png"), ("a_sharp.png", "a_blur.png")])
def test_a_photo_alone_is_named_with_its_missing_half(photos, there, wanted):
    folder = photos("b_blur.png", "b_sharp.png", there)
    with pytest.raises(ValueError, match=rf"{there}: .*wanted {wanted}"):
        find_pairs([folder])


def test_two_photos_of_one_name(photos):
    folder = photos("a_blur.png", "a_blur.jpg", "a_sharp.png")
    with pytest.raises(ValueError, match=r"a_blur\.png: one of two of its name, beside a_blur\.jpg"):
        find_pairs([folder])


def test_no_pairs_says_what_is_understood(photos):
    folder = photos("a.png", "b.png")
    with pytest.raises(ValueError, match=r"test_c/source.*source and target.*X_blur\.png"):
        find_pairs([folder])


def test_a_split_that_is_not_there(photos):
    folder = photos("train_c/source/a.png", "train_c/target/a.png")
    with pytest.raises(ValueError, match=r"test_c/source.*choose another split"):
        find_pairs([folder])


def test_bad_arguments(photos):
    folder = photos("a_blur.png", "a_sharp.png")
    with pytest.raises(FileNotFoundError, match="nowhere"):
        find_pairs([folder / "nowhere"])
    with pytest.raises(ValueError, match="split: got 'all'"):
        find_pairs([folder], split="all")
    with pytest.raises(ValueError, match="'_x' for both"):
        find_pairs([folder], blur_suffix="_x", sharp_suffix="_x")


def test_order_and_repetition(photos):
    folder = photos(*(f"{scene}_{side}.png" for scene in ("one/b", "one/a", "two/a") for side in ("blur", "sharp")))
    pairs = find_pairs([folder / "two", folder / "one", folder / "two"])
    assert [pair.name for pair in pairs] == ["two/a", "one/a", "one/b"]
