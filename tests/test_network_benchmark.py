"""The network's benchmark: the published formulation is right, wrong results are refused, reports tell."""

from __future__ import annotations

import math
import re
import sys
from typing import Any

import numpy as np
import pytest
import torch

pytest.importorskip("tqdm", reason="the benchmarks need the bench extra")

from test_gkmnet import GOLDEN, RELEASES, by_rule, images_of

from benchmarks.network import cli, report, suite, tasks
from benchmarks.network.cases import BFLOAT16, CONTENDERS, ESTIMATES, OURS, PUBLISHED, Case, cases, prepare
from benchmarks.network.published import PublishedGKMNet
from benchmarks.suite import GateError
from gkm_ops import GKMNet

INFERENCE = Case("inference", "v2", (48, 64))
TRAINING = Case("training", "v1", (48, 48), 2)


@pytest.fixture(params=RELEASES)
def release(request):
    return request.param


@pytest.fixture
def golden(release):
    with np.load(GOLDEN / f"gkmnet_{release}.npz") as arrays:
        return dict(arrays)


@pytest.fixture
def published(release):
    net = PublishedGKMNet(release)
    net.load_state_dict(by_rule(net))
    return net


def test_published_bank_equals_the_release(golden, published):
    np.testing.assert_allclose(published.GCM(images_of(golden)[2]).numpy(), golden["gcm"], rtol=0, atol=1e-6)


def test_published_evaluation_equals_the_release(golden, published):
    with torch.no_grad():
        outputs = published.eval()(*images_of(golden))
    for scale, got in enumerate(outputs, 1):
        np.testing.assert_allclose(got.numpy(), golden[f"eval{scale}"], rtol=0, atol=1e-5)


def test_published_training_equals_the_release(golden, published):
    loss = sum(x.square().mean() for x in published(*images_of(golden)))
    assert loss.item() == pytest.approx(golden["train_loss"].item(), rel=1e-3)
    loss.backward()
    want = dict(zip(map(str, golden["names"]), golden["grad_norms"].tolist(), strict=True))
    floor = 1e-3 * max(want.values())
    for name, parameter in published.named_parameters():
        assert parameter.grad.norm().item() == pytest.approx(want[name], abs=1e-2 * max(want[name], floor)), name


def test_published_and_ours_exchange_weights(release, published):
    net = GKMNet(release)
    net.load_state_dict(published.state_dict())
    assert net.state_dict().keys() == published.state_dict().keys()


# ---- Contenders and the gate -------------------------------------------------------------------------------


@pytest.mark.parametrize("case", [INFERENCE, TRAINING], ids=lambda case: case.job)
def test_contenders_pass_the_gate(case):
    eager = [PUBLISHED, OURS, *BFLOAT16]
    suite._refuse_wrong({contender.name: tasks.first_call(contender.name, case) for contender in eager})
    tasks.release()


def test_training_step_moves_the_weights_and_gives_every_gradient():
    step = prepare(OURS, TRAINING)
    first, second = step(), step()
    assert len(first) == ESTIMATES + 132
    assert not torch.equal(first[0], second[0])


@pytest.mark.parametrize("spoil", [lambda x: x * 1.001, lambda x: x * math.nan, lambda x: x[..., :-1]])
def test_gate_sees_a_wrong_result(spoil):
    right = prepare(OURS, INFERENCE)()
    assert tasks.largest_difference(right, right) == 0
    difference = tasks.largest_difference((spoil(right[0]), *right[1:]), right)
    with pytest.raises(GateError, match="gkm_ops: estimates"):
        suite._refuse_wrong({OURS.name: tasks.FirstCall(1.0, difference, 0.0)})
    with pytest.raises(GateError, match="gradients"):
        suite._refuse_wrong({OURS.name: tasks.FirstCall(1.0, 0.0, 100 * difference)})


def test_small_gradients_are_held_against_the_large_ones():
    wanted = torch.ones(4), torch.full((4,), 1e-9)
    assert tasks.largest_difference((wanted[0], -wanted[1]), wanted) == pytest.approx(2e-6)


