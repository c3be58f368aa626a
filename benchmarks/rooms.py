"""How fast are the losses of the other systems beside the same mathematics in PyTorch?

    python -m benchmarks.rooms

takes a minute. Every row is a value and its gradient (labels alone in the last three), compiled on
our side, eager on the other, as PyTorch is used on a CPU; the sides take turns, round by round, on
the same numbers, and the exit status says whether they agree. PyTorch's side is written here, with
its fused functions and without a loop over examples.

Jaccard losses see 8 × 256 × 256 pixels of 11 classes, with the class axis last here and first
there. The label gradient goes forward in both (`jax.jvp`, `torch.func.jvp`). A step of robust
distillation is an attack of ten steps, then one of gradient descent with momentum.
"""

from __future__ import annotations

import dataclasses
import itertools
import os
import sys
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import torch
import tyro
from torch import Tensor
from torch.nn import functional

from benchmarks.results import spread, take_turns, write
from jsoft import (
    attacks,
    distillation,
    fairness,
    kernels,
    label_pruning,
    losses,
    meta_labels,
    propagation,
    segmentation,
    sweep,
)

CLASSES_FIRST = (0, 3, 1, 2)
EPSILON, STEP_SIZE, STEPS, RATE = 8 / 255, 2 / 255, 10, 0.1


class Case(NamedTuple):
    """Two functions without arguments, which return values of the same meaning in one order.

    `tolerance` is what they may differ by, against the largest entry of an array: sums of float32
    in another order, where not told otherwise.
    """

    ours: Callable[[], Any]
    theirs: Callable[[], Any]
    tolerance: float = 1e-5


@dataclasses.dataclass(frozen=True)
class Config:
    """Time losses and gradients against PyTorch."""

    rounds: int = 31
    """Rounds in which every side has its turn."""
    out: Path | None = None
    """File for the numbers; docs/results/bench-rooms-<platform>.json if not given."""


def with_gradient(
    ours: Callable[..., jax.Array],
    theirs: Callable[..., Tensor],
    *leaves: np.ndarray,
    given: tuple[np.ndarray, ...] = (),
    classes_first: bool = False,
) -> Case:
    """Return both sides of a scalar loss and its gradient in every one of `leaves`.

    Ours is a function of leaves and `given`: what it closed over would be folded when it compiles.
    """
    compiled = jax.jit(jax.value_and_grad(ours, argnums=tuple(range(len(leaves)))))
    arrays = [jnp.asarray(array) for array in (*leaves, *given)]
    tensors = [
        torch.from_numpy(leaf.transpose(CLASSES_FIRST).copy() if classes_first else leaf)
        for leaf in leaves
    ]
    for tensor in tensors:
        tensor.requires_grad_()

    def eager() -> Any:
        value = theirs(*tensors)
        return value.detach(), torch.autograd.grad(value, tensors)

    return Case(lambda: jax.block_until_ready(compiled(*arrays)), eager)


def of_arrays(
    ours: Callable[..., jax.Array], theirs: Callable[..., Tensor], *given: np.ndarray
) -> Case:
    """Return both sides of a function of arrays, without a gradient."""
    compiled, arrays = jax.jit(ours), [jnp.asarray(array) for array in given]
    tensors = [torch.from_numpy(array) for array in given]

    def eager() -> Tensor:
        with torch.no_grad():
            return theirs(*tensors)

    return Case(lambda: jax.block_until_ready(compiled(*arrays)), eager)


