"""Measures the ops and the network on a GPU: ``python -m benchmarks --device cuda``."""
