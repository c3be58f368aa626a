"""Is Δ + γ < 1, with confidence 1 − α? Exact limits, valid at every sample size.

With Δ_y = P(y ∉ Ω | Y = y) and γ_yi = P(i ∈ Ω | Y = y), three certificates can be had:

    "paper"              Δ + γ < 1, the paper's condition; the one to start with
    "class_conditional"  Δ_y + γ_yi < 1 for every class y and every other class i
    "paired"             that claim about classes again, by an exact test that needs fewer examples

Neither claim implies the other. The condition is the paper's (arXiv 2302.08155); the certificates
are derived here (not in the paper). Counts and limits live on the host, in float64. Ties are
decided against the labels (`indicators.pessimistic_sets`): a certificate holds however they are
broken.

What a certificate asks for:

- The method and k are fixed without the examples they are tried on. To choose among several k,
  name all of them: each is tested at its share of α (Bonferroni), which pays for reporting the
  best. A k found on the same examples and passed as if it were fixed voids the level; no program
  can see that.
- Every class that may occur has examples. A class without any has the limit 1: nothing is known
  there, nothing is certified.
- The examples were drawn independently from the law the claim is about. A teacher's own training
  rows were not: there Δ and γ describe those rows and no more.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from jsoft import _door, indicators
from jsoft.limits import hoeffding_limit, lower_limit, upper_limit

Method = Literal["paper", "class_conditional", "paired"]
CountsMethod = Literal["paper", "class_conditional", "paired", "first_draw"]
DrawsMethod = Literal["first_draw", "chernoff_hoeffding", "each_example"]

_pessimistic_sets = jax.jit(indicators.pessimistic_sets)
_ambiguity_matrix = jax.jit(indicators.ambiguity_matrix)


def ambiguity_interval(
    soft_labels: ArrayLike,
    labels: ArrayLike,
    k: int,
    *,
    alpha: float = 0.05,
    where: ArrayLike | None = None,
) -> tuple[float, float]:
    """Return a lower and an upper limit that hold γ between them with confidence 1 − α.

        max over y, i ≠ y of L(c_yi, n_y, α/2m)   and   max over y, i ≠ y of U(c_yi, n_y, α/2)

    L is the `lower_limit` and m = C(C − 1). Of the n_y examples of class y, c_yi have i in the
    top-k set: surely so for L, possibly so for U, hence the limits hold however ties are broken. A
    class without examples puts U at 1.

    Args:
      soft_labels: `[N, C]` finite floats.
      labels: `[N]` integers, the true classes.
      k: 1 … C − 1, fixed without these examples.
      alpha: 1 − confidence, in (0, 1).
      where: `[N]` booleans, the examples that count (all by default).

    Raises:
      TypeError, ValueError: soft labels or labels of wrong dtype, shape or range; k or α out of
        range; no example left.

    Derived here (not in the paper). Only the lower side pays for its m cells: the largest L is too
    large as soon as one of them is. For the upper side see `certify`.

    >>> soft_labels = jnp.array([[0.7, 0.3], [0.6, 0.4], [0.3, 0.7], [0.4, 0.6]])
    >>> print(ambiguity_interval(soft_labels, jnp.array([0, 0, 1, 1]), 1, alpha=0.5))  # 1 − √¼
    (0.0, 0.5)
    """
    soft_labels, labels = _check_examples(soft_labels, labels, where)
    num_classes = soft_labels.shape[-1]
    _door.check_k("k", k, num_classes)
    _door.check_inside_unit(alpha=alpha)
    possible = count_sets(np.asarray(_pessimistic_sets(soft_labels, labels, k)), labels)
    # Surely among the k largest: not possibly among the C − k smallest.
    sure = count_sets(~np.asarray(_pessimistic_sets(-soft_labels, labels, num_classes - k)), labels)
    num_cells = num_classes * (num_classes - 1)
    low = lower_limit(sure.wrong.max(axis=1), sure.examples, alpha / 2 / num_cells)
    high = upper_limit(possible.wrong.max(axis=1), possible.examples, alpha / 2)
    return float(low.max()), float(high.max())


def split_ambiguity(
    soft_labels: ArrayLike,
    labels: ArrayLike,
    k: int,
    key: jax.Array,
    *,
    where: ArrayLike | None = None,
) -> float:
    """Return an estimate of γ that is too small on average, as the plug-in is too large.

        (γ̂ in B of A's largest cell + γ̂ in A of B's largest cell)/2,  A and B random halves

    `indicators.ambiguity_degree` reports the luckiest of C(C − 1) cells. Here one half of every
    class chooses the cell, and the other half, which knows nothing of the choice, says how large
    it is. In expectation the two bracket γ; neither is a limit. A class with one example takes no
    part.

    Args, raises: as `ambiguity_interval`; `key` makes the halves, and one class must have two
    examples. Ties count as in `indicators.membership`.

    Derived here (not in the paper): the frequency in B of a cell chosen in A is unbiased, and no
    cell exceeds γ.

    >>> soft_labels = jnp.array([[0.7, 0.3], [0.6, 0.4], [0.2, 0.8], [0.1, 0.9]])
    >>> split_ambiguity(soft_labels, jnp.array([0, 0, 0, 0]), 1, jax.random.key(0))
    0.5
    """
    soft_labels, labels = _check_examples(soft_labels, labels, where)
    num_classes = soft_labels.shape[-1]
    _door.check_k("k", k, num_classes)
    if np.bincount(labels).max() < 2:
        raise ValueError("labels: expected a class with two examples or more, got one of each")
    shuffled = np.asarray(jax.random.permutation(key, len(labels)))
    by_class = shuffled[np.argsort(labels[shuffled], kind="stable")]
    in_a = np.isin(np.arange(len(labels)), by_class[::2])
    a = np.asarray(_ambiguity_matrix(soft_labels, labels, k, where=in_a))
    b = np.asarray(_ambiguity_matrix(soft_labels, labels, k, where=~in_a))
    unusable = np.eye(num_classes, dtype=bool) | np.isnan(a) | np.isnan(b)
    chosen_in_a, chosen_in_b = (np.where(unusable, -1, half).argmax() for half in (a, b))
    return float(b.flat[chosen_in_a] + a.flat[chosen_in_b]) / 2


@dataclasses.dataclass(frozen=True)
class Certificate:
    """What is certified, or is not; `str()` of it is the `statement` in words.

    Attributes:
      certified: whether the claim is certified.
      claim: what was to be certified, in words.
      k: size of the top-k sets; None for candidate sets.
      considered: all k tried, each at α/(their number); `k` is the one that came out best.
      alpha: the largest chance, over all of `considered`, that a false claim is certified.
      method: how it was certified.
      worst_pair: the true class and the wrong class that decided.
      examples: number of examples of every class.
      evidence: the counts and limits that decided, in words.
      population: whom the claim is about, in words.
      unreliability_limit: upper limit of Δ, of Δ_y or of Δ at the example, whichever decided; NaN
        for "paired", which needs none.
      ambiguity_limit: the same of γ.
      p_value: the largest over all pairs; NaN but for "paired".
    """

    certified: bool
    claim: str
    k: int | None
    considered: tuple[int, ...]
    alpha: float
    method: str
    worst_pair: tuple[int, int]
    examples: tuple[int, ...]
    evidence: str
    population: str
    unreliability_limit: float = float("nan")
    ambiguity_limit: float = float("nan")
    p_value: float = float("nan")

    @property
    def statement(self) -> str:
        """What is certified, at which k and level, on which counts, and about whom."""
        verdict = "Certified" if self.certified else "Not certified"
        confidence = f"{100 * (1 - self.alpha):.6g} % confidence (α = {self.alpha:.6g})"
        sets = "the candidate sets" if self.k is None else f"the top-{self.k} sets"
        lines = [f"{verdict} with {confidence}: {self.claim}.", f"For {sets}, {self.evidence}."]
        if len(self.considered) > 1:
            tried = ", ".join(map(str, self.considered))
            lines.append(
                f"k = {self.k} came out best of {tried}; each was tested at "
                f"α/{len(self.considered)}, which pays for the choice."
            )
        elif self.considered:
            lines.append(f"Valid if k = {self.k} and the method were fixed without these examples.")
        missing = [str(y) for y, count in enumerate(self.examples) if count == 0]
        if missing and self.method != "each_example":
            lines.append(
                f"Without examples: class {', '.join(missing)}. Nothing is known there, so nothing "
                "can be certified."
            )
        lines.append(f"About {self.population}.")
        if not self.certified:
            lines.append("Not certified is not refuted: more examples may certify it, or may not.")
        return "\n".join(lines)

    def __str__(self) -> str:
        return self.statement


def certify(
    soft_labels: ArrayLike,
    labels: ArrayLike,
    k: int | Sequence[int],
    *,
    alpha: float = 0.05,
    method: Method = "paper",
    where: ArrayLike | None = None,
) -> Certificate:
    """Return the certificate for the top-k sets; a false claim is certified with chance α at most.

    With U the `upper_limit`, n_y examples of class y and c_yi of them with i in the set,

        "paper":              U(misses, n, α/2) + max over y, i ≠ y of U(c_yi, n_y, α/2) < 1
        "class_conditional":  U(n_y − c_yy, n_y, α/2) + U(c_yi, n_y, α/2) < 1  for all y, i ≠ y
        "paired":             P(Bin(b + c, ½) ≥ b) ≤ α  for all y, i ≠ y

    where b examples of class y have y in the set and i out, and c the reverse. With the n_y fixed
    beforehand, Δ is that of a population in these proportions.

    Args:
      soft_labels: `[N, C]` finite floats.
      labels: `[N]` integers, the true classes.
      k: 1 … C − 1, fixed without these examples; or all the k looked at, such as range(1, 5): each
        is tested at α/(their number), and the best is returned.
      alpha: level, in (0, 1).
      method: which of the three.
      where: `[N]` booleans, the examples that count (all by default).

    Raises:
      TypeError, ValueError: soft labels or labels of wrong dtype, shape or range; k or α out of
        range; k a word such as "best"; unknown `method`; no example left.

    Derived here (not in the paper). Why nothing is paid for the C(C − 1) cells: if cell j attains
    γ, then max U ≥ U_j, and U_j ≥ γ_j = γ with confidence 1 − α/2; and where all pairs must pass, a
    pair for which the claim is false passes with chance α at most. A pair has P(y in, i out) −
    P(i in, y out) = 1 − Δ_y − γ_yi; where that is ≤ 0, b given b + c is binomial with chance ½ at
    most. With fixed n_y the misses have unequal chances, and the limit of Δ still holds (Hoeffding,
    Ann. Math. Stat. 1956).

    >>> soft_labels, labels = jnp.tile(jnp.eye(2), (8, 1)), jnp.tile(jnp.arange(2), 8)
    >>> print(certify(soft_labels, labels, 1, alpha=0.125).evidence)  # 1 − 2^(−4/16), 1 − 2^(−4/8)
    Δ ≤ 0.1591 (0 of 16) and γ ≤ 0.2929 (0 of 8, true class 0 with class 1), together 0.4520
    >>> print(certify(soft_labels, labels, 1, method="paired"))  # 2⁻⁸
    Certified with 95 % confidence (α = 0.05): Δ_y + γ_yi < 1 for every class y and every other i.
    For the top-1 sets, p = 0.00391 at the worst pair, true class 0 with class 1: of the sets with
    one of the two, 8 hold 0 and 0 hold 1.
    Valid if k = 1 and the method were fixed without these examples.
    About the law these 16 examples were drawn from, each independently; a teacher's own training
    rows are no such draw.
    """
    soft_labels, labels = _check_examples(soft_labels, labels, where)
    considered = _check_ks(k, soft_labels.shape[-1])
    counts = (
        count_sets(np.asarray(_pessimistic_sets(soft_labels, labels, k)), labels)
        for k in considered
    )
    return _certify(counts, considered, alpha, method, _OF_EXAMPLES, _population(len(labels)))


def certify_sets(
    candidate_sets: ArrayLike,
    labels: ArrayLike,
    *,
    alpha: float = 0.05,
    method: Method = "paper",
    where: ArrayLike | None = None,
) -> Certificate:
    """Return the certificate for candidate sets, which stand where top-k sets stood.

    Args, raises, source: as `certify`; the sets are `[N, C]` booleans, of any size each.

    >>> sets = jnp.tile(jnp.eye(2, dtype=bool), (8, 1))
    >>> certify_sets(sets, jnp.tile(jnp.arange(2), 8)).certified
    True
    """
    candidate_sets = jnp.asarray(candidate_sets)
    _door.check_sets("candidate_sets", candidate_sets, ndim=2)
    sets, labels = _keep(candidate_sets, labels, where)
    counts = [count_sets(np.asarray(sets), labels)]
    return _certify(counts, (), alpha, method, _OF_EXAMPLES, _population(len(labels)))


def certify_counts(
    counts: SetCounts | Mapping[int, SetCounts],
    *,
    alpha: float = 0.05,
    method: CountsMethod = "paper",
) -> Certificate:
    """Return the certificate of sets that were counted before, batch by batch or elsewhere.

    Args:
      counts: `SetCounts` of candidate sets; or those of the pessimistic top-k sets for every k
        looked at, each tested at α/(their number).
      alpha: level, in (0, 1).
      method: as `certify`; or "first_draw" of `certify_draws`, for counts of first draws.

    Raises:
      TypeError, ValueError: no counts; k or α out of range; unknown `method`.

    Derived here (not in the paper), as `certify`, which counts and then does this.

    >>> sets, labels = np.tile(np.eye(2, dtype=bool), (8, 1)), np.tile(np.arange(2), 8)
    >>> print(certify_counts({1: count_sets(sets, labels)}, alpha=0.125).evidence)
    Δ ≤ 0.1591 (0 of 16) and γ ≤ 0.2929 (0 of 8, true class 0 with class 1), together 0.4520
    """
    if isinstance(counts, SetCounts):
        several, considered = [counts], ()
    else:
        if not counts or not all(isinstance(one, SetCounts) for one in counts.values()):
            raise ValueError(f"counts: expected SetCounts, or some for every k, got {counts!r}")
        considered = _check_ks(list(counts), len(next(iter(counts.values())).examples))
        several = [counts[k] for k in considered]
    _check_method(method, _OF_COUNTS)
    each = ", one draw for each," if method == "first_draw" else ""
    population = _population(int(several[0].examples.sum()), each)
    return _certify(several, considered, alpha, method, _OF_COUNTS, population)


def certify_draws(
    soft_labels: ArrayLike,
    labels: ArrayLike,
    k: int | Sequence[int],
    *,
    alpha: float = 0.05,
    method: DrawsMethod = "first_draw",
    where: ArrayLike | None = None,
) -> Certificate:
    """Return the certificate of Δ + γ < 1 for random soft labels, R draws for each example.

        "first_draw":          "paper" on the first draw of every example
        "chernoff_hoeffding":  "paper" with `hoeffding_limit` on the mean of each example's draws
        "each_example":        U(misses, R, α/2) + max over i ≠ y of U(c_i, R, α/2) < 1
                               at every example, from its own R draws

    The N · R draws are not pooled: draws of one example resemble each other, and pooled limits are
    too small. The first two speak of new examples, however the draws of one depend on each other:
    the first is the tighter one for a single cell, the second can be where cells are many and draws
    differ.
    The third speaks of every x, as the paper does, but of the examples at hand alone, and asks for
    independent draws.

    Args, raises: as `certify`, for soft labels `[N, R, C]`.

    Derived here (not in the paper), as `certify`: an example with Δ + γ ≥ 1 passes with chance α at
    most, so nothing is paid for N of them.

    >>> draws = jnp.broadcast_to(jnp.array([0.7, 0.3]), (2, 8, 2))
    >>> certificate = certify_draws(draws, jnp.array([0, 0]), 1, method="each_example", alpha=0.125)
    >>> print(certificate.evidence)  # 1 − 2^(−4/8), twice
    2 of 2 examples pass; the worst has Δ ≤ 0.2929 (0 of 8) and γ ≤ 0.2929 (0 of 8, true class 0
    with class 1), together 0.5858
    """
    soft_labels, labels = _check_examples(soft_labels, labels, where, draws=True)
    considered = _check_ks(k, soft_labels.shape[-1])
    if method == "first_draw":
        soft_labels = soft_labels[:, :1]
    repeated = np.broadcast_to(labels[:, None], soft_labels.shape[:-1])
    drawn = (
        _Drawn(np.asarray(_pessimistic_sets(soft_labels, repeated, k)), labels) for k in considered
    )
    population = _population(len(labels), ", one draw for each,")
    if method == "each_example":
        population = f"new draws for these {len(labels)} examples, and about no other examples"
    return _certify(drawn, considered, alpha, method, _OF_DRAWS, population)


def smallest_sample(
    unreliability: float,
    key: jax.Array,
    *,
    k: int,
    num_classes: int,
    alpha: float = 0.05,
    method: Method = "paper",
    power: float = 0.9,
    num_trials: int = 200,
) -> int:
    """Return about the smallest n that is certified with chance `power`, found by simulation.

    For labels that miss the truth in a share Δ of every class and favour no wrong class,

        γ = (k − 1 + Δ)/(C − 1)

    is the least that k and Δ allow; labels with favourites need more examples than this. Each n has
    `num_trials` seeded samples, n/C examples of every class; n is doubled, then bisected to 5 %.
    With 200 trials a chance of 0.9 is known to 0.02. Time grows as n, and n as 1/κ².

    Args:
      unreliability: Δ in [0, 1], with Δ + γ < 1.
      key: random key of the simulation.
      k: 1 … C − 1.
      num_classes: C.
      alpha: level, in (0, 1).
      method: as `certify`.
      power: in (0, 1).
      num_trials: simulated samples for every n tried.

    Raises:
      TypeError, ValueError: an argument out of its range; Δ + γ ≥ 1; unknown `method`.

    Derived here (not in the paper).

    >>> smallest_sample(0.0, jax.random.key(0), k=1, num_classes=2, method="paired")  # 2⁻⁵ < 0.05
    10
    """
    _door.check_levels(unreliability=unreliability)
    _door.check_at_least(2, num_classes=num_classes)
    _door.check_at_least(1, num_trials=num_trials)
    _door.check_k("k", k, num_classes)
    _door.check_inside_unit(alpha=alpha)
    _door.check_inside_unit(power=power)
    _check_method(method, _OF_EXAMPLES)
    ambiguity = (k - 1 + unreliability) / (num_classes - 1)
    if unreliability + ambiguity >= 1:
        raise ValueError(
            f"unreliability: expected Δ + γ < 1, which a sample can certify, got Δ = "
            f"{unreliability:g} and with it γ = {ambiguity:g} at k = {k}"
        )
    test, _ = _OF_EXAMPLES[method]
    seed = np.asarray(jax.random.key_data(key)).ravel()

    def suffices(per_class: int) -> bool:
        rng = np.random.default_rng([*seed, per_class])
        labels = np.repeat(np.arange(num_classes), per_class)
        rows = np.arange(len(labels))
        certified = 0
        for _ in range(num_trials):
            scores = rng.random((len(labels), num_classes))
            scores[rows, labels] = np.where(rng.random(len(labels)) < unreliability, -1, 2)
            kth = np.partition(scores, -k, axis=1)[:, -k, None]
            certified += test(count_sets(scores >= kth, labels), alpha)["certified"]
        return certified >= power * num_trials

    low, high = 0, 1
    while not suffices(high):
        low, high = high, 2 * high
    while high - low > max(1, high // 20):
        middle = (low + high) // 2
        low, high = (low, middle) if suffices(middle) else (middle, high)
    return num_classes * high


class SetCounts(NamedTuple):
    """How often each class is in the sets of each true class; counts of batches add up.

    Attributes:
      members: `[C, C]` examples of class y (row) with class i (column) in the set.
      both: `[C, C]` those of them with y in the set as well.
      examples: `[C]` examples of each class.
    """

    members: np.ndarray
    both: np.ndarray
    examples: np.ndarray

    @property
    def wrong(self) -> np.ndarray:
        """Members off the diagonal, and −1 on it, which is the maximum of no row."""
        return np.where(np.eye(len(self.members), dtype=bool), -1, self.members)


def count_sets(sets: np.ndarray, labels: np.ndarray) -> SetCounts:
    """Return the counts that certificates are made from.

    Args:
      sets: `[N, C]` booleans, such as `indicators.pessimistic_sets`.
      labels: `[N]` integers in 0 … C − 1, the true classes.

    >>> count_sets(np.array([[True, True], [False, True]]), np.array([0, 0])).members
    array([[1, 2],
           [0, 0]])
    """
    num_classes = sets.shape[1]
    of_class = [sets[labels == y] for y in range(num_classes)]
    members = np.stack([rows.sum(axis=0) for rows in of_class])
    both = np.stack([rows[rows[:, y]].sum(axis=0) for y, rows in enumerate(of_class)])
    return SetCounts(members, both, np.bincount(labels, minlength=num_classes))


class _Drawn(NamedTuple):
    sets: np.ndarray  # [N, R, C]
    labels: np.ndarray  # [N]

    @property
    def examples(self) -> np.ndarray:
        return np.bincount(self.labels, minlength=self.sets.shape[-1])


# A test takes counts or draws and a level, and returns the fields of a Certificate that it decides.
_Fields = dict[str, Any]


def _paper(counts: SetCounts, alpha: float, limit: Callable = upper_limit) -> _Fields:
    total = np.full_like(counts.examples, counts.examples.sum())
    missed = total - counts.members.trace()
    classes = np.arange(len(total))
    return _by_limits(missed, total, counts.wrong, counts.examples, classes, alpha, limit)


def _class_conditional(counts: SetCounts, alpha: float) -> _Fields:
    missed = counts.examples - counts.members.diagonal()
    classes = np.arange(len(missed))
    return _by_limits(
        missed, counts.examples, counts.wrong, counts.examples, classes, alpha, rows="true classes"
    )


def _paired(counts: SetCounts, alpha: float) -> _Fields:
    from scipy import special

    members, both, _ = counts
    true_alone = members.diagonal()[:, None] - both  # b
    wrong_alone = members - both  # c
    # P(Bin(b + c, ½) ≥ b), 1 at b = 0; scipy.stats says the same but takes a second to import.
    p_values = special.betainc(np.maximum(true_alone, 1), wrong_alone + 1.0, 0.5)
    p_values = np.where(true_alone == 0, 1.0, p_values)
    np.fill_diagonal(p_values, -1)  # not pairs
    y, i = (int(index) for index in np.unravel_index(p_values.argmax(), p_values.shape))
    return {
        "certified": bool(p_values[y, i] <= alpha),
        "p_value": float(p_values[y, i]),
        "worst_pair": (y, i),
        "evidence": f"p = {p_values[y, i]:.3g} at the worst pair, true class {y} with class {i}: "
        f"of the sets with one of the two, {true_alone[y, i]} hold {y} and {wrong_alone[y, i]} "
        f"hold {i}",
    }


def _first_draw(drawn: _Drawn, alpha: float) -> _Fields:
    return _paper(count_sets(drawn.sets[:, 0], drawn.labels), alpha)


def _chernoff_hoeffding(drawn: _Drawn, alpha: float) -> _Fields:
    num_draws, num_classes = drawn.sets.shape[1:]

    def limit(hits: np.ndarray, draws: np.ndarray, alpha: float) -> np.ndarray:
        return hoeffding_limit(hits / np.maximum(draws, 1), draws // num_draws, alpha)

    pooled = drawn.sets.reshape(-1, num_classes)
    return _paper(count_sets(pooled, np.repeat(drawn.labels, num_draws)), alpha, limit)


def _each_example(drawn: _Drawn, alpha: float) -> _Fields:
    sets, labels = drawn
    hits = sets.sum(axis=1)  # [N, C]
    is_true = np.arange(hits.shape[1]) == labels[:, None]
    draws = np.full(len(labels), sets.shape[1])
    wrong = np.where(is_true, -1, hits)
    return _by_limits(draws - hits[is_true], draws, wrong, draws, labels, alpha, rows="examples")


def _by_limits(
    missed: np.ndarray,
    missed_of: np.ndarray,
    joined: np.ndarray,
    joined_of: np.ndarray,
    true: np.ndarray,
    alpha: float,
    limit: Callable = upper_limit,
    rows: str = "",
) -> _Fields:
    """Test limit of Δ + limit of γ < 1 in every row, class or example; `joined` is `[R, C]`."""
    most = joined.max(axis=1)  # limits grow with the count
    of_missed, of_joined = limit(missed, missed_of, alpha / 2), limit(most, joined_of, alpha / 2)
    total = of_missed + of_joined
    row = int(total.argmax())
    y, i = int(true[row]), int(joined[row].argmax())
    passing = f"{(total < 1).sum()} of {len(total)} {rows} pass; the worst has " if rows else ""
    return {
        "certified": bool(total[row] < 1),
        "unreliability_limit": float(of_missed[row]),
        "ambiguity_limit": float(of_joined[row]),
        "worst_pair": (y, i),
        "evidence": f"{passing}Δ ≤ {of_missed[row]:.4f} ({missed[row]} of {missed_of[row]}) and "
        f"γ ≤ {of_joined[row]:.4f} ({most[row]} of {joined_of[row]}, true class {y} with class "
        f"{i}), together {total[row]:.4f}",
    }


_CONDITION = "Δ + γ < 1, the paper's condition"
_OF_CLASSES = "Δ_y + γ_yi < 1 for every class y and every other i"
_Methods = dict[str, tuple[Callable[[Any, float], _Fields], str]]
_OF_EXAMPLES: _Methods = {
    "paper": (_paper, _CONDITION),
    "class_conditional": (_class_conditional, _OF_CLASSES),
    "paired": (_paired, _OF_CLASSES),
}
_OF_COUNTS: _Methods = {**_OF_EXAMPLES, "first_draw": (_paper, _CONDITION)}
_OF_DRAWS: _Methods = {
    "first_draw": (_first_draw, _CONDITION),
    "chernoff_hoeffding": (_chernoff_hoeffding, _CONDITION),
    "each_example": (_each_example, "Δ + γ < 1 at every example"),
}


def _certify(
    of_each_k: Iterable[SetCounts | _Drawn],
    considered: tuple[int, ...],
    alpha: float,
    method: str,
    methods: _Methods,
    population: str,
) -> Certificate:
    """Return the best certificate over the considered k, or that of sets which have none."""
    _door.check_inside_unit(alpha=alpha)
    _check_method(method, methods)
    test, claim = methods[method]
    found = []
    for k, counted in zip(considered or (None,), of_each_k, strict=True):
        fields = test(counted, alpha / max(1, len(considered)))
        found.append(
            Certificate(
                claim=claim,
                k=k,
                considered=considered,
                alpha=alpha,
                method=method,
                examples=tuple(counted.examples.tolist()),
                population=population,
                **fields,
            )
        )
    return min(
        found, key=lambda c: np.nansum([c.unreliability_limit, c.ambiguity_limit, c.p_value])
    )


def _population(num_examples: int, each: str = "") -> str:
    return (
        f"the law these {num_examples:,} examples{each} were drawn from, each independently; a "
        "teacher's own training rows are no such draw"
    )


def _keep(
    values: jax.Array, labels: ArrayLike, where: ArrayLike | None
) -> tuple[jax.Array, np.ndarray]:
    """Return the rows of `values` [N, ..., C] and of the checked labels [N] that `where` keeps."""
    shape, num_classes = values.shape[:1], values.shape[-1]
    where = jnp.ones(shape, bool) if where is None else jnp.asarray(where)
    _door.check_where("where", where, shape)
    _door.check_labels("labels", labels, num_classes=num_classes, shape=shape, where=where)
    return values[np.asarray(where)], np.asarray(labels)[np.asarray(where)]


def _check_examples(
    soft_labels: ArrayLike, labels: ArrayLike, where: ArrayLike | None, *, draws: bool = False
) -> tuple[jax.Array, np.ndarray]:
    """Return the checked soft labels and labels that `where` keeps."""
    soft_labels = jnp.asarray(soft_labels)
    if draws and soft_labels.ndim != 3:
        raise ValueError(
            f"soft_labels: expected shape [N, R, C], got {list(soft_labels.shape)}; without draws "
            "use certify"
        )
    _door.check_float("soft_labels", soft_labels)
    _door.check_classes("soft_labels", soft_labels, ndim=3 if draws else 2)
    soft_labels, labels = _keep(soft_labels, labels, where)
    _door.check_finite("soft_labels", soft_labels)
    return soft_labels, labels


def _check_ks(k: int | Sequence[int], num_classes: int) -> tuple[int, ...]:
    """Return the different k to try, in order."""
    if isinstance(k, str):
        raise ValueError(
            f"k: expected a whole number fixed beforehand, or all those to try, got {k!r}; a k "
            "found on the examples voids the level"
        )
    values = np.atleast_1d(k)
    if values.size == 0:
        raise ValueError("k: expected at least one whole number, got none")
    _door.check_k("k", values, num_classes)
    return tuple(np.unique(values).tolist())


def _check_method(method: str, methods: _Methods) -> None:
    if method not in methods:
        raise ValueError(f"method: expected one of {', '.join(methods)}, got {method!r}")
