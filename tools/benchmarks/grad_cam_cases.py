"""What tools/benchmarks/grad_cam.py measures with: slices, networks, a peer."""

from collections.abc import Callable, Iterator
import contextlib
import logging
import os
import pathlib
import subprocess
import sys
import tempfile

import keras
import numpy as np
import tensorflow as tf
from tf_keras_vis import gradcam as tf_keras_vis

from covid_tf import contract
from covid_tf.datasets import phantom
from covid_tf.models import export
from covid_tf.models import export_check
from covid_tf.models import networks as networks_lib
from covid_tf.models import preprocessing
from covid_tf.models import weights
from covid_tf.sessions import servable

LAYERS = (networks_lib.FINE_LAYER, networks_lib.COARSE_LAYER)
_FIRST_SEED = phantom.TRAINING_SEED_LIMIT + 500  # Held out.
_CROP = (150, 210)  # Rows and columns: what a phantom's lungs take, about.


def networks(
  classifier_source: str | None, lungs_source: str | None
) -> tuple[keras.Model, keras.Model]:
  """(classifier, U-Net) from runs or weights files; the demo weights for None."""
  slices, _ = weights.load_network(
    contract.CLASSIFIER_MODEL, classifier_source or weights.DEMO
  )
  unet, _ = weights.load_network(contract.LUNGS_MODEL, lungs_source or weights.DEMO)
  return slices, unet


def slices_with_lesions(count: int) -> np.ndarray:
  """int16 [count, 150, 210]: lung crops of held-out phantoms, lesions in each."""
  found = []
  seed = _FIRST_SEED
  while len(found) < count:
    drawn = phantom.generate(phantom.draw_case(seed, ('diffuse', 'focal')[seed % 2]))
    seed += 1
    rows, columns = (
      np.flatnonzero(drawn.lung_mask.any(axis=axes)) for axes in ((0, 2), (0, 1))
    )
    box = (slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1))
    for index in np.flatnonzero(drawn.lesion_mask.any(axis=(1, 2))):
      crop = tf.cast(drawn.volume.hu[index][box][np.newaxis], tf.float32)
      found.append(np.asarray(preprocessing.resize(crop, *_CROP))[0])
  return np.stack(found[:count]).astype(np.int16)


class Peer:
  """tf-keras-vis' Grad-CAM of a classifier's logit."""

  def __init__(self, network: keras.Model):
    self._gradcam = tf_keras_vis.Gradcam(network, clone=False)

  def evidence(self, images, layer: str) -> np.ndarray:
    """After ReLU, before any normalization: float32 [N, rows, columns]."""
    return np.asarray(
      self._gradcam(
        lambda logit: logit[:, 0],
        images,
        penultimate_layer=layer,
        seek_penultimate_conv_layer=False,
        expand_cam=False,
        normalize_cam=False,
      )
    )


def export_both(network: keras.Model, unet: keras.Model, folder: str) -> None:
  """Exports both networks as a server takes them."""
  for name, model in (
    (contract.CLASSIFIER_MODEL, network),
    (contract.LUNGS_MODEL, unet),
  ):
    export.export(name, model, folder, {'data': 'of a benchmark'}, version=1)


@contextlib.contextmanager
def exported_by(revision: str) -> Iterator[str]:
  """Yields a folder with the demo models as another revision of git exports them."""
  repository = pathlib.Path(__file__).resolve().parents[2]
  with tempfile.TemporaryDirectory() as folder:
    source, models = pathlib.Path(folder, 'source'), pathlib.Path(folder, 'models')
    git = ['git', '-C', str(repository), 'worktree']
    subprocess.run([*git, 'add', '--quiet', '--detach', source, revision], check=True)
    try:
      subprocess.run(
        [
          sys.executable,
          '-c',
          'import sys; from covid_tf.models import demo; '
          'demo.export_demo_models(sys.argv[1])',
          models,
        ],
        cwd=source,
        env=os.environ | {'PYTHONPATH': str(source)},
        check=True,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
      )
      yield str(models)
    finally:
      subprocess.run([*git, 'remove', '--force', source], check=True)


@contextlib.contextmanager
def served(folder: str) -> Iterator[Callable]:
  """Loads both exports; yields (model, signature, hu) -> outputs by name."""
  with contextlib.ExitStack() as stack:
    loaded = {
      name: stack.enter_context(
        contextlib.closing(servable.Servable(pathlib.Path(folder, name, '1')))
      )
      for name in contract.SIGNATURES
    }
    yield lambda name, signature, hu: export_check.answer(
      loaded[name], signature, {'hu': hu}
    )


def silence() -> None:
  """Leaves standard output and error to the figures."""
  logging.getLogger('tensorflow').setLevel(logging.ERROR)
