"""A node under fire: eight senders, five times SIGKILL; nothing lost, nothing twice.

  python tools/benchmarks/node.py                      # 200 studies, some minutes
  python tools/benchmarks/node.py --studies 12 --kills 1 --json
  python tools/benchmarks/node.py --receive            # against dcmtk's storescp
  python tools/benchmarks/node.py --orthanc            # end to end, the demo models

The node runs as it does in a hospital, but for its models, which only take their time.
Senders send whole studies in one association or in one an instance, stall, abort and
come back, abort and never come back, repeat themselves, and mix two studies; what a
killed node had not acknowledged they send again. The figures are

  studies       that were sent whole
  scored        of them, by the manifest
  lost          of them without a score, or whose report did not arrive
  lost_instances
                acknowledged, and not in the spool as they were sent
  twice         scored twice, or rows of the manifest, or objects that arrived twice
  partial       scored, but never sent whole, or with fewer slices than were sent
  peak_memory   of the node and its workers, in MB

Status 1: `lost`, `lost_instances`, `twice` or `partial` is not 0.
"""

import argparse
import collections
import contextlib
import csv
import dataclasses
import json
import pathlib
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time

import batch_stub
import node_peers
import node_receive
import psutil
import pydicom

from covid_tf import streams
from covid_tf.batch import records

_SENDERS = 8
_HERE = pathlib.Path(__file__).resolve().parent
_MOST_SECONDS = 3600.0
_STALLED_S = 120.0  # The first study of a worker waits for its imports.
_CLAIMS = ('lost', 'lost_instances', 'twice', 'partial', 'different', 'missing')


@dataclasses.dataclass(frozen=True)
class Plan:
  """What is done to a node.

  Attributes:
    studies: how many are sent.
    kills: by SIGKILL, each followed by a start.
    settle_s: after which a study counts as whole.
    lungs_ms, grad_cam_ms: that the models take for a slice.
    seed: of what is left to chance.
    spacing_mm, matrix: of the studies' slices.
    processes: workers of the node.
  """

  studies: int
  kills: int
  settle_s: float
  lungs_ms: float
  grad_cam_ms: float
  seed: int
  spacing_mm: float = 20.0
  matrix: int = 128
  processes: int = 2


class Node:
  """The node as a subprocess that may be killed; watches its memory.

  Attributes:
    output: its folder.
    port: that it listens at.
    peak_mb: of it and its workers together, proportional set size.
  """

  TITLE = 'COVIDTF'

  def __init__(self, source: pathlib.Path, output: pathlib.Path, to: str, plan: Plan):
    self.output = output
    self.port = node_receive.free_port()
    self.peak_mb = 0.0
    self.log = output.parent / 'node.log'
    self._command = [
      sys.executable,
      str(_HERE / 'node_stub.py'),
      f'--source={source}',
      f'--output={output}',
      f'--port={self.port}',
      f'--to={to}',
      f'--settle={plan.settle_s:g}',
      f'--lungs_ms={plan.lungs_ms:g}',
      f'--grad_cam_ms={plan.grad_cam_ms:g}',
      f'--processes={plan.processes}',
    ]
    self._process: subprocess.Popen | None = None
    self._ended = threading.Event()
    self._watcher = threading.Thread(target=self._watch, daemon=True)

  def __enter__(self) -> 'Node':
    self.start()
    self._watcher.start()
    return self

  def __exit__(self, *exception) -> None:
    self._ended.set()
    self.kill()

  def start(self) -> None:
    """Starts it, for the first time or again."""
    with open(self.log, 'ab') as log:
      self._process = subprocess.Popen(self._command, stdout=log, stderr=log)

  def kill(self) -> None:
    """SIGKILL; its workers are left to find out by themselves."""
    self._process.kill()
    self._process.wait()

  def require_alive(self) -> None:
    """Ends the benchmark where the node has ended by itself."""
    if self._process.poll() is not None:
      raise SystemExit(
        f'the node ended with {self._process.returncode}:\n{_tail(self.log)}'
      )

  def stop(self) -> int:
    """SIGTERM; returns its exit status."""
    self._ended.set()
    self._process.send_signal(signal.SIGTERM)
    try:
      return self._process.wait(120)
    except subprocess.TimeoutExpired:
      self._process.kill()
      return self._process.wait()

  def _watch(self) -> None:
    while not self._ended.wait(0.5):
      with contextlib.suppress(psutil.Error):
        main = psutil.Process(self._process.pid)
        total = 0
        for process in (main, *main.children(recursive=True)):
          with contextlib.suppress(psutil.Error):
            total += process.memory_full_info().pss
        self.peak_mb = max(self.peak_mb, total / 2**20)


