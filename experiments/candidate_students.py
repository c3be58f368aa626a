"""Students of candidate sets: what they see of the sets and what they minimise.

Shared by the experiments on partial labels. Superset, average and membership are the losses of
`jsoft.losses`. Cross-entropy on the raw soft label is no fourth one: the soft label of a set
spreads evenly over it (`targets.uniform_over`), and its cross-entropy is the average loss to the
last digit. What is left of plain distillation is "one candidate": cross-entropy on one class drawn
from each set, once. Its mean target is that of the average loss, so the two differ in noise alone.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax import lax

from jsoft import losses, training

# Their places here are the numbers in the tables. On sets of one class superset and average loss
# are the cross-entropy. The last student is the reference.
LOSSES: dict[str, training.Loss] = {
    "superset": losses.superset_log_loss,
    "average": losses.average_loss,
    "membership": losses.membership_logistic_loss,
    "one_candidate": losses.superset_log_loss,
    "true_labels": losses.superset_log_loss,
}
NUMBER = {name: number for number, name in enumerate(LOSSES)}

# Title, colour and marker in figures.
LOOKS = {
    "superset": ("superset", "#0072B2", "o"),
    "average": ("average", "#D55E00", "s"),
    "membership": ("membership", "#009E73", "^"),
    "one_candidate": ("one candidate", "#AA4499", "D"),
    "true_labels": ("true labels", "black", "o"),
}


def student_loss(number: jax.Array) -> training.Loss:
    """Return the loss of this number among LOSSES, which may be traced.

    >>> logits, sets = jnp.zeros(4), jnp.array([True, True, False, False])
    >>> print(f"{student_loss(jnp.int32(0))(logits, sets):.4f}")  # −log 2/4
    0.6931
    """

    def loss(logits: jax.Array, seen: jax.Array) -> jax.Array:
        return lax.switch(number, list(LOSSES.values()), logits, seen)

    return loss


def seen_sets(
    number: jax.Array, candidates: jax.Array, labels: jax.Array, key: jax.Array
) -> jax.Array:
    """Return the sets that the student of this loss learns from, booleans `[N, C]`.

    All candidates, but for one_candidate a single one of them, drawn evenly, and for true_labels
    the true class.

    >>> candidates, labels = jnp.array([[True, True, False]]), jnp.array([1])
    >>> print(seen_sets(jnp.int32(4), candidates, labels, jax.random.key(0)))
    [[False  True False]]
    """
    num_classes = candidates.shape[-1]
    drawn = jax.random.categorical(key, jnp.where(candidates, 0.0, -jnp.inf))
    one = jax.nn.one_hot(drawn, num_classes, dtype=bool)
    seen = jnp.where(number == NUMBER["one_candidate"], one, candidates)
    true = jax.nn.one_hot(labels, num_classes, dtype=bool)
    return jnp.where(number == NUMBER["true_labels"], true, seen)
