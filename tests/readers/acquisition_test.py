"""How a CT was acquired: from odd headers, and never a word that names a patient."""

import dataclasses

import hypothesis
from hypothesis import strategies as st
import nibabel
import numpy as np
import odd_series
import pydicom
from pydicom import sequence
from pydicom import uid
import pytest
import real_ct

from covid_tf import readers
from covid_tf import volume as volume_lib
from covid_tf.readers import acquisition

_SCANNER = {
  'Manufacturer': 'SIEMENS',
  'ManufacturerModelName': 'SOMATOM Force',
  'KVP': '100',
  'PatientPosition': 'FFS',
  'Exposure': '82',
  'XRayTubeCurrent': '170',
  'RevolutionTime': 0.5,
  'GantryDetectorTilt': '0',
  'ContrastBolusAgent': 'OMNIPAQUE 350',
  'ContrastBolusRoute': 'IV',
}
_OF_SCANNER = volume_lib.Acquisition(
  manufacturer='SIEMENS',
  model='SOMATOM Force',
  kernel='B40f',
  kvp=100,
  slice_thickness_mm=2.5,
  slice_distance_mm=2.5,
  contrast=True,
  contrast_agent='OMNIPAQUE IV',
  patient_position='FFS',
  exposure_mas=82,
  tube_current_ma=170,
  rotation_time_s=0.5,
  gantry_tilt_deg=0,
)


def _slices(fields=(), **changes):
  slices = odd_series.series()
  for ds in slices:
    for keyword, value in (dict(fields) | changes).items():
      setattr(ds, keyword, value)
  return slices


def _read(slices, folder, syntax=None):
  return readers.read_ct(odd_series.save(slices, folder, syntax))


@pytest.mark.parametrize(
  'syntax',
  (None, uid.ImplicitVRLittleEndian, uid.ExplicitVRBigEndian, uid.RLELossless),
)
def test_a_series_says_how_it_was_acquired(tmp_path, syntax):
  volume = _read(_slices(_SCANNER), tmp_path, syntax)
  assert volume.acquisition == _OF_SCANNER
  assert volume.warnings == ()


def test_what_a_header_does_not_say_is_none(tmp_path):
  slices = odd_series.series()
  for ds in slices:
    del ds.ConvolutionKernel, ds.SliceThickness
  assert _read(slices, tmp_path).acquisition == volume_lib.Acquisition(
    slice_distance_mm=2.5
  )


def test_a_nifti_file_knows_the_distance_of_its_slices(tmp_path):
  affine = np.diag((-0.8, -0.8, 3.0, 1.0))
  hu = odd_series.body_hu().transpose(2, 1, 0)
  nibabel.save(nibabel.Nifti1Image(hu, affine), tmp_path / 'ct.nii.gz')
  found = readers.read_ct(tmp_path / 'ct.nii.gz').acquisition
  assert found == volume_lib.Acquisition(slice_distance_mm=3.0)


@pytest.mark.parametrize(
  'keyword, value, name',
  (
    ('KVP', '0', 'kvp'),
    ('KVP', '120 kV', 'kvp'),
    ('KVP', '80\\140', 'kvp'),
    ('KVP', '9999', 'kvp'),
    ('SliceThickness', '-2.5', 'slice_thickness_mm'),
    ('SliceThickness', '0', 'slice_thickness_mm'),
    ('Exposure', '-1', 'exposure_mas'),
    ('Exposure', '4684', 'exposure_mas'),
    ('XRayTubeCurrent', '1e400', 'tube_current_ma'),
    ('GantryDetectorTilt', 'nan', 'gantry_tilt_deg'),
    ('PatientPosition', 'SITTING', 'patient_position'),
    ('Manufacturer', ' \0 ', 'manufacturer'),
    ('ManufacturerModelName', 'None', 'model'),
    ('ConvolutionKernel', 'N/A', 'kernel'),
  ),
)
def test_what_is_not_plausible_is_none(tmp_path, keyword, value, name):
  slices = _slices(_SCANNER)
  for ds in slices:
    tag = pydicom.datadict.tag_for_keyword(keyword)
    ds[tag] = pydicom.DataElement(tag, 'LO', value)
  volume = _read(slices, tmp_path)
  assert volume.acquisition == dataclasses.replace(_OF_SCANNER, **{name: None})


