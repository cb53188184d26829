"""What `scripts/bench.py` measures: a module each, with a `main` that takes the command's arguments."""
