"""Experiments: one readable file a figure, run from the checkout: `python -m experiments.NAME`."""

import os
from pathlib import Path

import jax


def use_all_cores() -> None:
    """Give JAX one CPU device per core, over which a sweep spreads its runs.

    To be called before JAX starts. Runs of a sweep do not talk to each other, so two devices of one
    core each beat one device of two. Without effect where an accelerator does the work.
    """
    affinity = getattr(os, "sched_getaffinity", None)  # not on macOS
    cores = len(affinity(0)) if affinity else os.cpu_count() or 1
    jax.config.update("jax_num_cpu_devices", cores)


def keep_compiled_programs() -> None:
    """Let JAX keep compiled programs on disk, so that the second start of an experiment is quick.

    They lie under `$JAX_COMPILATION_CACHE_DIR`, else `$XDG_CACHE_HOME/jsoft/programs`, else
    `~/.cache/jsoft/programs`, which may be deleted at any time. JAX_ENABLE_COMPILATION_CACHE=false
    turns it off.
    """
    if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
        cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
        jax.config.update("jax_compilation_cache_dir", str(Path(cache, "jsoft", "programs")))
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.5)
