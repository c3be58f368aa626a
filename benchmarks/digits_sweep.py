"""How fast are students mapped by `jsoft.sweep` against the same students trained one at a time?

    python -m benchmarks.digits_sweep

takes one to two minutes on two cores. Every side trains the same student: a 64-64-10 perceptron on
the digits' 1,198 training rows, superset log loss on candidate sets drawn at Δ = 0.1 and γ = 0.3,
SGD with Nesterov momentum along a cosine, validation and test accuracy after every epoch, the best
validation epoch reported. The sides take turns, round by round. Tracing and compilation are timed
apart; PyTorch is handed its sets, its slow first student is not counted, and it is skipped where it
is not installed. The exit status says whether the accuracies of all sides agree.

On two cores a mapped student takes about half the time of the same jitted student trained one at a
time, which keeps one core busy, and about a tenth of PyTorch's, with one thread or two; a bit more
than half of the matmul peak. With its compilation counted, a sweep wins from about 40 students on
against PyTorch, from about 200 against jitted students one at a time.
"""

from __future__ import annotations

import dataclasses
import functools
import importlib.util
import json
import math
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import tyro
from jax import lax

from experiments import use_all_cores
from jsoft import datasets, losses, networks, sweep, targets, training

BATCH, WIDTH, NUM_CLASSES = 128, 64, 10
LEARNING_RATE, MOMENTUM, WEIGHT_DECAY = 0.1, 0.9, 5e-4
MAPPED = "jsoft.sweep"
Side = Callable[[np.ndarray], tuple[float, list[float]]]  # seeds to seconds and accuracies


@dataclasses.dataclass(frozen=True)
class Config:
    """Time students mapped by jsoft.sweep against the same students trained one at a time."""

    students: int = 64
    """Students mapped in a round, one seed each; the other sides train the first 16 of them."""
    rounds: int = 5
    """Rounds in which every side has its turn, each with new seeds."""
    epochs: int = 20
    """Passes over the training rows."""
    out: Path | None = None
    """File for the numbers; docs/results/bench-digits-<platform>.json if not given."""


def run(config: Config) -> dict[str, Any]:
    """Return the measurements of every round, and what follows from them."""
    if min(config.students, config.rounds, config.epochs) < 1:
        raise ValueError(f"students, rounds, epochs: expected one or more, got {config}")
    data = datasets.load("digits")
    network = networks.MLP((WIDTH, WIDTH), NUM_CLASSES)
    draw = functools.partial(
        targets.candidate_sets, num_classes=NUM_CLASSES, unreliability=0.1, ambiguity=0.3
    )

    def train(point: sweep.Point, key: jax.Array) -> dict[str, jax.Array]:
        sets_key, student_key = jax.random.split(key)
        student = training.fit(
            network,
            losses.superset_log_loss,
            data.train.images,
            draw(data.train.labels, sets_key),
            data.valid,
            data.test,
            student_key,
            epochs=config.epochs,
            batch_size=BATCH,
            learning_rate=LEARNING_RATE,
            momentum=MOMENTUM,
            weight_decay=WEIGHT_DECAY,
        )
        return {"test_accuracy": student["test_accuracy"]}

    seeds = np.arange(config.rounds * config.students).reshape(config.rounds, config.students)
    alone = jax.jit(lambda seed: train({}, jax.random.key(seed))["test_accuracy"])
    sides: dict[str, Side] = {
        MAPPED: functools.partial(map_students, train),
        "JAX, one at a time": functools.partial(loop_students, alone),
    }
    versions = {}
    if importlib.util.find_spec("torch"):
        torch: Any = importlib.import_module("torch")
        versions["torch"] = torch.__version__
        keys = {int(seed): jax.random.split(jax.random.key(seed))[0] for seed in seeds[:, :16].flat}
        sets = {seed: np.array(draw(data.train.labels, key)) for seed, key in keys.items()}
        for threads in sorted({torch.get_num_threads(), 1}, reverse=True):
            student = torch_student(torch, data, sets, epochs=config.epochs, threads=threads)
            student(0)  # the first one is slow for reasons that are not its own
            name = f"PyTorch, {threads} thread{'s' if threads > 1 else ''}"
            sides[name] = functools.partial(loop_students, student)

    once, notes, peaks = {}, {}, []
    milliseconds: dict[str, list[float]] = {name: [] for name in sides}  # a student, by round
    accuracies: dict[str, list[float]] = {name: [] for name in sides}
    for name, side in sides.items():
        start = time.perf_counter()
        seconds, _ = side(seeds[0] if name == MAPPED else seeds[0, :1])
        # Compiling is apart in a sweep's seconds, and in those of a loop's first student.
        once[name] = time.perf_counter() - start - (seconds if name == MAPPED else 0)
    for turn in seeds:
        for name, side in sides.items():
            row = turn if name == MAPPED else turn[:16]
            seconds, reached = side(row)
            milliseconds[name].append(1000 * seconds / len(row))
            accuracies[name] += reached
        peak, notes = matmul_peak()
        peaks.append(peak)

    mapped = np.array(milliseconds[MAPPED])
    flops = flops_of_student(data, config.epochs)
    gflops = flops / mapped / 1e6
    measured = {}
    for name, values in milliseconds.items():
        paid = 0.0 if name.startswith("PyTorch") else once[name]
        saved = (np.median(values) - np.median(mapped)) / 1000
        measured[name] = {
            "ms_per_student": values,
            "times_mapped": (values / mapped).tolist(),
            "compile_seconds": paid,
            "mapping_pays_from": math.ceil((once[MAPPED] - paid) / saved) if saved > 0 else None,
            "students_a_round": len(accuracies[name]) // config.rounds,
            "accuracy": float(np.mean(accuracies[name])),
            "standard_error": _standard_error(accuracies[name]),
            "agrees": agree(accuracies[name], accuracies[MAPPED]),
        }
    return {
        **{name: notes[name] for name in ("device", "date", "git_revision")},
        "cores": os.cpu_count(),
        "versions": {**notes["versions"], **versions},
        **{name: getattr(config, name) for name in ("students", "rounds", "epochs")},
        "sides": measured,
        "flops_per_student": flops,
        "gflops_mapped": gflops.tolist(),
        "gflops_matmul_peak": peaks,
        "share_of_peak": (gflops / peaks).tolist(),
    }


