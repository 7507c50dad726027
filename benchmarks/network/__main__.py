"""``python -m benchmarks.network``. Child processes import this module too, without what the guard hides."""

if __name__ == "__main__":
    from benchmarks.network.cli import main

    raise SystemExit(main())
