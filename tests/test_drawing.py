"""Pictures of maps: axes in pixels of the photo, titles and sources."""

from __future__ import annotations

import io

import pytest
import torch

pytest.importorskip("matplotlib")

from matplotlib.figure import Figure

from gkm_ops import GaussianBank, GKMNet
from gkm_ops.cli import coefficient_maps
from gkm_ops.defocus import fit_pictures


@pytest.fixture
def drawn(monkeypatch):
    """The figures that are saved."""
    figures = []
    monkeypatch.setattr(Figure, "savefig", lambda figure, file, **options: figures.append(figure))
    return figures


def panels(figure):
    return [axes for axes in figure.axes if axes.images]


def assert_axes_in_pixels(axes, height, width):
    assert axes.get_xlabel() == "pixels"
    assert axes.get_ylabel().endswith("pixels")
    assert (axes.get_xlim(), axes.get_ylim()) == ((-0.5, width - 0.5), (height - 0.5, -0.5))
    for ticks, size in ((axes.get_xticks(), width), (axes.get_yticks(), height)):
        seen = [tick for tick in ticks if 0 <= tick < size]
        assert 1 <= len(seen) <= 6
        assert all(tick == int(tick) for tick in seen)


@pytest.mark.parametrize(("height", "width"), [(1, 1), (40, 52), (2011, 90)])
def test_axes_are_in_pixels_of_the_photo(drawn, height, width):
    bank = GaussianBank.gkmnet()
    maps = torch.rand(44, 1, 1).expand(-1, height, width)
    coefficient_maps.draw(io.BytesIO(), maps, [0, 21], bank)
    fit_pictures.draw_coefficients(io.BytesIO(), maps[:22], [3, 21], bank)
    image = torch.rand(3, height, width)
    fit_pictures.draw_errors(io.BytesIO(), {"disk": image, "gkm": image}, torch.rand(3, height, width))
    assert [len(panels(figure)) for figure in drawn] == [4, 2, 2]
    for axes in (axes for figure in drawn for axes in panels(figure)):
        assert_axes_in_pixels(axes, height, width)


def test_what_is_averaged_for_the_picture_stays_where_it_was(drawn):
    maps = torch.zeros(22, 10, 2003)
    maps[0, :, 1999:] = 1  # blocks of 3 pixels
    fit_pictures.draw_coefficients(io.BytesIO(), maps, [0], GaussianBank.gkmnet())
    (axes,) = panels(drawn[0])
    left, right, _, _ = axes.images[0].get_extent()
    values = axes.images[0].get_array()
    assert (right - left) / values.shape[1] == 3
    # What is drawn over a pixel.
    assert [values[0, int((x - left) / 3)] for x in (1000, 1996, 1999, 2002)] == pytest.approx([0, 0, 2 / 3, 1])


def test_titles_tell_how_kernels_are_counted(drawn):
    bank, maps = GaussianBank.gkmnet(), torch.rand(44, 8, 9)
    coefficient_maps.draw(io.BytesIO(), maps, [0, 14], bank)
    coefficient_maps.draw(io.BytesIO(), maps, [0, 14], bank, first=1, caption="Source: here")
    coefficient_maps.draw(io.BytesIO(), maps, [21], GaussianBank.gkmnet("v1"))
    fit_pictures.draw_coefficients(io.BytesIO(), maps, [14, 14], bank)
    assert [[title for axes in panels(figure) if (title := axes.get_title())] for figure in drawn] == [
        ["kernel 0 (of 0 to 21): 1 × 1", "kernel 14 (of 0 to 21): 15 × 15"],  # noqa: RUF001
        ["kernel 1 (of 1 to 22): 1 × 1", "kernel 15 (of 1 to 22): 15 × 15"],  # noqa: RUF001
        ["kernel 21 (of 0 to 21)"],
        ["kernel 14 (of 0 to 21): 15 × 15"],  # noqa: RUF001
    ]
    assert drawn[1].get_supxlabel() == "Source: here"


def test_the_paper_s_maps_are_counted_as_there_and_tell_their_source(drawn, tmp_path):
    figures, pairs = (pytest.importorskip(f"benchmarks.paper.{name}") for name in ("figures", "pairs"))
    photo = pairs.Images("cup", "cup: somebody, from somewhere", torch.rand(3, 48, 48))
    figures.maps((tmp_path / "4.png", tmp_path / "4-busiest.png"), photo, GKMNet())
    titles = [axes.get_title().partition(" (of 1 to 22)")[:2] for axes in panels(drawn[0])[:4]]
    assert titles == [(f"kernel {number}", " (of 1 to 22)") for number in (1, 15, 16, 20)]
    for figure in drawn:
        assert "Source: cup: somebody, from somewhere" in figure.get_supxlabel()