def run(root: pathlib.Path, plan: Plan) -> dict[str, float]:
  """Sends, kills, waits for the end, and counts.

  Args:
    root: an empty folder.
    plan: what is done.

  Returns:
    The figures of the module's text, and some that tell how it went.
  """
  node_peers.be_silent()
  source = batch_stub.write_archive(
    root / 'in', plan.studies, plan.spacing_mm, plan.matrix
  )
  studies = node_peers.read_studies(source, plan.seed)
  ledger, destination = node_peers.Ledger(), node_peers.Destination()
  begin = time.monotonic()
  with (
    destination.running(),
    Node(source, root / 'out', destination.address, plan) as node,
  ):
    senders, threads = node_peers.start_senders(
      lambda number: node_peers.Sender(
        '127.0.0.1',
        node.port,
        node.TITLE,
        ledger,
        plan.settle_s,
        random.Random(plan.seed + number),
        f'SENDER{number}',
      ),
      _SENDERS,
      studies,
    )
    kills = _disturb(node, studies, ledger, destination, plan)
    _wait_for_end(node, studies, destination, threads)
    # Whatever would come too much, comes now: a study once more, an incomplete one.
    time.sleep(3 * plan.settle_s)
    seconds = time.monotonic() - begin
    status = node.stop()
  if status:
    raise SystemExit(f'the node ended with {status}:\n{_tail(node.log)}')
  return {
    **_count(studies, node.output, ledger, destination),
    'peak_memory': node.peak_mb,
    'kills': kills,
    'seconds': seconds - 3 * plan.settle_s,
    'instances': ledger.count(),
    'acknowledgements': ledger.acknowledgements,
    'retries': sum(sender.retries for sender in senders),
    'refused_instances': sum(len(sender.refused) for sender in senders),
    'log_lines_with_traceback': node.log.read_text('utf-8').count('Traceback'),
  }


def _whole(studies) -> list[node_peers.Study]:
  return [study for study in studies if study.way is not node_peers.Way.GONE]


def _disturb(node, studies, ledger, destination, plan) -> int:
  """Kills at random moments of the work: half of it is sending, half is scoring."""
  chance = random.Random(plan.seed)
  instances = sum(len(study.paths) for study in studies)
  moments = sorted(chance.uniform(0.02, 0.95) for _ in range(plan.kills))
  last, before = time.monotonic(), -1.0
  for done, moment in enumerate(moments):
    while True:
      node.require_alive()
      sent = ledger.count() / instances
      arrived = len(destination.studies()) / len(_whole(studies))
      if (sent + arrived) / 2 >= moment:
        break
      if sent + arrived != before:
        last, before = time.monotonic(), sent + arrived
      if time.monotonic() - last > _STALLED_S:
        return done  # Nothing goes on: what is missing will be counted.
      time.sleep(0.05)
    time.sleep(chance.uniform(0, 2))
    node.kill()
    node.start()
    print(
      f'killed at {sent:4.0%} sent, {arrived:4.0%} arrived', file=sys.stderr, flush=True
    )
  return plan.kills


def _wait_for_end(node, studies, destination, threads) -> None:
  """Until all senders are done and the report of each whole study has arrived."""
  uids = {study.uid for study in _whole(studies)}
  end, last, count = time.monotonic() + _MOST_SECONDS, time.monotonic(), -1
  while time.monotonic() < end:
    node.require_alive()
    found = len(uids & destination.studies())
    sending = any(thread.is_alive() for thread in threads)
    if found == len(uids) and not sending:
      return
    if found != count or sending:
      last, count = time.monotonic(), found
    if time.monotonic() - last > _STALLED_S:
      return  # Nothing comes any more: what is missing is lost.
    time.sleep(0.2)