# ---- A run and its report ----------------------------------------------------------------------------------


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_run_of_a_small_case_has_all_figures():
    plan = suite.Plan((INFERENCE,), (PUBLISHED.name, OURS.name), threads=1, rounds=2)
    record = suite.run(plan)
    published, ours = record["rows"]
    assert published["times_faster"] == published["share_of_memory"] == 1
    assert ours["seconds"]["count"] == 2
    assert ours["times_faster"] > 0
    assert 0 < ours["extra_bytes"] < published["extra_bytes"]
    assert ours["first_call"]["estimates"] < 1e-5
    assert re.search(r"\| inference v2, 64x48 \| \d+\.\d\d s \| \d+\.\d\d s \| 3\.0x \|", report.full(record))


def row(case: Case, contender: str, times_faster: float, share: float) -> dict[str, Any]:
    return {
        "case": {"job": case.job, "release": case.release, "size": list(case.size), "batch": case.batch},
        "contender": contender,
        "seconds": {"median": 0.1, "lower": 0.09, "upper": 0.2, "count": 3},
        "times_faster": times_faster,
        "extra_bytes": 5_000_000,
        "share_of_memory": share,
        "first_call": {"seconds": 0.5, "estimates": 1e-7, "gradients": 2e-5},
    }


def test_targets_say_met_and_not_met():
    record = {
        "environment": {
            "cpu": "Some Processor", "cpu_id": "model 1", "cores": 2, "gkm_ops": {"instruction_set": "avx2"},
            "torch": "2.13.0", "commit": "abc", "date": "2026-01-01T00:00:00", "load": 0.1,
        },
        "plan": {"threads": 2, "seed": 1, "learning_rate": 1e-4},
        "rows": [
            row(INFERENCE, PUBLISHED.name, 1.0, 1.0), row(INFERENCE, OURS.name, 3.2, 0.4),
            row(TRAINING, PUBLISHED.name, 1.0, 1.0), row(TRAINING, OURS.name, 2.4, 0.3),
        ],
    }  # fmt: skip
    lines = report.targets(record).splitlines()[2:]
    assert lines == [
        "| inference v2, 64x48 | 0.10 s | 0.10 s | 3.0x | 3.20x | met | 33 % | 40 % | not met |",
        "| training v1, 48x48, batch 2 | 0.10 s | 0.10 s | 2.5x | 2.40x | not met | 33 % | 30 % | met |",
    ]
    text = report.full(record)
    assert "| gkm_ops | 100 ms [90, 200] | 2.40 | 5 MB | 30 % | 0.5 s | 1.0e-07 | 2.0e-05 |" in text
    assert text.count("## ") == 3


def test_cases_are_every_size_and_release():
    labels = [suite.label(case) for case in cases(((48, 64), (96, 96)), ("v1", "v2"))]
    assert labels == [
        "inference v1, 64x48", "inference v2, 64x48", "inference v1, 96x96", "inference v2, 96x96",
        "training v1, 256x256, batch 4", "training v2, 256x256, batch 4",
    ]  # fmt: skip


def test_contenders_have_names_of_their_own():
    assert len(CONTENDERS) == 5


@pytest.mark.parametrize("size", ["48", "50x64", "64x32", "axb", "-64x64"])
def test_size_that_the_network_cannot_take_is_refused(size, capsys):
    with pytest.raises(SystemExit) as stop:
        cli.main(["--sizes", size])
    assert stop.value.code == 2
    assert "--sizes" in capsys.readouterr().err


def test_out_that_is_a_file_is_refused_before_the_run(tmp_path, capsys):
    (tmp_path / "file").write_text("kept")
    with pytest.raises(SystemExit):
        cli.main(["--out", str(tmp_path / "file")])
    assert "--out" in capsys.readouterr().err
    assert (tmp_path / "file").read_text() == "kept"
