"""The slices of a case for scrolling, within a budget of bytes."""

from collections.abc import Sequence
from concurrent import futures
import dataclasses

import numpy as np

from covid_tf import results
from covid_tf.reports import case_pictures

_BUDGET_BYTES = 1_650_000  # Of all grey images, as text; a report stays below 3 MB.
_MOST_SLICES = 320  # More are thinned out evenly; the strip still shows every one.
_COLUMNS = (512, 160)  # Widest and narrowest image.
_SAMPLES = 5
_QUALITY = 55


@dataclasses.dataclass(frozen=True)
class ViewedSlice:
  """One slice of the viewer.

  Attributes:
    index: of the slice in the volume.
    picture: what is shown.
    probability: COVID probability.
    score_cm3: its part of the Corona score.
    position_mm: along the slice normal, towards the head.
    place_mm: of its centre from the top of the coronal picture.
  """

  index: int
  picture: case_pictures.Picture
  probability: float
  score_cm3: float
  position_mm: float
  place_mm: float


def viewed_slices(
    maker: case_pictures.CasePictures, result: results.CaseResult,
    first: int) -> tuple[ViewedSlice, ...]:
  """The slices to scroll through, from the head down.

  Args:
    maker: makes the pictures.
    result: the scored study.
    first: a slice that must be among them: the one shown at the start.
  """
  indices = _chosen(maker.coronal.down, first)
  columns = _affordable_columns(maker, indices)
  # Threads: compression and resizing, most of the work, leave the interpreter free.
  with futures.ThreadPoolExecutor() as pool:
    return tuple(pool.map(
        lambda index: viewed_slice(maker, result, index, columns, _QUALITY), indices))


def viewed_slice(
    maker: case_pictures.CasePictures, result: results.CaseResult, index: int,
    columns: int, quality: int) -> ViewedSlice:
  """One slice with its numbers."""
  return ViewedSlice(
      index, maker.slice_picture(index, columns, quality),
      float(result.slice_probability[index]),
      float(result.corona_score_by_slice_cm3[index]),
      maker.position_mm(index), maker.coronal.down.place_mm(index))


def _chosen(down, first) -> Sequence[int]:
  count = down.stop - down.start
  step = -(-count // _MOST_SLICES)
  start = down.start + (first - down.start) % step
  indices = range(start, down.stop, step)
  return indices[::-1] if down.reversed else indices


def _affordable_columns(maker, indices) -> int:
  """The image width at which all slices fit the budget, judged by a few of them."""
  widest, narrowest = _COLUMNS
  sampled = np.linspace(0, len(indices) - 1, _SAMPLES).astype(int)
  sizes = [len(maker.slice_picture(indices[number], widest, _QUALITY).grey_uri)
           for number in sampled]
  # Bytes grow a little slower than the area: judged so, the budget is kept.
  share = _BUDGET_BYTES / (np.mean(sizes) * len(indices))
  columns = widest * min(1.0, share) ** 0.5
  return int(np.clip(columns // 16 * 16, narrowest, widest))
