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
import real_ct
import serving_stub
import synthetic_case
import tiny_answers
import tiny_models
import trustme

from covid_tf import cli
from covid_tf import contract
from covid_tf import errors
from covid_tf import predictors
from covid_tf.analysis import pipeline
from covid_tf.predictors import tensors

_HU = np.random.default_rng(0).integers(-1000, 300, (21, 40, 30)).astype(np.int16)
_BATCH = 4 * _HU[0].nbytes  # So that the study takes six requests.


@pytest.fixture
def fake():
  server = fake_serving.FakeServing()
  yield server
  server.stop()


def _connect(address, **kwargs):
  return predictors.connect(
    address,
    **({'connect_patience_s': 0.3, 'patience_s': 20, 'batch_bytes': _BATCH} | kwargs),
  )


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
    _connect(f'localhost:{port}')


def test_slow(fake):
  release = threading.Event()
  fake.before = lambda *_: release.wait(30)
  with _connect(fake.address, timeout_s=0.5) as models:
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
  with _connect(fake.address) as models, models.study() as study:
    _assert_right(study.grad_cam(_HU))


def test_killed_for_good_in_the_middle_of_a_study(fake):
  _at_request(fake, 3, lambda *_: threading.Thread(target=fake.stop).start())
  with _connect(fake.address, patience_s=0.5) as models:
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
  with _connect(fake.address) as models:
    _assert_right(models.grad_cam(_HU))
  assert {slices for *_, slices in fake.predicted} == {4, 2, 1}


def test_out_of_memory_for_one_slice_is_an_error(fake):
  fake.before = lambda request, context: context.abort(
    grpc.StatusCode.RESOURCE_EXHAUSTED, 'OOM when allocating tensor'
  )
  with _connect(fake.address, patience_s=0.02) as models:
    with pytest.raises(errors.ModelError, match='RESOURCE_EXHAUSTED .*more memory'):
      models.grad_cam(_HU)


def test_a_full_queue_is_waited_for_with_whole_batches(fake):
  refusals = iter(range(5))

  def refuse(request, context):
    if next(refusals, None) is not None:
      context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, 'The request queue is full')

  fake.before = refuse
  with _connect(fake.address) as models:
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
  with _connect(f'127.0.0.1:{proxy.port}') as models:
    _assert_right(models.grad_cam(_HU))
  proxy.close()


# Another model, or other versions.


def test_another_model_under_the_same_number(fake):
  other = fake_serving.FakeModel('classifier', version=1, bias=2.0)
  _at_request(fake, 3, lambda *_: fake.models.update(classifier=other))
  with _connect(fake.address) as models:
    with pytest.raises(errors.ModelVersionChangedError, match='same number'):
      with models.study() as study:
        study.grad_cam(_HU)
    _assert_right(models.grad_cam(_HU), bias=2.0)


def test_a_reload_in_the_middle_never_mixes_versions(fake):
  new = fake_serving.FakeModel('classifier', version=2, bias=1.0)
  _at_request(fake, 3, lambda *_: fake.models.update(classifier=new))
  with _connect(fake.address) as models:
    with pytest.raises(errors.ModelVersionChangedError, match='Specific.classifier, 1'):
      with models.study() as study:
        study.grad_cam(_HU)


def test_a_call_without_a_study_starts_again_after_a_reload(fake):
  new = fake_serving.FakeModel('classifier', version=2, bias=1.0)
  _at_request(fake, 3, lambda *_: fake.models.update(classifier=new))
  with _connect(fake.address) as models:
    _assert_right(models.grad_cam(_HU), bias=1.0)
    assert [identity.version for identity in models.identities()] == [1, 2]


def test_a_reload_to_another_contract_is_refused(fake):
  new = fake_serving.FakeModel('classifier', version=2)
  del new.signatures.signature_def['grad_cam']
  _at_request(fake, 3, lambda *_: fake.models.update(classifier=new))
  with _connect(fake.address) as models:
    with pytest.raises(errors.ModelError, match='required the signatures'):
      models.grad_cam(_HU)


def test_unpinned_answers_of_another_version_are_refused(fake):
  def another(request, response):
    response.model_spec.version.value = 5
    return response

  fake.after = another
  with (
    _connect(fake.address) as models,
    pytest.raises(
      errors.ModelVersionChangedError, match='version 1 was asked, version 5 answered'
    ),
  ):
    with models.study() as study:
      study.grad_cam(_HU)


# Answers that no sound model gives.


def _named(field, value):
  def after(request, response):
    setattr(response.model_spec, field, value)
    return response

  return after


def _without_version(request, response):
  response.model_spec.ClearField('version')
  return response


def _without_output(request, response):
  del response.outputs['cam_14']
  return response


def _replaced(name, array):
  def after(request, response):
    response.outputs[name].Clear()
    tensors.fill_typed(
      response.outputs[name], array(request.inputs['hu'].tensor_shape.dim[0].size)
    )
    return response

  return after


def _nan_in_third(count):
  values = np.full(count, 0.5, np.float32)
  values[2:3] = np.nan
  return values


def _cut_content(request, response):
  proto = response.outputs['cam_28']
  array = tensors.read(proto)
  proto.Clear()
  tensors.fill(proto, array)
  proto.tensor_content = proto.tensor_content[:-1]
  return response


def _too_many_axes(request, response):
  for _ in range(65):
    response.outputs['cam_28'].tensor_shape.dim.add(size=1)
  return response


