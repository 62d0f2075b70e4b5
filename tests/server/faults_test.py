"""What goes wrong between a scorer and its server: the right answer, or none."""

import concurrent.futures
import contextlib
import functools
import shutil
import socket
import threading

import fake_serving
import free_ports
import grpc
import numpy as np
import pytest
import serving_stub
import synthetic_case
import tiny_answers
import tiny_models
import trustme

from covid_tf import contract
from covid_tf import errors
from covid_tf import predictors
from covid_tf.analysis import pipeline

_HU = fake_serving.HU


@pytest.fixture
def fake():
  server = fake_serving.FakeServing()
  yield server
  server.stop()


def _assert_right(explanation, bias=0.0):
  np.testing.assert_allclose(
    explanation.covid_probability, tiny_answers.probability(_HU, bias), atol=1e-6
  )
  np.testing.assert_array_equal(explanation.cam_28, tiny_answers.cam(_HU, 28))


def _at_request(fake, number, action):
  """Runs `action` once, when the image request of that number comes in."""
  done = threading.Event()

  def before(request, context):
    if len(fake.predicted) >= number and not done.is_set():
      done.set()
      action(request, context)

  fake.before = before


# The server is away, slow, killed, overloaded.


def test_absent():
  port = free_ports.free_port()
  with pytest.raises(
    errors.ModelError,
    match=(f'localhost:{port}: .*UNAVAILABLE.*required a running model server'),
  ):
    fake_serving.connect(f'localhost:{port}')


def test_slow(fake):
  release = threading.Event()
  fake.before = lambda *_: release.wait(60)
  # Long enough for what is asked when it is opened.
  with fake_serving.connect(fake.address, timeout_s=3) as models:
    with pytest.raises(
      errors.ModelError,
      match=('grad_cam, slices 0 to 3: DEADLINE_EXCEEDED .* raise timeout_s'),
    ):
      models.grad_cam(_HU)
  release.set()


def test_killed_and_restarted_in_the_middle_of_a_study(fake):
  def kill(request, context):
    threading.Thread(target=fake.restart).start()
    context.abort(grpc.StatusCode.UNAVAILABLE, 'going')

  _at_request(fake, 3, kill)
  with fake_serving.connect(fake.address) as models, models.study() as study:
    _assert_right(study.grad_cam(_HU))


def test_killed_for_good_in_the_middle_of_a_study(fake):
  _at_request(fake, 3, lambda *_: threading.Thread(target=fake.stop).start())
  with fake_serving.connect(fake.address, patience_s=0.5) as models:
    with pytest.raises(errors.ModelError, match='UNAVAILABLE.*running model server'):
      models.grad_cam(_HU)


def test_out_of_memory_halves_the_batch(fake):
  def refuse(request, context):
    if request.inputs['hu'].tensor_shape.dim[0].size > 1:
      context.abort(
        grpc.StatusCode.RESOURCE_EXHAUSTED,
        'OOM when allocating tensor with shape[4,64,512,512]',
      )

  fake.before = refuse
  with fake_serving.connect(fake.address) as models:
    _assert_right(models.grad_cam(_HU))
  assert {slices for *_, slices in fake.predicted} == {4, 2, 1}


def test_out_of_memory_for_one_slice_is_an_error(fake):
  fake.before = lambda request, context: context.abort(
    grpc.StatusCode.RESOURCE_EXHAUSTED, 'OOM when allocating tensor'
  )
  with fake_serving.connect(fake.address, patience_s=0.02) as models:
    with pytest.raises(errors.ModelError, match='RESOURCE_EXHAUSTED .*more memory'):
      models.grad_cam(_HU)


def test_a_full_queue_is_waited_for_with_whole_batches(fake):
  refusals = iter(range(5))

  def refuse(request, context):
    if next(refusals, None) is not None:
      context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, 'The request queue is full')

  fake.before = refuse
  with fake_serving.connect(fake.address) as models:
    _assert_right(models.grad_cam(_HU))
  assert {slices for *_, slices in fake.predicted} == {4, 1}  # 1: the last batch.


