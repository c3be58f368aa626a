"""The student of `benchmarks.digits_sweep` in PyTorch, as its users write it: three ways.

One after the other; one process per core, each training one after the other; and many at once, as
an ensemble of `torch.func` with the parameters of all in one tensor. Tensors lie in memory, without
a DataLoader; all sides train the same network on the same sets by the same rule.
"""

from __future__ import annotations

import multiprocessing
import os
import time
from collections.abc import Callable
from multiprocessing.pool import Pool
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.func import functional_call, stack_module_state

from jsoft.datasets import Dataset

BATCH, WIDTH, NUM_CLASSES = 128, 64, 10
LEARNING_RATE, MOMENTUM, WEIGHT_DECAY = 0.1, 0.9, 5e-4
Sets = dict[int, np.ndarray]  # candidate sets [N, C] by seed


def student(data: Dataset, sets: Sets, *, epochs: int, threads: int) -> Callable[[int], float]:
    """Return the training of one student: from its seed to its test accuracy."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    images, (valid, valid_labels), (test, test_labels) = _tensors(data, device)
    torch_sets = {seed: torch.tensor(rows, device=device) for seed, rows in sets.items()}
    steps = len(images) // BATCH

    def train(seed: int) -> float:
        torch.set_num_threads(threads)
        torch.manual_seed(seed)
        network, candidates = _network().to(device), torch_sets[seed]
        sgd, schedule = _optimizer(dict(network.named_parameters()), epochs * steps)
        best_valid = best_test = -1.0
        for _ in range(epochs):
            order = torch.randperm(len(images), device=device)[: steps * BATCH]
            for rows in order.split(BATCH):
                loss = superset_log_loss(network(images[rows]), candidates[rows]).mean()
                sgd.zero_grad()
                loss.backward()
                sgd.step()
                schedule.step()
            with torch.inference_mode():
                on_valid = (network(valid).argmax(1) == valid_labels).float().mean().item()
                on_test = (network(test).argmax(1) == test_labels).float().mean().item()
            if on_valid > best_valid:
                best_valid, best_test = on_valid, on_test
        return best_test

    return train


def ensemble(data: Dataset, sets: Sets, *, epochs: int) -> Callable[[np.ndarray], list[float]]:
    """Return the training of many students at once: from their seeds to their test accuracies."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    images, (valid, valid_labels), (test, test_labels) = _tensors(data, device)
    torch_sets = {seed: torch.tensor(rows, device=device) for seed, rows in sets.items()}
    steps, skeleton = len(images) // BATCH, _network().to("meta")

    @torch.func.vmap
    def logits(params: dict[str, torch.Tensor], batch: torch.Tensor) -> torch.Tensor:
        return functional_call(skeleton, params, (batch,))

    all_logits = torch.func.vmap(
        lambda params, batch: functional_call(skeleton, params, (batch,)), in_dims=(0, None)
    )

    def train(seeds: np.ndarray) -> list[float]:
        torch.set_num_threads(torch_threads())
        torch.manual_seed(int(seeds[0]))
        params, _ = stack_module_state([_network().to(device) for _ in seeds])
        candidates = torch.stack([torch_sets[int(seed)] for seed in seeds])  # [S, N, C]
        every = torch.arange(len(seeds), device=device)[:, None]
        sgd, schedule = _optimizer(params, epochs * steps)
        best_valid = torch.full((len(seeds),), -1.0, device=device)
        best_test = best_valid.clone()
        for _ in range(epochs):
            order = torch.rand(len(seeds), len(images), device=device).argsort(1)
            for rows in order[:, : steps * BATCH].split(BATCH, dim=1):
                losses = superset_log_loss(logits(params, images[rows]), candidates[every, rows])
                sgd.zero_grad()
                losses.mean(1).sum().backward()  # each student's own mean
                sgd.step()
                schedule.step()
            with torch.inference_mode():
                on_valid = (all_logits(params, valid).argmax(2) == valid_labels).float().mean(1)
                on_test = (all_logits(params, test).argmax(2) == test_labels).float().mean(1)
            better = on_valid > best_valid
            best_valid = torch.where(better, on_valid, best_valid)
            best_test = torch.where(better, on_test, best_test)
        return best_test.tolist()

    return train


def pool(data: Dataset, sets: Sets, *, epochs: int) -> Pool:
    """Return one process for each core, ready to `train_in_pool`."""
    cores = len(os.sched_getaffinity(0))
    spawn = multiprocessing.get_context("spawn")
    return spawn.Pool(cores, _prepare, (data, sets, epochs))


def train_in_pool(processes: Pool, seeds: np.ndarray) -> tuple[float, list[float]]:
    """Return the seconds, and the test accuracies, of students trained on every core."""
    start = time.perf_counter()
    accuracies = processes.map(_train, [int(seed) for seed in seeds], chunksize=1)
    return time.perf_counter() - start, accuracies


def superset_log_loss(logits: torch.Tensor, candidates: torch.Tensor) -> torch.Tensor:
    """Return minus the log-probability of the candidate set; no set is empty here."""
    inside = logits.masked_fill(~candidates, -torch.inf)
    return logits.logsumexp(-1) - inside.logsumexp(-1)


def torch_threads() -> int:
    """Return the threads that PyTorch takes if one leaves it alone."""
    return len(os.sched_getaffinity(0))


_in_this_process: Callable[[int], float]


def _prepare(data: Dataset, sets: Sets, epochs: int) -> None:
    global _in_this_process
    _in_this_process = student(data, sets, epochs=epochs, threads=1)
    _in_this_process(next(iter(sets)))  # the first one is slow for reasons that are not its own


def _train(seed: int) -> float:
    return _in_this_process(seed)


def _network() -> nn.Sequential:
    layers = [nn.Linear(64, WIDTH), nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, NUM_CLASSES)]
    for layer, gain in zip(layers, (2, 2, 1), strict=True):
        nn.init.normal_(layer.weight, std=(gain / layer.in_features) ** 0.5)
        nn.init.zeros_(layer.bias)
    return nn.Sequential(layers[0], nn.ReLU(), layers[1], nn.ReLU(), layers[2])


def _optimizer(params: dict[str, torch.Tensor], steps: int) -> tuple[Any, Any]:
    groups = [
        {"params": [x for name, x in params.items() if name.endswith("weight")]},
        {"params": [x for name, x in params.items() if name.endswith("bias")], "weight_decay": 0.0},
    ]
    sgd = torch.optim.SGD(
        groups, lr=LEARNING_RATE, momentum=MOMENTUM, nesterov=True, weight_decay=WEIGHT_DECAY
    )
    return sgd, torch.optim.lr_scheduler.CosineAnnealingLR(sgd, steps)


def _tensors(data: Dataset, device: str) -> tuple[torch.Tensor, Any, Any]:
    def tensors(split: Any) -> tuple[torch.Tensor, torch.Tensor]:
        images = torch.tensor(np.asarray(split.images).reshape(len(split.images), -1))
        return images.to(device), torch.tensor(np.asarray(split.labels), device=device)

    return tensors(data.train)[0], tensors(data.valid), tensors(data.test)
