"""Settings of every test: strict shapes, and two devices, so that every sweep is sharded."""

import resource

import jax
import pytest

jax.config.update("jax_numpy_rank_promotion", "raise")
jax.config.update("jax_num_cpu_devices", 2)


@pytest.fixture(autouse=True, scope="module")
def forget_compiled_programs():
    """Keep no programs of files that are done, once they take gigabytes."""
    yield
    if resource.getrusage(resource.RUSAGE_SELF).ru_maxrss > 2_500_000:  # kB, on Linux
        jax.clear_caches()
