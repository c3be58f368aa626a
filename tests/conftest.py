"""Settings of every test: strict shapes, and two devices, so that every sweep is sharded."""

import jax

jax.config.update("jax_numpy_rank_promotion", "raise")
jax.config.update("jax_num_cpu_devices", 2)
