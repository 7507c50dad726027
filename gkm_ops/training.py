"""Training of GKMNet: the released recipe, on one process or many, resumed where it stopped."""

from __future__ import annotations

import csv
import io
import itertools
import math
import os
import signal
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.parallel import DistributedDataParallel

from gkm_ops.files import naming, remove_leftovers, replacing
from gkm_ops.nn.gkmnet import GKMNet, pyramid
from gkm_ops.weights import save_weights, unpickled

if TYPE_CHECKING:  # it wants Pillow
    from gkm_ops.data.training_data import TrainingData

CHECKPOINT, WEIGHTS, LOG = "checkpoint.pt", "weights.safetensors", "log.csv"
_COLUMNS = ("step", "epoch", "loss_kind", "loss", "learning_rate")
# What a checkpoint holds, and whether a value can be it: a file can hold anything.
_ENTRIES: dict[str, Callable[[Any], bool]] = {
    "net": lambda value: isinstance(value, dict),
    "optimizer": lambda value: isinstance(value, dict),
    "signature": lambda value: isinstance(value, dict),
    "step": lambda value: isinstance(value, int) and value >= 0,
    "done": lambda value: isinstance(value, float) and 0 <= value <= 1,
}

# Of the log, under those columns.
_Line = tuple[int, int, str, float, float]

# As released: SSIM takes part from this epoch on, in turns of so many epochs.
_SSIM_FROM, _SSIM_TURN = 1000, 100
_DROP_EPOCH, _DROP_FACTOR = 3000, 0.1
# Of the squared error, for the loss in dB: what is nearer than 40 dB counts little more.
_ERROR_FLOOR = 1e-4
# Steps between looks at the losses. Each look waits for the device, which on the CPU has no queue to run empty.
_LOOK_EVERY = {"cpu": 1, "cuda": 16}
_WARM_UP_PASSES = 3


@dataclass(frozen=True)
class Recipe:
    """How to train. The defaults are the releases' (paper, section 4.1, and the released code).

    Attributes:
        epochs: passes over the data (v1: 4000, v2: 3000); of no meaning where there are ``minutes``.
        minutes: train for so long, however many steps that makes; None for ``epochs``.
        batch: samples a step, over all processes.
        learning_rate: of Adam, at the start.
        schedule: ``"released"``: a tenth from epoch 3000 on; ``"cosine"``: down to zero at the end, after
            a linear start over the first hundredth.
        loss: ``"released"``: the squared error, from epoch 1000 on in turns of 100 epochs with 1 - SSIM;
            ``"mse"``: the squared error throughout; ``"psnr"``: the PSNR of each sample, so that all
            count alike, however strong the blur.
        freeze_norm: the share of the run, at its end, in which batch norm goes by its running statistics, as
            it does in use, in place of the batch's.
        amp: bfloat16 autocast of the forward pass.

    Raises:
        ValueError: a number out of its range, or another schedule or loss.

    Example:
        >>> Recipe(epochs=100, batch=8, schedule="cosine").steps(samples=350)
        4375
    """

    epochs: int = 3000
    minutes: float | None = None
    batch: int = 4
    learning_rate: float = 1e-4
    schedule: str = "released"
    loss: str = "released"
    freeze_norm: float = 0.0
    amp: bool = False

    def __post_init__(self) -> None:
        for name in ("epochs", "batch"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}: got {getattr(self, name)}, wanted 1 or more")
        for name in ("learning_rate", "minutes"):
            value = getattr(self, name)
            if value is not None and not 0 < value <= torch.finfo(torch.float32).max:
                raise ValueError(f"{name}: got {value}, wanted a number above 0 that float32 holds")
        if not 0 <= self.freeze_norm <= 1:
            raise ValueError(f"freeze_norm: got {self.freeze_norm}, wanted a number in [0, 1]")
        for name, choices in (("schedule", ("released", "cosine")), ("loss", ("released", "mse", "psnr"))):
            if getattr(self, name) not in choices:
                raise ValueError(f"{name}: got {getattr(self, name)!r}, wanted one of {', '.join(choices)}")

    def steps(self, samples: int) -> int | None:
        """Steps of the whole run over so many samples an epoch; None where time decides."""
        return math.ceil(self.epochs * samples / self.batch) if self.minutes is None else None

    def epoch_at(self, step: int, samples: int) -> int:
        return step * self.batch // samples

    def learning_rate_at(self, epoch: int, done: float) -> float:
        """The rate in an epoch, when such a share of the run is done."""
        if self.schedule == "released":
            return self.learning_rate * (_DROP_FACTOR if epoch >= _DROP_EPOCH else 1)
        return self.learning_rate * min(1, 0.01 + 100 * done) * (1 + math.cos(math.pi * done)) / 2

    def loss_kind_at(self, epoch: int) -> str:
        """``"mse"``, ``"ssim"`` or ``"psnr"``."""
        if self.loss != "released":
            return self.loss
        late = epoch - _SSIM_FROM
        return "ssim" if late >= 0 and late // _SSIM_TURN % 2 == 0 else "mse"


