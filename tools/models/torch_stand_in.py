"""As much of torch as silero-vad's ONNX path uses, over numpy.

silero-vad imports torch for its tensors even where ONNX Runtime does all the arithmetic, and torch is a download of
gigabytes. Importing this module first lets the package's own code run as it is: every function here does to an array
what torch's does to a tensor of the same numbers, and none computes anything else.
"""

import contextlib
import sys
import types

import numpy as np


class Tensor(np.ndarray):
    """A float32 array with the methods of a tensor that are used."""

    def __new__(cls, values):
        return np.asarray(values, dtype=np.float32).view(cls)

    def dim(self):
        return self.ndim

    def float(self):
        return self.astype(np.float32)

    def numpy(self):
        return np.asarray(self)

    def cpu(self):
        return self

    def unsqueeze(self, axis):
        return np.expand_dims(self, axis)

    def squeeze(self, axis):
        return np.squeeze(self, axis) if self.shape[axis] == 1 else self


def pad(tensor, widths, mode="constant", value=0.0):
    assert mode == "constant"
    return np.pad(tensor, [(0, 0)] * (tensor.ndim - 1) + [widths], constant_values=value).view(Tensor)


def install():
    torch = types.ModuleType("torch")
    torch.Tensor = Tensor
    torch.is_tensor = lambda value: isinstance(value, Tensor)
    torch.zeros = lambda *shape: Tensor(np.zeros(shape[0] if isinstance(shape[0], tuple) else shape))
    torch.from_numpy = Tensor
    torch.cat = lambda tensors, dim=0: np.concatenate(tensors, axis=dim).view(Tensor)
    torch.no_grad = NoGrad
    torch.set_num_threads = lambda count: None
    torch.device = str
    torch.nn = types.SimpleNamespace(functional=types.SimpleNamespace(pad=pad))
    sys.modules["torch"] = torch


class NoGrad(contextlib.ContextDecorator):
    def __enter__(self):
        return self

    def __exit__(self, *error):
        return False


install()
