"""Grad-CAM gives one answer, however TensorFlow runs it."""

import contextlib

import keras
import numpy as np
import pytest
import small_networks
import tensorflow as tf

from covid_tf.models import export_check
from covid_tf.models import grad_cam
from covid_tf.models import rewrites
from covid_tf.sessions import servable

LAYERS = ('fine', 'coarse')


def _spec(model):
  return [tf.TensorSpec((None, *model.input_shape[1:]), name='images')]


def _graph(explain, model, folder):
  del folder
  return tf.function(explain, input_signature=_spec(model))


def _xla(explain, model, folder):
  del model, folder
  return tf.function(explain, jit_compile=True)


def _saved(explain, model, folder):
  _export(explain, model, folder)
  loaded = tf.saved_model.load(str(folder))

  def run(images):
    outputs = loaded.explain(tf.constant(images))
    return outputs['logit'], (outputs['fine'], outputs['coarse'])

  return run


def _tf1_session(explain, model, folder):
  _export(explain, model, folder)

  def run(images):
    with contextlib.closing(servable.Servable(folder)) as served:
      outputs = export_check.answer(served, 'explain', {'images': images})
    return outputs['logit'], (outputs['fine'], outputs['coarse'])

  return run


def _export(explain, model, folder):
  def named(images):
    logit, (fine, coarse) = explain(images)
    return {'logit': logit, 'fine': fine, 'coarse': coarse}

  archive = keras.export.ExportArchive()
  archive.add_endpoint('explain', named, _spec(model))
  archive.write_out(str(folder), verbose=False)


@pytest.mark.parametrize('mode', [_graph, _xla, _saved, _tf1_session])
@pytest.mark.parametrize('method', sorted(grad_cam.METHODS))
def test_every_mode_gives_what_eager_mode_gives(mode, method, tmp_path):
  model = small_networks.residual()
  explain = grad_cam.grad_cam(model, LAYERS, method)
  run = mode(explain, model, tmp_path / 'export')
  for count in (3, 1):
    images = small_networks.images(model, count)
    logit, maps = explain(images)
    found_logit, found = run(images)
    np.testing.assert_allclose(found_logit, logit, atol=1e-5)
    for one, other in zip(found, maps):
      assert np.mean(other) > 0.02
      np.testing.assert_allclose(one, other, atol=1e-5)


@pytest.mark.parametrize('mode', [None, _graph, _xla, _saved, _tf1_session])
def test_every_mode_takes_an_empty_batch(mode, tmp_path):
  model = small_networks.residual()
  run = grad_cam.grad_cam(model, LAYERS)
  if mode:
    run = mode(run, model, tmp_path / 'export')
  logit, (fine, coarse) = run(np.zeros((0, 12, 12, 2), np.float32))
  assert logit.shape == (0,)
  assert fine.shape == (0, 12, 12) and coarse.shape == (0, 6, 6)


# Of float16: activations differ by 7e-4 of their mean everywhere, but where a
# processor's convolutions sum gradients in float16 (AVX2) the maps do by 0.006.
@pytest.mark.parametrize('compute_dtype,error', [('float16', 0.01), ('bfloat16', 0.05)])
def test_mixed_precision_gives_float32_maps_close_to_float32s(compute_dtype, error):
  model = small_networks.residual()
  images = small_networks.images(model)
  narrow = rewrites.with_compute_dtype(model, compute_dtype)
  assert narrow.get_layer('coarse').compute_dtype == compute_dtype
  _, maps = grad_cam.grad_cam(model, LAYERS)(images)
  logit, found = grad_cam.grad_cam(narrow, LAYERS)(images)
  assert logit.dtype == tf.float32
  for one, other in zip(found, maps):
    assert one.dtype == tf.float32 and np.mean(one) > 0.05
    assert np.mean(np.abs(one - other)) < error


def test_gradients_below_float16s_range_are_not_lost():
  model = small_networks.residual()
  images = small_networks.images(model)
  narrow = rewrites.with_compute_dtype(model, 'float16')
  _, maps = grad_cam.grad_cam(narrow, LAYERS)(images)
  head = narrow.get_layer('head')
  # Maps do not see the scale of the logit; float16 would without care.
  head.set_weights([weight * 2.0**-16 for weight in head.get_weights()])
  _, found = grad_cam.grad_cam(narrow, LAYERS)(images)
  for one, other in zip(found, maps):
    assert np.mean(one) > 0.05
    np.testing.assert_allclose(one, other, atol=0.02)
