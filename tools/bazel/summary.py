"""Sums the test logs of a Bazel run: `N passed, N failed`, and skips if any.

  python tools/bazel/summary.py TESTLOGS //tests:a_test //tests:b_test …

A target without a readable log counts as one failure: silence is not success.
"""

import pathlib
import sys
import xml.etree.ElementTree as ElementTree


def count(log: pathlib.Path) -> tuple[int, int, int]:
  """(passed, failed, skipped) cases of one test.xml; (0, 1, 0) if unreadable."""
  try:
    suites = list(ElementTree.parse(log).getroot().iter('testsuite'))
  except (OSError, ElementTree.ParseError):
    return 0, 1, 0
  total, failed, skipped = (
    sum(int(suite.get(name, 0)) for suite in suites)
    for name in ('tests', 'failures', 'skipped')
  )
  failed += sum(int(suite.get('errors', 0)) for suite in suites)
  if not total:
    return 0, 1, 0
  return total - failed - skipped, failed, skipped


def main(testlogs: str, *targets: str) -> int:
  """Prints the sums; returns 1 if anything failed or nothing passed."""
  sums = [0, 0, 0]
  for target in targets:
    package, name = target.removeprefix('//').split(':')
    counts = count(pathlib.Path(testlogs, package, name, 'test.xml'))
    if counts[1]:
      print(f'{target}: {counts[1]} failed')
    sums = [total + more for total, more in zip(sums, counts)]
  passed, failed, skipped = sums
  skips = f', {skipped} skipped' if skipped else ''
  print(f'{passed} passed, {failed} failed{skips}')
  return 1 if failed or not passed else 0


if __name__ == '__main__':
  sys.exit(main(*sys.argv[1:]))
