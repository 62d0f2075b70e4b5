"""How score, involved lung, lung volume and densities of one patient run in time."""

import matplotlib.figure

from covid_tf.cohort.follow_up import course
from covid_tf.reports import figures

_WIDTH_INCH = 7.0
_MARKS = ('^', 's', 'v')  # Of several lines, so that a grey print still reads.
_DENSE = ('ground_glass_share', 'consolidation_share', 'low_attenuation_share')
_DATE_SHARE = 0.24  # Of the axis, that a date takes.


def trend_figure(follow_up: course.FollowUp) -> matplotlib.figure.Figure:
  """Draws the course of the four measures that matter most, each from zero.

  And, where all studies have them by one scheme, that of densities.
  """
  with figures.styled():
    rows = 3 if follow_up.same_densities else 2
    figure = figures.new_figure(2.1 * rows, _WIDTH_INCH)
    (score, thirds), (involved, volume), *densities = figure.subplots(rows, 2)
    for shares, mean in densities:
      _draw_densities(shares, mean, follow_up)
    _line(score, follow_up, course.SCORE, figures.ORANGE, 'o')
    for measure, colour, mark in zip(course.THIRDS, figures.CATEGORIES, _MARKS):
      _line(thirds, follow_up, measure, colour, mark)
    thirds.legend(fontsize=7, handlelength=2)
    _line(involved, follow_up, course.INVOLVED, figures.PURPLE, 'o')
    _line(volume, follow_up, course.LUNG_VOLUME, figures.BLUE, 'o')
    for axes, title in (
      (score, 'Corona score (cm³)'),
      (thirds, 'Score by third of the lungs (cm³)'),
      (involved, 'Involved lung (%)'),
      (volume, 'Lung volume (cm³)'),
    ):
      axes.set_title(title, fontsize=8, loc='left')
      axes.set_ylim(0, max(axes.get_ylim()[1] * 1.08, 1e-3))
      _name_studies(axes, follow_up)
    figures.put_caption(figure, trend_caption(follow_up), line_characters=138)
    return figure


def _draw_densities(shares, mean, follow_up: course.FollowUp) -> None:
  """Shares of the lungs by bin of density, and their mean density."""
  for name, colour, mark in zip(_DENSE, figures.CATEGORIES, _MARKS):
    measure = next((one for one in follow_up.measures if one.name == name), None)
    if measure:
      _line(shares, follow_up, measure, colour, mark)
  shares.legend(fontsize=7, handlelength=2)
  shares.set_title('Share of lung by density (%)', fontsize=8, loc='left')
  shares.set_ylim(0, max(shares.get_ylim()[1] * 1.08, 1e-3))
  _name_studies(shares, follow_up)
  measure = next(one for one in course.BESIDE if one.name == 'mean_lung_density_hu')
  _line(mean, follow_up, measure, figures.GREEN, 'o')
  mean.set_title('Mean lung density (HU)', fontsize=8, loc='left')
  mean.margins(y=0.3)
  _name_studies(mean, follow_up)


def trend_caption(follow_up: course.FollowUp) -> str:
  """What the figure shows."""
  place = 'by date, true to scale' if _over_days(follow_up) else 'in the order given'
  return (
    f'{len(follow_up.points)} studies of one patient, {place}; one measurement '
    "each, so no interval. Thirds are of the lungs' height, their score is inside "
    'the segmented lungs. Research use only.'
  )


def _line(axes, follow_up, measure, colour, mark):
  scale = 100 if measure.unit == '%' else 1
  axes.plot(
    _places(follow_up),
    [scale * measure.of(point.result) for point in follow_up.points],
    marker=mark,
    ms=4.5,
    lw=1.3,
    color=colour,
    label=measure.title,
    clip_on=False,
  )


def _over_days(follow_up) -> bool:
  """Whether the studies are of several days; else they keep the order given."""
  return follow_up.by_date and follow_up.points[-1].days > follow_up.points[0].days


def _places(follow_up) -> list[int]:
  if not _over_days(follow_up):
    return list(range(len(follow_up.points)))
  return [point.days for point in follow_up.points]


def _name_studies(axes, follow_up):
  """Names the studies: by dates, true to scale, where there is room for a date."""
  places = _places(follow_up)
  span = (places[-1] - places[0]) or 1
  if _over_days(follow_up):
    named = [0]
    for number in range(1, len(places)):
      last = number == len(places) - 1
      if places[number] - places[named[-1]] < _DATE_SHARE * span:
        if not last or len(named) == 1:
          continue
        named.pop()
      if last or places[-1] - places[number] >= _DATE_SHARE * span:
        named.append(number)
    labels = [follow_up.points[number].label for number in named]
    axes.set_xticks([places[number] for number in named], labels, fontsize=6.5)
    axes.set_xticks(places, minor=True)
    days = f'{span} day{"s" * (span > 1)} in all'
    axes.set_xlabel(f'Date of the study ({days})', labelpad=1)
  else:
    axes.set_xlabel(
      'Study, all of one day' if follow_up.by_date else 'Study', labelpad=1
    )
    axes.set_xticks(places, [str(place + 1) for place in places])
  axes.set_xlim(places[0] - 0.06 * span, places[-1] + 0.06 * span)
