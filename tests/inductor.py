"""Whether torch's Inductor can build for the CPU here."""

import pytest

from harness.inductor_link import link_fault

BUILDS = pytest.mark.skipif(link_fault() is not None, reason=str(link_fault()))
