"""A sweep to be killed: `sweep_process.py PATH CHECKPOINTS [PROCESS COUNT PORT]`."""

import os
import sys

import jax
import jax.numpy as jnp

jax.config.update("jax_num_cpu_devices", int(os.environ.get("DEVICES", "2")))

from jsoft import sweep  # noqa: E402


def train(point, key):
    """Some hundredths of a second of work."""

    def step(x, _):
        return jnp.sin(x @ x.T) * point["scale"], x[0, 0]

    _, curve = jax.lax.scan(step, jax.random.normal(key, (32, 32)), None, length=2000)
    return {"last": curve[-1], "curve": curve[::200]}


if __name__ == "__main__":
    path, checkpoints, *distributed = sys.argv[1:]
    if distributed:
        process, count, port = map(int, distributed)
        jax.distributed.initialize(f"localhost:{port}", count, process)
    points = sweep.grid(scale=[0.5, 1.0], seed=range(40))
    sweep.run(
        train,
        points,
        path=path,
        batch_size=1,
        chunk_size=20 if int(checkpoints) else 2,
        checkpoints=int(checkpoints),
        config={"a": 1},
        watch="last",
    )
