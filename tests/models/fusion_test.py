"""TensorFlow's optimizer fuses what is safe of a served network, and no more."""

import collections

import keras
import numpy as np
import small_networks
import tensorflow as tf

from covid_tf import contract
from covid_tf.models import export
from covid_tf.models import rewrites
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
      options=v1.RunOptions(output_partition_graphs=True),
      run_metadata=metadata,
    )
  return collections.Counter(
    node.op for graph in metadata.partition_graphs for node in graph.node
  )


def test_convolutions_take_biases_and_nonlinearities_but_no_additions(tmp_path):
  model = export.for_serving(small_networks.classifier())
  archive = keras.export.ExportArchive()
  for name, function in signatures.classify(model, '').items():
    archive.add_endpoint(
      name, function, signatures.input_signature(contract.CLASSIFIER_MODEL, name)
    )
  archive.write_out(str(tmp_path), verbose=False)
  for name in (contract.SERVING_DEFAULT, contract.GRAD_CAM, contract.FEATURES):
    ops = _optimized_ops(tmp_path, name)
    assert ops['BiasAdd'] == ops['FusedBatchNormV3'] == 0
    # The one addition of the network, and no second one beside it.
    assert ops['AddV2'] + ops['Add'] == 1, name


def _additions():
  """A model with additions of every kind that Keras has."""
  convolve = lambda x: layers.Conv2D(4, 3, padding='same')(x)
  inputs = layers.Input((8, 8, 4))
  x = layers.ReLU()(convolve(inputs))
  x = layers.ReLU()(convolve(x) + x)
  x = keras.ops.add(convolve(x), x) - x
  x = layers.Add()([keras.Sequential([layers.Conv2D(4, 1)])(x), x, inputs])
  x = layers.Average()([layers.Subtract()([x, convolve(x)]), convolve(x)])
  inner = layers.Input((8, 8, 4))
  nested = keras.Model(inner, layers.Add()([inner, convolve(inner)]))
  return keras.Model(inputs, layers.Dropout(0.5)(nested(x)) + 1.0)


def test_no_summand_is_what_a_convolution_gave():
  model = _additions()
  rebuilt = rewrites.apart_from_convolutions(model)
  _, calls = rewrites.flatten(rebuilt)
  maker = {id(tensor): call.layer for call in calls for tensor in call.outputs}
  found = [
    [type(maker[id(tensor)]) for tensor in call.inputs]
    for call in calls
    if type(call.layer).__name__ in ('Add', 'Subtract', 'Average')
  ]
  assert len(found) == 8
  assert set().union(*found) == {rewrites.Apart, layers.ReLU}
  images = small_networks.images(model)
  np.testing.assert_array_equal(model(images), rebuilt(images))


def test_names_and_gradients_stay():
  model = small_networks.residual()
  rebuilt = rewrites.apart_from_convolutions(model)
  assert {layer.name for layer in model.layers[1:]} <= {
    layer.name for layer in rebuilt.layers
  }
  images = tf.constant(small_networks.images(model))
  one, other = (_image_gradient(network, images) for network in (model, rebuilt))
  np.testing.assert_allclose(one, other, atol=1e-6)


@tf.function(autograph=False)
def _image_gradient(network, images):
  return tf.gradients(network(images), images)[0]