def distillation_cases(rng: np.random.Generator) -> dict[str, Case]:
    """Return weighted, plain and anti-bias distillation: 4,096 examples of 100 classes."""
    student, clean, teacher = (3 * rng.standard_normal((3, 4096, 100))).astype(np.float32)
    temperatures = (1 + rng.random((2, 100))).astype(np.float32)
    labels = rng.integers(100, size=4096)
    taught, truth = torch.from_numpy(teacher), torch.from_numpy(labels)
    hot, cold = torch.from_numpy(temperatures)
    labels = labels.astype(np.int32)

    def softened(logits: Tensor) -> Tensor:
        soft = (taught / 4).softmax(dim=1)
        return 16 * functional.cross_entropy(logits / 4, soft, reduction="none")

    def weighted(logits: Tensor) -> Tensor:
        hard = functional.cross_entropy(logits, truth, reduction="none")
        with torch.no_grad():
            teacher_loss = functional.cross_entropy(taught, truth, reduction="none")
            weights = -torch.expm1(-hard / (teacher_loss + 1e-7))
        return (hard + 2.25 * weights * softened(logits)).mean()

    def plain(logits: Tensor) -> Tensor:
        return functional.cross_entropy(logits, truth) + 2.25 * softened(logits).mean()

    def fair(attacked: Tensor, clean: Tensor) -> Tensor:
        def divergence(logits: Tensor, table: Tensor) -> Tensor:
            soft = (taught / table[truth, None]).softmax(dim=1)
            return functional.kl_div(logits.log_softmax(dim=1), soft, reduction="batchmean")

        return 5 / 6 * divergence(attacked, hot) + 1 / 6 * divergence(clean, cold)

    def ours_fair(attacked: Any, clean: Any, *given: Any) -> jax.Array:
        teacher, labels, hot, cold = given
        return fairness.absld_loss(attacked, clean, teacher, labels, hot, cold).mean()

    def ours_plain(logits: Any, teacher: Any, labels: Any) -> jax.Array:
        loss = distillation.distillation_loss(logits, teacher, labels, temperature=4.0, alpha=2.25)
        return loss.mean()

    return {
        "weighted soft labels": with_gradient(
            lambda z, *given: distillation.wsl_loss(z, *given).mean(),
            weighted,
            student,
            given=(teacher, labels),
        ),
        "plain distillation": with_gradient(ours_plain, plain, student, given=(teacher, labels)),
        "anti-bias distillation": with_gradient(
            ours_fair, fair, student, clean, given=(teacher, labels, *temperatures)
        ),
    }


def segmentation_cases(rng: np.random.Generator) -> dict[str, Case]:
    """Return Jaccard losses of hard and of soft labels, over the batch."""
    shape = (8, 256, 256)
    logits = rng.standard_normal((*shape, 11)).astype(np.float32)
    labels = rng.integers(11, size=shape)
    soft = rng.dirichlet(np.ones(11), size=shape).astype(np.float32)
    truth, soft_there = torch.from_numpy(labels), torch.from_numpy(soft).movedim(-1, 1).contiguous()
    labels = labels.astype(np.int32)

    def jaccard(scores: Tensor, target: Tensor) -> Tensor:
        probabilities, pixels = scores.softmax(dim=1), (0, 2, 3)
        both = probabilities.sum(pixels) + target.sum(pixels)
        common = (both - (probabilities - target).abs().sum(pixels)) / 2
        loss = 1 - (common + 1e-3) / (both - common + 1e-3)
        return loss[target.amax(pixels) > 0.01].mean()

    def hard(scores: Tensor) -> Tensor:
        return jaccard(scores, functional.one_hot(truth, 11).movedim(-1, 1).float())

    return {
        "Jaccard loss, hard labels": with_gradient(
            segmentation.jdt_loss, hard, logits, given=(labels,), classes_first=True
        ),
        "Jaccard loss, soft labels": with_gradient(
            segmentation.jdt_loss,
            lambda scores: jaccard(scores, soft_there),
            logits,
            given=(soft,),
            classes_first=True,
        ),
    }


def perceptron(rng: np.random.Generator, widths: tuple[int, ...]) -> list[tuple[Any, Any]]:
    """Return the weights of a multilayer perceptron."""
    return [
        ((rng.standard_normal((m, n)) * (2 / m) ** 0.5).astype(np.float32), np.zeros(n, np.float32))
        for m, n in itertools.pairwise(widths)
    ]


def apply(params: list[tuple[Any, Any]], x: Any) -> Any:
    """Return the logits; of arrays of either library."""
    *hidden, (weights, biases) = params
    for matrix, shift in hidden:
        x = (x @ matrix + shift).clip(0)
    return x @ weights + biases


def label_gradient(rng: np.random.Generator, widths: tuple[int, ...], batch: int) -> Case:
    """Return the gradient of a trusted loss in the labels of a batch."""
    params = perceptron(rng, widths)
    inputs, trusted = rng.standard_normal((2, batch, widths[0])).astype(np.float32)
    labels = rng.dirichlet(np.ones(widths[-1]), size=batch).astype(np.float32)
    truth = rng.integers(widths[-1], size=batch)
    x, meta, soft, answers = map(torch.from_numpy, (inputs, trusted, labels, truth))
    tensors = [tuple(map(torch.from_numpy, layer)) for layer in params]
    truth = truth.astype(np.int32)

    @jax.jit
    def compiled(params: Any, inputs: Any, labels: Any, trusted: Any, truth: Any) -> Any:
        def meta_loss(params: Any) -> jax.Array:
            logits = apply(params, trusted)
            return optax.losses.softmax_cross_entropy_with_integer_labels(logits, truth).mean()

        return meta_labels.meta_label_gradient(apply, params, inputs, labels, meta_loss, lr=RATE)

    def theirs() -> Any:
        gradients = torch.func.grad(lambda p: functional.cross_entropy(apply(p, x), soft))(tensors)
        ahead = [
            (matrix - RATE * dm, shift - RATE * ds)
            for (matrix, shift), (dm, ds) in zip(tensors, gradients, strict=True)
        ]
        direction, loss = torch.func.grad_and_value(
            lambda p: functional.cross_entropy(apply(p, meta), answers)
        )(ahead)
        _, tangent = torch.func.jvp(
            lambda p: apply(p, x).log_softmax(dim=1), (tensors,), (direction,)
        )
        return RATE / batch * tangent, loss

    arguments = jax.tree.map(jnp.asarray, (params, inputs, labels, trusted, truth))
    return Case(lambda: jax.block_until_ready(compiled(*arguments)), theirs)


