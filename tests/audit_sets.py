"""Soft labels that audits are tried on."""

import numpy as np

NAMES = [
    "airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck",
]  # fmt: skip


def labels_of(num_rows, num_classes, seed=0):
    """Labels with every class, in no order."""
    rng = np.random.default_rng(seed)
    return rng.permutation(np.arange(num_rows) % num_classes)


def probabilities(labels, num_classes, strength=1.5, seed=1):
    """A teacher that is right more often than not, and sees class 1 as class 2 often."""
    rng = np.random.default_rng(seed)
    scores = rng.normal(size=(len(labels), num_classes))
    scores[np.arange(len(labels)), labels] += strength
    scores[labels == 1, 2 % num_classes] += 1
    weights = np.exp(scores)
    return (weights / weights.sum(axis=1, keepdims=True)).astype(np.float32)


def votes_of(labels, num_classes, people=4, seed=2):
    """Few votes, many ties."""
    rng = np.random.default_rng(seed)
    shares = np.full((len(labels), num_classes), 0.5 / num_classes)
    shares[np.arange(len(labels)), labels] += 0.5
    return rng.multinomial(people, shares)


def swapped(num_rows=400, wrong=0.8):
    """Hard labels of four classes, in which class 3 says 2 in a share `wrong` of its rows."""
    labels = np.arange(num_rows) % 4
    says = labels.copy()
    third = np.flatnonzero(labels == 3)
    says[third[: round(wrong * len(third))]] = 2
    return np.eye(4)[says], labels


def reference_margin(values, labels):
    margins = []
    for y in np.unique(labels):
        mean = values[labels == y].mean(axis=0, dtype=np.float64)
        margins.append(mean[y] - np.delete(mean, y).max())
    return min(margins)


def advice_on(found, topic):
    return {one.topic: one for one in found.advice}[topic]
