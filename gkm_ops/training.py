"""Training of GKMNet: the released recipe, on one process or many, resumed exactly where it stopped."""

from __future__ import annotations

import csv
import math
import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import DataLoader

from gkm_ops.data.training_data import TrainingData
from gkm_ops.files import replacing
from gkm_ops.nn.gkmnet import GKMNet, pyramid
from gkm_ops.weights import save_weights

CHECKPOINT, WEIGHTS, LOG = "checkpoint.pt", "weights.safetensors", "log.csv"
_COLUMNS = ("step", "epoch", "loss_kind", "loss", "learning_rate")

# As released: SSIM takes part from this epoch on, in turns of so many epochs.
_SSIM_FROM, _SSIM_TURN = 1000, 100
_DROP_EPOCH, _DROP_FACTOR = 3000, 0.1


@dataclass(frozen=True)
class Recipe:
    """How to train. The defaults are the releases' (paper, section 4.1, and the released code).

    Attributes:
        epochs: passes over the data (v1: 4000, v2: 3000).
        batch: samples a step, over all processes.
        learning_rate: of Adam, at the start.
        schedule: ``"released"``: a tenth from epoch 3000 on; ``"cosine"``: down to zero at the end, after
            a linear start over the first hundredth.
        loss: ``"released"``: the squared error, from epoch 1000 on in turns of 100 epochs with 1 - SSIM;
            ``"mse"``: the squared error throughout.
        amp: bfloat16 autocast of the forward pass.
    """

    epochs: int = 3000
    batch: int = 4
    learning_rate: float = 1e-4
    schedule: str = "released"
    loss: str = "released"
    amp: bool = False

    def __post_init__(self) -> None:
        for name in ("epochs", "batch"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}: got {getattr(self, name)}, wanted 1 or more")
        if not (math.isfinite(self.learning_rate) and self.learning_rate > 0):
            raise ValueError(f"learning_rate: got {self.learning_rate}, wanted a finite number above 0")
        for name, choices in (("schedule", ("released", "cosine")), ("loss", ("released", "mse"))):
            if getattr(self, name) not in choices:
                raise ValueError(f"{name}: got {getattr(self, name)!r}, wanted one of {', '.join(choices)}")

    def steps(self, samples: int) -> int:
        """Steps of the whole run over so many samples an epoch."""
        return math.ceil(self.epochs * samples / self.batch)

    def epoch_at(self, step: int, samples: int) -> int:
        return step * self.batch // samples

    def learning_rate_at(self, step: int, samples: int) -> float:
        if self.schedule == "released":
            return self.learning_rate * (_DROP_FACTOR if self.epoch_at(step, samples) >= _DROP_EPOCH else 1)
        done = step / self.steps(samples)
        return self.learning_rate * min(1, 100 * (done + 1 / self.steps(samples))) * (1 + math.cos(math.pi * done)) / 2

    def loss_kind_at(self, step: int, samples: int) -> str:
        late = self.epoch_at(step, samples) - _SSIM_FROM
        return "ssim" if self.loss == "released" and late >= 0 and late // _SSIM_TURN % 2 == 0 else "mse"


def train(
    net: GKMNet,
    data: TrainingData,
    run: Path,
    recipe: Recipe | None = None,
    *,
    device: torch.device | str = "cpu",
    workers: int = 0,
    save_every: int = 500,
    progress: bool = True,
) -> bool:
    """Train ``net`` in place, writing a checkpoint, the weights and a log into the folder ``run``.

    If the folder holds a checkpoint of the same recipe and data, training goes on from it, to the same result to
    the last bit as if it had never stopped (on the CPU and with as many threads). Under ``torchrun`` the
    processes share every batch; each norms by the statistics of its own part of it, as in the releases' DataParallel.
    An interrupt or a termination signal ends the run after the step it is at, with a checkpoint.

    Args:
        net: what to train; its weights are the start unless the folder holds a checkpoint.
        data: the stream of samples.
        run: a folder, made if need be.
        recipe: how; default `Recipe()`.
        device: where; under ``torchrun`` one per process.
        workers: processes that load data, per training process; 0 loads in the training process.
        save_every: steps between checkpoints.
        progress: show a bar.

    Returns:
        Whether the recipe was carried through to its end.

    Raises:
        ValueError: a batch that the processes can't share evenly, a folder that holds another run, a save_every
            below 1, or a loss that is no longer finite.
    """
    recipe = recipe or Recipe()
    rank, world = (dist.get_rank(), dist.get_world_size()) if dist.is_initialized() else (0, 1)
    if recipe.batch % world:
        raise ValueError(f"batch: got {recipe.batch}, wanted a multiple of {world}, the number of processes")
    if save_every < 1:
        raise ValueError(f"save_every: got {save_every}, wanted 1 or more")
    run.mkdir(parents=True, exist_ok=True)
    net.to(device).train()
    optimizer = torch.optim.Adam(net.parameters(), lr=recipe.learning_rate)
    signature = {**asdict(recipe), "crop": data.crop, "seed": data.seed, "samples": len(data)}
    signature |= {"synthetic_share": data.synthetic_share, "release": net.gcm.release}
    first = _resume(run, net, optimizer, signature)
    log = _Log(run / LOG, first) if rank == 0 else None
    shared = DistributedDataParallel(net) if world > 1 else net

    samples, steps = len(data), recipe.steps(len(data))
    loader = DataLoader(data, batch_sampler=_numbers(recipe.batch, first, steps, rank, world), num_workers=workers)
    step = first
    with _interrupts() as interrupted, _bar(first, steps, progress and rank == 0) as bar:
        for step, (blurred, sharp) in enumerate(loader, first + 1):
            kind = recipe.loss_kind_at(step - 1, samples)
            rate = recipe.learning_rate_at(step - 1, samples)
            for group in optimizer.param_groups:
                group["lr"] = rate
            optimizer.zero_grad()
            loss = loss_of(shared, blurred.to(device), sharp.to(device), kind, amp=recipe.amp)
            loss.backward()
            value, stop = _agreed(loss.detach(), interrupted.is_set(), world)
            if not math.isfinite(value):
                raise ValueError(
                    f"loss: got {value} at step {step}, wanted a finite number; lower the learning rate, or look for "
                    f"broken photos; the last checkpoint stands"
                )
            optimizer.step()
            if log is not None:
                log.write(step, recipe.epoch_at(step - 1, samples), kind, value, rate)
            bar.set_postfix(loss=f"{value:.5f}", refresh=False)
            bar.update()
            if rank == 0 and (stop or step % save_every == 0 or step == steps):
                assert log is not None
                log.flush()
                _save(run, net, optimizer, step, signature)
            if stop:
                break
    return step == steps


