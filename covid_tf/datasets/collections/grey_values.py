"""Grey values back to Hounsfield units, where a collection has lost them."""

import numpy as np

from covid_tf import errors
from covid_tf import volume as ct_volume


def to_hu(grey: np.ndarray, window_hu: tuple[float, float]) -> np.ndarray:
  """Turns 0 to 255 back into HU; what the window cut off is lost.

  Args:
    grey: numbers from 0 to 255, any shape.
    window_hu: (low, high) that were mapped to 0 and 255.

  Returns:
    int16 of the same shape, not below -1024.
  """
  low, high = window_hu
  hu = np.rint(np.asarray(grey, np.float32) * ((high - low) / 255.0) + low)
  return np.maximum(hu, ct_volume.AIR_HU).astype(np.int16)


def parse_window(text: str | None) -> tuple[float, float]:
  """Reads 'low,high' in HU, as a flag states it.

  Raises:
    errors.UsageError: it is missing or anything else.
  """
  if not text:
    raise errors.UsageError(
        'these pictures have lost their Hounsfield units: the window that they were '
        'made with is required, found none; state it with --window=LOW,HIGH '
        '(COVIDx-CT: --window=-1350,150).')
  try:
    low, high = (float(part) for part in text.split(','))
  except ValueError:
    low = high = float('nan')
  if not -3000 <= low < high <= 5000:
    raise errors.UsageError(
        f'--window: LOW,HIGH in HU is required, LOW below HIGH, found {text!r}.')
  return low, high
