"""What a model said, held against the contract before anyone believes it."""

import numpy as np

from covid_tf import contract
from covid_tf import errors

# Each of these is a probability, a map or a mask: in [0, 1] by contract. A map is
# divided by its maximum, so the last bit of float32 may stick out.
_UNIT_RANGE = frozenset(
    ('lung_mask', 'lung_probability', 'covid_probability', 'cam_28', 'cam_14'))
_ROUNDING = 1e-6

# Signatures whose answers the signature `self_check` holds.
REFERENCED = {
    contract.LUNGS_MODEL: (contract.SERVING_DEFAULT, contract.PROBABILITY),
    contract.CLASSIFIER_MODEL: (contract.SERVING_DEFAULT, contract.GRAD_CAM),
}


def check(source: str, model: str, signature: str, outputs: dict[str, np.ndarray],
          shape: tuple[int, int, int], first_slice: int) -> dict[str, np.ndarray]:
  """Refuses answers that no sound model gives.

  Args:
    source: the server's address or the model's folder, for the message.
    model: 'lungs' or 'classifier'.
    signature: the signature that was asked.
    outputs: its answer.
    shape: [N, H, W] of the slices that were asked about.
    first_slice: index in the study of the first of them, for the message.

  Returns:
    The outputs of the contract, every value finite and in its range.

  Raises:
    errors.ModelError: an output is missing, has another dtype or shape, is not
      finite or lies outside its range; names the output and the slice.
  """
  checked = {}
  for spec in contract.SIGNATURES[model][signature].outputs:
    where = f'{source}: {model}, signature {signature}, output {spec.name}'
    if spec.name not in outputs:
      raise errors.ModelError(
          f'{where}: required by the contract, found only '
          f'{sorted(outputs)}; serve a model exported by covid-tf.')
    array = outputs[spec.name]
    expected = _expected_shape(spec, shape)
    if array.dtype != np.dtype(spec.dtype) or array.shape != expected:
      raise errors.ModelError(
          f'{where}: required {spec.dtype} {list(expected)}, found {array.dtype} '
          f'{list(array.shape)}; serve a model exported by covid-tf.')
    checked[spec.name] = _check_values(where, spec.name, array, first_slice)
  return checked


def check_reference(source: str, model: str,
                    outputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
  """Refuses reference slices and answers that do not belong together.

  Args:
    source: the server's address or the model's folder, for the message.
    model: 'lungs' or 'classifier'.
    outputs: what the signature `self_check` gave.

  Returns:
    The outputs of `contract.SELF_CHECKS`.

  Raises:
    errors.ModelError: one is missing, has another dtype or shape, or is none that a
      sound model gives.
  """
  hu = outputs.get('hu', np.zeros(0))
  if hu.dtype != np.int16 or hu.ndim != 3 or not hu.size:
    raise errors.ModelError(
        f'{source}: {model}, signature {contract.SELF_CHECK}, output hu: required '
        f'int16 slices, found {hu.dtype} {list(hu.shape)}; export the model again.')
  checked = {'hu': hu}
  for signature, named in contract.SIGNATURES[model].items():
    if signature in REFERENCED[model]:
      checked |= check(
          source, model, signature,
          {spec.name: outputs[spec.name] for spec in named.outputs
           if spec.name in outputs}, hu.shape, 0)
  return checked


def _expected_shape(spec, shape):
  # A free axis of an output follows the same axis of the input.
  return tuple(
      asked if size is None else size for size, asked in zip(
          spec.shape, (*shape, None), strict=False))


def _check_values(where, name, array, first_slice):
  if not array.size:
    return array
  unit = name in _UNIT_RANGE
  low, high = array.min(), array.max()  # A NaN anywhere makes both NaN.
  if np.isfinite(low) and np.isfinite(high) and not (
      unit and (low < 0 or high > 1 + _ROUNDING)):
    return np.minimum(array, array.dtype.type(1)) if unit and high > 1 else array
  good = np.isfinite(array)
  if unit:
    good &= (array >= 0) & (array <= 1 + _ROUNDING)
  index = int(np.argwhere(~good)[0][0])
  value = array[index][~good[index]].flat[0]
  required = 'a number in [0, 1]' if unit else 'a finite number'
  raise errors.ModelError(
      f'{where}, slice {first_slice + index}: required {required}, found {value}; '
      'the model is damaged: export it again, or roll back to its last good version.')
