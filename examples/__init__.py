"""What the package does, on a real photo."""
