"""Train GKMNet on pairs of photos, and on sharp photos that are blurred on the fly."""

from __future__ import annotations

import argparse
import hashlib
import os

import torch
import torch.distributed as dist

from gkm_ops import backends
from gkm_ops.cli import arguments, messages
from gkm_ops.training import Recipe, start_processes, train


def add_arguments(parser: argparse.ArgumentParser) -> None:
    recipe = Recipe()
    parser.add_argument(
        "pairs",
        nargs="*",
        type=arguments.path,
        metavar="DATA",
        help="folders in the DPDD layout (train_c/source, train_c/target) or of pairs by suffix, or such photos",
    )
    parser.add_argument(
        "-o",
        "--output",
        required=True,
        type=arguments.path,
        metavar="RUN",
        help="folder of the run: checkpoint.pt, from which the same command goes on, weights.safetensors, for "
        "--weights, and log.csv, the loss of every step; without the first of these it is begun anew, and may not hold "
        "the others; one command at a time has it",
    )
    parser.add_argument(
        "--sharp",
        nargs="+",
        type=arguments.path,
        default=[],
        metavar="PHOTOS",
        help="sharp photos or folders of them to blur on the fly",
    )
    parser.add_argument("--synthetic-share", type=float, metavar="S", help="share of those, default: by their number")
    parser.add_argument("--blur-suffix", default="_blur", help="of the names of blurred photos; default: %(default)s")
    parser.add_argument("--sharp-suffix", default="_sharp", help="of those of sharp ones; default: %(default)s")
    parser.add_argument(
        "--release",
        choices=("v1", "v2"),
        default="v2",
        help="which of the authors' two the network equals; default: %(default)s",
    )
    parser.add_argument(
        "--mode",
        choices=("FG", "TG", "TR"),
        default="FG",
        help="of the kernels: FG, fixed Gaussians; TG, trained from those; TR, trained from random ones; "
        "default: %(default)s",
    )
    parser.add_argument("--weights", type=arguments.path, metavar="FILE", help="start from these instead of at random")
    length = parser.add_mutually_exclusive_group()
    length.add_argument("--epochs", type=int, default=recipe.epochs, help="default: %(default)s")
    length.add_argument("--minutes", type=float, help="train for so long in place of so many epochs")
    parser.add_argument("--batch", type=int, default=recipe.batch, help="over all processes; default: %(default)s")
    parser.add_argument("--crop", type=int, default=256, help="pixels a side; default: %(default)s")
    parser.add_argument("--learning-rate", type=float, default=recipe.learning_rate, help="default: %(default)s")
    parser.add_argument(
        "--schedule",
        choices=("released", "cosine"),
        default=recipe.schedule,
        help="of the learning rate: released, a tenth from epoch 3000 on; cosine, down to zero at the end; "
        "default: %(default)s",
    )
    parser.add_argument(
        "--loss",
        choices=("released", "mse", "psnr"),
        default=recipe.loss,
        help="released, the squared error, from epoch 1000 on in turns with 1 - SSIM; mse, that error throughout; "
        "psnr, that of each sample in dB, so that all count alike; default: %(default)s",
    )
    parser.add_argument(
        "--freeze-norm",
        type=float,
        default=recipe.freeze_norm,
        metavar="SHARE",
        help="share of the run, at its end, with batch norm as in use; default: %(default)s",
    )
    parser.add_argument("--shuffle-colours", action="store_true", help="give each sample's colours another order")
    parser.add_argument(
        "--amp", action="store_true", help="bfloat16 autocast: estimates change by about 0.005 of their norm"
    )
    parser.add_argument(
        "--graph",
        action=argparse.BooleanOptionalAction,
        help="replay steps as a CUDA graph, which one GPU makes faster by far; default: where that can be",
    )
    parser.add_argument(
        "--recompute",
        action=argparse.BooleanOptionalAction,
        help="save memory, at the cost of time; default: on the CPU --recompute, on a GPU --no-recompute",
    )
    parser.add_argument("--seed", type=int, default=0, help="default: %(default)s")
    parser.add_argument(
        "--device",
        choices=("cpu", "cuda"),
        default="cuda" if torch.cuda.is_available() else "cpu",
        help="under torchrun each process has a GPU of its own; default here: %(default)s",
    )
    parser.add_argument("--workers", type=int, default=0, help="threads that cut samples, per process; default: none")
    parser.add_argument(
        "--memory", type=float, default=4.0, metavar="GIB", help="for decoded photos, per process; default: %(default)s"
    )
    parser.add_argument(
        "--save-every", type=int, default=500, metavar="STEPS", help="and after the first; default: %(default)s"
    )


def run(options: argparse.Namespace) -> int:
    try:
        import tqdm  # noqa: F401  told about before photos are read

        from gkm_ops import photos
        from gkm_ops.data.pairs import find_pairs
        from gkm_ops.data.training_data import TrainingData
    except ImportError as error:
        return messages.lacking("train", error, "train")
    from gkm_ops.nn.gkmnet import GKMNet
    from gkm_ops.weights import load_weights

    suffixes = {"blur_suffix": options.blur_suffix, "sharp_suffix": options.sharp_suffix}
    try:
        pairs = find_pairs(options.pairs, split="train", **suffixes) if options.pairs else []
        data = TrainingData(
            pairs,
            list(dict.fromkeys(photos.find(options.sharp))) if options.sharp else [],
            crop=options.crop,
            seed=options.seed,
            synthetic_share=options.synthetic_share,
            shuffle_colours=options.shuffle_colours,
        )
        recipe = Recipe(
            epochs=options.epochs,
            minutes=options.minutes,
            batch=options.batch,
            learning_rate=options.learning_rate,
            schedule=options.schedule,
            loss=options.loss,
            freeze_norm=options.freeze_norm,
            amp=options.amp,
        )
        torch.manual_seed(options.seed)
        net = GKMNet(options.release, options.mode)
        digest = None
        if options.weights is not None:
            with arguments.naming("--weights"):
                load_weights(net, options.weights)
                digest = hashlib.sha256(options.weights.read_bytes()).hexdigest()[:12]
        device = start_processes(options.device)
        with arguments.device_named(options.device):
            net.to(device)
        backends.choose(device, torch.float32)  # that it cannot serve is told before photos are read
        torch.backends.cudnn.benchmark = True  # all steps are of one shape
        if options.amp:
            torch.set_float32_matmul_precision("high")  # the photos that are blurred need not be more exact
        data.check(max(1, options.workers))
        data.hold(options.memory, max(1, options.workers))
        finished = train(
            net,
            data,
            options.output,
            recipe,
            device=device,
            workers=options.workers,
            graph=options.graph,
            recompute=options.recompute,
            save_every=options.save_every,
            weights=digest,
        )
    except torch.OutOfMemoryError as error:
        told = str(error).partition(". ")[0]
        return messages.failed("train", f"{told}; --recompute, a smaller --batch or --crop take less")
    except ImportError as error:
        return messages.lacking("train", error, "train")
    except (OSError, ValueError, RuntimeError) as error:
        return messages.failed("train", error)
    finally:
        if dist.is_initialized():
            dist.destroy_process_group()
    if os.environ.get("RANK", "0") == "0":
        print(f"{'finished' if finished else 'interrupted; the same command goes on'}: {options.output}")
    return 0 if finished else 130
