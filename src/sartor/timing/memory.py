"""Peak memory of a network on its target, read in a process of its own."""

from __future__ import annotations

import tempfile
from pathlib import Path

from sartor.core.errors import TargetError
from sartor.core.trees import Inputs
from sartor.timing import inputs
from sartor.timing.processes import Source, ask


def peak_memory(source: Source, enters: Inputs) -> int:
    """Bytes by which a fresh process grows, at its peak, when it loads a file and runs it three times.

    It counts what the runtime allocates, its copy of the weights included, on the CPU; libraries that are already
    loaded do not count. Linux only. Expect some hundred kilobytes of noise: for tiny networks the cost models say more.

    Args:
        source: The file and its target.
        enters: The input.

    Raises:
        StrangerError: The target cannot be made by its name in another process.
        TargetError: The process failed; the message ends with its last line.
    """
    with tempfile.TemporaryDirectory(prefix="sartor-") as folder:
        file = Path(folder) / "inputs.safetensors"
        inputs.write(enters, file)
        answers = list(ask({"task": "watch", "subjects": [{**source.as_dict(), "inputs": str(file)}]}))
    for answer in answers:
        if "bytes" in answer:
            return int(answer["bytes"])
    raise TargetError(f"the process that was to watch {source.artifact} ended without an answer; try it again")