class _CuttingProxy:
  """Forwards to a port; its first connections end after so many answered bytes."""

  def __init__(self, port: int, cut_after: list[int]):
    self._target = port
    self._cut_after = iter(cut_after)
    self._listener = socket.create_server(('127.0.0.1', 0))
    self.port = self._listener.getsockname()[1]
    threading.Thread(target=self._accept, daemon=True).start()

  def _accept(self):
    while True:
      try:
        client, _ = self._listener.accept()
      except OSError:
        return
      server = socket.create_connection(('127.0.0.1', self._target))
      limit = next(self._cut_after, None)
      for source, sink, most in ((client, server, None), (server, client, limit)):
        threading.Thread(
          target=self._forward, args=(source, sink, most), daemon=True
        ).start()

  def _forward(self, source, sink, most):
    passed = 0
    try:
      while data := source.recv(4096):
        passed += len(data)
        if most is not None and passed > most:
          break
        sink.sendall(data)
    except OSError:
      pass
    for end in (source, sink):
      try:
        end.shutdown(socket.SHUT_RDWR)
      except OSError:
        pass

  def close(self):
    self._listener.close()


def test_connections_that_close(fake):
  proxy = _CuttingProxy(fake.port, [40_000, 3_000, 0, 60_000])
  with fake_serving.connect(f'127.0.0.1:{proxy.port}') as models:
    _assert_right(models.grad_cam(_HU))
  proxy.close()


# Another model, or other versions.


def test_another_model_under_the_same_number(fake):
  other = fake_serving.FakeModel('classifier', version=1, bias=2.0)
  _at_request(fake, 3, lambda *_: fake.models.update(classifier=other))
  with fake_serving.connect(fake.address) as models:
    with pytest.raises(errors.ModelVersionChangedError, match='same number'):
      with models.study() as study:
        study.grad_cam(_HU)
    _assert_right(models.grad_cam(_HU), bias=2.0)


def test_a_reload_in_the_middle_never_mixes_versions(fake):
  new = fake_serving.FakeModel('classifier', version=2, bias=1.0)
  _at_request(fake, 3, lambda *_: fake.models.update(classifier=new))
  with fake_serving.connect(fake.address) as models:
    with pytest.raises(errors.ModelVersionChangedError, match='Specific.classifier, 1'):
      with models.study() as study:
        study.grad_cam(_HU)


def test_a_call_without_a_study_starts_again_after_a_reload(fake):
  new = fake_serving.FakeModel('classifier', version=2, bias=1.0)
  _at_request(fake, 3, lambda *_: fake.models.update(classifier=new))
  with fake_serving.connect(fake.address) as models:
    _assert_right(models.grad_cam(_HU), bias=1.0)
    assert [identity.version for identity in models.identities()] == [1, 2]


def test_a_reload_to_another_contract_is_refused(fake):
  new = fake_serving.FakeModel('classifier', version=2)
  del new.signatures.signature_def['grad_cam']
  _at_request(fake, 3, lambda *_: fake.models.update(classifier=new))
  with fake_serving.connect(fake.address) as models:
    with pytest.raises(errors.ModelError, match='required the signatures'):
      models.grad_cam(_HU)


# Trust.


@pytest.fixture(scope='module')
def authority():
  return trustme.CA()


def _tls_fake(authority, *names):
  certificate = authority.issue_cert(*names)
  return fake_serving.FakeServing(
    credentials=grpc.ssl_server_credentials(
      [
        (
          certificate.private_key_pem.bytes(),
          b''.join(blob.bytes() for blob in certificate.cert_chain_pems),
        )
      ]
    )
  )


def _ca_file(tmp_path, authority):
  authority.cert_pem.write_to_path(str(tmp_path / 'ca.pem'))
  return tmp_path / 'ca.pem'


def test_right_certificate(tmp_path, authority):
  fake = _tls_fake(authority, '127.0.0.1')
  with fake_serving.connect(
    fake.address, tls=predictors.TLS(_ca_file(tmp_path, authority))
  ) as m:
    _assert_right(m.grad_cam(_HU))
  fake.stop()