def robust_step(rng: np.random.Generator, widths: tuple[int, ...], batch: int) -> Case:
    """Return a step of anti-bias distillation: attack, gradient, update."""
    params = perceptron(rng, widths)
    images = rng.random((batch, widths[0])).astype(np.float32)
    start = images + 0.001 * rng.standard_normal(images.shape).astype(np.float32)
    teacher = (3 * rng.standard_normal((batch, widths[-1]))).astype(np.float32)
    tables = (1 + rng.random((2, widths[-1]))).astype(np.float32)
    labels = rng.integers(widths[-1], size=batch)
    clean, begin, taught, truth = map(torch.from_numpy, (images, start, teacher, labels))
    hot, cold = torch.from_numpy(tables)
    labels = labels.astype(np.int32)
    tensors = [tuple(map(torch.from_numpy, layer)) for layer in params]
    optimizer = optax.sgd(RATE, momentum=0.9)

    @jax.jit
    def compiled(params: Any, state: Any, images: Any, start: Any, *given: Any) -> Any:
        teacher, labels, *tables = given
        soft = fairness.class_temperature_targets(teacher, labels, tables[0])
        attacked = attacks.linf_pgd(
            lambda x: losses.kl_divergence(apply(params, x), soft),
            images,
            jax.random.key(0),
            epsilon=EPSILON,
            step_size=STEP_SIZE,
            steps=STEPS,
            init=start,
        )

        def loss(params: Any) -> jax.Array:
            logits = apply(params, attacked), apply(params, images)
            return fairness.absld_loss(*logits, teacher, labels, *tables).mean()

        value, gradients = jax.value_and_grad(loss)(params)
        updates, _ = optimizer.update(gradients, state, params)
        return value, optax.apply_updates(params, updates)

    def divergence(logits: Tensor, soft: Tensor) -> Tensor:
        return functional.kl_div(logits.log_softmax(dim=1), soft, reduction="batchmean")

    def theirs() -> Any:
        soft, natural = ((taught / table[truth, None]).softmax(dim=1) for table in (hot, cold))
        attacked = begin
        for _ in range(STEPS):
            attacked = attacked.detach().requires_grad_()
            (gradient,) = torch.autograd.grad(divergence(apply(tensors, attacked), soft), attacked)
            moved = attacked.detach() + STEP_SIZE * gradient.sign()
            attacked = moved.clamp(clean - EPSILON, clean + EPSILON).clamp(0, 1)
        weights = [tensor.clone().requires_grad_() for layer in tensors for tensor in layer]
        student = list(zip(weights[::2], weights[1::2], strict=True))
        value = 5 / 6 * divergence(apply(student, attacked), soft)
        value = value + 1 / 6 * divergence(apply(student, clean), natural)
        sgd = torch.optim.SGD(weights, RATE, momentum=0.9)
        value.backward()
        sgd.step()
        return value.detach(), [weight.detach() for weight in weights]

    arrays = (params, optimizer.init(params), images, start, teacher, labels, *tables)
    arguments = jax.tree.map(jnp.asarray, arrays)
    # An attack turns where a slope is next to nothing.
    return Case(lambda: jax.block_until_ready(compiled(*arguments)), theirs, tolerance=0.05)


