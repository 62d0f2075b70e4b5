"""Which model is this, and does it keep the contract?"""

import hashlib
import json

import numpy as np

from covid_tf import contract
from covid_tf import errors
from covid_tf import results
from covid_tf.predictors import tensors


def read_card(source: str, model: str, version: int,
              card: np.ndarray) -> results.ModelIdentity:
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
        'a model exported by covid-tf.')
  text = bytes(card.flat[0])
  try:
    decoded = json.loads(text, parse_constant=_refuse_constant)
  except (ValueError, RecursionError) as error:
    raise errors.ModelError(
        f'{where}: required JSON, found {len(text)} bytes that are none; serve a '
        'model exported by covid-tf.') from error
  if not isinstance(decoded, dict):
    raise errors.ModelError(
        f'{where}: required a JSON object, found {type(decoded).__name__}; serve a '
        'model exported by covid-tf.')
  return results.ModelIdentity(
      model, version, hashlib.sha256(text).hexdigest(), decoded)


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
        f'{sorted(served)}; export the model with covid-tf to add {missing}.')
  for name, signature in wanted.items():
    where = f'{source}: {model}, signature {name}'
    extra = sorted(set(served[name].inputs) - {spec.name for spec in signature.inputs})
    if extra:
      raise errors.ModelError(
          f'{where}: required no other inputs than the contract has, found {extra}; '
          'export the model with covid-tf.')
    for kind, specs in (('inputs', signature.inputs), ('outputs', signature.outputs)):
      for spec in specs:
        _check_tensor(f'{where}, {kind[:-1]} {spec.name}', spec,
                      getattr(served[name], kind), free=kind == 'inputs')


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
  wanted = {spec.name: tensors.DTYPE_NUMBERS[np.dtype(spec.dtype)]
            for spec in contract.SELF_CHECKS[model].outputs}
  return not signature.inputs and wanted.items() <= {
      name: info.dtype for name, info in signature.outputs.items()}.items()


def _check_tensor(where, spec, served, free) -> None:
  required = f'{spec.dtype} {_shape_text(spec.shape)}'
  if spec.name not in served:
    raise errors.ModelError(
        f'{where}: required {required}, found only {sorted(served)}; export the '
        'model with covid-tf.')
  info = served[spec.name]
  shape = None if info.tensor_shape.unknown_rank else tuple(
      None if dim.size < 0 else dim.size for dim in info.tensor_shape.dim)
  number = tensors.DTYPE_NUMBERS[np.dtype(spec.dtype)]
  if info.dtype == number and _fits(spec.shape, shape, free):
    return
  found = next((str(kind) for kind, other in tensors.DTYPE_NUMBERS.items()
                if other == info.dtype), f'dtype {info.dtype}')
  raise errors.ModelError(
      f'{where}: required {required}, found {found} {_shape_text(shape)}; export the '
      'model with covid-tf.')


def _fits(wanted, found, free) -> bool:
  if found is None:  # No rank stated: the graph and our checks of answers decide.
    return True
  if len(wanted) != len(found):
    return False
  # An input that is free by contract must be free; an output may state less.
  return all(
      size is None or size == want or (want is None and not free)
      for want, size in zip(wanted, found, strict=True))


def _shape_text(shape) -> str:
  if shape is None:
    return '[unknown rank]'
  return '[' + ', '.join('any' if size is None else str(size) for size in shape) + ']'
