"""The demo from end to end at a small size, the photo's preparation, and the command line."""

import json
import re
import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import gkm_ops
from gkm_ops.__main__ import main

pytest.importorskip("skimage")
pytest.importorskip("matplotlib")
from PIL import Image

from examples.comparison import EAGER, FUSED
from examples.picture import check_output
from examples.render_motorcycle import parse_arguments
from examples.scene import load_scene

ROOT = Path(__file__).parents[1]


def test_demo_draws_and_compares(tmp_path):
    picture = tmp_path / "new folder" / "demo.png"
    command = [sys.executable, "-m", "examples.render_motorcycle", "--scale", "0.1", "--output", str(picture)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr

    pictures = [picture, picture.with_name("demo-deblurred.png")]
    assert sorted(picture.parent.iterdir()) == sorted(pictures)
    for path in pictures:
        with Image.open(path) as image:
            assert np.asarray(image.convert("L")).std() > 10
        check_output(path)  # its own picture may be replaced
    assert re.search(r"focused near, deblurred: \d+\.\d\d dB, before \d+\.\d\d dB", done.stdout)

    rows = {line[:34].strip(): line[34:].split() for line in done.stdout.splitlines()}
    for name in (FUSED, *EAGER):
        median, unit, calls, *_, difference = rows[name]
        assert unit == "ms"
        assert float(median) > 0
        assert int(calls) >= 1
        assert float(difference) < 1e-6


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--scale", "2"], "argument --scale: got '2', wanted a number from 0.05 to 1"),
        (["--scale", "nan"], "argument --scale: got 'nan'"),
        (["--scale", "half"], "argument --scale: got 'half'"),
        (["--output", "demo.txt"], "wanted a file name that ends in .png or .jpg"),
    ],
)
def test_demo_refuses_bad_arguments(arguments, message, capsys):
    with pytest.raises(SystemExit) as stop:
        parse_arguments(arguments)
    assert stop.value.code == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize("content", ["a picture", "something else", "a folder"])
def test_demo_leaves_what_others_made_alone(tmp_path, content, capsys):
    path = tmp_path / "holiday.png"
    if content == "a picture":
        Image.new("RGB", (4, 4), "red").save(path)
    elif content == "something else":
        path.write_text("not an image")
    else:
        path.mkdir()
    with pytest.raises(SystemExit):
        parse_arguments(["--output", str(path)])
    message = capsys.readouterr().err
    assert ("got the folder" if content == "a folder" else "exists and is not a picture of this demo") in message


@pytest.mark.parametrize("scale", [1.0, 0.25])
def test_scene_is_complete(scale):
    """Disparities are pixels, so both views of the scene keep matching when it is scaled."""
    scene = load_scene(scale)
    height, width = round(500 * scale), round(741 * scale)
    assert scene.photo.shape == (1, 3, height, width)
    assert scene.disparity.shape == (1, height, width)
    assert scene.disparity.isfinite().all()
    assert 7 * scale < scene.disparity.min() < scene.disparity.max() < 60 * scale
    assert 0 <= scene.photo.min() < scene.photo.max() <= 1
    assert 0.07 < scene.filled < 0.08


def test_info_names_every_backend(capsys):
    main(["info"])
    text = capsys.readouterr().out
    for name, verdict in gkm_ops.available_backends().items():
        assert f"  {name:<13}{verdict}" in text


def test_info_as_json_is_build_info(capsys):
    main(["info", "--json"])
    facts = json.loads(capsys.readouterr().out)
    assert facts == {"gkm_ops": gkm_ops.__version__, "forced_backend": None, **gkm_ops.build_info()}


def test_a_command_whose_output_is_closed_from_the_start_succeeds():
    script = f"{shlex.quote(sys.executable)} -m gkm_ops info >&-"
    done = subprocess.run(script, shell=True, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")


def test_who_stops_reading_what_is_printed_is_no_error():
    command = [sys.executable, "-m", "gkm_ops", "info"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    process.stdout.close()
    assert process.stderr.read() == ""
    assert process.wait() == 141


@pytest.mark.parametrize(
    "command",
    [("deblur", "", "-o", "out"), ("deblur", "a.png", "-o", ""), ("train", "", "-o", "run"), ("fit", "", "b.png")],
)
def test_an_empty_name_is_not_the_current_folder(capsys, command):
    with pytest.raises(SystemExit) as stop:
        main(command)
    assert stop.value.code == 2
    assert "got an empty name, wanted that of a file or folder" in capsys.readouterr().err


def test_unknown_command_is_named(capsys):
    with pytest.raises(SystemExit) as stop:
        main(["inform"])
    assert stop.value.code == 2
    assert "invalid choice: 'inform'" in capsys.readouterr().err