def train(
    net: GKMNet,
    data: TrainingData,
    run: Path,
    recipe: Recipe | None = None,
    *,
    device: torch.device | str = "cpu",
    workers: int = 0,
    graph: bool | None = None,
    recompute: bool | None = None,
    save_every: int = 500,
    progress: bool = True,
    weights: str | None = None,
) -> bool:
    """Train ``net`` in place, writing a checkpoint, the weights and a log into the folder ``run``.

    If the folder holds a checkpoint of the same recipe, kind of net and data (`TrainingData.fingerprint`), training
    goes on from it, to the same result to the last bit as if it had never stopped (on the CPU and with as many
    threads). A run of so many minutes goes on for those that were left; there the learning rate follows the clock, so
    no two runs are alike. Its time begins with the call; the schedule, with the second step, since the first compiles
    kernels.

    Under ``torchrun`` the processes share every batch; each norms by the statistics of its own part of it, as in the
    releases' DataParallel. Only the first of them reads and writes ``run``, so machines need not share a disk. An
    interrupt or a termination signal ends the run within a few steps, with a checkpoint.

    Args:
        net: what to train; its weights are the start unless the folder holds a checkpoint.
        data: the stream of samples.
        run: a folder, made if need be; that of the first process counts.
        recipe: how; default `Recipe()`.
        device: where; under ``torchrun`` one per process.
        workers: threads that cut samples ahead of the training, per process; 0: the training does it.
        graph: on a GPU, record the passes of a step as a CUDA graph and replay it: a net of many small kernels
            is held up by their launches otherwise. For one process. Default: where that can be; a step that cannot be
            recorded is launched kernel by kernel then, after a warning.
        recompute: let the backward pass make activations again that are cheap to make: slower, in a fraction of the
            memory. Default: on the CPU, but not on a GPU.
        save_every: steps between checkpoints; there is one after the first step, too.
        progress: show a bar.
        weights: what to call those that ``net`` comes with, if they are of a file, such as a digest of it; a run that
            began with others does not go on.

    Returns:
        Whether the recipe was carried through to its end.

    Raises:
        BlockingIOError: another process trains in ``run``.
        FileExistsError: ``run`` holds weights or a log, but no checkpoint.
        ImportError: tqdm is not installed, or, for the released loss after epoch 1000, torchmetrics.
        OSError: a file cannot be written; the last checkpoint stands.
        ValueError: a batch that the processes can't share evenly, a ``run`` that is a file, or holds another run
            or a damaged checkpoint, a save_every below 1 or workers below 0, a graph where there can be none, or a
            loss that is no longer finite.
        RuntimeError: a step that was to be a graph cannot be recorded.
    """
    began = time.monotonic()
    recipe, device = recipe or Recipe(), torch.device(device)
    rank, world = _rank_and_world()
    if recipe.batch % world:
        raise ValueError(f"batch: got {recipe.batch}, wanted a multiple of {world}, the number of processes")
    for name, given, least in (("save_every", save_every, 1), ("workers", workers, 0)):
        if given < least:
            raise ValueError(f"{name}: got {given}, wanted {least} or more")
    if graph and (device.type != "cuda" or world > 1):
        raise ValueError(f"graph: got {world} process(es) on {device.type}, wanted one on cuda")
    if recipe.loss == "released" and (recipe.minutes or recipe.epochs > _SSIM_FROM):
        import torchmetrics.functional.image  # noqa: F401  a lack of it is told now, not at epoch 1000
    optimizer = optimizer_of(net, device, recipe.learning_rate, recipe.amp)
    signature = {**asdict(recipe), "crop": data.crop, "seed": data.seed, "samples": len(data)}
    signature |= {"synthetic_share": data.synthetic_share, "shuffle_colours": data.shuffle_colours}
    signature |= {"release": net.gcm.release, "mode": net.gcm.mode, "photos": data.fingerprint(), "weights": weights}
    with _alone_in(run) as content:
        first, done = _resume(content, run, net, optimizer, signature)
        log = _Log(run / LOG, first) if rank == 0 else None
        shared = DistributedDataParallel(net) if world > 1 else net
        passes = passes_of(shared, device, recipe.amp, graph if world == 1 else False, recompute)

        samples, steps = len(data), recipe.steps(len(data))
        clock = _Clock(began, recipe.minutes, done)
        numbers = _numbers(recipe.batch, first, first if done >= 1 else steps, rank, world)
        unread: list[tuple[Tensor, int, int, str, float]] = []
        step = first
        with (
            closing(data.batches(numbers, device, workers)) as batches,
            _interrupts() as interrupted,
            _bar(first, steps, progress and rank == 0) as bar,
        ):
            for step, (blurred, sharp) in enumerate(batches, first + 1):
                epoch = recipe.epoch_at(step - 1, samples)
                kind, rate = recipe.loss_kind_at(epoch), recipe.learning_rate_at(epoch, done)
                for group in optimizer.param_groups:
                    group["lr"] = rate
                loss = passes(blurred, sharp, kind, done >= 1 - recipe.freeze_norm)
                optimizer.step()
                unread.append((loss, step, epoch, kind, rate))

                if steps is not None:
                    done = step / steps
                # From the first step on the folder holds a checkpoint beside the log, so that it can be gone on with.
                save = done >= 1 or step == first + 1 or step % save_every == 0
                if not (save or step % _LOOK_EVERY.get(device.type, 1) == 0):
                    continue
                losses, stop, time_done = _agreed([loss for loss, *_ in unread], interrupted.is_set(), clock.done())
                if steps is None:
                    done = time_done
                lines = [
                    (at, epoch, kind, loss, rate)
                    for loss, (_, at, epoch, kind, rate) in zip(losses, unread, strict=True)
                ]
                _check_finite(lines, log)
                bar.set_postfix(loss=f"{losses[-1]:.5f}", refresh=False)
                bar.update(len(unread))
                unread.clear()
                if log is not None:
                    # The checkpoint comes before the log's first line, which alone would be no run to go on with.
                    begins = not log.begun
                    if not begins:
                        log.write(lines)
                    if save or stop or done >= 1:
                        _save(run, net, optimizer, {"step": step, "done": done, "signature": signature})
                    if begins:
                        log.write(lines)
                if stop or done >= 1:
                    break
    return done >= 1


