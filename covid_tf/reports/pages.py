"""Templates to self-contained HTML pages, and the wording of numbers on them."""

import jinja2

from covid_tf import results
from covid_tf import volume as volume_lib
from covid_tf.analysis import slabs as slabs_lib
from covid_tf.reports import case_pictures

# Numbers and sentences of the reports.

PAPER = (
  'Gozes O, Frid-Adar M, Sagie N, Zhang H, Ji W, Greenspan H. Coronavirus Detection '
  'and Analysis on Chest CT with Deep Learning. 2020'
)

_CHANGE_UNITS = {'%': 'points', 'of 24': 'grades'}


def cm3(value: float) -> str:
  """'1,235', '123.4', '0.42', '0.0031': as many digits as are read."""
  if value >= 1000:
    return f'{value:,.0f}'
  return _short(value)


def percent(fraction: float) -> str:
  """'7.1' of 0.071, '0.42' of 0.0042."""
  return _short(100 * fraction)


def hu(value: float) -> str:
  """A whole number with a true minus."""
  text = f'{value:.0f}'
  return '0' if text == '-0' else text.replace('-', '\N{MINUS SIGN}')


def millimetres(value: float) -> str:
  """At most two decimals, without trailing zeros: short in SVG."""
  return f'{value:.2f}'.rstrip('0').rstrip('.')


def signed(value: float) -> str:
  """One decimal with its sign, a true minus."""
  text = f'{value:+.1f}'
  return '+0.0' if text == '-0.0' else text.replace('-', '\N{MINUS SIGN}')


def slice_title(viewed: case_pictures.ViewedSlice, slice_count: int) -> str:
  """Which slice an axial picture shows."""
  return f'Axial, slice {viewed.index} (0 lowest, {slice_count - 1} highest)'


def slice_caption(viewed: case_pictures.ViewedSlice) -> str:
  """The models' answers to a slice."""
  return (
    f'Position {signed(viewed.position_mm)} mm, COVID-19 probability '
    f'{viewed.probability:.2f}, {cm3(viewed.score_cm3)} cm³ of the score'
  )


def measured(value: float, unit: str) -> str:
  """A measure as it is read: fractions in percent, HU and grades whole."""
  if unit == 'HU':
    return hu(value)
  if unit == 'of 24':
    return f'{value:.0f}'
  return percent(value) if unit == '%' else cm3(value)


def change(difference: float, relative: float | None, unit: str) -> str:
  """'−46.5 cm³ (−79 %)'; of a fraction, in points of percent; never '−0 HU'."""
  if difference == 0:
    return 'no change'
  sign = '+' if difference > 0 else '\N{MINUS SIGN}'
  amount = measured(abs(difference), unit)
  units = _CHANGE_UNITS.get(unit, unit)
  if amount == '0':  # HU and grades are read whole.
    in_words = f'less than 1 {units.removesuffix("s")}'
  else:
    in_words = f'{sign}{amount} {units.removesuffix("s") if amount == "1" else units}'
  if relative is None:
    return in_words
  share = f'{abs(relative):.0%}'.removesuffix('%')
  return f'{in_words} ({"less than 1" if share == "0" else sign + share} %)'


def acquisition(found: volume_lib.Acquisition | None) -> str:
  """How a CT was acquired, in words; '' where nothing is stated."""
  return '' if found is None else found.in_words()


def methods(result: results.CaseResult, demo_models: bool = False) -> str:
  """A paragraph for a paper's methods section, true of this result."""
  thresholds = result.thresholds
  models = (
    ' and '.join(
      f'{model.name} version {model.version} (card SHA-256 {model.card_sha256[:12]})'
      for model in result.models
    )
    or 'models without identity'
  )
  case = (
    ''
    if thresholds.case_corona_score_cm3 is None
    else (
      f' A case was called detected above {cm3(thresholds.case_corona_score_cm3)} cm³.'
    )
  )
  demo = ' The models were demonstration models trained on phantoms.' * demo_models
  return (
    f'The Corona score (Eq. 1 of {PAPER}) was computed with {result.software}, using '
    f'{models}.{demo} {_thickness_method(result)} and the largest lung box '
    f'of the case was given to the slice classifier.{_smoothing_method(result)} For '
    'slices with a COVID-19 '
    f'probability above {thresholds.slice_probability:g}, Grad-CAM maps at 28 × 28 '
    'and 14 × 14 were multiplied to one localization map; the score is the sum of '
    f'map values above {thresholds.map:g} times the voxel volume '
    f'({result.voxel_volume_mm3:.3f} mm³, from slice positions and pixel spacing). '
    'The involved fraction is the share of segmented lung voxels above the same map '
    f'threshold.{_edits_method(result)}{case}'
  )


