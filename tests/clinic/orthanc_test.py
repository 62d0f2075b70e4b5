"""A real PACS: sent, found under its study, fetched by both ways, compared, once."""

import dicom_series
import dimse_faults
import orthanc
import pydicom
import pytest
import synthetic_case

from covid_tf import cli
from covid_tf import clinic
from covid_tf import errors
from covid_tf import readers
from covid_tf.clinic import addresses
from covid_tf.clinic import commitment
from covid_tf.clinic import fetching
from covid_tf.clinic import pacs
from covid_tf.clinic import sending
from covid_tf.clinic import verifying
from covid_tf.storage.dicom import objects


@pytest.fixture(name='server', scope='module')
def _server(tmp_path_factory):
  with orthanc.started(tmp_path_factory.mktemp('orthanc')) as server:
    yield server


@pytest.fixture(autouse=True)
def _short_wait(monkeypatch):
  # Orthanc reports to its list of modalities, never on the association that asked.
  monkeypatch.setattr(commitment, '_REPORT_HERE_S', 0.5)


@pytest.fixture(name='study')
def _study(tmp_path, server):
  server.clear()
  return dimse_faults.write_study(tmp_path / 'study')


def _addresses(server):
  return server.address, server.dicom_web


@pytest.mark.parametrize('which', [0, 1])
def test_sent_twice_is_stored_once_and_comes_back_identical(
  server, study, tmp_path, which, capsys
):
  address = _addresses(server)[which]
  uid = dimse_faults.STUDY_UID
  for _ in range(2):
    assert cli.main(['send', str(study), '--to', address, '--verify']) == 0
  assert server.ask('/statistics')['CountInstances'] == 8
  assert 'fetched back and compared' in capsys.readouterr().out
  for index, source in enumerate(_addresses(server)):
    output = tmp_path / f'back{index}'
    assert cli.main(['fetch', uid, '--from', source, '--output', str(output)]) == 0
    back = {path.stem: path for path in output.rglob('*.dcm')}
    assert len(back) == 8
    for path in study.glob('*.dcm'):
      sent = pydicom.dcmread(path)
      comparison = verifying.compare(path, back[sent.SOPInstanceUID])
      assert comparison == verifying.Comparison((), ())


def test_retrieved_by_c_move_to_our_own_port(server, study, tmp_path):
  assert cli.main(['send', str(study), '--to', server.address]) == 0
  archive = clinic.connect(
    server.address,
    own=addresses.OwnNode(server.own_aet, server.own_port),
    use_move=True,
  )
  fetched = fetching.fetch(archive, dimse_faults.STUDY_UID, tmp_path / 'moved')
  assert fetched.instance_count == 8


def test_storage_is_committed_and_what_is_gone_is_not(server, study):
  own = addresses.OwnNode(server.own_aet, server.own_port)
  archive = clinic.connect(server.address, own=own)
  instances = sending.read_instances(study)
  sending.send(instances, archive)
  assert verifying.verify(archive, instances) == verifying.Verification(
    'storage commitment'
  )
  server.clear()
  found = verifying.verify(archive, instances)
  assert found.method == 'storage commitment' and len(found.faults) == 8


def test_both_directions_encrypted(tmp_path):
  certificates = dimse_faults.certificates(tmp_path)
  own_aet, own_port = 'COVIDTF', 11112
  settings = {
    'DicomTlsEnabled': True,
    'DicomTlsCertificate': str(tmp_path / 'pacs.pem'),
    'DicomTlsPrivateKey': str(tmp_path / 'pacs.pem'),
    'DicomTlsTrustedCertificates': str(tmp_path / 'ca.pem'),
    'DicomModalities': {
      'own': {
        'AET': own_aet,
        'Host': 'localhost',
        'Port': own_port,
        'UseDicomTls': True,
      }
    },
  }
  with orthanc.started(tmp_path / 'orthanc', **settings) as server:
    study = dimse_faults.write_study(tmp_path / 'study')
    flags = [
      '--tls',
      *('--tls-ca', str(tmp_path / 'ca.pem')),
      *('--tls-certificate', str(tmp_path / 'me.pem')),
      *('--own-port', str(own_port)),
    ]
    line = ['send', str(study), '--to', server.address, '--verify', *flags]
    assert cli.main(line) == 0
    for index, how in enumerate(([], ['--move'])):
      output = str(tmp_path / f'back{index}')
      line = ['fetch', dimse_faults.STUDY_UID, '--from', server.address, *how]
      assert cli.main([*line, '--output', output, *flags]) == 0
    archive = clinic.connect(
      server.address,
      own=addresses.OwnNode(own_aet, own_port),
      security=certificates.security(),
    )
    assert len(archive.commit(sending.read_instances(study)).committed) == 8


@pytest.mark.parametrize('which', [0, 1])
def test_echo_and_a_study_that_is_not_there(server, study, tmp_path, which, capsys):
  address = _addresses(server)[which]
  assert cli.main(['echo', address]) == 0
  assert 'answers' in capsys.readouterr().out
  output = tmp_path / 'nothing'
  status = cli.main(['fetch', '1.2.3', '--from', address, '--output', str(output)])
  assert status == errors.StudyRefusedError.exit_status
  assert not output.exists()


@pytest.mark.parametrize('which', [0, 1])
def test_compressed_slices_come_back_as_they_are(server, tmp_path, which):
  server.clear()
  study = dimse_faults.write_study(tmp_path / 'rle', pydicom.uid.RLELossless)
  archive = clinic.connect(_addresses(server)[which])
  instances = sending.read_instances(study)
  assert sending.send(instances, archive).is_complete
  assert verifying.verify(archive, instances).is_kept
  assert pacs.Outcome.STORED in {
    answer.outcome for answer in sending.send(instances, archive).answers
  }


def test_an_object_of_another_study_is_refused_at_its_url(server, study, tmp_path):
  address = addresses.WebAddress(server.dicom_web)
  instance = sending.read_instances(study)[0]
  moved = pacs.Instance(**{**vars(instance), 'study_uid': '1.2.3'})
  answers = clinic.connect(address).store([moved], lambda answer: None)
  assert answers[0].outcome is pacs.Outcome.FAILED
  assert server.ask('/statistics')['CountInstances'] == 0


@pytest.mark.parametrize('which', [0, 1])
def test_objects_of_a_result_are_kept_beside_their_ct(server, tmp_path, which):
  server.clear()
  shape = (11, 50, 80)
  affine = synthetic_case.axial_affine((25.0, 4.8, 4.4), shape)
  ct = dicom_series.write(
    tmp_path / 'ct', synthetic_case.make_volume(affine, shape, synthetic_case.LESIONS)
  )
  address = _addresses(server)[which]
  archive = clinic.connect(address)
  assert sending.send(sending.read_instances(ct), archive).is_complete
  study = fetching.fetch(archive, dicom_series.STUDY_UID, tmp_path / 'study').folder
  volume = readers.read_ct(study)
  result = synthetic_case.make_result(volume, synthetic_case.LESIONS)
  source = objects.read_source_of(study, volume)
  objects.write_objects(tmp_path / 'result', result, source)
  for _ in range(2):
    line = ['send', str(tmp_path / 'result'), '--to', address, '--verify']
    assert cli.main(line) == 0
  assert server.ask('/statistics')['CountInstances'] == 11 + 3
  assert server.ask('/statistics')['CountStudies'] == 1
  found = archive.find(dicom_series.STUDY_UID)
  assert len({each.series_uid for each in found}) == 4
