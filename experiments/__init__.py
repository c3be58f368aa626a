"""Experiments: one readable file a figure, run from the checkout: `python -m experiments.NAME`."""

import os

import jax


def use_all_cores() -> None:
    """Give JAX one CPU device per core, over which a sweep spreads its runs.

    To be called before JAX starts. Runs of a sweep do not talk to each other, so two devices of one
    core each beat one device of two. Without effect where an accelerator does the work.
    """
    affinity = getattr(os, "sched_getaffinity", None)  # not on macOS
    cores = len(affinity(0)) if affinity else os.cpu_count() or 1
    jax.config.update("jax_num_cpu_devices", cores)
