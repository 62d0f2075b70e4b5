"""Figure 5 of the paper, of this cohort: the feature space with its key slices."""

from collections.abc import Sequence
import dataclasses

import matplotlib.figure
import matplotlib.patches
import numpy as np

from covid_tf.cohort import manifestations
from covid_tf.reports import figure_style
from covid_tf.reports import pictures

_WIDTH_INCH = 7.2  # 183 mm, two columns of most journals.
_MARKS = ('o', 's', '^', 'D', 'v', 'P')
_SIDE_SHARE = 0.27  # Of the width, for the key slices on each side.
_GREY_RAMP = 'gray'


@dataclasses.dataclass(frozen=True)
class KeySlice:
  """A slice to show.

  Attributes:
    picture: uint8 [height, width], the lung crop.
    map: uint8 [height, width], 255 for 1.
  """

  picture: np.ndarray
  map: np.ndarray


def space_figure(
    fitted: manifestations.Fitted, keys: Sequence[Sequence[KeySlice]],
    caption: str) -> matplotlib.figure.Figure:
  """Draws the plane with four key slices beside each cluster.

  Args:
    fitted: the fitted cohort.
    keys: for each cluster its key slices, nearest first.
    caption: what it shows, see `space_caption`.

  Returns:
    The figure.
  """
  with figure_style.styled():
    figure = figure_style.new_figure(height_inch=4.6, width_inch=_WIDTH_INCH)
    foot = 0.17
    axes = figure.add_axes((_SIDE_SHARE + 0.085, foot + 0.085,
                            1 - 2 * _SIDE_SHARE - 0.105, 0.98 - foot - 0.1))
    _scatter(axes, fitted)
    centres = fitted.model.plane(fitted.model.centres)
    for left, clusters in zip((0.01, 1 - _SIDE_SHARE + 0.01), _sides(centres)):
      for place, cluster in enumerate(clusters):
        height = (0.98 - foot) / len(clusters)
        _block(figure, fitted.model.names[cluster], keys[cluster], _colour(cluster),
               left, 0.98 - (place + 0.5) * height, height)
    figure_style.put_caption(figure, caption, 145, tight=False)
    return figure


def space_caption(fitted: manifestations.Fitted) -> str:
  """n, the rule for k, and how stable the clusters are."""
  table, outcome = fitted.table, fitted.outcome
  first, second = (100 * share for share in fitted.model.explained)
  ill = len(np.unique(table.study[table.positive]))
  clear = len(np.unique(table.study[~table.positive]))
  how = ('elbow' if outcome.k == outcome.scan.elbow_k else 'chosen')
  words = '' if outcome.silhouette is None else (
      f', mean silhouette {outcome.silhouette:.2f}')
  return (
      f'Features of {table.positive.sum()} positive slices of {ill} studies and '
      f'{(~table.positive).sum()} negative slices of {clear}; weighting '
      f'"{outcome.weighting}". PCA ({first:.0f} % and {second:.0f} % of the '
      f'variance). k-means with k\u00a0=\u00a0{outcome.k} ({how}; k up to '
      f'{outcome.scan.k[-1]}){words}; adjusted Rand index over restarts '
      f'{outcome.clustering.stability:.2f}. Crosses: centres. Beside: the four slices '
      'nearest to each centre, fused Grad-CAM in colour.')


