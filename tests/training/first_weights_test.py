"""ImageNet weights: the files that Keras publishes are loaded, others are refused.

The files are written here, in the layout of those that are published, with random
weights: what is loaded is known, and nothing is downloaded.
"""

import h5py
import keras
import numpy as np
import pytest

from covid_tf import errors
from covid_tf.models import networks
from covid_tf.training import classifier_task
from covid_tf.training import first_weights
from covid_tf.training import lung_task

_SIZE = 32  # The least that both networks take; weights do not depend on it.


def _write_published(model, path):
  """Keras' first HDF5 layout: a group a layer, names in the attributes."""
  with h5py.File(path, 'w') as file:
    file.attrs['layer_names'] = [layer.name.encode() for layer in model.layers]
    file.attrs['backend'], file.attrs['keras_version'] = b'tensorflow', b'2.2.4'
    for layer in model.layers:
      group = file.create_group(layer.name)
      names = [f'{layer.name}/{weight.name}:0' for weight in layer.weights]
      group.attrs['weight_names'] = [name.encode() for name in names]
      for name, weight in zip(names, layer.weights):
        group[name] = np.asarray(weight)
  return str(path)


@pytest.fixture(name='backbones', scope='module')
def _backbones(tmp_path_factory):
  """{name: (model, path of its published file)}."""
  folder = tmp_path_factory.mktemp('published')
  built = {}
  for name, make in (
    ('resnet50', keras.applications.ResNet50),
    ('vgg16', keras.applications.VGG16),
  ):
    model = make(include_top=False, weights=None, input_shape=(_SIZE, _SIZE, 3))
    built[name] = model, _write_published(model, folder / f'{name}_notop.h5')
  return built


def _require_same(model, backbone):
  layers = [layer for layer in backbone.layers if layer.weights]
  assert layers
  for layer in layers:
    for one, two in zip(
      model.get_layer(layer.name).get_weights(), layer.get_weights(), strict=True
    ):
      np.testing.assert_array_equal(one, two)


def test_a_classifier_begins_with_a_published_file(backbones):
  backbone, path = backbones['resnet50']
  model = classifier_task.ClassifierTask(encoder_weights=path).build(_SIZE)
  _require_same(model, backbone)


def test_lungs_begin_with_a_published_file(backbones):
  backbone, path = backbones['vgg16']
  model = lung_task.LungTask(encoder_weights=path).build(_SIZE)
  _require_same(model, backbone)


@pytest.mark.parametrize(
  'name, task',
  [('vgg16', classifier_task.ClassifierTask), ('resnet50', lung_task.LungTask)],
)
def test_a_file_of_the_other_network_is_refused(backbones, name, task):
  _, path = backbones[name]
  with pytest.raises(errors.UsageError, match='without its top are required'):
    task(encoder_weights=path).build(_SIZE)


@pytest.mark.parametrize('task', [classifier_task.ClassifierTask, lung_task.LungTask])
def test_a_file_that_is_none_is_refused(tmp_path, task):
  (tmp_path / 'a.h5').write_text('no HDF5')
  for name in ('a.h5', 'none.h5'):
    with pytest.raises(errors.UsageError, match='found neither'):
      task(encoder_weights=str(tmp_path / name)).build(_SIZE)


def test_downloaded_files_reach_both_networks(backbones, monkeypatch):
  asked = []

  def get_file(name, *unused, **unused_too):
    asked.append(name)
    return backbones[name.split('_')[0]][1]

  monkeypatch.setattr(keras.utils, 'get_file', get_file)
  monkeypatch.setattr('keras.src.utils.file_utils.get_file', get_file)
  _require_same(
    classifier_task.ClassifierTask(encoder_weights='imagenet').build(_SIZE),
    backbones['resnet50'][0],
  )
  _require_same(
    lung_task.LungTask(encoder_weights='imagenet').build(_SIZE), backbones['vgg16'][0]
  )
  assert len(asked) == 2 and all('notop' in name for name in asked)


@pytest.mark.parametrize(
  'error', [Exception('URL fetch failure on ...'), OSError('no route to host')]
)
def test_a_failed_download_is_said_in_words(error):
  def build():
    raise error

  with pytest.raises(errors.UsageError, match='needs the internet once'):
    first_weights.downloaded(build)


def test_what_is_no_download_is_not_called_one():
  with pytest.raises(ValueError):
    first_weights.downloaded(lambda: networks.build_classifier(size=8))
