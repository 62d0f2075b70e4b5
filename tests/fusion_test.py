"""TensorFlow's optimizer fuses all of a served network that it can."""

import collections

import keras
import numpy as np
import small_networks
import tensorflow as tf

from covid_tf import contract
from covid_tf.models import additions
from covid_tf.models import export
from covid_tf.models import signatures

layers = keras.layers


def _optimized_ops(folder, signature_name):
  """How many ops of each kind a session runs for a signature."""
  v1 = tf.compat.v1
  with tf.Graph().as_default(), v1.Session() as session:
    loaded = v1.saved_model.load(session, [tf.saved_model.SERVING], str(folder))
    signature = loaded.signature_def[signature_name]
    metadata = v1.RunMetadata()
    session.run(
        [info.name for info in signature.outputs.values()],
        {signature.inputs['hu'].name: np.zeros((2, 60, 70), np.int16)},
        options=v1.RunOptions(output_partition_graphs=True), run_metadata=metadata)
  return collections.Counter(
      node.op for graph in metadata.partition_graphs for node in graph.node)


def test_no_addition_is_left_outside_a_convolution(tmp_path):
  model = export.for_serving(small_networks.classifier())
  archive = keras.export.ExportArchive()
  for name, function in signatures.classify(model, '').items():
    archive.add_endpoint(
        name, function, signatures.input_signature(contract.CLASSIFIER_MODEL, name))
  archive.write_out(str(tmp_path), verbose=False)
  for name in (contract.SERVING_DEFAULT, contract.GRAD_CAM):
    ops = _optimized_ops(tmp_path, name)
    assert ops['BiasAdd'] == ops['FusedBatchNormV3'] == 0
    assert ops['AddV2'] + ops['Add'] == 0, name


def test_additions_of_one_shape_are_replaced_and_give_the_same():
  model = small_networks.residual()
  rebuilt = additions.without_broadcasting(model)
  kinds = [type(layer) for layer in rebuilt.layers]
  assert additions.SameShapeAdd in kinds and layers.Add not in kinds
  images = small_networks.images(model)
  np.testing.assert_allclose(model(images), rebuilt(images), atol=1e-6)


def test_additions_that_broadcast_or_may_are_left():
  inputs = layers.Input((None, 4, 2))
  row = layers.Input((1, 4, 2))
  model = keras.Model([inputs, row], [
      layers.Add()([inputs, row]), layers.Add()([inputs, layers.ReLU()(inputs)])])
  rebuilt = additions.without_broadcasting(model)
  assert not any(isinstance(layer, additions.SameShapeAdd) for layer in rebuilt.layers)
  values = [np.ones((2, 3, 4, 2), np.float32), np.ones((2, 1, 4, 2), np.float32)]
  for one, other in zip(model(values), rebuilt(values)):
    np.testing.assert_array_equal(one, other)
