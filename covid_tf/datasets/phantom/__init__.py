"""Made-up chest CT with known lesions and lungs: phantoms, not patients.

For demonstration, tests and benchmarks. Seeds below `TRAINING_SEED_LIMIT` are for
training, those at or above it for evaluation.

  case = phantom.draw_case(1_000_007, 'focal')
  drawn = phantom.generate(case)
  drawn.volume.hu, drawn.lung_mask, drawn.lesion_mask
"""

from covid_tf.datasets.phantom.case import KINDS
from covid_tf.datasets.phantom.case import TRAINING_SEED_LIMIT
from covid_tf.datasets.phantom.case import PhantomCase
from covid_tf.datasets.phantom.case import cohort
from covid_tf.datasets.phantom.case import draw_case
from covid_tf.datasets.phantom.generation import Phantom
from covid_tf.datasets.phantom.generation import generate

__all__ = (
  'KINDS',
  'TRAINING_SEED_LIMIT',
  'Phantom',
  'PhantomCase',
  'cohort',
  'draw_case',
  'generate',
)
