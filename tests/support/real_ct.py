"""Real CT for tests: read where it lies, never kept here.

COVID_TF_REAL_CT names the folder; without it, shared/data beside the checkout.
"""

import os
import pathlib

import pytest

_CHECKOUT = pathlib.Path(__file__).resolve().parents[2]


def folder(*names: str) -> pathlib.Path:
  """The folder or file of these names; skips the test where it is not there."""
  root = pathlib.Path(
    os.environ.get('COVID_TF_REAL_CT') or _CHECKOUT.parent / 'shared' / 'data'
  )
  path = root.joinpath(*names)
  if not path.exists():
    pytest.skip(
      f'no real CT at {"/".join(names)}; COVID_TF_REAL_CT must name its folder'
    )
  return path
