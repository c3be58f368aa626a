"""How fast do convolutional networks train, mapped by `jsoft.sweep`, against PyTorch?

    python -m benchmarks.networks

takes three to six minutes on two cores, half of it compiling, and needs the extra `bench`. Both
sides train the same networks on the digits, enlarged to 28×28×1 (MNIST's size) or 32×32×3
(CIFAR's): cross-entropy, SGD with Nesterov momentum and weight decay along a cosine, float32. Ours
trains as many runs at once as there are cores, one on each, as a sweep does; on a CPU it takes the
gradient of a batch sixteen rows at a time. PyTorch trains one run after the other with all threads,
in channels-last layout. The sides take turns, round by round; compiling and PyTorch's first run are
apart. Where a training is long enough to learn, both sides end with the test accuracy, and the exit
status says whether they agree.

Operations are those of the direct convolution, forward and backward, as PyTorch counts them.
"""

from __future__ import annotations

import dataclasses
import importlib
import os
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import tyro
from jax import lax

from benchmarks.results import agree, spread, write
from experiments import use_all_cores
from jsoft import datasets, networks, sweep, training

torch: Any = importlib.import_module("torch")
LEARNING_RATE, MOMENTUM, WEIGHT_DECAY = 0.02, 0.9, 5e-4
OURS, PYTORCH = "jsoft.sweep", "PyTorch"


@dataclasses.dataclass(frozen=True)
class Config:
    """Time training steps of convolutional networks, mapped by jsoft.sweep, against PyTorch."""

    rounds: int = 5
    """Rounds in which each side has its turn, each with new seeds."""
    runs: int = 2
    """Trainings a round and core (or other device)."""
    out: Path | None = None
    """File for the numbers; docs/results/bench-networks-<platform>.json if not given."""


@dataclasses.dataclass(frozen=True)
class Row:
    """One network, the same on both sides, and its training."""

    network: networks.ConvNet | networks.WideResNet
    pytorch: Any
    """Function to a fresh PyTorch network."""
    shape: tuple[int, int, int]
    batch: int
    microbatch: int
    steps: int
    epochs: int
    learns: bool
    """Whether the training is long enough for its accuracy to be compared."""


def rows() -> dict[str, Row]:
    """Return what is compared."""
    small, large = (28, 28, 1), (32, 32, 3)
    return {
        "ConvNet 28×28×1, batch 64": Row(
            networks.ConvNet(), lambda: conv_net(small), small, 64, 16, 18, 2, True
        ),
        "ConvNet 32×32×3, batch 64": Row(
            networks.ConvNet(), lambda: conv_net(large), large, 64, 16, 18, 2, True
        ),
        "WRN-28-2 32×32×3, batch 128": Row(
            networks.WideResNet(28, 2), lambda: WideResNet(28, 2), large, 128, 16, 9, 1, False
        ),
    }


def run(config: Config) -> dict[str, Any]:
    """Return the measurements of every row, and of the matrix products that bound them."""
    if min(config.rounds, config.runs) < 1:
        raise ValueError(f"rounds, runs: expected one or more, got {config}")
    measured = {name: compare(row, config) for name, row in rows().items()}
    peaks, notes = zip(*(matmul_peak() for _ in range(config.rounds)), strict=True)
    for row in measured.values():
        row["share_of_peak"] = (np.array(row["gflops"][OURS]) / np.median(peaks)).tolist()
    return {
        **{name: notes[0][name] for name in ("device", "date", "git_revision")},
        "cores": os.cpu_count(),
        "versions": {**notes[0]["versions"], "torch": torch.__version__},
        "rounds": config.rounds,
        "rows": measured,
        "gflops_matmul_peak": peaks,
    }