def loss_of(net: nn.Module, blurred: Tensor, sharp: Tensor, kind: str, *, amp: bool = False) -> Tensor:
    """The sum over the three scales of the mean squared error, or of 1 - SSIM.

    Args:
        net: a GKMNet, or one wrapped for several processes.
        blurred: ``[B, 3, H, W]``, H and W multiples of 16.
        sharp: what it should become, of the same shape.
        kind: ``"mse"`` or ``"ssim"``.
        amp: run the network under bfloat16 autocast.
    """
    with torch.autocast(blurred.device.type, torch.bfloat16, enabled=amp):
        estimates = net(*pyramid(blurred))
    loss = blurred.new_zeros(())
    for estimate, target in zip(estimates, pyramid(sharp), strict=True):
        estimate = estimate.float()
        if kind == "mse":
            loss = loss + (estimate - target).square().mean()
        else:
            from torchmetrics.functional.image import structural_similarity_index_measure as ssim

            similarity = ssim(estimate, target, data_range=1.0)
            assert isinstance(similarity, Tensor)  # the map comes along on request alone
            loss = loss + 1 - similarity
    return loss


def _numbers(batch: int, first: int, steps: int, rank: int, world: int) -> list[list[int]]:
    """Which samples make this process's part of each batch."""
    part = batch // world
    return [list(range(step * batch + rank * part, step * batch + (rank + 1) * part)) for step in range(first, steps)]


def _agreed(loss: Tensor, interrupted: bool, world: int) -> tuple[float, bool]:
    """The mean loss of all processes, and whether any of them was asked to stop."""
    both = torch.stack((loss.float(), loss.new_tensor(float(interrupted))))
    if world > 1:
        dist.all_reduce(both)
    return both[0].item() / world, both[1].item() > 0


def _save(run: Path, net: GKMNet, optimizer: torch.optim.Optimizer, step: int, signature: dict[str, Any]) -> None:
    state = {"net": net.state_dict(), "optimizer": optimizer.state_dict(), "step": step, "signature": signature}
    with replacing(run / CHECKPOINT) as file:
        torch.save(state, file)
    save_weights(net, run / WEIGHTS)


def _resume(run: Path, net: GKMNet, optimizer: torch.optim.Optimizer, signature: dict[str, Any]) -> int:
    """Steps done already, with the state as it was after them."""
    path = run / CHECKPOINT
    if not path.exists():
        return 0
    state = torch.load(path, map_location="cpu", weights_only=True)
    for name, wanted in signature.items():
        if state["signature"].get(name) != wanted:
            raise ValueError(
                f"{run}: got a run with {name} {state['signature'].get(name)}, wanted {wanted}; choose another folder, "
                f"or the same recipe and data to go on"
            )
    net.load_state_dict(state["net"])
    optimizer.load_state_dict(state["optimizer"])
    return int(state["step"])


class _Log:
    """One line of CSV a step; lines past the checkpoint that training goes on from are dropped."""

    def __init__(self, path: Path, first: int) -> None:
        kept = path.read_text().splitlines()[1 : first + 1] if first and path.exists() else []
        with replacing(path) as file:
            file.write("".join(f"{line}\n" for line in (",".join(_COLUMNS), *kept)).encode())
        self._file = path.open("a", newline="", buffering=1)
        self._writer = csv.writer(self._file, lineterminator="\n")

    def write(self, *values: Any) -> None:
        self._writer.writerow(values)

    def flush(self) -> None:
        self._file.flush()


@contextmanager
def _interrupts() -> Iterator[threading.Event]:
    """Within it, the first interrupt or termination signal sets an event; the second acts as ever."""
    event = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield event
        return
    earlier = {int(number): signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

    def once(number: int, frame: Any) -> None:
        event.set()
        signal.signal(number, earlier[number])

    for number in earlier:
        signal.signal(number, once)
    try:
        yield event
    finally:
        for number, handler in earlier.items():
            signal.signal(number, handler)


def _bar(first: int, steps: int, shown: bool) -> Any:
    from tqdm import tqdm

    return tqdm(initial=first, total=steps, unit="step", disable=not shown, mininterval=1)


def start_processes(device: str) -> torch.device:
    """Join the processes that ``torchrun`` started, if it did; returns this one's device.

    Args:
        device: ``"cpu"`` or ``"cuda"``, which becomes this process's own GPU.
    """
    if "LOCAL_RANK" in os.environ and not dist.is_initialized():
        dist.init_process_group("nccl" if device == "cuda" else "gloo")
    if device == "cuda" and "LOCAL_RANK" in os.environ:
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
        return torch.device("cuda", int(os.environ["LOCAL_RANK"]))
    return torch.device(device)