def map_students(train: sweep.Train, seeds: np.ndarray) -> tuple[float, list[float]]:
    """Return seconds, without those of compiling, and accuracies of one sweep over all seeds."""
    table = sweep.run(train, {"seed": seeds}, progress=False)
    notes = sweep.metadata(table)
    return notes["wall_seconds"] - notes["compile_seconds"], table["test_accuracy"].to_pylist()


def loop_students(student: Callable[[int], Any], seeds: np.ndarray) -> tuple[float, list[float]]:
    """Return seconds and accuracies of one student after the other."""
    start = time.perf_counter()
    accuracies = [float(student(int(seed))) for seed in seeds]
    return time.perf_counter() - start, accuracies


def torch_student(torch: Any, data: datasets.Dataset, sets: dict, *, epochs: int, threads: int):
    """Return the same training in plain PyTorch: tensors in memory, no DataLoader."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    images, valid_images, test_images = (
        torch.tensor(split.images.reshape(len(split.images), -1), device=device)
        for split in (data.train, data.valid, data.test)
    )
    valid_labels, test_labels = (
        torch.tensor(split.labels, device=device) for split in (data.valid, data.test)
    )
    sets = {seed: torch.tensor(rows, device=device) for seed, rows in sets.items()}
    nn, steps = torch.nn, len(images) // BATCH

    def student(seed: int) -> float:
        torch.set_num_threads(threads)
        torch.manual_seed(seed)
        layers = [nn.Linear(64, WIDTH), nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, NUM_CLASSES)]
        for layer, gain in zip(layers, (2, 2, 1), strict=True):
            nn.init.normal_(layer.weight, std=(gain / layer.in_features) ** 0.5)
            nn.init.zeros_(layer.bias)
        network = nn.Sequential(layers[0], nn.ReLU(), layers[1], nn.ReLU(), layers[2]).to(device)
        groups = [
            {"params": [layer.weight for layer in layers], "weight_decay": WEIGHT_DECAY},
            {"params": [layer.bias for layer in layers]},
        ]
        sgd = torch.optim.SGD(groups, lr=LEARNING_RATE, momentum=MOMENTUM, nesterov=True)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(sgd, epochs * steps)
        best_valid = best_test = -1.0
        for _ in range(epochs):
            for rows in torch.randperm(len(images), device=device)[: steps * BATCH].split(BATCH):
                logits = network(images[rows])
                inside = logits.masked_fill(~sets[seed][rows], -torch.inf)  # no set is empty
                loss = (logits.logsumexp(1) - inside.logsumexp(1)).mean()
                sgd.zero_grad()
                loss.backward()
                sgd.step()
                schedule.step()
            with torch.inference_mode():
                valid = (network(valid_images).argmax(1) == valid_labels).float().mean().item()
                test = (network(test_images).argmax(1) == test_labels).float().mean().item()
            if valid > best_valid:
                best_valid, best_test = valid, test
        return best_test

    return student


def flops_of_student(data: datasets.Dataset, epochs: int) -> int:
    """Return the operations of all matrix products in one training and its evaluation."""
    first = 2 * 64 * WIDTH
    forward = first + 2 * WIDTH * WIDTH + 2 * WIDTH * NUM_CLASSES  # of one row
    trained = len(data.train.labels) // BATCH * BATCH
    evaluated = len(data.valid.labels) + len(data.test.labels)
    # Backward is twice forward, but for the gradient of the images, which nobody needs.
    return epochs * (trained * (3 * forward - first) + evaluated * forward)


def matmul_peak(repeats: int = 50_000) -> tuple[float, dict[str, Any]]:
    """Return GFLOP/s of [128, 64] @ [64, 64], one loop on each device at once, and its notes."""

    def chain(point: sweep.Point, key: jax.Array) -> dict[str, jax.Array]:
        rotation = jax.random.orthogonal(key, 64)  # keeps the length of what it turns
        start = jnp.ones((BATCH, 64))
        return {"sum": lax.fori_loop(0, repeats, lambda _, x: x @ rotation, start).sum()}

    notes = sweep.metadata(sweep.run(chain, {"seed": np.arange(jax.device_count())}))
    seconds = notes["wall_seconds"] - notes["compile_seconds"]
    return 2 * BATCH * 64 * 64 * repeats * jax.device_count() / seconds / 1e9, notes


def agree(accuracies: list[float], others: list[float]) -> bool:
    """Return whether two means differ by less than three standard errors, or less than 0.01."""
    error = np.hypot(_standard_error(accuracies), _standard_error(others))
    return bool(abs(np.mean(accuracies) - np.mean(others)) < max(3 * error, 0.01))


def report(results: dict[str, Any]) -> str:
    """Return the results as a person reads them."""
    lines = [
        f"digits, 64-64-10, {results['epochs']} epochs, on {results['device']}; "
        f"medians (min–max) of {results['rounds']} rounds",
        "",
        f"{'':20}{'ms a student':>20}{'times mapped':>21}{'test accuracy':>17}{'compile':>9}"
        f"{'pays from':>11}",
    ]
    for name, side in results["sides"].items():
        pays = side["mapping_pays_from"]
        lines.append(
            f"{name:20}{_spread(side['ms_per_student']):>20}"
            f"{'' if name == MAPPED else _spread(side['times_mapped']):>21}"
            f"{side['accuracy']:>9.3f} ± {side['standard_error']:.3f}"
            f"{side['compile_seconds']:>7.1f} s"
            f"{'' if pays is None else pays:>11}{'' if side['agrees'] else '  DISAGREES'}"
        )
    mapped, *_, last = results["sides"].values()
    lines += [
        "",
        f"A round: {mapped['students_a_round']} students mapped, {last['students_a_round']} of them"
        " one at a time. ±: standard error of the mean.",
        "Pays from: students in a sweep from which mapping wins with compilation counted.",
    ]
    if jax.default_backend() == "cpu":
        lines.append(
            f"Mapped: {_spread(results['gflops_mapped'])} GFLOP/s, "
            f"{_spread(results['share_of_peak'])} of a loop of [128, 64] @ [64, 64] on all cores."
        )
    if "torch" not in results["versions"]:
        lines.append("PyTorch is skipped: it is not installed.")
    return "\n".join(lines)


def _standard_error(values: list[float]) -> float:
    return float(np.std(values) / len(values) ** 0.5)


def _spread(values: list[float]) -> str:
    return f"{np.median(values):.3g} ({min(values):.3g}–{max(values):.3g})"


def main() -> None:
    """Read the command line, measure, print, and write the numbers."""
    config = tyro.cli(Config, prog="python -m benchmarks.digits_sweep")
    use_all_cores()
    results = run(config)
    path = config.out or Path("docs", "results", f"bench-digits-{jax.default_backend()}.json")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(results, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    print(report(results))
    print(f"written: {path}")
    if not all(side["agrees"] for side in results["sides"].values()):
        sys.exit("the sides' accuracies differ: they do not train the same student")


if __name__ == "__main__":
    main()
