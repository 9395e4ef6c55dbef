from __future__ import annotations

import subprocess
import sys

import sartor


def test_the_module_runs_the_command_line():
    done = subprocess.run([sys.executable, "-m", "sartor", "--version"], capture_output=True, text=True, check=True)
    assert done.stdout == f"sartor {sartor.__version__}\n"
