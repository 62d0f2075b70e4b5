"""A stretch of training, as a flag writes it."""

import dataclasses
import math

from covid_tf import errors

PLAIN, FROZEN, GUIDED = KINDS = ('plain', 'frozen', 'guided')


@dataclasses.dataclass(frozen=True)
class Stage:
  """A stretch of training on one input size.

  Attributes:
    size: rows and columns of the network's input.
    steps: optimizer steps.
    learning_rate: at its start; it falls to `final_learning_rate` as a cosine.
    final_learning_rate: at its end.
    kind: 'plain'; 'frozen', where the pretrained backbone stays as it is; or
      'guided', where drawn lesions draw the Grad-CAM maps (classifier only).
  """

  size: int
  steps: int
  learning_rate: float
  final_learning_rate: float
  kind: str = PLAIN

  @classmethod
  def parse(cls, text: str) -> 'Stage':
    """Reads 'size:steps:learning rate:final learning rate[:kind]'.

    Raises:
      errors.UsageError: the text is anything else.
    """
    parts = text.split(':')
    try:
      size, steps = (int(part) for part in parts[:2])
      first, last = (float(part) for part in parts[2:4])
      (kind,) = parts[4:] or [PLAIN]
    except ValueError as error:
      raise errors.UsageError(_requirement(text)) from error
    rates_fall = 0 < last <= first < math.inf
    if size < 1 or steps < 1 or not rates_fall or kind not in KINDS:
      raise errors.UsageError(_requirement(text))
    return cls(size, steps, first, last, kind)

  def learning_rate_at(self, step: int) -> float:
    """Learning rate of a step of this stage, 0 the first."""
    progress = min(step / max(self.steps - 1, 1), 1.0)
    cosine = 0.5 * (1.0 + math.cos(math.pi * progress))
    return self.final_learning_rate + cosine * (
        self.learning_rate - self.final_learning_rate)

  def __str__(self) -> str:
    return (f'{self.size}:{self.steps}:{self.learning_rate:g}:'
            f'{self.final_learning_rate:g}:{self.kind}')


def _requirement(text: str) -> str:
  return ('a stage must be size:steps:rate:final_rate, such as 112:1000:1e-3:2e-4, '
          f"and may end in :{' or :'.join(KINDS)}; rates are positive and never rise; "
          f'found {text!r}.')
