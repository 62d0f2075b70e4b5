"""Other scanners: what a kernel or a dose does to slices, as functions of millimetres.

Each is a linear filter in the plane, or noise; so it may follow the averaging of thin
slices to slabs. What a chest looks like on another scanner is more than these.
"""

from collections.abc import Callable, Mapping
import types

import numpy as np
from scipy import ndimage

from covid_tf import volume

_FWHM = 2.3548  # Of a Gaussian with deviation 1.


def soften(
  hu: np.ndarray, pixel_mm: tuple[float, float], width_mm: float = 1.8
) -> np.ndarray:
  """A softer kernel: another Gaussian point spread.

  Args:
    hu: int16 [slice, row, column], HU.
    pixel_mm: between rows and between columns.
    width_mm: full width of the point spread at half of its maximum.

  Returns:
    int16 of the same shape.
  """
  return _to_hu(_blurred(hu, pixel_mm, width_mm))


def sharpen(
  hu: np.ndarray,
  pixel_mm: tuple[float, float],
  width_mm: float = 1.8,
  amount: float = 1.2,
) -> np.ndarray:
  """A sharper kernel: edges and noise are raised over a blurred copy.

  Args:
    hu: int16 [slice, row, column], HU.
    pixel_mm: between rows and between columns.
    width_mm: of the blur's point spread at half of its maximum.
    amount: how much of what the blur takes away is added; 0 changes nothing.

  Returns:
    int16 of the same shape.
  """
  return _to_hu(hu + amount * (hu - _blurred(hu, pixel_mm, width_mm)))


def lower_dose(
  hu: np.ndarray,
  pixel_mm: tuple[float, float],
  random: np.random.Generator,
  noise_hu: float = 35.0,
  peak_per_mm: float = 0.25,
) -> np.ndarray:
  """A lower dose: noise with the spectrum of filtered back projection.

  Its power rises with the frequency, as the ramp filter lets it, and falls as a
  Gaussian beyond the peak, as the kernel does.

  Args:
    hu: int16 [slice, row, column], HU.
    pixel_mm: between rows and between columns.
    random: source of the noise; each slice has its own.
    noise_hu: deviation of what is added.
    peak_per_mm: frequency with the most noise, in cycles a millimetre.

  Returns:
    int16 of the same shape.
  """
  rows, columns = hu.shape[1:]
  frequency = np.hypot(
    np.fft.fftfreq(rows, pixel_mm[0])[:, np.newaxis],
    np.fft.rfftfreq(columns, pixel_mm[1]),
  )
  # Power f exp(-f² / (2 p²)) is largest at p.
  gain = np.sqrt(frequency * np.exp(-0.5 * (frequency / peak_per_mm) ** 2))
  changed = np.empty_like(hu)
  for place, plane in enumerate(hu):
    white = random.standard_normal((rows, columns), dtype=np.float32)
    noise = np.fft.irfft2(np.fft.rfft2(white) * gain, (rows, columns))
    changed[place] = _to_hu(plane + noise * (noise_hu / noise.std()))
  return changed


def _blurred(hu, pixel_mm, width_mm) -> np.ndarray:
  sigma = [0.0, *(width_mm / _FWHM / step for step in pixel_mm)]
  return ndimage.gaussian_filter(hu.astype(np.float32), sigma)


def _to_hu(image) -> np.ndarray:
  return np.clip(np.rint(image), volume.AIR_HU, 3071).astype(np.int16)


Change = Callable[[np.ndarray, tuple[float, float], np.random.Generator], np.ndarray]
# What a judge asks besides, by name; each takes slices, pixels in mm and a generator.
CONDITIONS: Mapping[str, Change] = types.MappingProxyType(
  {
    'softer kernel': lambda hu, pixel_mm, random: soften(hu, pixel_mm),
    'sharper kernel': lambda hu, pixel_mm, random: sharpen(hu, pixel_mm),
    'lower dose': lower_dose,
  }
)
