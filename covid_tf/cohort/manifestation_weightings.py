"""Ways to weigh features before they are clustered.

The paper multiplies features and gradients, element by element, and standardizes
each (section 3.3). Under global average pooling and one dense unit, the gradient of
the logit is the same vector g for every slice; then feature j becomes g_j f_j, and
standardizing gives sign(g_j) times what standardizing f_j alone gives. Distances,
and so clusters, are those of the plain features: the weighting is void. The others
here are not, and stand beside it.
"""

from collections.abc import Callable
import dataclasses

import numpy as np

from covid_tf.cohort import manifestation_slices


@dataclasses.dataclass(frozen=True)
class Weighting:
  """One way.

  Attributes:
    name: for flags and tables.
    meaning: one line for people.
    weigh: described slices to float32 [N, 2048].
    per_feature: whether each feature is then brought to unit deviation; if not, all
      are divided by one number and keep their relation.
  """

  name: str
  meaning: str
  weigh: Callable[[manifestation_slices.StudySlices], np.ndarray]
  per_feature: bool


def _paper(slices: manifestation_slices.StudySlices) -> np.ndarray:
  return slices.features * slices.gradients


def _probability(slices: manifestation_slices.StudySlices) -> np.ndarray:
  p = slices.covid_probability[:, np.newaxis]
  return slices.features * (p * (1 - p) * slices.gradients)


def _profile(slices: manifestation_slices.StudySlices) -> np.ndarray:
  evidence = _paper(slices)
  length = np.linalg.norm(evidence, axis=1, keepdims=True)
  return evidence / np.where(length > 0, length, 1)  # No evidence: no direction.


def _focus(slices: manifestation_slices.StudySlices) -> np.ndarray:
  return (slices.features - slices.erased_features) * slices.gradients


WEIGHTINGS = {weighting.name: weighting for weighting in (
    Weighting(
        'paper', 'features × gradients of the logit, each standardized (the paper)',
        _paper, per_feature=True),
    Weighting(
        'features', 'features alone, each standardized: what the former amounts to '
        'when the gradient is the same for all slices',
        lambda slices: slices.features, per_feature=True),
    Weighting(
        'probability', 'features × gradients of the probability, each standardized: '
        'confident slices shrink by p(1 − p)', _probability, per_feature=True),
    Weighting(
        'relevance', 'features × gradients of the logit, one scale for all: features '
        'count by what they mean for the answer', _paper, per_feature=False),
    Weighting(
        'profile', 'features × gradients of the logit, every slice brought to length '
        'one, one scale for all: what the evidence consists of, not how much there is',
        _profile, per_feature=False),
    Weighting(
        'focus', 'features that go when the opacities under the fused map are erased, '
        '× gradients, one scale for all', _focus, per_feature=False),
)}

DEFAULT = 'profile'  # docs/adr/0063.
