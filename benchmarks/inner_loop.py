"""Where does the time of a digits student go? The training with parts of it left out, in turns.

    python -m benchmarks.inner_loop

takes a minute. The student is that of `benchmarks.digits_sweep`; each variant maps the same number
of them over all devices. "products alone" is the matrix products of the same steps and evaluations
and nothing else: the floor under any training of this network.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import tyro
from jax import lax

from benchmarks.digits_sweep import (
    BATCH,
    NUM_CLASSES,
    WIDTH,
    draw_sets,
    flops_of_student,
    map_students,
    student,
)
from benchmarks.results import spread, write
from experiments import keep_compiled_programs, use_all_cores
from jsoft import datasets, losses, networks, sweep, training


@dataclasses.dataclass(frozen=True)
class Config:
    """Time a training with parts of it left out."""

    students: int = 64
    """Students of a variant."""
    rounds: int = 7
    """Rounds in which every variant has its turn."""
    epochs: int = 20
    """Passes over the training rows."""
    out: Path | None = None
    """File for the numbers; docs/results/bench-inner-loop-<platform>.json if not given."""


def variants(data: datasets.Dataset, epochs: int) -> dict[str, sweep.Train]:
    """Return trainings by what they do; each leaves out more than the one before."""
    network = networks.MLP((WIDTH, WIDTH), NUM_CLASSES)
    steps = len(data.train.labels) // BATCH
    evaluated = len(data.valid.labels) + len(data.test.labels)

    def train_with(loss: training.Loss) -> sweep.Train:
        def train(point: sweep.Point, key: jax.Array) -> dict[str, jax.Array]:
            params, _ = training.train(
                network,
                loss,
                data.train.images,
                draw_sets(data.train.labels, key),
                key,
                observe=lambda params: jnp.zeros(()),
                epochs=epochs,
                batch_size=BATCH,
            )
            return {"test_accuracy": optax.tree.norm(params)}

        return train

    def products(point: sweep.Point, key: jax.Array) -> dict[str, jax.Array]:
        def step(weights: tuple[jax.Array, ...], _: Any):
            a, b, c = weights
            first = images[:BATCH] @ a  # forward
            second = first @ b
            third = second @ c
            into_second = third @ c.T  # backward
            into_first = into_second @ b.T
            new = (images[:BATCH].T @ into_first, first.T @ into_second, second.T @ third)
            return jax.tree.map(lambda old, x: old + 1e-6 * x, weights, new), None

        def epoch(weights: tuple[jax.Array, ...], _: Any):
            weights, _ = lax.scan(step, weights, None, length=steps)
            a, b, c = weights
            return weights, (images[:evaluated] @ a @ b @ c).max()

        images = jnp.asarray(data.train.images).reshape(len(data.train.labels), -1)
        shapes = ((64, WIDTH), (WIDTH, WIDTH), (WIDTH, NUM_CLASSES))
        weights = tuple(1e-3 * jax.random.normal(key, shape) for shape in shapes)
        _, largest = lax.scan(epoch, weights, None, length=epochs)
        return {"test_accuracy": largest.max()}

    def orders(point: sweep.Point, key: jax.Array) -> dict[str, jax.Array]:
        def epoch(total: jax.Array, number: jax.Array):
            rows = training._order(jax.random.fold_in(key, number), len(data.train.labels))
            return total + rows[0], None

        total, _ = lax.scan(epoch, jnp.zeros((), jnp.int32), jnp.arange(epochs))
        return {"test_accuracy": total}

    return {
        "the training": student(data, epochs),
        "without evaluation": train_with(losses.superset_log_loss),
        "nor a loss (the sum of logits)": train_with(lambda logits, sets: logits.sum(axis=-1)),
        "products alone": products,
        "random orders alone": orders,
    }


def run(config: Config) -> dict[str, Any]:
    """Return the milliseconds a student of every variant, round by round."""
    data = datasets.load("digits")
    timed = variants(data, config.epochs)
    milliseconds: dict[str, list[float]] = {name: [] for name in timed}
    for _ in range(config.rounds):
        for name, train in timed.items():
            seconds, _ = map_students(train, np.arange(config.students))
            milliseconds[name].append(1000 * seconds / config.students)
    return {
        **sweep.provenance(),
        **{x: getattr(config, x) for x in ("students", "rounds", "epochs")},
        "ms_per_student": milliseconds,
        "flops_per_student": flops_of_student(data, config.epochs),
    }


def report(results: dict[str, Any]) -> str:
    """Return the results as a person reads them."""
    whole = np.array(results["ms_per_student"]["the training"])
    lines = [
        f"digits, 64-64-10, {results['epochs']} epochs, on {results['device']}; "
        f"medians (min–max) of {results['rounds']} rounds"
    ]
    for name, values in results["ms_per_student"].items():
        lines.append(
            f"{name:32}{spread(values):>20} ms a student,"
            f" {np.median(np.array(values) / whole):5.0%} of the training"
        )
    gflops = (
        results["flops_per_student"] / 1e6 / np.array(results["ms_per_student"]["products alone"])
    )
    return "\n".join([*lines, f"products alone: {np.median(gflops):.0f} GFLOP/s"])


def main() -> None:
    """Read the command line, measure, print, and write the numbers."""
    config = tyro.cli(Config, prog="python -m benchmarks.inner_loop")
    use_all_cores()
    keep_compiled_programs()  # every round compiles anew
    results = run(config)
    print(report(results))
    write(results, "inner-loop", config.out)


if __name__ == "__main__":
    main()