@pytest.mark.parametrize(
  'keyword, vr, value, name, expected',
  (
    ('KVP', 'FD', 100.0, 'kvp', 100),
    ('KVP', 'DS', ['100', '100.0'], 'kvp', 100),
    ('KVP', 'US', 100, 'kvp', 100),
    ('ExposureInuAs', 'IS', '90500', 'exposure_mas', 90.5),
    ('XRayTubeCurrentInuA', 'DS', '171000', 'tube_current_ma', 171),
    ('ConvolutionKernel', 'SH', ['I31f', '3'], 'kernel', 'I31f/3'),
    ('PatientPosition', 'LO', ' ffs ', 'patient_position', 'FFS'),
    ('Manufacturer', 'LO', 'GE\tMEDICAL', 'manufacturer', 'GE?MEDICAL'),
  ),
)
def test_values_in_another_form_are_read(tmp_path, keyword, vr, value, name, expected):
  slices = _slices(_SCANNER)
  for ds in slices:
    tag = pydicom.datadict.tag_for_keyword(keyword)
    ds[tag] = pydicom.DataElement(tag, vr, value)
  volume = _read(slices, tmp_path)
  assert getattr(volume.acquisition, name) == pytest.approx(expected)
  assert dataclasses.replace(_OF_SCANNER, **{name: None}) == dataclasses.replace(
    volume.acquisition, **{name: None}
  )


@pytest.mark.parametrize('implicit', (False, True))
def test_frames_of_an_enhanced_file_say_it_in_groups(tmp_path, implicit):
  ds = odd_series.enhanced(_slices(Manufacturer='SIEMENS', PatientPosition='FFS'))
  del ds.ConvolutionKernel
  shared = ds.SharedFunctionalGroupsSequence[0]
  shared.CTReconstructionSequence = _item(ConvolutionKernel='B40f')
  shared.CTXRayDetailsSequence = _item(KVP='100')
  shared.CTAcquisitionDetailsSequence = _item(RevolutionTime=0.5, GantryDetectorTilt=0)
  ds.ContrastBolusAgentSequence = _item(CodeMeaning='Iohexol')
  for index, frame in enumerate(ds.PerFrameFunctionalGroupsSequence):
    frame.CTExposureSequence = _item(
      ExposureInmAs=80.0 + index, XRayTubeCurrentInmA=170.0
    )
    frame.ContrastBolusUsageSequence = _item(
      ContrastBolusAgentNumber=1, ContrastBolusAgentAdministered='YES'
    )
  volume = _read([ds], tmp_path, uid.ImplicitVRLittleEndian if implicit else None)
  assert volume.acquisition == dataclasses.replace(
    _OF_SCANNER, model=None, contrast_agent='IOHEXOL', exposure_mas=83.5
  )


def test_converted_files_keep_the_elements_of_slices(tmp_path):
  ds = odd_series.enhanced(_slices())
  ds.SOPClassUID = uid.LegacyConvertedEnhancedCTImageStorage
  shared = ds.SharedFunctionalGroupsSequence[0]
  shared.UnassignedSharedConvertedAttributesSequence = _item(
    KVP='120', SliceThickness='99', ContrastBolusAgent='NONE'
  )
  for frame in ds.PerFrameFunctionalGroupsSequence:
    frame.UnassignedPerFrameConvertedAttributesSequence = _item(Exposure='30')
  found = _read([ds], tmp_path).acquisition
  assert (found.kvp, found.exposure_mas, found.contrast) == (120, 30, False)
  assert found.slice_thickness_mm == 2.5  # The macro of the standard, not the leftover.


