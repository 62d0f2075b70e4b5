"""Flags as TF Serving reads them: bare, or with =true or =false."""

import argparse


def add(group, flag: str, help_: str, default: bool = False) -> None:
  """Declares a flag that is `default` unless it is given."""
  group.add_argument(flag, nargs='?', const=True, default=default, type=_boolean,
                     metavar='true|false', help=help_)


def _boolean(text: str) -> bool:
  if text.lower() not in ('true', 'false', '1', '0'):
    raise argparse.ArgumentTypeError(f'required true or false, found {text!r}')
  return text.lower() in ('true', '1')
