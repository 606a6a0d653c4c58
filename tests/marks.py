"""Where a test cannot run, said once."""

from __future__ import annotations

import pytest

from samdeploy.backends.device.cuda import cuda_devices

without_gpu = pytest.mark.skipif(cuda_devices()[0] > 0, reason="this machine has a CUDA device")