def compare(row: Row, config: Config) -> dict[str, Any]:
    """Return milliseconds a step of both sides in every round, and what follows from them."""
    data = enlarged_digits(row)
    count = config.runs * jax.device_count()
    seeds = np.arange(config.rounds * count).reshape(config.rounds, count)
    steps = row.steps * row.epochs

    def train(point: sweep.Point, key: jax.Array) -> dict[str, jax.Array]:
        params, lengths = training.train(
            row.network,
            optax.losses.softmax_cross_entropy_with_integer_labels,
            data.train.images,
            data.train.labels,
            key,
            observe=optax.tree.norm,
            epochs=row.epochs,
            batch_size=row.batch,
            microbatch_size=row.microbatch if jax.default_backend() == "cpu" else None,
            learning_rate=LEARNING_RATE,
            momentum=MOMENTUM,
            weight_decay=WEIGHT_DECAY,
        )
        if not row.learns:
            return {"number": lengths[-1]}
        right = training.predict(row.network, params, data.test.images).argmax(-1)
        return {"number": (right == data.test.labels).mean()}

    image = jnp.zeros((1, *row.shape))
    theirs, shapes = row.pytorch(), jax.eval_shape(row.network.init, jax.random.key(0), image)
    ours_size, their_size = (
        networks.num_parameters(shapes),
        sum(p.numel() for p in theirs.parameters()),
    )
    if ours_size != their_size:
        raise RuntimeError(f"the sides differ: {ours_size} and {their_size} parameters")

    loop = pytorch_training(row, data)
    loop(0)  # the first one is slow for reasons that are not its own
    milliseconds: dict[str, list[float]] = {OURS: [], PYTORCH: []}
    numbers: dict[str, list[float]] = {OURS: [], PYTORCH: []}
    compiling = []
    notes: dict[str, Any] = {}
    for turn in seeds:
        table = sweep.run(train, {"seed": turn}, progress=False)
        notes = sweep.metadata(table)
        compiling.append(notes["compile_seconds"])
        numbers[OURS] += table["number"].to_pylist()
        seconds = notes["wall_seconds"] - notes["compile_seconds"]
        milliseconds[OURS].append(1000 * seconds / (count * steps))
        start = time.perf_counter()
        numbers[PYTORCH] += [loop(int(seed)) for seed in turn]
        milliseconds[PYTORCH].append(1000 * (time.perf_counter() - start) / (count * steps))
    ours, pytorch = (np.array(values) for values in milliseconds.values())
    flops = flops_of_step(row)
    return {
        "parameters": ours_size,
        "ms_per_step": milliseconds,
        "times_pytorch": (pytorch / ours).tolist(),
        "flops_per_step": flops,
        "gflops": {
            name: (flops / np.array(ms) / 1e6).tolist() for name, ms in milliseconds.items()
        },
        "compile_seconds": compiling[0],
        "runs_mapped": notes["batch_size"],
        "bytes_per_run": notes["bytes_per_run"],
        "accuracy": {n: float(np.mean(v)) for n, v in numbers.items()} if row.learns else None,
        "agrees": not row.learns or agree(numbers[OURS], numbers[PYTORCH]),
    }


def enlarged_digits(row: Row) -> datasets.Dataset:
    """Return the digits with images of the row's shape, and as many as its steps take."""
    data = datasets.load("digits")

    def enlarge(split: datasets.Split, count: int) -> datasets.Split:
        height, width, channels = row.shape
        images = np.asarray(split.images[:count]).reshape(-1, 8, 8, 1)
        images = jax.image.resize(images, (len(images), height, width, 1), "bilinear")
        images = np.repeat(np.asarray(images), channels, axis=-1)
        return datasets.Split(images, split.labels[:count], split.index[:count])

    train = enlarge(data.train, row.steps * row.batch)
    if len(train.labels) < row.steps * row.batch:
        raise RuntimeError(f"the digits have {len(train.labels)} training rows, too few")
    return dataclasses.replace(data, train=train, test=enlarge(data.test, len(data.test.labels)))


def pytorch_training(row: Row, data: datasets.Dataset):
    """Return the same training in PyTorch: tensors in memory, channels last, all threads."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    images, test_images = (
        torch.tensor(split.images, device=device).permute(0, 3, 1, 2)  # channels stay last
        for split in (data.train, data.test)
    )
    labels, test_labels = (
        torch.tensor(np.asarray(split.labels), dtype=torch.int64, device=device)
        for split in (data.train, data.test)
    )

    def train(seed: int) -> float:
        torch.manual_seed(seed)
        network = row.pytorch()
        for layer in network.modules():
            if isinstance(layer, torch.nn.Conv2d):
                torch.nn.init.kaiming_normal_(layer.weight)
            elif isinstance(layer, torch.nn.Linear):
                torch.nn.init.normal_(layer.weight, std=layer.in_features**-0.5)
                torch.nn.init.zeros_(layer.bias)
        network = network.to(device=device, memory_format=torch.channels_last)
        decayed = [param for param in network.parameters() if param.ndim > 1]
        others = [param for param in network.parameters() if param.ndim == 1]
        sgd = torch.optim.SGD(
            [{"params": decayed, "weight_decay": WEIGHT_DECAY}, {"params": others}],
            lr=LEARNING_RATE,
            momentum=MOMENTUM,
            nesterov=True,
        )
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(sgd, row.epochs * row.steps)
        loss = torch.zeros(())
        for _ in range(row.epochs):
            for batch in torch.randperm(len(images), device=device).split(row.batch):
                loss = torch.nn.functional.cross_entropy(network(images[batch]), labels[batch])
                sgd.zero_grad()
                loss.backward()
                sgd.step()
                schedule.step()
        if not row.learns:
            return loss.item()
        with torch.inference_mode():
            right = network(test_images).argmax(1) == test_labels
        return right.float().mean().item()

    return train


def conv_net(shape: tuple[int, int, int]) -> Any:
    """Return PyTorch's twin of `jsoft.ConvNet()` for images of this shape."""
    nn = torch.nn
    height, width, channels = shape
    layers = []
    for features in (32, 64, 128):
        convolution = nn.Conv2d(channels, features, 3, padding=1, bias=False)
        layers += [convolution, group_norm(features), nn.ReLU(), nn.AvgPool2d(2)]
        height, width, channels = height // 2, width // 2, features
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(height * width * channels, 10))


