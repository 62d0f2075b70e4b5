"""What is served of the two networks: the signatures of `covid_tf.contract`.

Every signature takes raw Hounsfield units. What the server does not check is
checked here, in the graph: the number of axes, and that a slice has pixels.
"""

from collections.abc import Callable, Mapping
import functools
import types

import keras
import tensorflow as tf

from covid_tf import contract
from covid_tf.models import classifier
from covid_tf.models import empty_batch
from covid_tf.models import grad_cam
from covid_tf.models import layer_gradients
from covid_tf.models import logits
from covid_tf.models import preprocessing

LUNG_PROBABILITY_THRESHOLD = 0.5  # Ours; compared strictly (`>`).


def lungs(model: keras.Model, card: str) -> dict[str, Callable]:
  """Makes the signatures of the lung segmenter.

  Args:
    model: as `lung_unet.build` gives it: [N, 256, 256, 3] to logits [N, 256, 256, 1].
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
    model: as `classifier.build` gives it: [N, 224, 224, 3] to logits [N, 1].
    card: the model's JSON card.

  Returns:
    Signature name -> function from the tensors of the contract to a dict of them.
  """
  explain = grad_cam.grad_cam(
      model, (classifier.FINE_LAYER, classifier.COARSE_LAYER))
  pooled = layer_gradients.layer_gradients(
      logits.find_head(model), (classifier.POOLED_FEATURES_LAYER,))

  def prediction(hu):
    logit = model(preprocessing.classifier_input(hu), training=False)[:, 0]
    return {'covid_probability': tf.sigmoid(tf.cast(logit, tf.float32))}

  def explanation(hu):
    logit, (fine, coarse) = explain(preprocessing.classifier_input(hu))
    return {'covid_probability': tf.sigmoid(logit), 'cam_28': fine,
            'cam_14': coarse}

  def features(hu):
    logit, (values,), (gradients,) = pooled(preprocessing.classifier_input(hu))
    return {'covid_probability': tf.sigmoid(logit),
            'features': tf.cast(values, tf.float32), 'gradients': gradients}

  return {
      contract.SERVING_DEFAULT: _of_slices(prediction),
      contract.GRAD_CAM: _of_slices(explanation),
      contract.FEATURES: _of_slices(features),
      contract.CARD: _constant(card),
  }


# Model name of the contract -> (model, card) -> its signatures.
SIGNATURES: Mapping[str, Callable] = types.MappingProxyType({
    contract.LUNGS_MODEL: lungs,
    contract.CLASSIFIER_MODEL: classify,
})


def input_signature(model_name: str, signature_name: str) -> list[tf.TensorSpec]:
  """The contract's inputs of a signature, as TensorFlow declares them."""
  signature = (
      contract.SELF_CHECKS[model_name] if signature_name == contract.SELF_CHECK
      else contract.SIGNATURES[model_name][signature_name])
  inputs = signature.inputs
  return [tf.TensorSpec(spec.shape, spec.dtype, spec.name) for spec in inputs]


def _of_slices(function: Callable) -> Callable:
  """Checks `hu` before `function` sees it, and lets an empty batch through."""
  function = empty_batch.accept_empty(function)

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
      data=['hu must be [slices, rows, columns], in Hounsfield units; found shape',
            shape])
  with tf.control_dependencies([has_axes]):
    size = tf.identity(shape)[1:]
    has_pixels = tf.raw_ops.Assert(
        condition=tf.reduce_all(size > 0),
        data=['hu must have at least one row and one column; found shape', shape])
  with tf.control_dependencies([has_axes, has_pixels]):
    return tf.identity(hu)


def _constant(card: str) -> Callable:
  return lambda: {'card': tf.constant([card])}
