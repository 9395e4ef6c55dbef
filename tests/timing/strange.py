"""Targets that are not what a process hopes for; found by name in other processes."""

import os

from torch import Tensor

from sartor.core.contracts import Target
from sartor.core.errors import TargetError
from sartor.targets.onnxruntime import OnnxRuntime


class Dies(OnnxRuntime):
    """Its runtime brings the process down."""

    def load(self, artifact):
        os.write(2, b"cannot map the device\n\n")
        os._exit(3)


class Chatty(OnnxRuntime):
    """Its runtime prints to the standard output, as native libraries do."""

    def load(self, artifact):
        os.write(1, b'{"rounds": "nonsense"}\n')
        return super().load(artifact)


class Restless(OnnxRuntime):
    """It describes itself differently in each process."""

    def describe(self):
        return {**super().describe(), "process": str(os.getpid())}


class Renamed(OnnxRuntime):
    """It does not keep what its constructor takes."""

    def __init__(self, *, cores: int = 1) -> None:
        super().__init__(threads=cores)


class Echo(Target):
    """It only looks at what enters.

    Args:
        expects: The words for it.
    """

    def __init__(self, *, expects: str = "") -> None:
        self.expects = expects

    def prepare(self, module, example, folder):
        raise NotImplementedError

    def load(self, artifact):
        return self

    def describe(self):
        return {"runtime": "echo"}

    def bind(self, inputs):
        if words(inputs) != self.expects:
            raise TargetError(f"got {words(inputs)}, not {self.expects}")
        return lambda: None


def words(inputs) -> str:
    """What a network's input is made of."""
    if isinstance(inputs, Tensor):
        return f"{inputs.dtype} {tuple(inputs.shape)} {inputs.sum().item()}"
    if isinstance(inputs, tuple):
        return "tuple " + " ".join(map(words, inputs))
    return "dict " + " ".join(f"{name} {words(inputs[name])}" for name in sorted(inputs))
