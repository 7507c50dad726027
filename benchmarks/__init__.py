"""Measures gkm_ops against everything else that computes the same numbers: ``python -m benchmarks``."""
