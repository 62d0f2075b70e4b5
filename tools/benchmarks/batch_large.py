"""A hundred thousand studies: listed with faked headers, and their manifest."""

import argparse
import pathlib
import resource
import subprocess
import sys
import time

from covid_tf import results
from covid_tf import streams
from covid_tf.batch import archive
from covid_tf.batch import archive_run
from covid_tf.batch import records
from covid_tf.batch import run_configuration
from covid_tf.readers import header

_FILES_A_STUDY = 3
_ROOT_UID = '1.2.826.0.1.3680043.10.511'


def run(root: pathlib.Path, count: int) -> dict[str, float]:
  """Makes the folders, then lists and rebuilds, each in a process of its own."""
  for number in range(count):
    folder = root / 'in' / f'{number // 1000:03d}' / f'{number:06d}'
    folder.mkdir(parents=True)
    for file in range(_FILES_A_STUDY):
      (folder / f'{file}.dcm').touch()
  _write_records(root / 'out', count)
  figures = {}
  for step in ('listing', 'manifest_rebuild'):
    done = subprocess.run(
      [sys.executable, __file__, step, str(root), str(count)],
      check=True,
      capture_output=True,
      text=True,
    )
    seconds, cpu, megabytes = map(float, done.stdout.split())
    figures |= {f'{step}_s': seconds, f'{step}_cpu_s': cpu, f'{step}_mb': megabytes}
  return figures


def made_up_record(number: int) -> records.Record:
  """The record of a study that was never scored."""
  uid = f'{_ROOT_UID}.{number}'
  return records.Record(
    uid,
    records.SCORED,
    '',
    uid,
    f'{uid}.1',
    61.5,
    0.05,
    4200.0,
    None,
    40,
    0,
    4.25,
    'host',
    '2020-03-01T00:00:00Z',
    '0' * 16,
    '0' * 64,
  )


def _write_records(output: pathlib.Path, count: int) -> None:
  for number in range(count):
    record = made_up_record(number)
    folder = records.studies_folder(output) / record.key
    folder.mkdir(parents=True)
    records.write_record(folder, record)
    (folder / 'result.json').touch()


def _fake_identity(path: str) -> header.FileIdentity:
  *_, study, file = path.split('/')
  uid = f'{_ROOT_UID}.{int(study)}'
  return header.FileIdentity(
    uid, f'{uid}.1', f'{uid}.1.{file[:-4]}', 'CT', True, 527_000
  )


def _listing(root: pathlib.Path, count: int) -> None:
  """All that comes before the first study of a fresh archive."""
  found = archive.find_studies(
    root / 'in', index_path=root / 'index.jsonl', identify=_fake_identity
  )
  plan = archive_run.plan_run(
    found.studies,
    {},
    run_configuration.Configuration((), results.Thresholds()),
    root / 'fresh',
    redo=False,
  )
  if len(plan.open) != count:
    raise SystemExit(f'{len(plan.open)} studies found')


def _manifest_rebuild(root: pathlib.Path, count: int) -> None:
  if len(records.rebuild_manifest(root / 'out')) != count:
    raise SystemExit('records were lost')


if __name__ == '__main__':
  with streams.safe_streams():
    tasks = {'listing': _listing, 'manifest_rebuild': _manifest_rebuild}
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('task', choices=tuple(tasks))
    parser.add_argument('folder', type=pathlib.Path, help='to work in')
    parser.add_argument('studies', type=int, help='how many')
    arguments = parser.parse_args()
    start, cpu_start = time.perf_counter(), time.process_time()
    tasks[arguments.task](arguments.folder, arguments.studies)
    print(
      time.perf_counter() - start,
      time.process_time() - cpu_start,
      resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
    )
