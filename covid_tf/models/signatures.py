"""What is served of the two networks: the signatures of `covid_tf.contract`.

Every signature takes raw Hounsfield units. What the server does not check is
checked here, in the graph: the number of axes, and that a slice has pixels.
"""

from collections.abc import Callable, Iterator, Mapping
import contextlib
import functools
import hashlib
import json
import os
import pathlib
import types

import keras
import numpy as np
import tensorflow as tf

from covid_tf import contract
from covid_tf import errors
from covid_tf import lung_measures
from covid_tf import results
from covid_tf.models import grad_cam
from covid_tf.models import gradients as gradients_lib
from covid_tf.models import networks
from covid_tf.models import preprocessing
from covid_tf.models import rewrites
from covid_tf.predictors import answers as answers_lib
from covid_tf.predictors import differences as differences_lib
from covid_tf.predictors import reference_slices
from covid_tf.version import __version__

LUNG_PROBABILITY_THRESHOLD = 0.5  # Ours; compared strictly (`>`).


def lungs(model: keras.Model, card: str) -> dict[str, Callable]:
  """Makes the signatures of the lung segmenter.

  Args:
    model: of `networks.build_lung_unet`: [N, 256, 256, 3] to logits [N, 256, 256, 1].
    card: the model's JSON card.

  Returns:
    Signature name -> function from the tensors of the contract to a dict of them.
  """

  def probability(hu):
    logit = model(preprocessing.lung_input(hu), training=False)
    return tf.sigmoid(tf.cast(logit, tf.float32))

  def mask(hu):
    # tf.image's bilinear: aligned pixel centres, like preprocessing.resize, and
    # three times as fast where it has nothing to antialias.
    full = tf.image.resize(probability(hu), tf.shape(hu)[1:])
    lung_mask = tf.cast(full[..., 0] > LUNG_PROBABILITY_THRESHOLD, tf.uint8)
    return {'lung_mask': lung_mask}

  def lung_probability(hu):
    return {'lung_probability': probability(hu)[..., 0]}

  return {
    contract.SERVING_DEFAULT: _of_slices(mask),
    contract.PROBABILITY: _of_slices(lung_probability),
    contract.CARD: _constant(card),
  }


def classify(model: keras.Model, card: str) -> dict[str, Callable]:
  """Makes the signatures of the slice classifier.

  Args:
    model: as `networks.build_classifier` gives it: [N, 224, 224, 3] to logits [N, 1].
    card: the model's JSON card.

  Returns:
    Signature name -> function from the tensors of the contract to a dict of them.
  """
  explain = grad_cam.grad_cam(model, (networks.FINE_LAYER, networks.COARSE_LAYER))
  pooled = gradients_lib.layer_gradients(
    gradients_lib.find_head(model), (networks.POOLED_FEATURES_LAYER,)
  )

  def prediction(hu):
    logit = model(preprocessing.classifier_input(hu), training=False)[:, 0]
    return {'covid_probability': tf.sigmoid(tf.cast(logit, tf.float32))}

  def explanation(hu):
    logit, (fine, coarse) = explain(preprocessing.classifier_input(hu))
    return {'covid_probability': tf.sigmoid(logit), 'cam_28': fine, 'cam_14': coarse}

  def features(hu):
    logit, (values,), (gradients,) = pooled(preprocessing.classifier_input(hu))
    return {
      'covid_probability': tf.sigmoid(logit),
      'features': tf.cast(values, tf.float32),
      'gradients': gradients,
    }

  return {
    contract.SERVING_DEFAULT: _of_slices(prediction),
    contract.GRAD_CAM: _of_slices(explanation),
    contract.FEATURES: _of_slices(features),
    contract.CARD: _constant(card),
  }


# Model name of the contract -> (model, card) -> its signatures.
SIGNATURES: Mapping[str, Callable] = types.MappingProxyType(
  {
    contract.LUNGS_MODEL: lungs,
    contract.CLASSIFIER_MODEL: classify,
  }
)


