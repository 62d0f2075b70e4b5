"""Which model answers, and what it answered: checked before anyone believes it."""

from collections.abc import Iterable, Sequence
import hashlib
import json

import numpy as np

from covid_tf import contract
from covid_tf import errors
from covid_tf import results
from covid_tf.predictors import tensors

# Which model is this, and does it keep the contract?


def read_card(
  source: str, model: str, version: int, card: np.ndarray
) -> results.ModelIdentity:
  """Makes the identity of a model from its card.

  Args:
    source: the server's address or the models' folder, for the message.
    model: 'lungs' or 'classifier'.
    version: the version that gave the card.
    card: object [1] of bytes, the output of the signature 'card'.

  Returns:
    Name, version and digest, with the decoded card.

  Raises:
    errors.ModelError: the card is no JSON object.
  """
  where = f'{source}: {model} version {version}: card'
  if card.dtype != object or card.size != 1:
    raise errors.ModelError(
      f'{where}: required one string, found {card.dtype} {list(card.shape)}; serve '
      'a model exported by covid-tf.'
    )
  text = bytes(card.flat[0])
  try:
    decoded = json.loads(text, parse_constant=_refuse_constant)
  except (ValueError, RecursionError) as error:
    raise errors.ModelError(
      f'{where}: required JSON, found {len(text)} bytes that are none; serve a '
      'model exported by covid-tf.'
    ) from error
  if not isinstance(decoded, dict):
    raise errors.ModelError(
      f'{where}: required a JSON object, found {type(decoded).__name__}; serve a '
      'model exported by covid-tf.'
    )
  return results.ModelIdentity(
    model, version, hashlib.sha256(text).hexdigest(), decoded
  )


def _refuse_constant(name: str):
  raise ValueError(f'{name} is no JSON')  # NaN and the infinities, to Python they are.


def check_signatures(source: str, model: str, served) -> None:
  """Holds a model's signatures against the contract.

  Args:
    source: the server's address or the models' folder, for the message.
    model: 'lungs' or 'classifier'.
    served: mapping of signature name to SignatureDef (of whichever pool).

  Raises:
    errors.ModelError: a signature is missing, or a tensor of one is missing, has
      another dtype, rank or fixed size, or is asked for beyond the contract;
      says which, and what to export.
  """
  wanted = contract.SIGNATURES[model]
  missing = sorted(set(wanted) - set(served))
  if missing:
    raise errors.ModelError(
      f'{source}: {model}: required the signatures {sorted(wanted)}, found '
      f'{sorted(served)}; export the model with covid-tf to add {missing}.'
    )
  for name, signature in wanted.items():
    where = f'{source}: {model}, signature {name}'
    extra = sorted(set(served[name].inputs) - {spec.name for spec in signature.inputs})
    if extra:
      raise errors.ModelError(
        f'{where}: required no other inputs than the contract has, found {extra}; '
        'export the model with covid-tf.'
      )
    for kind, specs in (('inputs', signature.inputs), ('outputs', signature.outputs)):
      for spec in specs:
        _check_tensor(
          f'{where}, {kind[:-1]} {spec.name}',
          spec,
          getattr(served[name], kind),
          free=kind == 'inputs',
        )


def has_self_check(model: str, served) -> bool:
  """Whether a model can be asked for its reference answers.

  Args:
    model: 'lungs' or 'classifier'.
    served: mapping of signature name to SignatureDef (of whichever pool).

  Returns:
    False without the signature `self_check`, and where it is not that of the
    contract: another exporter may mean something else by that name.
  """
  if contract.SELF_CHECK not in served:
    return False
  signature = served[contract.SELF_CHECK]
  wanted = {
    spec.name: tensors.DTYPE_NUMBERS[np.dtype(spec.dtype)]
    for spec in contract.SELF_CHECKS[model].outputs
  }
  return (
    not signature.inputs
    and wanted.items()
    <= {name: info.dtype for name, info in signature.outputs.items()}.items()
  )


def _check_tensor(where, spec, served, free) -> None:
  required = f'{spec.dtype} {_shape_text(spec.shape)}'
  if spec.name not in served:
    raise errors.ModelError(
      f'{where}: required {required}, found only {sorted(served)}; export the '
      'model with covid-tf.'
    )
  info = served[spec.name]
  shape = (
    None
    if info.tensor_shape.unknown_rank
    else tuple(None if dim.size < 0 else dim.size for dim in info.tensor_shape.dim)
  )
  number = tensors.DTYPE_NUMBERS[np.dtype(spec.dtype)]
  if info.dtype == number and _fits(spec.shape, shape, free):
    return
  found = next(
    (str(kind) for kind, other in tensors.DTYPE_NUMBERS.items() if other == info.dtype),
    f'dtype {info.dtype}',
  )
  raise errors.ModelError(
    f'{where}: required {required}, found {found} {_shape_text(shape)}; export the '
    'model with covid-tf.'
  )


