"""The signature `self_check`: reference slices and a network's answers to them.

The answers come from the very functions that are exported, in float32, also where the
export itself computes in another type: a server's own answers then say which it uses.
"""

from collections.abc import Callable, Iterator, Mapping
import contextlib

import numpy as np
import tensorflow as tf

from covid_tf import contract
from covid_tf.models import signatures
from covid_tf.predictors import reference_slices

_CROPS = 4  # Of the classifier; enough to be seen when one batch of many is wrong.
_ASKED = {
    contract.LUNGS_MODEL: (contract.SERVING_DEFAULT, contract.PROBABILITY),
    contract.CLASSIFIER_MODEL: (contract.GRAD_CAM,),
}


def self_check(name: str, functions: Mapping[str, Callable]) -> Callable:
  """Makes the signature of a network.

  Args:
    name: a model name of the contract.
    functions: its signatures, computing in float32.

  Returns:
    A function without arguments that gives the tensors of `contract.SELF_CHECKS`.
  """
  traced = [tf.function(functions[key], input_signature=signatures.input_signature(
      name, key)) for key in _ASKED[name]]

  def answers(hu: np.ndarray) -> dict[str, np.ndarray]:
    return {key: value.numpy() for function in traced
            for key, value in function(tf.constant(hu)).items()}

  with _float32():
    hu = (reference_slices.whole_slices() if name == contract.LUNGS_MODEL
          else _telling(reference_slices.lung_crops(), answers))
    tensors = {'hu': hu} | answers(hu)
  return lambda: {key: tf.constant(value) for key, value in tensors.items()}


def _telling(crops: np.ndarray, answers: Callable) -> np.ndarray:
  """The crops whose answers say most: maps that are not empty, doubt in the number."""
  found = answers(crops)
  is_empty = np.min([found[key].max((1, 2)) for key in ('cam_28', 'cam_14')], 0) == 0
  certainty = np.abs(found['covid_probability'] - 0.5)
  return crops[np.sort(np.lexsort((certainty, is_empty))[:_CROPS])]


@contextlib.contextmanager
def _float32() -> Iterator[None]:
  """Keeps GPUs from computing float32 in TF32, which is their default."""
  before = tf.config.experimental.tensor_float_32_execution_enabled()
  tf.config.experimental.enable_tensor_float_32_execution(False)
  try:
    yield
  finally:
    tf.config.experimental.enable_tensor_float_32_execution(before)