def input_signature(model_name: str, signature_name: str) -> list[tf.TensorSpec]:
  """The contract's inputs of a signature, as TensorFlow declares them."""
  signature = (
    contract.SELF_CHECKS[model_name]
    if signature_name == contract.SELF_CHECK
    else contract.SIGNATURES[model_name][signature_name]
  )
  inputs = signature.inputs
  return [tf.TensorSpec(spec.shape, spec.dtype, spec.name) for spec in inputs]


def _of_slices(function: Callable) -> Callable:
  """Checks `hu` before `function` sees it, and lets an empty batch through."""
  function = rewrites.accept_empty(function)

  @functools.wraps(function)
  def checked(hu):
    return function(_checked(hu))

  return checked


def _checked(hu: tf.Tensor) -> tf.Tensor:
  # Raw ops: tf.debugging's checks are decided while tracing, by the declared
  # rank, and so are not in the graph when a server feeds it something else.
  shape = tf.raw_ops.Shape(input=hu)
  has_axes = tf.raw_ops.Assert(
    condition=tf.raw_ops.Equal(x=tf.raw_ops.Rank(input=hu), y=3),
    data=[
      'hu must be [slices, rows, columns], in Hounsfield units; found shape',
      shape,
    ],
  )
  with tf.control_dependencies([has_axes]):
    size = tf.identity(shape)[1:]
    has_pixels = tf.raw_ops.Assert(
      condition=tf.reduce_all(size > 0),
      data=['hu must have at least one row and one column; found shape', shape],
    )
  with tf.control_dependencies([has_axes, has_pixels]):
    return tf.identity(hu)


def _constant(card: str) -> Callable:
  return lambda: {'card': tf.constant([card])}


# The model card: what a network is, wherever it goes.
#
# It travels in the export (`assets.extra/card.json`) for people, and as a constant
# of the graph (signature `card`) for clients, byte by byte the same.

INTENDED_USE = 'research use only'

_PREPROCESSING = {
  contract.LUNGS_MODEL: preprocessing.LUNGS,
  contract.CLASSIFIER_MODEL: preprocessing.CLASSIFIER,
}


def make_card(name: str, model: keras.Model, training: dict) -> dict:
  """Describes a trained network.

  Args:
    name: a model name of the contract.
    model: the network, as trained.
    training: what it was trained on and how it did, in JSON's types.

  Returns:
    The card, in JSON's types.
  """
  inputs = _PREPROCESSING[name]
  return {
    'name': name,
    'intended_use': INTENDED_USE,
    'required_input': contract.REQUIRED_INPUT[name],
    'architecture': model.name,
    'parameters': model.count_params(),
    'weights_sha256': weights_sha256(model),
    'compute_dtype': 'float32',
    'window_hu': list(inputs.window_hu),
    'input_size': inputs.size,
    'low_pass_sigma': inputs.low_pass_sigma,
    'thresholds': _thresholds(name),
    'training': training,
    **_lengths(training),
    **_scope(training),
    **_shift(training),
    **_repeatability(training),
    'package': f'covid_tf {__version__}',
  }


def _lengths(training: dict) -> dict[str, float]:
  """For which thickness and smoothing the weights were made, where training says so."""
  lengths = {}
  for name, check, required in (
    (
      'thickness_mm',
      results.check_thickness,
      f'above 0 and at most {results.MAX_THICKNESS_MM:g} mm',
    ),
    (
      'smoothing_mm',
      results.check_smoothing,
      f'from 0 to {results.MAX_SMOOTHING_MM:g} mm',
    ),
  ):
    found = training.get(name)
    if found is None:
      continue
    try:
      lengths[name] = float(found)
      check(lengths[name])
    except (TypeError, ValueError):
      raise errors.UsageError(
        f"the card's {name} must be {required}, found {found!r}."
      ) from None
  return lengths


def _scope(training: dict) -> dict[str, dict]:
  """Which scans the weights were made for, where their training says so."""
  found = training.get('scope')
  try:
    contract.Scope.of_card(found)
  except ValueError as error:
    raise errors.UsageError(f"the card's {error}.") from None
  return {} if found is None else {'scope': found}