class WideResNet(torch.nn.Module):
    """PyTorch's twin of `jsoft.WideResNet`."""

    def __init__(self, depth: int, width: int) -> None:
        super().__init__()
        channels, blocks = 16, []
        for features, stride in ((16 * width, 1), (32 * width, 2), (64 * width, 2)):
            for block in range((depth - 4) // 6):
                blocks.append(Block(channels, features, stride if block == 0 else 1))
                channels = features
        self.first = torch.nn.Conv2d(3, 16, 3, padding=1, bias=False)
        self.blocks = torch.nn.Sequential(*blocks)
        self.norm = group_norm(channels)
        self.last = torch.nn.Linear(channels, 10)

    def forward(self, x: Any) -> Any:
        """Return the logits."""
        x = torch.nn.functional.relu(self.norm(self.blocks(self.first(x))))
        return self.last(x.mean((2, 3)))


class Block(torch.nn.Module):
    """Two convolutions, each after normalisation and ReLU, beside a shortcut."""

    def __init__(self, channels: int, features: int, stride: int) -> None:
        super().__init__()
        conv2d = torch.nn.Conv2d
        self.norm1, self.norm2 = group_norm(channels), group_norm(features)
        self.conv1 = conv2d(channels, features, 3, stride, padding=1, bias=False)
        self.conv2 = conv2d(features, features, 3, padding=1, bias=False)
        self.project = None
        if channels != features:
            self.project = conv2d(channels, features, 1, stride, bias=False)

    def forward(self, x: Any) -> Any:
        """Return the sum of both ways."""
        relu = torch.nn.functional.relu
        y = relu(self.norm1(x))
        shortcut = x if self.project is None else self.project(y)
        return shortcut + self.conv2(relu(self.norm2(self.conv1(y))))


def group_norm(features: int) -> Any:
    """Return the normalisation of groups of 8 channels."""
    return torch.nn.GroupNorm(features // 8, features, eps=1e-6)


def flops_of_step(row: Row) -> int:
    """Return the operations of all products in one step, forward and backward."""
    counter = importlib.import_module("torch.utils.flop_counter").FlopCounterMode(display=False)
    height, width, channels = row.shape
    with counter:
        row.pytorch()(torch.zeros(row.batch, channels, height, width)).sum().backward()
    return counter.get_total_flops()


def matmul_peak(size: int = 1024, repeats: int = 50) -> tuple[float, dict[str, Any]]:
    """Return GFLOP/s of square matrix products, one loop on each device at once, and its notes."""

    def chain(point: sweep.Point, key: jax.Array) -> dict[str, jax.Array]:
        # Kept near length one: a random matrix stretches what it meets by about √size.
        matrix = jax.random.normal(key, (size, size)) / size**0.5
        return {"sum": lax.fori_loop(0, repeats, lambda _, x: x @ matrix, matrix).sum()}

    notes = sweep.metadata(
        sweep.run(chain, {"seed": np.arange(jax.device_count())}, progress=False)
    )
    seconds = notes["wall_seconds"] - notes["compile_seconds"]
    return 2 * size**3 * repeats * jax.device_count() / seconds / 1e9, notes


def report(results: dict[str, Any]) -> str:
    """Return the results as a person reads them."""
    lines = [
        f"Training steps on {results['device']}; medians (min–max) of {results['rounds']} rounds",
        "",
        f"{'':28}{'ms a step, jsoft':>20}{'PyTorch':>20}{'times PyTorch':>20}"
        f"{'GFLOP/s':>18}{'of peak':>8}{'MB a run':>10}{'compile':>9}  test accuracy",
    ]
    for name, row in results["rows"].items():
        ms, accuracy = row["ms_per_step"], row["accuracy"]
        seen = (
            "" if accuracy is None else f"  {accuracy[OURS]:.3f}, PyTorch {accuracy[PYTORCH]:.3f}"
        )
        lines.append(
            f"{name:28}{spread(ms[OURS]):>20}{spread(ms[PYTORCH]):>20}"
            f"{spread(row['times_pytorch']):>20}{spread(row['gflops'][OURS]):>18}"
            f"{np.median(row['share_of_peak']):>8.2f}{row['bytes_per_run'] / 1e6:>10.0f}"
            f"{row['compile_seconds']:>7.1f} s{seen}{'' if row['agrees'] else '  DISAGREES'}"
        )
    lines += [
        "",
        f"Matrix products of 1,024×1,024: {spread(results['gflops_matmul_peak'])} GFLOP/s on all"
        " cores.",
        "A step of ours: of a sweep that keeps every core busy with a training of its own.",
    ]
    return "\n".join(lines)


def main() -> None:
    """Read the command line, measure, print, and write the numbers."""
    config = tyro.cli(Config, prog="python -m benchmarks.networks")
    use_all_cores()
    with tempfile.TemporaryDirectory() as folder:  # each round compiles the same programs
        jax.config.update("jax_compilation_cache_dir", folder)
        results = run(config)
    print(report(results))
    write(results, "networks", config.out)
    if not all(row["agrees"] for row in results["rows"].values()):
        sys.exit("the sides' accuracies differ: they do not train the same networks")


if __name__ == "__main__":
    main()
