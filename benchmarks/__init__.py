"""What is fast, measured beside its peers. Run from the repository's root: ``python -m benchmarks.serving --help``."""
