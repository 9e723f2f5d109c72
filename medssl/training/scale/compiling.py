"""`torch.compile` where it helps: the blocks of transformers, which are many, alike, and without randomness of the streams."""

import os
import shutil

import torch
from torch import nn

from medssl.errors import ConfigError
from medssl.models.blocks import Block
from medssl.training.settings import Training


def compile_parts(module: nn.Module, training: Training) -> None:
    """Compile the blocks of a module in place where that is asked for; names of weights stay as they are.

    Raises:
        ConfigError: No C++ compiler on a machine without a GPU, or nothing in the module that compiling helps.
    """
    if not training.compile:
        return
    if not torch.cuda.is_available() and shutil.which(os.environ.get("CXX", "g++")) is None:
        raise ConfigError("compile needs a C++ compiler on the CPU and found no g++; install one, name it in CXX, or set compile to false")
    blocks = [part for part in module.modules() if isinstance(part, Block)]
    if not blocks:
        raise ConfigError("compile helps transformers only, and this network has no transformer block; set compile to false")
    for block in blocks:
        block.compile()
