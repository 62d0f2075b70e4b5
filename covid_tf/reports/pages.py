"""Templates to self-contained HTML pages; whatever comes from a result is escaped."""

import jinja2

from covid_tf.reports import wording

_FILTERS = {
    'cm3': wording.cm3,
    'percent': wording.percent,
    'mm': wording.millimetres,
    'signed': wording.signed,
    'slice_title': wording.slice_title,
    'slice_caption': wording.slice_caption,
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
      loader=jinja2.PackageLoader('covid_tf.reports'), autoescape=True,
      undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True)
  environment.filters |= _FILTERS
  return environment.get_template(template).render(**values).encode()
