"""`python -m benchmarks COMMAND`."""

import os
import warnings

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch is imported; --threads sets those of torch
os.environ.setdefault("PYTHONWARNINGS", "ignore")  # of processes that measure memory
warnings.filterwarnings("ignore")

if __name__ == "__main__":  # processes that measure memory import this file as well
    from benchmarks.commands import app

    app()