def _count(studies, output, ledger, destination) -> dict[str, float]:
  with open(output / records.MANIFEST_FILE, newline='', encoding='utf-8') as file:
    rows = list(csv.DictReader(file))
  scored = {row['key']: row for row in rows if row['status'] == records.SCORED}
  whole = {study.uid: study for study in _whole(studies)}
  lost = [uid for uid in whole if uid not in scored or not destination.reports_of(uid)]
  partial = [
    uid
    for uid, row in scored.items()
    if uid not in whole or int(row['slice_count']) != len(whole[uid].paths)
  ]
  twice = (
    (len(rows) - len({row['key'] for row in rows}))
    + sum(count > 1 for count in destination.requests.values())
    + sum(destination.reports_of(study.uid) > 1 for study in studies)
    + _scored_again(output)
  )
  for kind, uids in (('lost', lost), ('partial', partial)):
    for uid in uids:
      ways = [study.way.name for study in studies if study.uid == uid]
      print(f'{kind}: {uid} {ways}', file=sys.stderr)
  return {
    'studies': len(whole),
    'scored': len(scored.keys() & whole.keys()),
    'lost': len(lost),
    'lost_instances': _lost_instances(studies, output / 'spool', ledger),
    'twice': twice,
    'partial': len(partial),
    'never_whole': len(studies) - len(whole),
  }


def _scored_again(output: pathlib.Path) -> int:
  """Studies that were scored to the end more than once with the same images."""
  path = output.parent / 'scored.txt'
  ends = collections.Counter(path.read_text('utf-8').splitlines())
  return sum(count > 1 for count in ends.values())


def _lost_instances(studies, spool, ledger) -> int:
  """Acknowledged instances that are not in the spool with the pixels that were sent."""
  lost = 0
  for study in studies:
    for uid in ledger.of(study.uid):
      sent = pydicom.dcmread(study.paths[uid])
      kept = spool / 'studies' / study.uid / sent.SeriesInstanceUID / f'{uid}.dcm'
      try:
        lost += pydicom.dcmread(kept).PixelData != sent.PixelData
      except (OSError, pydicom.errors.InvalidDicomError, AttributeError):
        lost += 1
  return lost


def _tail(path: pathlib.Path) -> str:
  return path.read_text('utf-8', 'replace')[-2000:]


def main() -> None:
  """Runs what was asked for."""
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument('--studies', type=int, default=200)
  parser.add_argument('--kills', type=int, default=5)
  parser.add_argument('--settle', type=float, default=5.0, help='of the node, seconds')
  parser.add_argument('--lungs_ms', type=float, default=5.0, help='a slice')
  parser.add_argument('--grad_cam_ms', type=float, default=5.0, help='a slice')
  parser.add_argument('--spacing', type=float, default=20.0, help='of slices, mm')
  parser.add_argument('--matrix', type=int, default=128, help='rows and columns')
  parser.add_argument('--processes', type=int, default=2, help='workers of the node')
  parser.add_argument('--seed', type=int, default=26)
  parser.add_argument('--receive', action='store_true', help='against storescp')
  parser.add_argument('--slices', type=int, default=300, help='of --receive')
  parser.add_argument('--rows', type=int, default=512, help='of --receive')
  parser.add_argument('--rounds', type=int, default=5, help='of --receive')
  parser.add_argument('--orthanc', action='store_true', help='between two of them')
  parser.add_argument('--ten', type=int, default=10, help='studies of --orthanc')
  parser.add_argument('--keep', metavar='DIR', help='work here and leave it')
  parser.add_argument('--json', action='store_true')
  flags = parser.parse_args()
  root = pathlib.Path(flags.keep or tempfile.mkdtemp(prefix='covid-tf-node-'))
  root.mkdir(parents=True, exist_ok=True)
  try:
    figures = _figures(root, flags)
  finally:
    if not flags.keep:
      shutil.rmtree(root, ignore_errors=True)
  for name, value in figures.items():
    print(f'{name:26} {value:12.4g}')
  if flags.json:
    print(json.dumps(figures))
  failed = [name for name in _CLAIMS if figures.get(name)]
  if figures.get('receive_ratio', 0) > 2:
    failed.append('receive_ratio')
  if failed:
    sys.exit(f'not as claimed: {", ".join(failed)}')


def _figures(root: pathlib.Path, flags: argparse.Namespace) -> dict[str, float]:
  if flags.orthanc:
    import node_orthanc  # Its imports take a second.
    import orthanc

    if reason := orthanc.why_missing():
      sys.exit(reason)
    return node_orthanc.run(root, flags.ten)
  if flags.receive:
    if reason := node_receive.why_missing():
      sys.exit(reason)
    return node_receive.run(root, flags.slices, flags.rows, flags.rounds)
  plan = Plan(
    flags.studies,
    flags.kills,
    flags.settle,
    flags.lungs_ms,
    flags.grad_cam_ms,
    flags.seed,
    flags.spacing,
    flags.matrix,
    flags.processes,
  )
  return run(root, plan)


if __name__ == '__main__':
  with streams.safe_streams():
    main()