def _item(**fields):
  item = pydicom.Dataset()
  for keyword, value in fields.items():
    setattr(item, keyword, value)
  return sequence.Sequence([item])


# Values that differ from slice to slice.


def test_modulated_current_is_averaged(tmp_path):
  slices = _slices(_SCANNER)
  for index, ds in enumerate(slices):
    ds.XRayTubeCurrent, ds.Exposure = 100 + index, 2 * index
  found = _read(slices, tmp_path)
  assert found.acquisition.tube_current_ma == 103.5
  assert found.acquisition.exposure_mas == 8  # Of the seven that state a plausible one.
  assert found.warnings == ()


def test_what_differs_is_nothing_of_the_series(tmp_path):
  slices = _slices(_SCANNER)
  slices[3].KVP, slices[3].Manufacturer = '120', 'Siemens Healthineers'
  found = _read(slices, tmp_path)
  assert found.acquisition == dataclasses.replace(
    _OF_SCANNER, kvp=None, manufacturer=None
  )
  assert found.warnings == (
    'slices differ in manufacturer, tube voltage, which is not stated of the series',
  )


def test_what_some_slices_lack_the_others_say(tmp_path):
  slices = _slices(_SCANNER)
  for ds in slices[::2]:
    del ds.KVP, ds.Manufacturer, ds.ContrastBolusAgent, ds.ContrastBolusRoute
  assert _read(slices, tmp_path).acquisition == _OF_SCANNER


def test_rounded_thicknesses_are_one():
  images = [
    volume_lib.Acquisition(slice_thickness_mm=value) for value in (3.98734, 3.9873, 4.0)
  ]
  found, warnings = acquisition.of_series(images, 4.0)
  assert found.slice_thickness_mm == 3.9873 and not warnings


# Contrast: a free text, in which people also write other things.


@pytest.mark.parametrize(
  'text, contrast, agent',
  (
    ('IV', True, 'IV'),
    ('I.V.', True, 'IV'),
    ('ORAL/RECTAL & IV CONTRAST', True, 'ORAL RECTAL IV CONTRAST'),
    ('NON IONIC', True, 'NON IONIC'),
    ('Ultravist 370, 80ml', True, 'ULTRAVIST'),
    ('APPLIED', True, 'APPLIED'),
    ('Dr. Miller gave 70 ml', True, None),
    ('造影剤', True, None),
    ('NO ORAL, IV OMNIPAQUE', True, 'IV OMNIPAQUE'),
    ('NONE', False, None),
    ('no', False, None),
    ('W/O', False, None),
    ('without contrast', False, None),
    ('NON-CONTRAST', False, None),
    ('NON ENHANCED', False, None),
    ('なし', False, None),
    ('', None, None),
    ('UNKNOWN', None, None),
    ('N/A', None, None),
    ('ANONYMIZED', None, None),
  ),
)
def test_a_free_text_says_whether_contrast_was_given(tmp_path, text, contrast, agent):
  slices = _slices(SpecificCharacterSet='ISO_IR 192', ContrastBolusAgent=text)
  found = _read(slices, tmp_path).acquisition
  assert (found.contrast, found.contrast_agent) == (contrast, agent)


@pytest.mark.parametrize(
  'fields, contrast',
  (
    ({'ContrastBolusAgent': '', 'ContrastBolusRoute': 'IV'}, True),
    ({'ContrastBolusAgent': '', 'ContrastBolusVolume': '80'}, True),
    ({'ContrastBolusVolume': '0', 'ContrastBolusTotalDose': ''}, None),
    ({'ContrastBolusAgent': 'NONE', 'ContrastBolusRoute': 'IV'}, False),
  ),
)
def test_route_and_volume_say_it_where_no_agent_is_named(tmp_path, fields, contrast):
  assert _read(_slices(fields), tmp_path).acquisition.contrast is contrast