def label_cases(rng: np.random.Generator) -> dict[str, Case]:
    """Return labels that other systems make: values alone."""
    logits = rng.standard_normal((4096, 1000)).astype(np.float32)
    points = rng.standard_normal((1000, 64)).astype(np.float32)
    scores = rng.standard_normal((4096, 8, 10)).astype(np.float32)
    features = rng.standard_normal((4096, 8, 64)).astype(np.float32)

    def restored(logits: Tensor) -> Tensor:
        values, classes = logits.topk(10, dim=1)
        return torch.zeros_like(logits).scatter_(1, classes, (values / 4).softmax(dim=1))

    def tangent(x: Tensor) -> Tensor:
        kernel = 2 * (x @ x.T) / x.shape[1] + 0.01
        total = kernel
        for _ in range(2):
            length = kernel.diagonal().sqrt()
            norms = length[:, None] * length[None]
            cosine = (kernel / norms).clamp(-1, 1)
            angle = torch.pi - cosine.arccos()
            moved = norms * ((1 - cosine**2).sqrt() + angle * cosine) / (2 * torch.pi)
            kernel, slope = 2 * moved + 0.01, angle / (2 * torch.pi)
            total = kernel + 2 * slope * total
        return total

    def siblings(scores: Tensor, features: Tensor) -> Tensor:
        unit = functional.normalize(features, dim=2)
        likeness = unit @ unit.transpose(1, 2)
        likeness.diagonal(dim1=1, dim2=2).fill_(-torch.inf)
        told = scores.softmax(dim=2)
        return (0.5 * likeness.softmax(dim=2) @ told + 0.5 * told).mean(dim=1)

    return {
        "top-10 labels restored, 4096 × 1000": of_arrays(
            lambda z: label_pruning.restore_marginal_renorm(
                *label_pruning.top_k_logits(z, k=10), num_classes=1000, temperature=4.0
            ),
            restored,
            logits,
        ),
        "tangent kernel, 1000 × 1000": of_arrays(
            lambda x: kernels.relu_ntk(x, x, depth=2, bias_variance=0.01).ntk, tangent, points
        )._replace(tolerance=1e-3),  # angles of float32 next to 0
        "siblings' labels, 4096 × 8 × 10": of_arrays(
            lambda z, x: propagation.siamese_soft_label(z, propagation.siamese_affinity(x)),
            siblings,
            scores,
            features,
        ),
    }


def cases() -> dict[str, Case]:
    """Return the rows."""
    rng = np.random.default_rng(0)
    small, large = (64, 64, 64, 10), (3072, 512, 512, 10)
    return {
        **distillation_cases(rng),
        **segmentation_cases(rng),
        "label gradient, 64-64-64-10": label_gradient(rng, small, 100),
        "label gradient, 3072-512-512-10": label_gradient(rng, large, 128),
        "robust step, 64-64-64-10": robust_step(rng, small, 100),
        "robust step, 3072-512-512-10": robust_step(rng, large, 128),
        **label_cases(rng),
    }


def difference(case: Case) -> float:
    """Return the largest difference of the two sides, against the largest entry of its array."""
    ours, theirs = (
        [np.asarray(x) for x in jax.tree.leaves(side())] for side in (case.ours, case.theirs)
    )
    theirs = [x.transpose(0, 2, 3, 1) if x.ndim == 4 else x for x in theirs]
    return max(
        float(np.abs(a - b).max() / np.abs(b).max()) for a, b in zip(ours, theirs, strict=True)
    )


def run(config: Config) -> dict[str, Any]:
    """Return the seconds of every round, and what follows from them."""
    if config.rounds < 1:
        raise ValueError(f"rounds: expected one or more, got {config.rounds}")
    rows: dict[str, dict[str, Any]] = {}
    for name, case in cases().items():
        seconds = take_turns({"ours": case.ours, "theirs": case.theirs}, config.rounds, pause=0.02)
        times = np.array(seconds["theirs"]) / np.array(seconds["ours"])
        rows[name] = {
            "milliseconds": [1e3 * x for x in seconds["ours"]],
            "times_pytorch": times.tolist(),
            "largest_difference": difference(case),
            "tolerance": case.tolerance,
        }
    return {
        **sweep.provenance(),
        "cores": os.cpu_count(),
        "versions": {name: metadata.version(name) for name in ("jax", "jaxlib", "numpy", "torch")},
        "rounds": config.rounds,
        "rows": rows,
        "agrees": all(row["largest_difference"] < row["tolerance"] for row in rows.values()),
    }


def report(results: dict[str, Any]) -> str:
    """Return the results as a person reads them."""
    lines = [
        f"on {results['device']}; medians (min–max) of {results['rounds']} rounds",
        "",
        f"{'':34}{'ms':>20}{'times PyTorch':>22}   differs",
    ]
    for name, row in results["rows"].items():
        lines.append(
            f"{name:34}{spread(row['milliseconds']):>20}{spread(row['times_pytorch']):>22}"
            f"   {row['largest_difference']:.0e}"
        )
    return "\n".join(lines)


def main() -> None:
    """Read the command line, measure, print, and write the numbers."""
    config = tyro.cli(Config, prog="python -m benchmarks.rooms")
    results = run(config)
    print(report(results))
    write(results, "rooms", config.out)
    if not results["agrees"]:
        sys.exit("values or gradients differ")


if __name__ == "__main__":
    main()
