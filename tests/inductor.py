"""Whether torch's Inductor can build for the CPU here."""

import pytest
import torch

BUILDS = pytest.mark.skipif(" " in torch.__file__, reason="Inductor cannot link to a torch whose path holds a space")
