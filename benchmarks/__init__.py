"""Benchmarks: one file a comparison, all its sides measured in one run."""
