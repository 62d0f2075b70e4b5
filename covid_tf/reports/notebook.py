"""A result as a notebook shows it: a figure, and a small table.

Behind `CaseResult.plot` and its display; both name no patient.
"""

import html
import io
from typing import Any

import matplotlib.axes
import matplotlib.figure
import numpy as np

from covid_tf import errors
from covid_tf import results
from covid_tf import volume as volume_lib
from covid_tf.analysis import key_planes
from covid_tf.reports import figure_panels
from covid_tf.reports import figures
from covid_tf.reports import pages
from covid_tf.reports import pictures
from covid_tf.reports import rendering

_WIDTH_INCH = 8.0
_MARGIN_MM = 20.0  # Chest wall shown around the lungs.
_RENDERED_MM = 2.0
_DOTS_PER_INCH = 110
_LUNGS, _COUNTED = '#58C4F5', 'white'
_NO_CT_HU = (-700, -300)  # What is shown of lung, and beside it, without a CT.
_MOST_WARNINGS = 3
_LONGEST_WARNING = 160


class NotebookFigure(matplotlib.figure.Figure):
  """A figure that notebooks show as the last value of a cell, without pyplot."""

  def _repr_png_(self) -> bytes:
    buffer = io.BytesIO()
    with figures.styled():
      self.savefig(buffer, format='png', dpi=_DOTS_PER_INCH)
    return buffer.getvalue()


def key_figure(
  result: results.CaseResult, volume: volume_lib.CTVolume | None = None
) -> NotebookFigure:
  """See `CaseResult.plot`."""
  planes = _planes(result, volume)
  axial = _view(result, 'axial')
  coronal = _view(result, 'coronal')
  scene = rendering.lung_scene(
    result.lung_mask, result.localization, result.affine, _RENDERED_MM
  )
  front = rendering.render(scene, 0)
  panels = (
    (axial, planes.axial_index, f'Slice {planes.axial_index}', planes.axial_hu),
    (coronal, planes.coronal_index, 'Coronal', planes.coronal_hu),
  )
  shares = [view.size_mm[1] / view.size_mm[0] for view, *_ in panels]
  shares.append(front.shape[1] / front.shape[0])
  with figures.styled():
    figure = NotebookFigure((_WIDTH_INCH, _WIDTH_INCH / sum(shares) + 0.7))
    all_axes = figure.subplots(1, 3, width_ratios=shares)
    for axes, (view, index, title, hu) in zip(all_axes, panels):
      _draw(axes, view, result, index, hu)
      axes.set_title(title, fontsize=8, pad=4)
    figure_panels.draw_rendering(all_axes[2], front, front.shape[0], 'RLH')
    all_axes[2].set_title('From the front', fontsize=8, pad=4)
    figures.put_caption(figure, _caption(result, planes), line_characters=150)
  return figure


def _planes(
  result: results.CaseResult, volume: volume_lib.CTVolume | None
) -> results.KeyPlanes:
  """Of the CT that is given, else those that were kept, else lungs alone."""
  if volume is not None:
    if not isinstance(volume, volume_lib.CTVolume):
      raise errors.UsageError(
        'volume: the covid_tf.CTVolume that was scored is required, or None, found '
        f'{type(volume).__name__}.'
      )
    if volume.shape != result.shape or not np.allclose(
      volume.affine, result.affine, atol=1e-3
    ):
      raise errors.UsageError(
        f'volume: the CT that was scored is required ({result.shape}), found another '
        f'({volume.shape}, or in another place).'
      )
    return key_planes.of_volume(volume, key_planes.places_of(result))
  if result.key_planes is not None:
    return result.key_planes
  axial, axis, coronal = key_planes.places_of(result)
  lung, other = _NO_CT_HU
  hu = [
    np.where(plane > 0, lung, other).astype(np.int16)
    for plane in (result.lung_mask[axial], np.take(result.lung_mask, coronal, axis))
  ]
  return results.KeyPlanes(axial, hu[0], axis, coronal, hu[1], of_ct=False)


