"""The same network computing in a narrower type."""

import keras

from covid_tf import errors
from covid_tf.models import layer_graph

_POLICIES = {
    'float32': 'float32',
    'bfloat16': 'mixed_bfloat16',
    'float16': 'mixed_float16',
}


def with_compute_dtype(model: keras.Model, compute_dtype: str) -> keras.Model:
  """Copies a network with another compute type.

  Weights stay float32, and so does the last layer, which gives the logit.

  Args:
    model: functional model; left as it is.
    compute_dtype: 'float32' (gives the model itself), 'bfloat16' or 'float16'.

  Raises:
    errors.UsageError: another type.
  """
  if compute_dtype not in _POLICIES:
    raise errors.UsageError(
        f'compute_dtype must be one of {sorted(_POLICIES)}, found {compute_dtype!r}.')
  if compute_dtype == 'float32':
    return model
  flat, calls = layer_graph.flatten(model)
  last = calls[-1].layer.name

  def make(layer):
    changes = {} if layer.name == last else {'dtype': _POLICIES[compute_dtype]}
    return layer_graph.remake(layer, **changes)

  return layer_graph.copy(flat, make)
