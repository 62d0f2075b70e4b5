"""How many worker processes this machine takes."""

import os

# A worker holds two studies: 500 slices of 512 x 512 are 0.26 GB in int16, and
# masks, crops, maps and the report's pictures come on top.
_WORKER_BYTES = 1.5e9
# TensorFlow, both networks and their largest batch, in a worker of its own.
_MODELS_BYTES = 2.5e9


def worker_count(models_in_process: bool) -> int:
  """Workers by cores and memory, at least one.

  Args:
    models_in_process: whether each worker loads the models.
  """
  each = _WORKER_BYTES + (_MODELS_BYTES if models_in_process else 0)
  return max(1, min(len(os.sched_getaffinity(0)), int(_available_bytes() // each)))


def _available_bytes() -> int:
  """Memory that can be had without swapping."""
  try:
    with open('/proc/meminfo', encoding='ascii') as lines:
      for line in lines:
        if line.startswith('MemAvailable:'):
          return int(line.split()[1]) * 1024
  except OSError:
    pass
  return os.sysconf('SC_PHYS_PAGES') * os.sysconf('SC_PAGE_SIZE')
