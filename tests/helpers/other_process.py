"""Another process that holds a lock file, and can be killed."""

import subprocess
import sys
from pathlib import Path

_HOLD = """
import sys
from spk_dt.folders.hold import hold
with hold(sys.argv[1]):
    print(flush=True)
    sys.stdin.read()
"""


class Holder:
    """Holds a lock file from its making until it is killed, at the latest when the context ends."""

    def __init__(self, file: Path):
        command = [sys.executable, "-c", _HOLD, str(file)]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        self.process.stdout.readline()
        self.pid = self.process.pid

    def kill(self):
        self.process.kill()
        self.process.communicate()

    def __enter__(self):
        return self

    def __exit__(self, *error):
        if self.process.returncode is None:
            self.kill()
