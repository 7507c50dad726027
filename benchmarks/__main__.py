"""``python -m benchmarks``. Child processes import this module too, and have no use for what the guard hides."""

if __name__ == "__main__":
    from benchmarks.cli import main

    raise SystemExit(main())