def optimizer_of(net: GKMNet, device: torch.device, learning_rate: float, amp: bool) -> torch.optim.Optimizer:
    """Adam for a net, which is brought to the device, in the memory format that its steps want."""
    net.to(device, memory_format=_memory_format(device, amp)).train()  # type: ignore[call-overload]  # not in its stubs
    return torch.optim.Adam(net.parameters(), lr=learning_rate, fused=device.type == "cuda" or None)


def passes_of(
    net: nn.Module, device: torch.device, amp: bool, graph: bool | None = None, recompute: bool | None = None
) -> Passes:
    """The passes of a step on a device, by `train`'s defaults where nothing else is said."""
    on_gpu = device.type == "cuda"
    recompute = not on_gpu if recompute is None else recompute
    if graph or (graph is None and on_gpu):
        return GraphedPasses(net, device, amp, recompute, insist=graph is not None)
    return Passes(net, device, amp, recompute)


def _memory_format(device: torch.device, amp: bool) -> torch.memory_format:
    """In bfloat16 a GPU's convolutions want the channels of a pixel beside each other."""
    return torch.channels_last if amp and device.type == "cuda" else torch.contiguous_format


class Passes:
    """A step's forward and backward pass, which leaves the gradients with the parameters; the device may be behind."""

    frozen: bool | None = None

    def __init__(self, net: nn.Module, device: torch.device, amp: bool, recompute: bool) -> None:
        self.net, self.amp, self.recompute = net, amp, recompute
        self._format = _memory_format(device, amp)

    def __call__(self, blurred: Tensor, sharp: Tensor, kind: str, frozen: bool) -> Tensor:
        """The loss, detached. Batch norm goes by its running statistics if ``frozen``."""
        return self._run(blurred.contiguous(memory_format=self._format), sharp, kind, frozen)

    def _run(self, blurred: Tensor, sharp: Tensor, kind: str, frozen: bool) -> Tensor:
        if self.frozen != frozen:
            self.frozen = frozen
            # In training mode modules but norms only save memory.
            self.net.train(self.recompute)
            for norm in (module for module in self.net.modules() if isinstance(module, _BatchNorm)):
                norm.train(not frozen)
        self.net.zero_grad()
        loss = loss_of(self.net, blurred, sharp, kind, amp=self.amp)
        loss.backward()
        return loss.detach()


