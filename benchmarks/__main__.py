"""``python -m benchmarks``. Child processes import this module too, and have no use for what the guard hides."""

if __name__ == "__main__":
    import sys

    if any(argument.startswith("--device") for argument in sys.argv[1:]):
        from benchmarks.gpu import cli as gpu_cli

        raise SystemExit(gpu_cli.main())
    from benchmarks import cli

    raise SystemExit(cli.main())
