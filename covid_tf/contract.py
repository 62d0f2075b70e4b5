"""The served contract: names, dtypes and ranks of every signature.

The one source for the exporter, the local server and the client; it imports
neither TensorFlow nor a predictor. All images are raw Hounsfield units: the
window, the resize and the backbone's normalization happen in the served graph.
What no shape can say, `REQUIRED_INPUT` does: every card carries it.
"""

import dataclasses
import math
from typing import Any

LUNGS_MODEL = 'lungs'
CLASSIFIER_MODEL = 'classifier'

SERVING_DEFAULT = 'serving_default'
PROBABILITY = 'probability'
GRAD_CAM = 'grad_cam'
FEATURES = 'features'
CARD = 'card'
SELF_CHECK = 'self_check'
# In the card of a model that computes in a narrower type than float32: by how much its
# answers differed from the float32 ones of `self_check` when it was exported.
DIFFERENCES = 'compute_dtype_differences'

FINE_CAM_SIZE = 28  # ResNet-50 at 224: end of stage conv3 (paper section 2.3).
COARSE_CAM_SIZE = 14  # ResNet-50 at 224: end of stage conv4 (paper section 2.3).
FEATURE_COUNT = 2048  # Channels of ResNet-50's last convolution (section 3.3).
LUNG_NETWORK_SIZE = 256  # Ours: the U-Net's working size (SYSTEM.md, B).


@dataclasses.dataclass(frozen=True)
class TensorSpec:
  """One named tensor of a signature.

  Attributes:
    name: the key in the request's inputs or the response's outputs.
    dtype: NumPy name of the element type; 'object' stands for bytes (DT_STRING).
    shape: one entry an axis; None is free. The first axis is the batch.
  """

  name: str
  dtype: str
  shape: tuple[int | None, ...]


@dataclasses.dataclass(frozen=True)
class Signature:
  """What one signature takes and gives."""

  inputs: tuple[TensorSpec, ...]
  outputs: tuple[TensorSpec, ...]


_USUAL_PLANE = (
  'Hounsfield units as they are, without window or scaling; axial slices, rows from '
  "the patient's front to the back, columns from the patient's right to the left"
)
REQUIRED_INPUT: dict[str, str] = {
  LUNGS_MODEL: f'{_USUAL_PLANE}; whole slices.',
  CLASSIFIER_MODEL: (
    f'{_USUAL_PLANE}; every slice of a case cropped to the lung box of the case, '
    'the largest box around the lungs in one slice. A whole slice gives a '
    'probability that means nothing.'
  ),
}

_HU = TensorSpec('hu', 'int16', (None, None, None))
_COVID_PROBABILITY = TensorSpec('covid_probability', 'float32', (None,))
_CARD = Signature(inputs=(), outputs=(TensorSpec('card', 'object', (1,)),))

SIGNATURES: dict[str, dict[str, Signature]] = {
  LUNGS_MODEL: {
    SERVING_DEFAULT: Signature(
      (_HU,), (TensorSpec('lung_mask', 'uint8', (None, None, None)),)
    ),
    PROBABILITY: Signature(
      (_HU,),
      (
        TensorSpec(
          'lung_probability', 'float32', (None, LUNG_NETWORK_SIZE, LUNG_NETWORK_SIZE)
        ),
      ),
    ),
    CARD: _CARD,
  },
  CLASSIFIER_MODEL: {
    SERVING_DEFAULT: Signature((_HU,), (_COVID_PROBABILITY,)),
    GRAD_CAM: Signature(
      (_HU,),
      (
        _COVID_PROBABILITY,
        TensorSpec('cam_28', 'float32', (None, FINE_CAM_SIZE, FINE_CAM_SIZE)),
        TensorSpec('cam_14', 'float32', (None, COARSE_CAM_SIZE, COARSE_CAM_SIZE)),
      ),
    ),
    FEATURES: Signature(
      (_HU,),
      (
        _COVID_PROBABILITY,
        TensorSpec('features', 'float32', (None, FEATURE_COUNT)),
        TensorSpec('gradients', 'float32', (None, FEATURE_COUNT)),
      ),
    ),
    CARD: _CARD,
  },
}

# What a model that can be asked whether it computes right has besides: reference
# slices and its own float32 answers to them, constants of the graph. Models of other
# exporters may do without.
SELF_CHECKS: dict[str, Signature] = {
  LUNGS_MODEL: Signature(
    (),
    (
      _HU,
      *SIGNATURES[LUNGS_MODEL][SERVING_DEFAULT].outputs,
      *SIGNATURES[LUNGS_MODEL][PROBABILITY].outputs,
    ),
  ),
  CLASSIFIER_MODEL: Signature(
    (), (_HU, *SIGNATURES[CLASSIFIER_MODEL][GRAD_CAM].outputs)
  ),
}
SELF_CHECK_BYTES = 1_000_000  # Of all its tensors together, at most.

# Beside the graph of a version: TF Serving hands out what lies there no more than the
# assets, and only reads the warm-up requests. It prescribes both names.
EXTRA_FOLDER = 'assets.extra'
WARM_UP_FILE = 'tf_serving_warmup_requests'

# What the card of a classifier may say of the scans that it was made for: `scope`, an
# object with any of these. Numbers as [lowest, highest], as warnings show them, and
# lists of patterns with * and ?, of which capitals make no difference.
SCOPE_RANGES: dict[str, str] = {
  'slice_distance_mm': 'slices {} mm apart',
  'slice_thickness_mm': 'slices of {} mm',
  'kvp': '{} kV',
}
SCOPE_PATTERNS: dict[str, str] = {'kernels': 'kernel', 'manufacturers': 'manufacturer'}


@dataclasses.dataclass(frozen=True)
class Scope:
  """The scans that a classifier was made for; what it does not name is not limited.

  Attributes:
    ranges: field of `volume.Acquisition` to lowest and highest value.
    patterns: field of `volume.Acquisition` to patterns, one of which fits.
  """

  ranges: dict[str, tuple[float, float]]
  patterns: dict[str, tuple[str, ...]]

  @classmethod
  def of_card(cls, found: Any) -> 'Scope':
    """Checks the `scope` of a card; None, and other keys, limit nothing.

    Raises:
      ValueError: it is no scope; says what was found.
    """
    if found is None:
      return cls({}, {})
    if not isinstance(found, dict):
      raise ValueError(f'scope must be an object, found {found!r}')
    ranges, patterns = {}, {}
    for key in SCOPE_RANGES.keys() & found.keys():
      ranges[key] = _range(key, found[key])
    for key in SCOPE_PATTERNS.keys() & found.keys():
      patterns[SCOPE_PATTERNS[key]] = _patterns(key, found[key])
    return cls(ranges, patterns)


def _range(key: str, found: Any) -> tuple[float, float]:
  if (
    not isinstance(found, list)
    or len(found) != 2
    or any(isinstance(end, bool) or not isinstance(end, (int, float)) for end in found)
    or not 0 <= found[0] <= found[1] < math.inf
  ):
    raise ValueError(f'scope must say {key} as [lowest, highest], found {found!r}')
  return float(found[0]), float(found[1])


def _patterns(key: str, found: Any) -> tuple[str, ...]:
  if (
    not isinstance(found, list)
    or not found
    or any(not isinstance(pattern, str) for pattern in found)
  ):
    raise ValueError(f'scope must say {key} as a list of texts, found {found!r}')
  return tuple(found)
