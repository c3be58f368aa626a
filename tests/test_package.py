"""What `import jsoft` brings, and what it leaves to those who need it."""

import subprocess
import sys

import jsoft


def python(code):
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, check=True
    )
    return done.stdout


def test_import_leaves_the_heavy_packages_alone():
    heavy = ("tensorflow_datasets", "tensorflow", "matplotlib", "sklearn", "scipy", "torch", "tyro")
    loaded = python(f"import sys, jsoft; print([m for m in {heavy} if m in sys.modules])")
    assert loaded.strip() == "[]"


def test_import_takes_little_longer_than_that_of_jax():
    clock = (
        "import time; start = time.process_time(); import {}; print(time.process_time() - start)"
    )
    # CPU seconds of a process of its own, the least of two: what other programs do hardly counts
    jax, ours = (
        min(float(python(clock.format(module))) for _ in range(2)) for module in ("jax", "jsoft")
    )
    assert ours < jax + 0.5


def test_public_names_are_listed_and_exist():
    assert sorted(jsoft.__all__) == sorted(set(jsoft.__all__))
    for name in jsoft.__all__:
        assert getattr(jsoft, name) is not None