def test_a_sequence_of_undefined_length_is_read_in_one_slice_files(tmp_path):
  slices = odd_series.series()
  for ds in slices:
    ds.ContrastBolusAgentSequence = _item(CodeMeaning='Iopamidol')
    ds['ContrastBolusAgentSequence'].is_undefined_length = True
    ds.ContrastBolusAgentSequence[0].is_undefined_length_sequence_item = True
  found = _read(slices, tmp_path).acquisition
  assert (found.contrast, found.contrast_agent) == (True, 'IOPAMIDOL')


# Nothing names a patient.


@pytest.mark.parametrize(
  'text', ('Secret Person', 'SECRET^PERSON', 'for ID-4711', 'born 1933-01-02')
)
def test_a_text_that_names_the_patient_is_left_out(tmp_path, text):
  fields = dict.fromkeys(
    ('Manufacturer', 'ManufacturerModelName', 'ContrastBolusAgent'), text
  )
  found = _read(_slices(fields, ConvolutionKernel=text[:16]), tmp_path).acquisition
  assert found == volume_lib.Acquisition(
    slice_thickness_mm=2.5, slice_distance_mm=2.5, contrast=True
  )


@pytest.mark.parametrize(
  'name, patient_id, fields',
  (
    ('Ge^Wei', '64', {'Manufacturer': 'GE MEDICAL SYSTEMS', 'model': 'Brilliance 64'}),
    ('Philip^B', '1', {'Manufacturer': 'Philips', 'model': 'iCT 256'}),
  ),
)
def test_scanners_are_no_patients(tmp_path, name, patient_id, fields):
  slices = _slices(
    Manufacturer=fields['Manufacturer'],
    ManufacturerModelName=fields['model'],
    PatientName=name,
    PatientID=patient_id,
    ConvolutionKernel='B',
  )
  found = _read(slices, tmp_path).acquisition
  assert (found.manufacturer, found.model, found.kernel) == (*fields.values(), 'B')


@hypothesis.settings(max_examples=150, deadline=None)
@hypothesis.given(
  st.dictionaries(
    st.sampled_from((*acquisition.TAGS, 0x00181210, 0x00180050)),
    st.tuples(
      st.sampled_from(('LO', 'DS', 'FD', 'US', 'UN', 'SQ', 'OB', None)),
      st.binary(max_size=24),
    ),
  )
)
def test_any_bytes_are_an_acquisition(values):
  elements = {
    tag: pydicom.dataelem.RawDataElement(
      pydicom.tag.BaseTag(tag), vr, len(value), value, 0, vr is None, True
    )
    for tag, (vr, value) in values.items()
  }
  found = acquisition.of_image(elements, elements)
  series, _ = acquisition.of_series([found, found], 1.0)
  words = (series.contrast_agent or '').split()
  assert all(word.isalnum() for word in words)
  for name, value in dataclasses.asdict(series).items():
    if isinstance(value, float):
      assert np.isfinite(value) and (value > 0 or name == 'gantry_tilt_deg')
    elif isinstance(value, str):
      assert value.isprintable() and value.isascii() and len(value) <= 64


@pytest.mark.parametrize(
  'folder, expected',
  (
    (
      ('backgrounds', 'lidc-idri-0001', 'series'),
      ('GE MEDICAL SYSTEMS', 'LightSpeed Plus', 'STANDARD', 120, 2.5, 2.5, True, 'IV'),
    ),
    (
      ('backgrounds', 'lidc-idri-0002', 'series'),
      ('GE MEDICAL SYSTEMS', 'LightSpeed16', 'STANDARD', 120, 1.25, 1.25, None, None),
    ),
    (
      ('lung-pet-ct-dx-a0002-b40f', 'series'),
      ('SIEMENS', 'Sensation 10', 'B40f', 120, 8, 8, None, None),
    ),
  ),
)
def test_real_scanners(folder, expected):
  found = readers.read_ct(real_ct.folder(*folder)).acquisition
  assert dataclasses.astuple(found)[:8] == expected
