r"""Chooses the shift of a classifier's logit that puts its operating point at 0.5.

  python tools/choose_shift.py --evaluation=runs/left_out/evaluation.json

Reads what tools/evaluate.py wrote of slices, or slabs, that training left out, as they
are scored. The operating point is the lowest one at which --specificity of those
without opacity are called negative. Give the shift to tools/export_models.py or
tools/encode_weights.py as --logit_shift.
"""

import collections
import json
import pathlib

from absl import flags
import numpy as np
import script

from covid_tf import errors
from covid_tf.statistics import operating_points

_EVALUATIONS = flags.DEFINE_multi_string(
  'evaluation', None, 'evaluation.json of a fold.', required=True
)
_SPECIFICITY = flags.DEFINE_float(
  'specificity', 0.95, 'Share of slices without opacity to be called negative.'
)


def main():
  """Prints the shift, and what it does to the slices."""
  if not 0 < _SPECIFICITY.value < 1:
    raise errors.UsageError(
      '--specificity: a share above 0 and below 1 is required, found '
      f'{_SPECIFICITY.value:g}.'
    )
  slices = [one for path in _EVALUATIONS.value for one in _read(pathlib.Path(path))]
  positive, negative = (
    np.array([p for label, p, _ in slices if label == wanted]) for wanted in (1, 0)
  )
  if not len(positive) or not len(negative):
    raise errors.UsageError(
      '--evaluation: slices with and without opacity are required, found '
      f'{len(positive)} and {len(negative)}.'
    )
  try:
    chosen = operating_points.choose_shift(positive, negative, _SPECIFICITY.value)
  except ValueError as error:
    raise errors.UsageError(f'--evaluation: {error}; train the network on.') from None
  _print(chosen, slices)


def _read(path):
  """(label, probability, patient or chest) of each slice or slab."""
  try:
    content = json.loads(path.read_text('utf-8'))
    # Slices of an evaluation; slabs of implanted chests, without those under stress.
    slices = content.get('slice_probability', content.get('slabs'))
    return [
      (
        int(one['label']),
        float(one['probability']),
        str(one['patient'] if 'patient' in one else one['chest']),
      )
      for one in slices
      if not one.get('condition')
    ]
  except OSError as error:
    raise errors.UsageError(
      f'{path}: an evaluation.json of tools/evaluate.py is required, found none that '
      f'can be read ({error.strerror}).'
    ) from error
  except (AttributeError, KeyError, TypeError, ValueError) as error:
    raise errors.UsageError(
      f'{path}: an evaluation.json of tools/evaluate.py with a classifier is '
      'required, found other content; evaluate it again.'
    ) from error


def _print(chosen, slices):
  negative = collections.defaultdict(list)
  for label, probability, patient in slices:
    if label == 0:
      negative[patient].append(probability <= chosen.threshold)
  lowest = min(negative, key=lambda patient: np.mean(negative[patient]))
  for name, before, after in (
    ('sensitivity', chosen.sensitivity_before, chosen.sensitivity),
    ('specificity', chosen.specificity_before, chosen.specificity),
  ):
    print(f'{name}: {_share(before)} before, {_share(after)} with the shift')
  print(
    f'lowest specificity of a patient: {np.mean(negative[lowest]):.3f} ({lowest}, '
    f'{len(negative[lowest])} slices; {len(negative)} patients)'
  )
  print(f'probability that becomes 0.5: {chosen.threshold:.4f}')
  print(f'--logit_shift={chosen.shift:.4f}')


def _share(share):
  low, high = share.interval
  return f'{share.value:.3f} ({low:.3f} to {high:.3f}, {share.count} of {share.total})'


if __name__ == '__main__':
  script.run(main)
