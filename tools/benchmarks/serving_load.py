"""Many clients of one server whose classifier is replaced again and again."""

import pathlib
import shutil
import tempfile
import threading
import time

import numpy as np
import serving_processes

_SLICES, _SHAPE = 8, (256, 320)  # Of one request; a small lung box.
_TOLERANCE = 1e-5  # Of the design, for answers of another process.
_ALONE_S = 10.0
_LOOK_S = 0.5  # At the memory: versions come and go within seconds.


def run(models_dir, clients: int, seconds: float, swap_s: float) -> dict[str, float]:
  """Loads a server for a while; see `serving.py` for the figures."""
  with tempfile.TemporaryDirectory() as folder:
    store = _Store(pathlib.Path(models_dir), pathlib.Path(folder))
    expected = store.expected()
    alone = [_alone_slices_a_second(store.served)]
    with serving_processes.local_server(
      store.served, '--file_system_poll_wait_seconds=0.5'
    ) as server:
      counts, memory, duration = _load(
        server, store, expected, clients, seconds, swap_s
      )
    alone.append(_alone_slices_a_second(store.served))
  throughput = counts['slices'] / duration
  return {
    'requests': counts['requests'],
    'failed': counts['failed'],
    'wrong': counts['wrong'],
    'restarted': counts['restarted'],
    'swaps': counts['swaps'],
    'slices_a_second': throughput,
    'slices_a_second_in_process': np.mean(alone),
    'throughput_ratio': throughput / np.mean(alone),
    'memory_mb': np.median(_third(memory, 2)),
    'memory_highest_mb': max(memory),
    'memory_growth_mb': np.median(_third(memory, 2)) - np.median(_third(memory, 1)),
  }


def _third(memory: list[float], index: int) -> list[float]:
  return memory[index * len(memory) // 3 : (index + 1) * len(memory) // 3]


class _Store:
  """Two classifiers that answer differently, and the folder that is served."""

  def __init__(self, models: pathlib.Path, folder: pathlib.Path):
    self.served = folder / 'served'
    self._parts = [folder / 'even', folder / 'odd']
    classifier = _newest(models / 'classifier')
    shutil.copytree(_newest(models / 'lungs'), self.served / 'lungs' / '1')
    for shift, part in enumerate(self._parts):
      _export_shifted(classifier, part / 'classifier' / '1', float(shift))
      (part / 'lungs').symlink_to(self.served / 'lungs')
    self._version = 0
    self.swap()

  def swap(self) -> None:
    """Adds a version as an operator does; the one before stays for a while."""
    self._version += 1
    source = self._parts[self._version % 2] / 'classifier' / '1'
    hidden = self.served / f'.{self._version}'
    shutil.copytree(source, hidden)
    (self.served / 'classifier').mkdir(exist_ok=True)
    hidden.rename(self.served / 'classifier' / str(self._version))
    shutil.rmtree(
      self.served / 'classifier' / str(self._version - 2), ignore_errors=True
    )

  def expected(self) -> list:
    """What even and odd versions answer to `_images()`."""
    import covid_tf

    answers = []
    for part in self._parts:
      with covid_tf.load_models(part) as models:
        answers.append(models.grad_cam(_images()))
    return answers


def _newest(folder: pathlib.Path) -> pathlib.Path:
  return max(
    (path for path in folder.iterdir() if path.name.isdecimal()),
    key=lambda path: int(path.name),
  )


def _export_shifted(source, target, shift: float) -> None:
  """Copies a classifier with `shift` added to its logit."""
  import tensorflow as tf

  loaded = tf.saved_model.load(str(source))
  copy = tf.Module()
  copy.kept = [
    variable
    for function in loaded.signatures.values()
    for variable in function.variables
  ]
  bias = next(variable for variable in copy.kept if variable.shape == (1,))
  bias.assign_add([shift])
  tf.saved_model.save(copy, str(target), signatures=dict(loaded.signatures))


def _images() -> np.ndarray:
  return (
    np.random.default_rng(0).integers(-1000, 300, (_SLICES, *_SHAPE)).astype(np.int16)
  )


def _alone_slices_a_second(models_dir) -> float:
  """The models' own pace at the same batch size, in this process."""
  import covid_tf

  hu = _images()
  with covid_tf.load_models(models_dir) as models:
    models.grad_cam(hu)
    start, count = time.perf_counter(), 0
    while time.perf_counter() - start < _ALONE_S:
      models.grad_cam(hu)
      count += len(hu)
    return count / (time.perf_counter() - start)


def _load(server, store, expected, clients, seconds, swap_s):
  counts = dict.fromkeys(
    ('requests', 'failed', 'wrong', 'restarted', 'swaps', 'slices'), 0
  )
  lock, stop, memory = threading.Lock(), threading.Event(), []
  threads = [
    threading.Thread(
      target=_client, args=(server.address, expected, counts, lock, stop)
    )
    for _ in range(clients)
  ]
  for thread in threads:
    thread.start()
  start, swapped = time.perf_counter(), 0.0
  while (elapsed := time.perf_counter() - start) < seconds:
    if elapsed - swapped >= swap_s:
      store.swap()
      swapped += swap_s
      counts['swaps'] += 1
    memory.append(server.memory_mb())
    time.sleep(_LOOK_S)
  stop.set()
  for thread in threads:
    thread.join()
  return counts, memory, time.perf_counter() - start


def _client(address, expected, counts, lock, stop) -> None:
  import covid_tf
  from covid_tf import errors

  hu = _images()
  with covid_tf.connect(address, connect_patience_s=60) as models:
    while not stop.is_set():
      outcome = {'requests': 1}
      try:
        with models.study() as study:
          answer = study.grad_cam(hu)
        version = study.identities()[1].version
        if not all(
          np.allclose(ours, theirs, rtol=0, atol=_TOLERANCE)
          for ours, theirs in zip(answer, expected[version % 2], strict=True)
        ):
          outcome['wrong'] = 1
        outcome['slices'] = len(hu)
      except errors.ModelVersionChangedError:
        outcome['restarted'] = 1
      except errors.ModelError:
        outcome['failed'] = 1
      with lock:
        for name, value in outcome.items():
          counts[name] += value