@pytest.mark.parametrize('names, own', [(['127.0.0.1'], False), (['other'], True)])
def test_wrong_certificate_is_refused_at_once(tmp_path, authority, names, own):
  fake = _tls_fake(authority, *names)
  trusted = _ca_file(tmp_path, authority if own else trustme.CA())
  with pytest.raises(errors.ModelError, match='do not trust each other; check the CA'):
    fake_serving.connect(
      fake.address, tls=predictors.TLS(trusted), connect_patience_s=600
    )
  fake.stop()


def test_a_certificate_for_another_name_can_be_expected(tmp_path, authority):
  fake = _tls_fake(authority, 'models.example')
  fake_serving.connect(
    fake.address,
    tls=predictors.TLS(_ca_file(tmp_path, authority), server_name='models.example'),
  ).close()
  fake.stop()


# The real server, and whole studies.


@pytest.fixture(scope='module')
def exported(tmp_path_factory):
  return [
    tiny_models.export_both(tmp_path_factory.mktemp('models'), bias=bias)
    for bias in (0.0, 1.5)
  ]


@pytest.fixture
def server(exported, tmp_path):
  from covid_tf.server import configuration
  from covid_tf.server import serving

  shutil.copytree(exported[0], tmp_path / 'models')
  started = serving.Server(
    configuration.ServerOptions(
      models=str(tmp_path / 'models'), port=0, poll_s=0.05, load_retries=0
    )
  )
  yield started
  started.stop()


def test_server_and_process_answer_alike(server, exported):
  with (
    fake_serving.connect(server.addresses[0]) as served,
    predictors.load_models(exported[0], batch_bytes=fake_serving.BATCH_BYTES) as loaded,
  ):
    assert served.identities() == loaded.identities()
    np.testing.assert_array_equal(served.segment_lungs(_HU), loaded.segment_lungs(_HU))
    for ours, theirs in zip(
      (*served.grad_cam(_HU), *served.features(_HU)),
      (*loaded.grad_cam(_HU), *loaded.features(_HU)),
      strict=True,
    ):
      np.testing.assert_allclose(ours, theirs, atol=1e-5)


def test_two_hundred_clients_at_once(server):
  barrier = threading.Barrier(200)

  def ask(_):
    barrier.wait(60)
    with fake_serving.connect(
      server.addresses[0], timeout_s=600, connect_patience_s=600
    ) as m:
      return m.grad_cam(_HU[:8])

  with concurrent.futures.ThreadPoolExecutor(200) as pool:
    answers = list(pool.map(ask, range(200)))
  for answer in answers:
    np.testing.assert_allclose(
      answer.covid_probability, tiny_answers.probability(_HU[:8]), atol=1e-5
    )


@contextlib.contextmanager
def _study_with_a_swap(begin, swap):
  """A study at whose first Grad-CAM, so after the lungs, `swap` is called."""
  with begin() as study:
    grad_cam = study.grad_cam
    study.grad_cam = lambda hu: swap() or grad_cam(hu)
    yield study


def test_a_study_during_a_reload_is_of_one_version(server, exported, tmp_path):
  case = synthetic_case.make_volume()

  @functools.cache  # Once: the study that starts again is left in peace.
  def swap():
    for name in contract.SIGNATURES:
      shutil.copytree(exported[1] / name / '1', tmp_path / name)
      (tmp_path / name).rename(tmp_path / 'models' / name / '2')
    with serving_stub.connected(server.addresses[0]) as stub:
      for name in contract.SIGNATURES:
        serving_stub.wait_until(
          lambda name=name: stub.versions(name) == [(2, 'AVAILABLE'), (1, 'END')]
        )

  with fake_serving.connect(server.addresses[0]) as models:
    begin = models.study
    models.study = lambda: _study_with_a_swap(begin, swap)
    result = pipeline.analyze(case, models)
  assert [identity.version for identity in result.models] == [2, 2]
  with predictors.load_models(
    exported[1], batch_bytes=fake_serving.BATCH_BYTES
  ) as models:
    undisturbed = pipeline.analyze(case, models)
  assert undisturbed.corona_score_cm3 > 0
  np.testing.assert_allclose(
    result.slice_probability, undisturbed.slice_probability, atol=1e-5
  )
  assert result.corona_score_cm3 == pytest.approx(undisturbed.corona_score_cm3)
