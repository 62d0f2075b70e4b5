"""Grad-CAM against tf-keras-vis, another's implementation of it."""

import keras
import numpy as np
import pytest
import small_networks
from tf_keras_vis import gradcam as tf_keras_vis

from covid_tf.models import grad_cam

_LAYERS = ('fine', 'coarse')


def _normalized_by_maximum(evidence):
  tops = evidence.max(axis=(1, 2), keepdims=True)
  return np.divide(evidence, tops, out=np.zeros_like(evidence), where=tops > 0)


def _peer_map(model: keras.Model, images: np.ndarray, layer: str) -> np.ndarray:
  evidence = tf_keras_vis.Gradcam(model, clone=False)(
    lambda logit: logit[:, 0],
    images,
    penultimate_layer=layer,
    seek_penultimate_conv_layer=False,
    expand_cam=False,
    normalize_cam=False,
  )
  return _normalized_by_maximum(np.asarray(evidence))


@pytest.mark.parametrize('readers', ['1x1', '3x3', 'skipped'])
def test_maps_equal_those_of_tf_keras_vis(readers):
  model = small_networks.residual(size=48, readers=readers)
  images = small_networks.images(model)
  _, maps = grad_cam.grad_cam(model, _LAYERS)(images)
  for layer, found in zip(_LAYERS, maps):
    assert np.mean(found) > 0.02
    np.testing.assert_allclose(found, _peer_map(model, images, layer), atol=1e-5)
