"""Numbers as a paper prints them."""


def p_value(value: float) -> str:
  """'p = 0.0064', 'p < 0.0001'."""
  if value < 0.0001:
    return 'p < 0.0001'
  return f'p = {value:.4f}' if value < 0.01 else f'p = {value:.3f}'


def interval(limits: tuple[float, float] | None, digits: int = 3) -> str:
  """'0.912–0.985', or 'not defined' for None; 'to' where a limit is negative."""
  if limits is None:
    return 'not defined'
  low, high = (f'{limit:.{digits}f}' for limit in limits)
  return f'{low}–{high}' if limits[0] >= 0 else f'{low} to {high}'


def cubic_centimetres(value: float) -> str:
  """'61.5 cm³'."""
  return f'{value:.1f} cm³'


def percent(value: float | None) -> str:
  """'94 %', '99.7 %' where all would be said of some, or 'not defined'."""
  return 'not defined' if value is None else f'{_hundredths(value)} %'


def percent_interval(limits: tuple[float, float] | None) -> str:
  """'88–98 %', or 'not defined'."""
  if limits is None:
    return 'not defined'
  return f'{_hundredths(limits[0])}–{_hundredths(limits[1])} %'


def _hundredths(share: float) -> str:
  whole = f'{100 * share:.0f}'
  # Neither none nor all may be said of a share that is neither.
  return f'{100 * share:.1f}' if whole in ('0', '100') and share % 1 else whole
