"""What Grad-CAM costs beside the prediction, and how exact it is.

  python tools/benchmarks/grad_cam.py                  # both parts
  python tools/benchmarks/grad_cam.py --part time --json
  python tools/benchmarks/grad_cam.py --part exactness --json
  python tools/benchmarks/grad_cam.py --part time --turns 19 --baseline 3d224ff

Ours is timed as it is served: raw slices in, answers out, through a TF1 session.
Calls take turns, and every ratio is the median of the turns' ratios:

  forward_ratio        probability and both maps / keras.applications' ResNet-50
  prediction_ratio     probability and both maps / our prediction signature
  fold_ratio           our prediction signature / keras.applications' ResNet-50
  tf_keras_vis_ratio   tf-keras-vis at the two layers / probability and both maps
  bfloat16_ratio       both maps in bfloat16 / in float32
  baseline_ratio       probability and both maps / those of the export that another
                       revision makes of the demo weights (--baseline, from git)
  lungs_ratio          lung masks, 512 x 512 in and out / the bare U-Net at 256 x 256

Largest differences of maps in [0, 1] over held-out phantom slices:

  max_difference       from tf-keras-vis, normalized as ours (same Keras model)
  reference_difference from a float64 reference, on the same linear piece of the
                       network (the same units of each ReLU are active)
  reference_own_piece  from that reference where it decides for itself; with
  reference_share      the share of slices within 1e-5 of it
  bfloat16_probability of an export that computes in bfloat16, from float32; and
  bfloat16_map_mean    the mean difference of its maps
  served_difference    of the export, in a TF1 session, from Keras
  grpc_difference      the same over gRPC
"""

import argparse
from collections.abc import Callable
import json
import tempfile
import time

import environment  # noqa: F401  Before TensorFlow.
import grad_cam_cases
import grad_cam_exactness
import keras
import numpy as np
import tensorflow as tf

from covid_tf import streams
from covid_tf.models import export
from covid_tf.models import grad_cam
from covid_tf.models import preprocessing

_LUNG_BATCH = 4


def measure_time(
  network: keras.Model,
  unet: keras.Model,
  batch: int,
  turns: int,
  peer_turns: int,
  baseline: str | None = None,
) -> dict:
  """Named ratios, and milliseconds a slice; what the slices show costs nothing."""
  random = np.random.default_rng(0)
  hu = random.integers(-1024, 400, (batch, 300, 400)).astype(np.int16)
  whole = random.integers(-1024, 400, (_LUNG_BATCH, 512, 512)).astype(np.int16)
  images = preprocessing.classifier_input(hu)
  lung_images = preprocessing.lung_input(whole)
  plain = _bare(keras.applications.ResNet50(weights=None))
  bare_unet = _bare(unet)
  peer = grad_cam_cases.Peer(network)
  wide, narrow = (
    _graph(
      grad_cam.grad_cam(export.for_serving(network, dtype), grad_cam_cases.LAYERS),
      network,
    )
    for dtype in ('float32', 'bfloat16')
  )
  with tempfile.TemporaryDirectory() as folder:
    grad_cam_cases.export_both(network, unet, folder)
    with grad_cam_cases.served(folder) as answer:
      both_maps = lambda: answer('classifier', 'grad_cam', hu)
      ours = _in_turns(
        {
          'keras.applications forward': lambda: plain(images).numpy(),
          'prediction': lambda: answer('classifier', 'serving_default', hu),
          'probability, both maps': both_maps,
        },
        turns,
      )
      lungs = _in_turns(
        {
          'U-Net forward': lambda: bare_unet(lung_images).numpy(),
          'lung masks': lambda: answer('lungs', 'serving_default', whole),
        },
        turns,
      )
      peers = _in_turns(
        {
          'tf-keras-vis, two layers': lambda: [
            peer.evidence(images, name) for name in grad_cam_cases.LAYERS
          ],
          'probability, both maps': both_maps,
        },
        peer_turns,
      )
      before = _baseline(baseline, hu, both_maps, turns) if baseline else {}
  types = _in_turns(
    {
      'both maps, bfloat16': lambda: narrow(images)[0].numpy(),
      'both maps, float32': lambda: wide(images)[0].numpy(),
    },
    turns,
  )
  milliseconds = {
    name: round(1000 * float(np.median(values)) / size, 1)
    for size, group in ((len(hu), peers | ours | types | before), (_LUNG_BATCH, lungs))
    for name, values in group.items()
  }
  plain_s, prediction_s, maps_s = ours.values()
  return {
    'forward_ratio': _ratio(maps_s, plain_s),
    'prediction_ratio': _ratio(maps_s, prediction_s),
    'fold_ratio': _ratio(prediction_s, plain_s),
    'tf_keras_vis_ratio': _ratio(*peers.values()),
    'bfloat16_ratio': _ratio(*types.values()),
    'lungs_ratio': _ratio(lungs['lung masks'], lungs['U-Net forward']),
    **({'baseline_ratio': _ratio(*before.values())} if before else {}),
    'ms_per_slice': milliseconds,
  }