class GraphedPasses(Passes):
    """The same, recorded once for each kind of step and replayed, on the inputs and into the gradients of then.

    Args:
        insist: what cannot be recorded is an error, and not just launched kernel by kernel.
    """

    recorded: tuple[str, bool] | None = None
    refused = False
    inputs: tuple[Tensor, Tensor]
    loss: Tensor

    def __init__(self, net: nn.Module, device: torch.device, amp: bool, recompute: bool, insist: bool = True) -> None:
        super().__init__(net, device, amp, recompute)
        self.insist = insist

    def _run(self, blurred: Tensor, sharp: Tensor, kind: str, frozen: bool) -> Tensor:
        if self.recorded != (kind, frozen) and not self.refused:
            try:
                self._record(blurred, sharp, kind, frozen)
            except torch.OutOfMemoryError:
                raise
            except RuntimeError as error:
                if self.insist:
                    raise
                self.refused = True
                warnings.warn(
                    f"a step cannot be recorded as a CUDA graph, and is launched kernel by kernel: {error}",
                    stacklevel=3,
                )
        if self.refused:
            return super()._run(blurred, sharp, kind, frozen)
        for static, new in zip(self.inputs, (blurred, sharp), strict=True):
            static.copy_(new)
        self.graph.replay()
        return self.loss.clone()

    def _record(self, blurred: Tensor, sharp: Tensor, kind: str, frozen: bool) -> None:
        torch.cuda.synchronize()  # an earlier graph goes, and must not be running
        self.recorded, self.inputs = (kind, frozen), (blurred.clone(), sharp.clone())
        self.graph = torch.cuda.CUDAGraph()
        # What is compiled, chosen or made once must be there before; these passes shall leave no other trace.
        statistics = {name: buffer.clone() for name, buffer in self.net.named_buffers()}
        aside = torch.cuda.Stream()
        aside.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(aside):
            for _ in range(_WARM_UP_PASSES):
                super()._run(*self.inputs, kind, frozen)
        torch.cuda.current_stream().wait_stream(aside)
        for name, buffer in self.net.named_buffers():
            buffer.copy_(statistics[name])
        # The threads that cut samples go on meanwhile. A recording that fails leaves its own stream the current one.
        with (
            torch.cuda.stream(torch.cuda.current_stream()),
            torch.cuda.graph(self.graph, capture_error_mode="thread_local"),
        ):
            self.loss = super()._run(*self.inputs, kind, frozen)


class _Clock:
    """Which share of a run of so many minutes is done.

    Counted from the first question, since what is compiled before it takes a time of its own, to the end of the
    minutes since the run began; in a run that goes on, of what was left.
    """

    def __init__(self, began: float, minutes: float | None, done: float) -> None:
        self.before = done
        self.end = math.inf if minutes is None else began + 60 * minutes * (1 - done)
        self.start: float | None = None

    def done(self) -> float:
        now = time.monotonic()
        if self.start is None:
            self.start = now
        if now >= self.end:
            return 1.0
        return self.before + (1 - self.before) * (now - self.start) / (self.end - self.start)