def _fits(wanted, found, free) -> bool:
  if found is None:  # No rank stated: the graph and our checks of answers decide.
    return True
  if len(wanted) != len(found):
    return False
  # An input that is free by contract must be free; an output may state less.
  return all(
    size is None or size == want or (want is None and not free)
    for want, size in zip(wanted, found, strict=True)
  )


def _shape_text(shape) -> str:
  if shape is None:
    return '[unknown rank]'
  return '[' + ', '.join('any' if size is None else str(size) for size in shape) + ']'


# A model's answer is compared with the contract before a number is made of it.
#
# A model behind an address may be any model, and a caller's own Models any code: a
# wrong shape is refused rather than broadcast, and a NaN stops at the slice it came
# from instead of in a report.

# Each of these is a probability, a map or a mask: in [0, 1] by contract. A map is
# divided by its maximum, so the last bits of float32 may stick out; anything more is
# another range.
_UNIT_RANGE = frozenset(
  ('lung_mask', 'lung_probability', 'covid_probability', 'cam_28', 'cam_14')
)
_ROUNDING = 1e-6
_REMEDY = 'use a model exported by covid-tf'

# Signatures whose answers the signature `self_check` holds.
REFERENCED = {
  contract.LUNGS_MODEL: (contract.SERVING_DEFAULT, contract.PROBABILITY),
  contract.CLASSIFIER_MODEL: (contract.SERVING_DEFAULT, contract.GRAD_CAM),
}


def check_outputs(
  source: str,
  model: str,
  signature: str,
  outputs: dict[str, np.ndarray],
  shape: tuple[int, int, int],
  first_slice: int,
) -> dict[str, np.ndarray]:
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
  slices = range(first_slice, first_slice + shape[0])
  checked = {}
  for spec in contract.SIGNATURES[model][signature].outputs:
    where = f'{source}: {model}, signature {signature}, output {spec.name}'
    if spec.name not in outputs:
      raise errors.ModelError(
        f'{where}: required by the contract, found only {sorted(outputs)}; {_REMEDY}.'
      )
    array = outputs[spec.name]
    expected = _expected_shape(spec, shape)
    if array.dtype != np.dtype(spec.dtype) or array.shape != expected:
      raise _kind_error(where, spec.dtype, expected, array)
    checked[spec.name] = _check_values(where, spec.name, array, slices)
  return checked


def check_reference(
  source: str, model: str, outputs: dict[str, np.ndarray]
) -> dict[str, np.ndarray]:
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
      f'int16 slices, found {hu.dtype} {list(hu.shape)}; export the model again.'
    )
  checked = {'hu': hu}
  for signature, named in contract.SIGNATURES[model].items():
    if signature in REFERENCED[model]:
      checked |= check_outputs(
        source,
        model,
        signature,
        {
          spec.name: outputs[spec.name]
          for spec in named.outputs
          if spec.name in outputs
        },
        hu.shape,
        0,
      )
  return checked


def checked_lung_mask(
  answer: np.ndarray, shape: tuple[int, int], slices: Sequence[int]
) -> np.ndarray:
  """The lungs model's answer, if it is a mask, whoever gave it.

  Args:
    answer: what `segment_lungs` of any Models returned.
    shape: (rows, columns) of the slices that it was given.
    slices: index of each of them in the study, for the message.

  Returns:
    bool or integer [slice, row, column], 0 or 1.

  Raises:
    errors.ModelError: it is no such mask.
  """
  (mask,) = _checked_parts(
    contract.LUNGS_MODEL,
    contract.SERVING_DEFAULT,
    (answer,),
    (len(slices), *shape),
    slices,
  )
  return mask


def checked_lung_probability(answer: np.ndarray, slices: Sequence[int]) -> np.ndarray:
  """The lungs model's answer, if it is probabilities, whoever gave it.

  Args:
    answer: what `lung_probability` of any Models returned.
    slices: index in the study of each slice that it was given, for the message.

  Returns:
    float32 [slice, row, column], in [0, 1], on the grid that the model chose.

  Raises:
    errors.ModelError: it is not.
  """
  where = f'{_MODEL_WORDS[contract.LUNGS_MODEL]}, output lung_probability'
  array = np.asarray(answer)
  if array.dtype.kind != 'f' or array.ndim != 3 or len(array) != len(slices):
    raise errors.ModelError(
      f'{_slices_words(where, slices)}: required floats [{len(slices)}, rows, '
      f'columns], found {array.dtype} {list(array.shape)}; {_REMEDY}.'
    )
  return _check_values(where, 'lung_probability', array, slices).astype(np.float32)


