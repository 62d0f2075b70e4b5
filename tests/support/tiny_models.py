"""Two SavedModels of the contract that are made in a second and answer in one ms.

Thresholds and averages instead of networks: `tiny_answers` has their answers in
NumPy. As a script they fill a folder, for a server that is to be questioned:

  python tests/support/tiny_models.py DIRECTORY
"""

import json
import pathlib
import sys

import numpy as np
import tensorflow as tf
import tiny_answers

from covid_tf import contract
from covid_tf.predictors import protocol
from covid_tf.predictors import tensors


class _Model(tf.Module):
  def __init__(self, bias: float):
    super().__init__()
    # A variable, so that an export has a variables folder that can be missing.
    self.bias = tf.Variable(tf.constant(bias, tf.float32))


def export(
  directory,
  name: str,
  version: int = 1,
  *,
  bias: float = 0.0,
  card: dict | None = None,
  signature_names: tuple[str, ...] | None = None,
  signatures: dict | None = None,
  self_check: dict | None = None,
  with_references: bool = False,
) -> pathlib.Path:
  """Writes DIRECTORY/NAME/VERSION.

  Args:
    directory: where the models live.
    name: 'lungs' or 'classifier'.
    version: its number.
    bias: added to the logit; distinguishes versions.
    card: the model's card; by default one that holds name and bias.
    signature_names: leave out all others.
    signatures: name to a function that takes the place of the right one.
    self_check: outputs of the signature of that name; None: it has none.
    with_references: it has one, with its own right answers.

  Returns:
    The folder of the version.
  """
  model = _Model(bias)
  card = {'name': name, 'bias': bias} if card is None else card
  functions = {contract.LUNGS_MODEL: _lungs, contract.CLASSIFIER_MODEL: _classifier}[
    name
  ](model)
  functions[contract.CARD] = lambda: {'card': tf.constant([json.dumps(card)])}
  functions.update(signatures or {})
  if with_references:
    hu = tf.constant(tiny_answers.reference(name)['hu'])
    self_check = (
      {'hu': hu}
      | functions[contract.SERVING_DEFAULT](hu)
      | functions[
        contract.PROBABILITY if name == contract.LUNGS_MODEL else contract.GRAD_CAM
      ](hu)
    )
  if self_check is not None:
    functions[contract.SELF_CHECK] = lambda: {
      key: tf.constant(np.asarray(value)) for key, value in self_check.items()
    }
  concrete = {}
  for key, function in functions.items():
    if signature_names is not None and key not in signature_names:
      continue
    inputs = () if key == contract.SELF_CHECK else contract.SIGNATURES[name][key].inputs
    specs = [tf.TensorSpec(spec.shape, spec.dtype, spec.name) for spec in inputs]
    concrete[key] = tf.function(function, input_signature=specs).get_concrete_function()
  folder = pathlib.Path(directory) / name / str(version)
  tf.saved_model.save(model, str(folder), signatures=concrete)
  return folder


def export_both(directory, version: int = 1, bias: float = 0.0) -> pathlib.Path:
  """Writes both models of one version; returns `directory`."""
  for name in contract.SIGNATURES:
    export(directory, name, version, bias=bias, with_references=True)
  return pathlib.Path(directory)


def write_warm_up(folder: pathlib.Path, name: str, count: int = 1) -> None:
  """Adds `count` warm-up requests to a version, each of one slice."""
  extra = folder / contract.EXTRA_FOLDER
  extra.mkdir(exist_ok=True)
  log = protocol.PredictionLog()
  log.predict_log.request.model_spec.name = name
  tensors.fill(log.predict_log.request.inputs['hu'], np.zeros((1, 8, 8), np.int16))
  with tf.io.TFRecordWriter(str(extra / contract.WARM_UP_FILE)) as writer:
    for _ in range(count):
      writer.write(log.SerializeToString())


def _checked(hu):
  shape = tf.raw_ops.Shape(input=hu)
  has_axes = tf.raw_ops.Assert(
    condition=tf.raw_ops.Equal(x=tf.raw_ops.Rank(input=hu), y=3),
    data=['hu must be [slices, rows, columns]; found shape', shape],
  )
  with tf.control_dependencies([has_axes]):
    return tf.cast(hu, tf.float32)


def _lungs(model):
  def mask(hu):
    hu = _checked(hu) + 0.0 * model.bias
    low, high = tiny_answers.LUNG_HU
    return tf.cast((hu > low) & (hu < high), tf.uint8)

  def probability(hu):
    return {
      'lung_probability': _resize(
        tf.cast(mask(hu), tf.float32), contract.LUNG_NETWORK_SIZE
      )
    }

  return {
    contract.SERVING_DEFAULT: lambda hu: {'lung_mask': mask(hu)},
    contract.PROBABILITY: probability,
  }


def _classifier(model):
  def probability(hu):
    mean_hu = tf.reduce_mean(_checked(hu), (1, 2))
    return tf.sigmoid(mean_hu * tiny_answers.WEIGHT + model.bias)

  def cam(hu, size):
    maps = _resize(tf.nn.sigmoid((_checked(hu) + 500.0) / 200.0), size)
    return maps / tf.maximum(tf.reduce_max(maps, (1, 2), keepdims=True), 1e-6)

  def features(hu):
    values = tf.reshape(_resize(_checked(hu) / 1000.0, 64), (-1, 4096))
    return values[:, : contract.FEATURE_COUNT]

  return {
    contract.SERVING_DEFAULT: lambda hu: {'covid_probability': probability(hu)},
    contract.GRAD_CAM: lambda hu: {
      'covid_probability': probability(hu),
      'cam_28': cam(hu, contract.FINE_CAM_SIZE),
      'cam_14': cam(hu, contract.COARSE_CAM_SIZE),
    },
    contract.FEATURES: lambda hu: {
      'covid_probability': probability(hu),
      'features': features(hu),
      'gradients': features(hu) * 2.0,
    },
  }


def _resize(images, size):
  # A row of gathers: unlike tf.image.resize it takes an empty batch too.
  shape = tf.shape(images)
  rows = tf.cast(tf.linspace(0.0, tf.cast(shape[1] - 1, tf.float32), size), tf.int32)
  columns = tf.cast(tf.linspace(0.0, tf.cast(shape[2] - 1, tf.float32), size), tf.int32)
  picked = tf.gather(tf.gather(images, rows, axis=1), columns, axis=2)
  return tf.ensure_shape(picked, (None, size, size))


if __name__ == '__main__':
  print(export_both(sys.argv[1]))