def _cut_field(request, response):
  del response.outputs['cam_28'].float_val[-1:]
  return response


_UNSOUND = [
  (_named('name', 'lungs'), "answered by 'lungs'"),
  (_named('signature_name', 'features'), "signature 'features'"),
  (_without_version, 'version not stated'),
  (_without_output, 'output cam_14: required by the contract'),
  (
    _replaced('cam_14', lambda n: np.zeros((n, 7, 7), np.float32)),
    r'cam_14: required float32 \[4, 14, 14\], found float32 \[4, 7, 7\]',
  ),
  (
    _replaced('covid_probability', lambda n: np.zeros(n, np.float64)),
    r'required float32 \[4\], found float64',
  ),
  (
    _replaced('covid_probability', lambda n: np.zeros(n - 1, np.float32)),
    r'found float32 \[3\]',
  ),
  (
    _replaced('covid_probability', _nan_in_third),
    r'covid_probability, slice 2: required a number in \[0, 1\], found nan',
  ),
  (
    _replaced('covid_probability', lambda n: np.full(n, 1.5, np.float32)),
    'slice 0: .* found 1.5',
  ),
  (
    _replaced('cam_28', lambda n: np.full((n, 28, 28), -0.1, np.float32)),
    'cam_28, slice 0: .* found -0.1',
  ),
  (
    _replaced('cam_28', lambda n: np.full((n, 28, 28), np.inf, np.float32)),
    'found inf',
  ),
  (_cut_content, 'required a whole PredictResponse'),
  (_cut_field, 'required a whole PredictResponse'),
  (_too_many_axes, 'required a whole PredictResponse'),
  (
    lambda request, response: response.SerializeToString()[:-20],
    'required a whole PredictResponse',
  ),
  (lambda request, response: b'\xff\xff\xff', 'required a whole PredictResponse'),
  (lambda request, response: b'', 'answered by'),
]


@pytest.mark.parametrize('after, match', _UNSOUND, ids=[m[:30] for _, m in _UNSOUND])
def test_unsound_answers(fake, after, match):
  fake.after = after
  with _connect(fake.address) as models:
    with pytest.raises(errors.ModelError, match=f'{fake.address}: classifier.*{match}'):
      models.grad_cam(_HU)


def test_a_mask_that_is_no_mask(fake):
  fake.after = lambda request, response: _replaced(
    'lung_mask', lambda n: np.full((n, 40, 30), 255, np.uint8)
  )(request, response)
  with (
    _connect(fake.address) as models,
    pytest.raises(errors.ModelError, match='lung_mask, slice 0: .* found 255'),
  ):
    models.segment_lungs(_HU)


def test_rounding_above_one_is_cut(fake):
  above = np.nextafter(np.float32(1), np.float32(2))
  fake.after = _replaced('covid_probability', lambda n: np.full(n, above, np.float32))
  with _connect(fake.address) as models:
    assert models.grad_cam(_HU).covid_probability.max() == 1


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
  with _connect(fake.address, tls=predictors.TLS(_ca_file(tmp_path, authority))) as m:
    _assert_right(m.grad_cam(_HU))
  fake.stop()


@pytest.mark.parametrize('names, own', [(['127.0.0.1'], False), (['other'], True)])
def test_wrong_certificate_is_refused_at_once(tmp_path, authority, names, own):
  fake = _tls_fake(authority, *names)
  trusted = _ca_file(tmp_path, authority if own else trustme.CA())
  with pytest.raises(errors.ModelError, match='do not trust each other; check the CA'):
    _connect(fake.address, tls=predictors.TLS(trusted), connect_patience_s=600)
  fake.stop()


def test_a_certificate_for_another_name_can_be_expected(tmp_path, authority):
  fake = _tls_fake(authority, 'models.example')
  _connect(
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
    _connect(server.addresses[0]) as served,
    predictors.load_models(exported[0], batch_bytes=_BATCH) as loaded,
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
    with _connect(server.addresses[0], timeout_s=600, connect_patience_s=600) as m:
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

  with _connect(server.addresses[0]) as models:
    begin = models.study
    models.study = lambda: _study_with_a_swap(begin, swap)
    result = pipeline.analyze(case, models)
  assert [identity.version for identity in result.models] == [2, 2]
  with predictors.load_models(exported[1], batch_bytes=_BATCH) as models:
    undisturbed = pipeline.analyze(case, models)
  assert undisturbed.corona_score_cm3 > 0
  np.testing.assert_allclose(
    result.slice_probability, undisturbed.slice_probability, atol=1e-5
  )
  assert result.corona_score_cm3 == pytest.approx(undisturbed.corona_score_cm3)


@pytest.mark.parametrize(
  'after',
  [
    lambda request, response: response.SerializeToString()[:-9],
    _replaced('lung_probability', lambda n: np.full((n, 256, 256), 9, np.float32)),
  ],
)
def test_command_fails_with_status_4_and_no_result(fake, tmp_path, after, capsys):
  fake.after = after
  output = tmp_path / 'result'
  assert (
    cli.main(
      [
        'score',
        str(real_ct.folder('cip-ct64', 'series')),
        '--output',
        str(output),
        '--server',
        fake.address,
      ]
    )
    == 4
  )
  assert fake.address in capsys.readouterr().err
  assert not [path for path in output.rglob('*') if path.is_file()]