def checked_explanation(
  answer: Iterable[np.ndarray], slices: Sequence[int]
) -> results.SliceExplanation:
  """The classifier's answer, if it is probabilities and maps, whoever gave it.

  Args:
    answer: what `grad_cam` of any Models returned: probabilities, fine maps, coarse
      maps.
    slices: index in the study of each slice that it was given, for the message.

  Returns:
    The same in float32, in [0, 1].

  Raises:
    errors.ModelError: it is not.
  """
  return results.SliceExplanation(
    *(
      part.astype(np.float32)
      for part in _checked_parts(
        contract.CLASSIFIER_MODEL,
        contract.GRAD_CAM,
        answer,
        (len(slices),),
        slices,
      )
    )
  )


def checked_features(
  answer: Iterable[np.ndarray], slices: Sequence[int] | np.ndarray
) -> results.SliceFeatures:
  """The classifier's answer, if it is features and gradients, whoever gave it.

  Args:
    answer: what `features` of any Models returned.
    slices: index in the study of each slice that it was given.

  Returns:
    The same in float32, finite.

  Raises:
    errors.ModelError: it is not.
  """
  return results.SliceFeatures(
    *(
      part.astype(np.float32)
      for part in _checked_parts(
        contract.CLASSIFIER_MODEL, contract.FEATURES, answer, (len(slices),), slices
      )
    )
  )


_MODEL_WORDS = {
  contract.LUNGS_MODEL: 'the lungs model',
  contract.CLASSIFIER_MODEL: 'the classifier',
}
# A caller's own code may compute in another width: kinds as NumPy's dtype.kind.
_KINDS = {'u': ('integers', 'biu'), 'f': ('floats', 'f')}


def _checked_parts(model, signature, answer, shape, slices) -> list[np.ndarray]:
  """The arrays of an answer, in the order of the signature's outputs."""
  specs = contract.SIGNATURES[model][signature].outputs
  parts = tuple(answer) if isinstance(answer, Iterable) else (answer,)
  if len(parts) != len(specs):
    raise errors.ModelError(
      f'{_MODEL_WORDS[model]}: required {", ".join(spec.name for spec in specs)}, '
      f'found {len(parts)} arrays; {_REMEDY}.'
    )
  checked = []
  for spec, part in zip(specs, parts, strict=True):
    where = f'{_MODEL_WORDS[model]}, output {spec.name}'
    array, expected = np.asarray(part), _expected_shape(spec, shape)
    words, kinds = _KINDS[np.dtype(spec.dtype).kind]
    if array.dtype.kind not in kinds or array.shape != expected:
      raise _kind_error(_slices_words(where, slices), words, expected, array)
    checked.append(_check_values(where, spec.name, array, slices))
  return checked


def _slices_words(where, slices) -> str:
  return f'{where}, slices {slices[0]} to {slices[-1]}' if len(slices) else where


def _expected_shape(spec, shape) -> tuple[int, ...]:
  # A free axis of an output follows the same axis of the input.
  return tuple(
    shape[axis] if size is None else size for axis, size in enumerate(spec.shape)
  )


def _kind_error(where, dtype, shape, array) -> errors.ModelError:
  return errors.ModelError(
    f'{where}: required {dtype} {list(shape)}, found {array.dtype} '
    f'{list(array.shape)}; {_REMEDY}.'
  )


def _check_values(where, name, array, slices) -> np.ndarray:
  if not array.size:
    return array
  unit = name in _UNIT_RANGE
  low, high = array.min(), array.max()  # A NaN anywhere makes both NaN.
  if (
    np.isfinite(low)
    and np.isfinite(high)
    and not (unit and (low < -_ROUNDING or high > 1 + _ROUNDING))
  ):
    return np.clip(array, 0, 1) if unit and (low < 0 or high > 1) else array
  good = np.isfinite(array)
  if unit:
    good &= (array >= -_ROUNDING) & (array <= 1 + _ROUNDING)
  index = int(np.argwhere(~good)[0][0])
  value = array[index][~good[index]].flat[0]
  required = (
    'a finite number'
    if not unit
    else ('a number in [0, 1]' if array.dtype.kind == 'f' else '0 or 1')
  )
  raise errors.ModelError(
    f'{where}, slice {slices[index]}: required {required}, found {value!s}; the '
    'model is damaged: export it again, or roll back to its last good version.'
  )