def _view(result: results.CaseResult, looked_along: str) -> pictures.PlaneView:
  """The lungs and what is positive, with some of the chest around."""
  covered = np.asarray(result.lung_mask.any(axis=(1, 2)))
  covered[list(result.positive_slices)] = True
  slices = np.flatnonzero(covered)
  box = result.lung_box
  ends = ((slices[0], slices[-1] + 1), (box.row0, box.row1), (box.column0, box.column1))
  shown = []
  for (start, stop), step, length in zip(ends, result.spacing_mm, result.shape):
    more = int(np.ceil(_MARGIN_MM / step))
    shown.append(slice(max(0, int(start) - more), min(length, int(stop) + more)))
  return pictures.plane_view(
    result.affine, result.shape, looked_along, (shown[0], shown[1], shown[2])
  )


def _draw(
  axes: matplotlib.axes.Axes,
  view: pictures.PlaneView,
  result: results.CaseResult,
  index: int,
  hu: np.ndarray,
) -> None:
  extent = figure_panels.draw_grey(axes, view, hu)
  heat = _heat(result, view.fixed_axis, index)
  axes.imshow(
    pictures.heat_colours(view.picture(heat)), extent=extent, interpolation='nearest'
  )
  mask = np.take(result.lung_mask, index, axis=view.fixed_axis)
  figure_panels.draw_contour(axes, view, mask, 0.5, _LUNGS)
  figure_panels.draw_contour(axes, view, heat, result.thresholds.map, _COUNTED)
  for side, x, y in (('left', 0.04, 0.5), ('right', 0.96, 0.5), ('top', 0.5, 0.95)):
    figure_panels.draw_letter(axes, x, y, view.markers[side])
  axes.set_axis_off()


def _heat(result: results.CaseResult, axis: int, index: int) -> np.ndarray:
  """float32: the map on one plane of the CT's grid."""
  if axis == 0:
    return result.localization.slice_map(index)
  planes = np.zeros(np.delete(result.shape, axis), np.float32)
  box = result.lung_box
  inside, along = (box.rows, box.columns) if axis == 1 else (box.columns, box.rows)
  if inside.start <= index < inside.stop:
    for slice_, map_ in zip(result.localization.slices, result.localization.maps):
      planes[slice_, along] = np.take(map_, index - inside.start, axis=axis - 1)
  return planes


def _caption(result: results.CaseResult, planes: results.KeyPlanes) -> str:
  ct = '' if planes.of_ct else ' The CT is not at hand: plot(volume) shows it.'
  demo = (
    ' Demo models, trained on phantoms: no measurement.' if result.demo_models else ''
  )
  return (
    f'Corona score {pages.cm3(result.corona_score_cm3)} cm³, '
    f'{len(result.positive_slices)} of {result.shape[0]} slices positive, '
    f'{pages.percent(result.involved_lung_fraction)} % of '
    f'{result.lung_volume_cm3:,.0f} cm³ of lung involved. Blue: lungs; white: map '
    f"above {result.thresholds.map:g}; patient's right on the left.{ct}{demo} "
    'Research use only.'
  )


def html_table(result: results.CaseResult) -> str:
  """A small table of the main numbers, as notebooks show a result."""
  detected = {None: 'no case threshold', True: 'yes', False: 'no'}
  rows: list[tuple[str, Any]] = [
    ('Corona score', f'{pages.cm3(result.corona_score_cm3)} cm³'),
    ('in the lungs', f'{pages.cm3(result.corona_score_in_lung_cm3)} cm³'),
    ('Involved lung', f'{pages.percent(result.involved_lung_fraction)} %'),
    ('Lungs', f'{result.lung_volume_cm3:,.0f} cm³'),
    ('Positive slices', f'{len(result.positive_slices)} of {result.shape[0]}'),
    ('Case detected', detected[result.case_detected]),
    ('CT', ' × '.join(f'{step:.3g}' for step in result.spacing_mm) + ' mm'),
    ('Models', ', '.join(f'{one.name} {one.version}' for one in result.models)),
  ]
  rows += [
    (
      'Warning',
      text if len(text) <= _LONGEST_WARNING else text[:_LONGEST_WARNING] + '…',
    )
    for text in result.warnings[:_MOST_WARNINGS]
  ]
  more = len(result.warnings) - _MOST_WARNINGS
  if more > 0:
    rows.append(('', f'{more} more in .warnings'))
  cells = ''.join(
    f'<tr><th style="text-align:left">{html.escape(name)}</th>'
    f'<td style="text-align:left">{html.escape(str(value))}</td></tr>'
    for name, value in rows
  )
  caption = 'Demo models: no measurement of a patient. ' if result.demo_models else ''
  return f'<table><caption>{caption}Research use only.</caption>{cells}</table>'
