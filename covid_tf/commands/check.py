"""`covid-tf check`: do a server's models, or those of a folder, compute right?"""

import argparse
from concurrent import futures
from concurrent.futures import process
import contextlib
import dataclasses
import json
import signal
from typing import cast

from covid_tf import errors
from covid_tf import process_end
from covid_tf.analysis import pipeline
from covid_tf.commands import model_flags
from covid_tf.predictors import differences
from covid_tf.predictors import self_check

_BATCHES = 200  # A fault of one batch in seventy is met with 95 %.


def add_arguments(parser: argparse.ArgumentParser) -> None:
  """Adds the command's flags."""
  model_flags.add_model_arguments(parser, self_check=False)
  parser.add_argument(
    '--batches',
    type=int,
    default=_BATCHES,
    metavar='N',
    help='how often one batch is asked of each model, one at once and again two at '
    'once (default %(default)s)',
  )
  parser.add_argument(
    '--accept-narrower',
    action='store_true',
    help='take the answers of a narrower number format (TF32, bfloat16) for right, '
    'whatever type the card names',
  )
  parser.add_argument(
    '--json', action='store_true', help='print one JSON object instead of a table'
  )


def run(arguments: argparse.Namespace) -> int:
  """Asks and prints; returns 0 if all is right.

  Raises:
    errors.UsageError: a flag is wrong.
    errors.ModelError: no server, not our models, or they compute wrong.
  """
  if arguments.batches < 1:
    raise errors.UsageError(
      f'--batches: at least 1 is required, found {arguments.batches}.'
    )
  source = arguments.server or str(arguments.models or 'demo models')
  reports = (_reports if arguments.server else _reports_of_process)(arguments, source)
  failures = [text for report in reports for text in report.failures]
  if arguments.json:
    print(
      json.dumps(
        {
          'source': source,
          'right': not failures,
          'models': [_in_json(report) for report in reports],
        }
      )
    )
  else:
    print('\n'.join(line for report in reports for line in _lines(report)))
  if failures:
    raise errors.ModelError(f'{"; ".join(failures)}.')
  if not arguments.json:
    print(
      f'{source}: right.'
      if all(report.has_references for report in reports)
      else f'{source}: repeats itself; whether it is right cannot be said.'
    )
  return 0


def _reports_of_process(
  arguments: argparse.Namespace, source: str
) -> list[self_check.Report]:
  """`_reports` in a process of its own: what is asked about has ended processes."""
  context = process_end.RememberingContext()
  with futures.ProcessPoolExecutor(1, context, _leave_interrupts) as pool:
    try:
      return pool.submit(_reports, arguments, source).result()
    except process.BrokenProcessPool as error:
      pool.shutdown()
      raise errors.ModelError(
        f'{source}: the process that computed {context.how_one_ended()}.'
      ) from error
    except KeyboardInterrupt:
      context.end()
      raise


def _leave_interrupts() -> None:
  signal.signal(signal.SIGINT, signal.SIG_IGN)  # They are the parent's business.


def _reports(arguments: argparse.Namespace, source: str) -> list[self_check.Report]:
  with contextlib.ExitStack() as stack:
    models = stack.enter_context(model_flags.open_models(arguments))
    study = stack.enter_context(models.study())
    bar = stack.enter_context(
      pipeline.progress_bar(
        True,
        total=2 * arguments.batches * len(study.identities()),
        desc='checking',
        unit='batch',
      )
    )
    return [
      self_check.check(
        source,
        # What `open_models` gives can be asked by signature too.
        cast(self_check.Asked, study),
        identity,
        arguments.batches,
        one_machine=arguments.server is None,
        accept_narrower=arguments.accept_narrower,
        tick=bar.update,
      )
      for identity in study.identities()
    ]


def _lines(report: self_check.Report) -> list[str]:
  """What was found of one model, for people."""
  identity = report.identity
  lines = [
    f'{identity.name} version {identity.version}, card '
    f'{identity.card_sha256[:12]}, {differences.compute_dtype(identity)}'
  ]
  if report.comparisons:
    lines.append(f'  {"compared with its reference":42}{"largest":>12}{"allowed":>12}')
  for found in report.comparisons:
    lines.append(
      f'  {found.signature + ", " + found.output:42}{found.difference:12.2g}'
      f'{found.tolerance:12.2g}  {found.verdict.value}'
    )
  bits = {0: 'no answer', 1: 'all the same bits'}.get(
    len(report.counts),
    f'{len(report.counts)} answers that differ, by {report.spread:.2g} at most',
  )
  lines.append(f'  one batch {report.batches} times, one and two at once: {bits}')
  lines += [f'  note: {text}.' for text in report.notes]
  return lines


def _in_json(report: self_check.Report) -> dict:
  identity = report.identity
  largest = report.largest
  return {
    'name': identity.name,
    'version': identity.version,
    'card_sha256': identity.card_sha256,
    'compute_dtype': differences.compute_dtype(identity),
    'right': not report.failures,
    'has_references': report.has_references,
    'comparisons': [
      dataclasses.asdict(found) | {'verdict': found.verdict.name.lower()}
      for found in report.comparisons
    ],
    'largest_difference': largest and largest.difference,
    'batches': report.batches,
    'answers': report.counts,
    'spread': report.spread,
    'several_machines': report.several_machines,
    'failures': report.failures,
    'notes': report.notes,
  }