def elbow_figure(outcome: manifestations.Outcome) -> matplotlib.figure.Figure:
  """Draws inertia and silhouette over k."""
  with figure_style.styled():
    figure = figure_style.new_figure(height_inch=3.1)
    axes = figure.add_subplot()
    scan = outcome.scan
    inertia = np.array(scan.inertia) / max(scan.inertia[0], 1e-30)
    axes.plot(scan.k, inertia, 'o-', color=figure_style.BLUE, ms=3.5, lw=1.2,
              label='inertia, relative to k = 1')
    axes.plot([scan.k[0], scan.k[-1]], [inertia[0], inertia[-1]], ':',
              color=figure_style.GREY, lw=0.8)
    shown = [(k, value) for k, value in zip(scan.k, scan.silhouette)
             if value is not None]
    if shown:
      axes.plot(*zip(*shown), 's--', color=figure_style.ORANGE, ms=3.5, lw=1.0,
                label='mean silhouette')
    axes.axvline(outcome.k, color='black', lw=0.8)
    axes.set(xlabel='Number of clusters k', xticks=scan.k)
    axes.legend(fontsize=7)
    figure_style.put_caption(figure, (
        f'Elbow rule: the k whose inertia lies furthest below the dotted line from k = '
        f'1 to {scan.k[-1]}, both axes scaled to [0, 1]; it takes k = {scan.elbow_k}. '
        f'Taken here (line): {outcome.k}. Weighting "{outcome.weighting}".'))
    return figure


def _scatter(axes, fitted: manifestations.Fitted) -> None:
  labels = fitted.outcome.clustering.labels
  for cluster, name in enumerate(fitted.model.names):
    own = labels == cluster
    axes.scatter(
        *fitted.plane[own].T, s=8, marker=_MARKS[cluster % len(_MARKS)],
        color=_colour(cluster), alpha=0.55, linewidths=0, rasterized=True,
        label=f'{name} ({own.sum()}, {fitted.table.positive[own].sum()} positive)')
    keys = fitted.key_slices[cluster]
    axes.scatter(
        *fitted.plane[keys].T, s=22, marker=_MARKS[cluster % len(_MARKS)],
        color=_colour(cluster), edgecolors='black', linewidths=0.7, zorder=3)
  centres = fitted.model.plane(fitted.model.centres)
  axes.plot(*centres.T, 'X', color='black', mec='white', mew=0.8, ms=8, zorder=4)
  first, second = (100 * share for share in fitted.model.explained)
  axes.set(xlabel=f'First principal component ({first:.0f} %)',
           ylabel=f'Second principal component ({second:.0f} %)')
  axes.legend(fontsize=7, loc='best', handletextpad=0.1)


def _block(
    figure, name: str, slices: Sequence[KeySlice], colour: str, left: float,
    middle: float, height: float) -> None:
  """Two by two key slices under the cluster's name, about `middle`."""
  title = 0.05
  cell_width = (_SIDE_SHARE - 0.02) / 2
  # As high as the tallest picture at that width, where there is room.
  shape = figure.get_figwidth() / figure.get_figheight()
  tallest = max((key.picture.shape[0] / key.picture.shape[1] for key in slices),
                default=1)
  cell_height = min(cell_width * shape * tallest, (height - title) / 2)
  top = middle + cell_height + title / 2
  figure.text(left + cell_width, top, name, color=colour, fontsize=9, weight='bold',
              ha='center', va='top')
  for place, key in enumerate(slices):
    row, column = divmod(place, 2)
    axes = figure.add_axes((
        left + column * cell_width, top - title - (row + 1) * cell_height,
        cell_width * 0.96, cell_height * 0.95))
    axes.imshow(key.picture, cmap=_GREY_RAMP, vmin=0, vmax=255)
    axes.imshow(pictures.heat_colours(key.map / 255.0))
    axes.set(xticks=[], yticks=[])
    for spine in axes.spines.values():
      spine.set(visible=True, color=colour, linewidth=1.6)


def _sides(centres: np.ndarray) -> tuple[list[int], list[int]]:
  """Clusters for the left and the right column, each from top to bottom."""
  by_x = np.argsort(centres[:, 0], kind='stable').tolist()
  left = by_x[:len(by_x) // 2]
  right = by_x[len(by_x) // 2:]
  return tuple(sorted(group, key=lambda i: -centres[i, 1]) for group in (left, right))


def _colour(cluster: int) -> str:
  return figure_style.CATEGORIES[cluster % len(figure_style.CATEGORIES)]