def _repeatability(training: dict) -> dict[str, dict]:
  """How far the score moves without a change, where the training's card says it."""
  found = training.get('repeatability')
  try:
    lung_measures.Repeatability.of_card(found)
  except ValueError as error:
    raise errors.UsageError(f"the card's {error}.") from None
  return {} if found is None else {'repeatability': found}


def _shift(training: dict) -> dict[str, float | str]:
  """What was added to the logit since training, and where it was chosen."""
  names = ('logit_shift', 'logit_shift_source')
  return {name: training[name] for name in names if name in training}


def card_json(card: dict) -> str:
  """The card as text: the same bytes for the same card."""
  return json.dumps(card, indent=2, sort_keys=True, ensure_ascii=False) + '\n'


def read_training_card(path: str | os.PathLike) -> dict[str, dict]:
  """Reads what networks were trained on, as a person wrote it down.

  Args:
    path: JSON: an object, by the contract's names of models.

  Returns:
    An object for each network that the file names.

  Raises:
    errors.UsageError: there is no such file, or it holds something else.
  """
  try:
    found = json.loads(pathlib.Path(path).read_text(encoding='utf-8'))
  except (OSError, ValueError) as error:
    raise errors.UsageError(
      f'{path}: a JSON file is required, found {error}.'
    ) from error
  entries = found.values() if isinstance(found, dict) else [found]
  if not isinstance(found, dict) or not all(isinstance(e, dict) for e in entries):
    raise errors.UsageError(
      f"{path}: an object with objects 'lungs' and 'classifier' in it is required, "
      'found other JSON; say in each what the network was trained on.'
    )
  return found


def weights_sha256(model: keras.Model) -> str:
  """Hex SHA-256 over all weights in the model's order, as little-endian float32.

  Each array is preceded by its shape, so that no two different sets of arrays
  run together to the same bytes.
  """
  digest = hashlib.sha256()
  for array in model.get_weights():
    digest.update(repr(array.shape).encode())
    digest.update(np.ascontiguousarray(array, '<f4').tobytes())
  return digest.hexdigest()


def _thresholds(name: str) -> dict[str, float]:
  if name == contract.LUNGS_MODEL:
    return {'lung_probability': LUNG_PROBABILITY_THRESHOLD}
  return {
    'slice_probability': results.Thresholds.slice_probability,
    'map': results.Thresholds.map,
  }


# The signature `self_check`: reference slices and a network's answers to them.
#
# The answers come from the very functions that are exported, in float32, also where the
# export itself computes in another type: a server's own answers then say which it uses.

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
  traced = [
    tf.function(functions[key], input_signature=input_signature(name, key))
    for key in _ASKED[name]
  ]

  def answers(hu: np.ndarray) -> dict[str, np.ndarray]:
    return {
      key: value.numpy()
      for function in traced
      for key, value in function(tf.constant(hu)).items()
    }

  with _float32():
    hu = (
      reference_slices.whole_slices()
      if name == contract.LUNGS_MODEL
      else _telling(reference_slices.lung_crops(), answers)
    )
    tensors = {'hu': hu} | answers(hu)
  return lambda: {key: tf.constant(value) for key, value in tensors.items()}


def differences(
  name: str, functions: Mapping[str, Callable], reference: Mapping[str, tf.Tensor]
) -> dict[str, list[float]]:
  """Measures what a narrower type changes in the answers to the reference slices.

  Args:
    name: a model name of the contract.
    functions: its signatures, computing in that type.
    reference: the tensors of `self_check`, in float32.

  Returns:
    Output or 'sum of …' to [largest, average] difference, as `differences.Comparison`
    has them, over all signatures.
  """
  reference = {key: value.numpy() for key, value in reference.items()}
  found: dict[str, list[float]] = {}
  for key in answers_lib.REFERENCED[name]:
    outputs = tf.function(functions[key], input_signature=input_signature(name, key))(
      tf.constant(reference['hu'])
    )
    for one in differences_lib.compare(
      reference, key, {key: value.numpy() for key, value in outputs.items()}
    ):
      known = found.get(one.output, (0.0, 0.0))
      found[one.output] = [
        max(pair) for pair in zip(known, (one.difference, one.average), strict=True)
      ]
  return found


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