def _thickness_method(result: results.CaseResult) -> str:
  slabs = slabs_lib.of_study(result, result.thresholds)
  given = result.edits is not None and result.edits.lung_mask_sha256 is not None
  own = 'Lungs are those of a mask that was made or corrected by other means,'
  if not slabs.is_averaged:
    return own if given else 'Lungs were segmented slice by slice'
  lungs = 'Lungs were segmented slab by slab and interpolated to the slices,'
  return (
    f'Slices, {result.spacing_mm[0]:.4g} mm apart, were averaged by their overlap to '
    f'slabs of {slabs.thickness_mm:.4g} mm for the networks, and each slice was given '
    'the answers of the slabs that cover it, weighted by overlap. '
    f'{own if given else lungs}'
  )


def _edits_method(result: results.CaseResult) -> str:
  if result.edits is None or not result.edits.excluded_slices:
    return ''
  slices = results.slices_in_words(result.edits.excluded_slices)
  return f' Slices excluded from the score, 0 the lowest: {slices}.'


def _smoothing_method(result: results.CaseResult) -> str:
  if not result.thresholds.smoothing_mm:
    return ''
  slabs = slabs_lib.of_study(result, result.thresholds)
  return (
    f' Its logits of {"slabs" if slabs.is_averaged else "slices"} were smoothed along '
    'the body by a Gaussian with a standard deviation of '
    f'{result.thresholds.smoothing_mm:g} mm.'
  )


def _thickness(result: results.CaseResult) -> str:
  slabs = slabs_lib.of_study(result, result.thresholds)
  if not slabs.is_averaged:
    return f'slices as they are, {result.spacing_mm[0]:.4g} mm apart'
  return f'{slabs.count} slabs of {slabs.thickness_mm:.4g} mm'


def provenance(
  result: results.CaseResult, window_hu: tuple[int, int], demo_models: bool
) -> tuple[tuple[str, str], ...]:
  """Name and value of everything that a result depends on."""
  thresholds = result.thresholds
  spacing = ' × '.join(f'{step:.3f}' for step in result.spacing_mm)
  rows = [('Software', result.software)]
  for model in result.models:
    rows.append(
      (
        f'Model {model.name}',
        f'version {model.version}' + ', demo weights trained on phantoms' * demo_models,
      )
    )
    if 'window_hu' in model.card:
      rows.append((f'Window of {model.name}', _window(model.card['window_hu'])))
    rows.append((f'Card of {model.name}, SHA-256', model.card_sha256))
  rows += [
    ('Slice threshold', f'probability > {thresholds.slice_probability:g}'),
    ('Map threshold', f'map > {thresholds.map:g}'),
    ('Thickness', _thickness(result)),
    (
      'Smoothing along the body',
      f'{thresholds.smoothing_mm:g} mm' if thresholds.smoothing_mm else 'none',
    ),
    (
      'Case threshold',
      'none'
      if thresholds.case_corona_score_cm3 is None
      else f'score > {cm3(thresholds.case_corona_score_cm3)} cm³',
    ),
    ('Study UID', result.study_uid or 'none'),
    ('Series UID', result.series_uid or 'none'),
    ('Acquired', result.acquisition_date or 'not stated'),
    ('Scan', acquisition(result.acquisition) or 'not stated'),
    ('Grid', ' × '.join(map(str, result.shape)) + ' (slices, rows, columns)'),
    ('Spacing', f'{spacing} mm (slice, row, column)'),
    ('Voxel volume', f'{result.voxel_volume_mm3:.4f} mm³'),
    ('Lung box', '{0}:{2} rows, {1}:{3} columns'.format(*result.lung_box.as_list())),
    ('Lung outside the box', f'{percent(result.lung_outside_box_fraction)} %'),
    ('Window of the pictures', _window(window_hu)),
  ]
  if result.edits:
    rows.append(('Edits', ' '.join(result.edits.in_words()) or 'none'))
  return tuple(rows)


def _window(window_hu) -> str:
  low, high = window_hu
  return f'{low:g} to {high:g} HU'


def _short(value) -> str:
  if value >= 1 or value == 0:
    return f'{value:.1f}'
  return f'{value:.2f}' if value >= 0.1 else f'{value:.2g}'


# Templates to self-contained HTML pages; whatever comes from a result is escaped.

_FILTERS = {
  'cm3': cm3,
  'percent': percent,
  'hu': hu,
  'mm': millimetres,
  'signed': signed,
  'slice_title': slice_title,
  'slice_caption': slice_caption,
}


def render(template: str, **values) -> bytes:
  """Fills a template of `covid_tf/reports/templates`.

  Args:
    template: its file name.
    **values: what it names; a name without value is an error, not a blank.

  Returns:
    UTF-8.
  """
  environment = jinja2.Environment(
    loader=jinja2.PackageLoader('covid_tf.reports'),
    autoescape=True,
    undefined=jinja2.StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
  )
  environment.filters |= _FILTERS
  return environment.get_template(template).render(**values).encode()
