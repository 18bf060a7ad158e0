"""Programs that measure. Each is run as `python -m benchmarks.NAME`."""
