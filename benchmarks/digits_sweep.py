"""How fast are students mapped by `jsoft.sweep` against the same students trained one at a time?

    python -m benchmarks.digits_sweep

takes two to three minutes on two cores. Every side trains the same student: a 64-64-10 perceptron
on the digits' 1,198 training rows, superset log loss on candidate sets drawn at Δ = 0.1, γ = 0.3,
SGD with Nesterov momentum along a cosine, validation and test accuracy after every epoch, the best
validation epoch reported. The sides take turns, round by round. Tracing and compilation are timed
apart; PyTorch is handed its sets, its slow first student is not counted, and it is skipped where it
is not installed. The exit status says whether the accuracies of all sides agree. What came out, and
what bounds it, is on the page docs/performance.md.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import importlib.metadata
import importlib.util
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

from benchmarks.results import agree, spread, standard_error, write
from experiments import use_all_cores
from jsoft import datasets, losses, networks, sweep, targets, training

BATCH, WIDTH, NUM_CLASSES = 128, 64, 10
LEARNING_RATE, MOMENTUM, WEIGHT_DECAY = 0.1, 0.9, 5e-4
MAPPED = "jsoft.sweep"
TOGETHER = (MAPPED, "PyTorch, torch.func")  # these train all students of a round at once
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


def run(config: Config, stack: contextlib.ExitStack) -> dict[str, Any]:
    """Return the measurements of every round, and what follows; the stack ends other processes."""
    if min(config.students, config.rounds, config.epochs) < 1:
        raise ValueError(f"students, rounds, epochs: expected one or more, got {config}")
    data = datasets.load("digits")
    train = student(data, config.epochs)
    seeds = np.arange(config.rounds * config.students).reshape(config.rounds, config.students)
    alone = jax.jit(lambda seed: train({}, jax.random.key(seed))["test_accuracy"])
    sides: dict[str, Side] = {
        MAPPED: functools.partial(map_students, train),
        "JAX, one at a time": functools.partial(loop_students, alone),
    }
    versions = {}
    if importlib.util.find_spec("torch"):
        torch_students: Any = importlib.import_module("benchmarks.torch_students")
        versions["torch"] = importlib.metadata.version("torch")
        keys = {int(seed): jax.random.split(jax.random.key(seed))[0] for seed in seeds.flat}
        sets = {seed: np.array(draw_sets(data.train.labels, key)) for seed, key in keys.items()}
        threads = torch_students.torch_threads()
        for count in sorted({threads, 1}, reverse=True):
            one = torch_students.student(data, sets, epochs=config.epochs, threads=count)
            name = f"PyTorch, {count} thread{'s' if count > 1 else ''}"
            sides[name] = functools.partial(loop_students, one)
        if jax.default_backend() == "cpu":  # they would share one accelerator
            pool = stack.enter_context(torch_students.pool(data, sets, epochs=config.epochs))
            sides[f"PyTorch, {threads} processes"] = functools.partial(
                torch_students.train_in_pool, pool
            )
        together = torch_students.ensemble(data, sets, epochs=config.epochs)
        sides["PyTorch, torch.func"] = functools.partial(train_together, together)

    once, notes, peaks = {}, {}, []
    milliseconds: dict[str, list[float]] = {name: [] for name in sides}  # a student, by round
    accuracies: dict[str, list[float]] = {name: [] for name in sides}
    for name, side in sides.items():
        start = time.perf_counter()
        seconds, _ = side(seeds[0] if name in TOGETHER else seeds[0, :2])
        # Compiling is apart in a sweep's seconds, and in those of a loop's first student.
        once[name] = time.perf_counter() - start - (seconds if name == MAPPED else 0)
    for turn in seeds:
        for name, side in sides.items():
            row = turn if name in TOGETHER else turn[:16]
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
            "standard_error": standard_error(accuracies[name]),
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


def draw_sets(labels: np.ndarray, key: jax.Array) -> jax.Array:
    """Return the candidate sets that all sides train on."""
    return targets.candidate_sets(
        labels, key, num_classes=NUM_CLASSES, unreliability=0.1, ambiguity=0.3
    )


def student(data: datasets.Dataset, epochs: int) -> sweep.Train:
    """Return the training of one student."""
    network = networks.MLP((WIDTH, WIDTH), NUM_CLASSES)

    def train(point: sweep.Point, key: jax.Array) -> dict[str, jax.Array]:
        del point
        sets_key, student_key = jax.random.split(key)
        metrics = training.fit(
            network,
            losses.superset_log_loss,
            data.train.images,
            draw_sets(data.train.labels, sets_key),
            data.valid,
            data.test,
            student_key,
            epochs=epochs,
            batch_size=BATCH,
            learning_rate=LEARNING_RATE,
            momentum=MOMENTUM,
            weight_decay=WEIGHT_DECAY,
        )
        return {"test_accuracy": metrics["test_accuracy"]}

    return train


def map_students(train: sweep.Train, seeds: np.ndarray) -> tuple[float, list[float]]:
    """Return seconds, without those of compiling, and accuracies of one sweep over all seeds."""
    table = sweep.run(train, {"seed": seeds}, progress=False)
    notes = sweep.metadata(table)
    return notes["wall_seconds"] - notes["compile_seconds"], table["test_accuracy"].to_pylist()


def train_together(
    students: Callable[[np.ndarray], list[float]], seeds: np.ndarray
) -> tuple[float, list[float]]:
    """Return seconds and accuracies of one ensemble of all seeds."""
    start = time.perf_counter()
    accuracies = students(seeds)
    return time.perf_counter() - start, accuracies


def loop_students(student: Callable[[int], Any], seeds: np.ndarray) -> tuple[float, list[float]]:
    """Return seconds and accuracies of one student after the other."""
    start = time.perf_counter()
    accuracies = [float(student(int(seed))) for seed in seeds]
    return time.perf_counter() - start, accuracies


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
            f"{name:20}{spread(side['ms_per_student']):>20}"
            f"{'' if name == MAPPED else spread(side['times_mapped']):>21}"
            f"{side['accuracy']:>9.3f} ± {side['standard_error']:.3f}"
            f"{side['compile_seconds']:>7.1f} s"
            f"{'' if pays is None else pays:>11}{'' if side['agrees'] else '  DISAGREES'}"
        )
    mapped, alone, *_ = results["sides"].values()
    lines += [
        "",
        f"A round: {mapped['students_a_round']} students mapped or in an ensemble, "
        f"{alone['students_a_round']} of them one at a time. ±: standard error of the mean.",
        "Pays from: students in a sweep from which mapping wins with compilation counted.",
    ]
    if jax.default_backend() == "cpu":
        lines.append(
            f"Mapped: {spread(results['gflops_mapped'])} GFLOP/s, "
            f"{spread(results['share_of_peak'])} of a loop of [128, 64] @ [64, 64] on all cores."
        )
    if "torch" not in results["versions"]:
        lines.append("PyTorch is skipped: it is not installed.")
    return "\n".join(lines)


def main() -> None:
    """Read the command line, measure, print, and write the numbers."""
    config = tyro.cli(Config, prog="python -m benchmarks.digits_sweep")
    use_all_cores()
    with contextlib.ExitStack() as stack:
        results = run(config, stack)
    print(report(results))
    write(results, "digits", config.out)
    if not all(side["agrees"] for side in results["sides"].values()):
        sys.exit("the sides' accuracies differ: they do not train the same student")


if __name__ == "__main__":
    main()
