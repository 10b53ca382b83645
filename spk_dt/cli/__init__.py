"""The command ``spkdt``. Commands import what they need when they run, so that ``spkdt --help`` answers at once.

A new command is a function below ``@app.command()`` in one of the modules here, with its place in `spk_dt.cli.app.ORDER`;
what its user did wrong it says by raising one of `USER_ERRORS`.
"""

from spk_dt.cli import certificate, data, evaluation, export, generation, released, runs  # the commands
from spk_dt.cli.app import USER_ERRORS, app

__all__ = ["USER_ERRORS", "app", "certificate", "data", "evaluation", "export", "generation", "released", "runs"]
