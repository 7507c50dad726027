"""Measures the whole of GKMNet against its published formulation: ``python -m benchmarks.network``."""