def _baseline(
  revision: str, hu: np.ndarray, both_maps: Callable, turns: int
) -> dict[str, np.ndarray]:
  """Seconds of both maps now, and of another revision's export, in turns."""
  with grad_cam_cases.exported_by(revision) as folder:
    with grad_cam_cases.served(folder) as answer:
      return _in_turns(
        {
          'both maps, now': both_maps,
          f'both maps, {revision}': lambda: answer('classifier', 'grad_cam', hu),
        },
        turns,
      )


def _bare(network: keras.Model) -> Callable:
  return _graph(lambda images: network(images, training=False), network)


def _graph(function: Callable, network: keras.Model) -> Callable:
  spec = tf.TensorSpec(network.input_shape, tf.float32)
  return tf.function(function, input_signature=[spec])


def _in_turns(calls: dict[str, Callable], turns: int) -> dict[str, np.ndarray]:
  """Seconds of every turn of every call, after one turn that is not counted."""
  seconds = {name: [] for name in calls}
  for _ in range(turns + 1):
    for name, call in calls.items():
      begin = time.perf_counter()
      call()
      seconds[name].append(time.perf_counter() - begin)
  return {name: np.array(values[1:]) for name, values in seconds.items()}


def _ratio(one: np.ndarray, other: np.ndarray) -> float:
  return round(float(np.median(one / other)), 3)


def print_table(figures: dict) -> None:
  """The figures, one a line."""
  for name, value in figures.items():
    if isinstance(value, dict):
      print(f'{name}:')
      for row, number in value.items():
        print(f'  {row:28} {number:8.1f}')
    else:
      print(f'{name:22} {value:.4g}')


def main() -> None:
  parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
  )
  parser.add_argument('--part', choices=('time', 'exactness', 'both'), default='both')
  parser.add_argument('--batch', type=int, default=16, help='slices timed at once')
  parser.add_argument('--turns', type=int, default=15, help='turns of each call')
  parser.add_argument('--peer-turns', type=int, default=3, help='of tf-keras-vis')
  parser.add_argument('--slices', type=int, default=64, help='slices compared')
  parser.add_argument('--classifier', help='run or weights; else the demo weights')
  parser.add_argument('--lungs', help='run or weights; else the demo weights')
  parser.add_argument('--baseline', help='revision to compare with, of demo weights')
  parser.add_argument('--json', action='store_true', help='one JSON object, last line')
  arguments = parser.parse_args()
  if arguments.baseline and arguments.classifier:
    parser.error('--baseline exports the demo weights; leave --classifier out.')
  grad_cam_cases.silence()
  networks = grad_cam_cases.networks(arguments.classifier, arguments.lungs)
  figures = {}
  if arguments.part != 'exactness':
    figures |= measure_time(
      *networks,
      arguments.batch,
      arguments.turns,
      arguments.peer_turns,
      arguments.baseline,
    )
  if arguments.part != 'time':
    hu = grad_cam_cases.slices_with_lesions(arguments.slices)
    figures |= grad_cam_exactness.measure(*networks, hu)
  if arguments.json:
    print(json.dumps(figures))
  else:
    print_table(figures)


if __name__ == '__main__':
  with streams.safe_streams():
    main()
