"""How exact the maps are: the second part of tools/benchmarks/grad_cam.py."""

from collections.abc import Callable
import tempfile

import grad_cam_cases
import keras
import numpy as np
import resnet_reference
import tensorflow as tf

import covid_tf
from covid_tf import contract
from covid_tf.models import export
from covid_tf.models import grad_cam
from covid_tf.models import preprocessing
from covid_tf.models import signatures
from covid_tf.server import configuration
from covid_tf.server import serving

_LEAST_EVIDENCE = 1e-3  # Below it a map is rounding, whoever makes it.
_TOLERANCE = 1e-5
_CHUNK = 8  # Slices at once: float64 activations take memory.


def measure(network: keras.Model, unet: keras.Model, hu: np.ndarray) -> dict:
  """Named differences over the slices whose maps are not rounding."""
  peer = grad_cam_cases.Peer(network)
  images = preprocessing.classifier_input(hu).numpy()
  theirs = _in_chunks(
    lambda part: [peer.evidence(part, name) for name in grad_cam_cases.LAYERS], images
  )
  clear = np.all([scale.max(axis=(1, 2)) > _LEAST_EVIDENCE for scale in theirs], axis=0)
  theirs = [grad_cam.normalize(tf.constant(scale[clear])).numpy() for scale in theirs]
  images, hu = images[clear], hu[clear]
  folded = export.for_serving(network)
  maps = _in_chunks(_explainer(folded), images)
  own, same = _references(network, folded, images)
  by_slice = np.max([_by_slice(*pair) for pair in zip(maps, own)], axis=0)
  return (
    {
      'slices': int(clear.sum()),
      'mean_cam_28': float(maps[0].mean()),
      'mean_cam_14': float(maps[1].mean()),
      'max_difference': _largest(_in_chunks(_explainer(network), images), theirs),
      'reference_difference': _largest(maps, same),
      'reference_own_piece': float(by_slice.max()),
      'reference_share': float(np.mean(by_slice <= _TOLERANCE)),
    }
    | _narrow(network, folded, images)
    | _served(network, unet, folded, hu)
  )


def _narrow(network: keras.Model, folded: keras.Model, images: np.ndarray) -> dict:
  """What computing in bfloat16 does to probabilities and maps."""
  answers = []
  for model in (folded, export.for_serving(network, 'bfloat16')):
    explain = grad_cam.grad_cam(model, grad_cam_cases.LAYERS)
    answers.append(
      _in_chunks(
        lambda part, explain=explain: _probability_and_maps(explain, part), images
      )
    )
  probability, *maps = (np.abs(one - other) for one, other in zip(*answers))
  return {
    'bfloat16_probability': float(probability.max()),
    'bfloat16_map_mean': float(max(scale.mean() for scale in maps)),
  }


def _probability_and_maps(explain: Callable, images) -> list[tf.Tensor]:
  logit, maps = explain(images)
  return [tf.sigmoid(logit)[:, tf.newaxis, tf.newaxis], *maps]


def _explainer(network: keras.Model) -> Callable:
  explain = grad_cam.grad_cam(network, grad_cam_cases.LAYERS)
  return lambda images: explain(images)[1]


def _references(network, folded, images):
  """float64 maps: where each ReLU decides by itself, and where it follows ours."""
  weights = {layer.name: layer.get_weights() for layer in network.layers}
  rectified = [
    layer for layer in folded.layers if isinstance(layer, keras.layers.Activation)
  ]
  activations = keras.Model(folded.input, [layer.output for layer in rectified])

  def sides(part):
    return {
      layer.name: values.numpy() > 0
      for layer, values in zip(rectified, activations(part))
    }

  return (
    _in_chunks(lambda part: resnet_reference.grad_cam(weights, part)[1:], images),
    _in_chunks(
      lambda part: resnet_reference.grad_cam(weights, part, sides(part))[1:], images
    ),
  )


def _served(network, unet, folded, hu) -> dict:
  """Differences of the export, in a TF1 session and over gRPC, from Keras."""
  explain = tf.function(
    signatures.classify(folded, '')[contract.GRAD_CAM],
    input_signature=signatures.input_signature(
      contract.CLASSIFIER_MODEL, contract.GRAD_CAM
    ),
  )
  parts = [hu[start : start + _CHUNK] for start in range(0, len(hu), _CHUNK)]
  expected = [explain(part) for part in parts]
  with tempfile.TemporaryDirectory() as folder:
    grad_cam_cases.export_both(network, unet, folder)
    with grad_cam_cases.served(folder) as answer:
      session = [
        answer(contract.CLASSIFIER_MODEL, contract.GRAD_CAM, part) for part in parts
      ]
    server = serving.Server(configuration.ServerOptions(models=folder, port=0))
    try:
      with covid_tf.connect(server.addresses[0]) as client:
        remote = [client.grad_cam(part)._asdict() for part in parts]
    finally:
      server.stop()
  return {
    name: max(
      _largest(one.values(), [other[key] for key in one])
      for one, other in zip(answers, expected)
    )
    for name, answers in (('served_difference', session), ('grpc_difference', remote))
  }


def _in_chunks(function: Callable, images: np.ndarray) -> list[np.ndarray]:
  """The arrays that `function` gives for all images, a few images at a time."""
  chunks = [
    function(images[start : start + _CHUNK]) for start in range(0, len(images), _CHUNK)
  ]
  return [
    np.concatenate([np.asarray(maps) for maps in scale]) for scale in zip(*chunks)
  ]


def _by_slice(one, other) -> np.ndarray:
  return np.abs(one - other).max(axis=(1, 2))


def _largest(one, other) -> float:
  return max(
    float(np.max(np.abs(np.asarray(a) - np.asarray(b)))) for a, b in zip(one, other)
  )