def loss_of(net: nn.Module, blurred: Tensor, sharp: Tensor, kind: str, *, amp: bool = False) -> Tensor:
    """The sum over the three scales of the mean squared error, of 1 - SSIM, or of the samples' mean PSNR, negated.

    Args:
        net: a GKMNet, or one wrapped for several processes.
        blurred: ``[B, 3, H, W]``, H and W multiples of 16.
        sharp: what it should become, of the same shape.
        kind: ``"mse"``, ``"ssim"`` or ``"psnr"``, in dB.
        amp: run the network under bfloat16 autocast.

    Returns:
        A float32 scalar with gradients.

    Raises:
        ImportError: torchmetrics is not installed, which ``"ssim"`` takes.

    Example:
        >>> from gkm_ops import GKMNet
        >>> loss_of(GKMNet(), torch.rand(1, 3, 64, 64), torch.rand(1, 3, 64, 64), "mse").shape
        torch.Size([])
    """
    with torch.autocast(blurred.device.type, torch.bfloat16, enabled=amp):
        estimates = net(*pyramid(blurred))
    loss = blurred.new_zeros(())
    for estimate, target in zip(estimates, pyramid(sharp), strict=True):
        estimate = estimate.float()
        if kind == "mse":
            loss = loss + (estimate - target).square().mean()
        elif kind == "psnr":
            errors = (estimate - target).square().mean((1, 2, 3))
            loss = loss + 10 * (errors + _ERROR_FLOOR).log10().mean()
        else:
            from torchmetrics.functional.image import structural_similarity_index_measure as ssim

            similarity = ssim(estimate, target, data_range=1.0)
            assert isinstance(similarity, Tensor)  # the map comes along on request alone
            loss = loss + 1 - similarity
    return loss


def _numbers(batch: int, first: int, steps: int | None, rank: int, world: int) -> Iterator[list[int]]:
    """Which samples make this process's part of each batch, from step ``first`` on; without end for None."""
    part = batch // world
    for step in itertools.count(first) if steps is None else range(first, steps):
        yield list(range(step * batch + rank * part, step * batch + (rank + 1) * part))


def _rank_and_world() -> tuple[int, int]:
    """Which of how many processes this is."""
    return (dist.get_rank(), dist.get_world_size()) if dist.is_initialized() else (0, 1)


def _agreed(losses: list[Tensor], interrupted: bool, done: float) -> tuple[list[float], bool, float]:
    """The mean losses of all processes, whether any was asked to stop, and what is done by the first one's clock."""
    rank, world = _rank_and_world()
    mine = losses[0].new_tensor([float(interrupted), done if rank == 0 else 0.0])
    values = torch.cat((torch.stack(losses), mine))
    if world > 1:
        dist.all_reduce(values)
    *totals, stops, done = values.tolist()
    return [total / world for total in totals], stops > 0, done


def _check_finite(lines: list[_Line], log: _Log | None) -> None:
    """Of losses that are not finite the first is an error; those before it go into a log that has begun."""
    for i, (step, _, _, loss, _) in enumerate(lines):
        if not math.isfinite(loss):
            if log is not None and log.begun:
                log.write(lines[:i])
            raise ValueError(
                f"loss: got {loss} at step {step}, wanted a finite number; look for broken photos, or begin in another "
                "folder with a lower learning rate or other weights; what was saved before stands"
            )


def _save(run: Path, net: GKMNet, optimizer: torch.optim.Optimizer, progress: dict[str, Any]) -> None:
    """The checkpoint comes first: a folder that has one can be gone on with, and one that has others alone cannot."""
    content = io.BytesIO()  # torch.save, into a file, hides what the system says of it
    torch.save({"net": net.state_dict(), "optimizer": optimizer.state_dict(), **progress}, content)
    with replacing(run / CHECKPOINT) as file:
        file.write(content.getbuffer())
    save_weights(net, run / WEIGHTS)


def _resume(
    content: bytes | None, run: Path, net: GKMNet, optimizer: torch.optim.Optimizer, signature: dict[str, Any]
) -> tuple[int, float]:
    """Steps done already and their share of the run, with the state as a checkpoint has it."""
    if content is None:
        return 0, 0.0
    try:
        state = _checkpoint(content, run / CHECKPOINT)
    except ValueError as error:
        advice = f"move it away, and {WEIGHTS} and {LOG}, to begin anew, or choose another folder"
        raise ValueError(f"{error}; {advice}") from error
    recorded = state["signature"]
    advice = "choose another folder, or the same recipe, net, weights and data to go on"
    for name, wanted in signature.items():
        if name in recorded and recorded[name] != wanted:
            raise ValueError(f"{run}: got a run with {name} {recorded[name]}, wanted {wanted}; {advice}")
    try:
        net.load_state_dict(state["net"])
        optimizer.load_state_dict(state["optimizer"])
    except Exception as error:  # each layer of torch has errors of its own
        kind = f"release {net.gcm.release} in mode {net.gcm.mode}"
        raise ValueError(f"{run}: got a run of another net, wanted one of {kind}; {advice}") from error
    unknown = [name for name in signature if name not in recorded]
    if unknown:
        warnings.warn(f"{run}: a run of an earlier version goes on, unchecked for {', '.join(unknown)}", stacklevel=3)
    return int(state["step"]), float(state["done"])


@contextmanager
def _alone_in(run: Path) -> Iterator[bytes | None]:
    """The checkpoint in the first process's folder, if there is one; the folder is made there. Its errors are all's.

    Without one, what a run would write over is somebody's. Until the end of the block no other run gets the folder.
    """
    lock: int | None = None
    try:
        rank, world = _rank_and_world()
        found: list[bytes | Exception | None] = [None]
        if rank == 0:
            try:
                lock = _locked(run)
                found = [_checkpoint_in(run)]
            except (OSError, ValueError) as error:
                found = [error]
        if world > 1:
            dist.broadcast_object_list(found)
        if isinstance(found[0], Exception):
            raise found[0]
        yield found[0]
    finally:
        if lock is not None:
            os.close(lock)


def _locked(run: Path) -> int:
    """A descriptor of the folder, which is made, locked until it is closed, and without what a killed run has left."""
    if run.exists() and not run.is_dir():
        raise ValueError(f"{run}: got a file, wanted a folder for the run")
    run.mkdir(parents=True, exist_ok=True)
    lock = os.open(run, os.O_RDONLY)
    import fcntl  # of Unix alone, as is all that follows

    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        os.close(lock)
        raise BlockingIOError(
            f"{run}: another process trains here; wait for its end, or choose another folder"
        ) from error
    except OSError:  # a file system without locks
        return lock
    with suppress(OSError):
        remove_leftovers(run)
    return lock


def _checkpoint_in(run: Path) -> bytes | None:
    path = run / CHECKPOINT
    if path.exists():
        return path.read_bytes()
    for name in (WEIGHTS, LOG):
        if (run / name).exists():
            advice = "choose another folder, or move it away"
            raise FileExistsError(f"{run / name}: exists already, without a {CHECKPOINT} to go on from; {advice}")
    return None


def _checkpoint(content: bytes, path: Path) -> dict[str, Any]:
    state = unpickled(content, path)
    entries = state if isinstance(state, dict) else {}
    missing = [name for name, fits in _ENTRIES.items() if not fits(entries.get(name))]
    if missing:
        raise ValueError(f"{path}: got a file without usable {', '.join(missing)}, wanted the checkpoint of a run")
    return entries


class _Log:
    """One line of CSV a step; those of steps past the checkpoint that training goes on from are dropped.

    That is done before the first line: a start that fails earlier leaves the file as it was.
    """

    def __init__(self, path: Path, first: int) -> None:
        self.path, self.first, self.begun = path, first, False

    def _begin(self) -> None:
        lines = self.path.read_text().splitlines()[1:] if self.first and self.path.exists() else []
        kept = [line for line in lines if (step := line.partition(",")[0]).isdecimal() and int(step) <= self.first]
        with replacing(self.path) as file:
            file.write("".join(f"{line}\n" for line in (",".join(_COLUMNS), *kept)).encode())
        self.begun = True

    def write(self, lines: list[_Line]) -> None:
        if not self.begun:
            self._begin()
        with naming(self.path), self.path.open("a", newline="") as file:
            csv.writer(file, lineterminator="\n").writerows(lines)


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


def _bar(first: int, steps: int | None, shown: bool) -> Any:
    from tqdm import tqdm

    return tqdm(initial=first, total=steps, unit="step", disable=not shown, mininterval=1)


def start_processes(device: str) -> torch.device:
    """Join the processes that ``torchrun`` started, if it did; returns this one's device.

    Args:
        device: ``"cpu"`` or ``"cuda"``, which becomes this process's own GPU.
    """
    if "LOCAL_RANK" in os.environ and not dist.is_initialized():
        # Imported later, as by DistributedDataParallel, this module's default arguments would hold the group for good:
        # its threads would outlive the interpreter, and one that asks for it then aborts the process.
        from torch.distributed.nn import functional  # noqa: F401

        dist.init_process_group("nccl" if device == "cuda" else "gloo")
    if device == "cuda" and "LOCAL_RANK" in os.environ:
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
        return torch.device("cuda", int(os.environ["LOCAL_RANK"]))
    return torch.device(device)
