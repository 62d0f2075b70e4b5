"""Importers on small fakes of each layout (tests/fake_collections.py), not on the
collections themselves: labels, masks, patients, and what is refused."""

import fake_collections as fakes
import nibabel
import numpy as np
import pytest

from covid_tf import errors
from covid_tf.datasets import splits
from covid_tf.datasets.collections import covid_ct_md
from covid_tf.datasets.collections import covidx_ct
from covid_tf.datasets.collections import ct_seg
from covid_tf.datasets.collections import implanted
from covid_tf.datasets.collections import mask_files
from covid_tf.datasets.collections import mosmed
from covid_tf.datasets.collections import own_layout
from covid_tf.datasets.collections import phantoms
from covid_tf.datasets.collections import study as study_lib


def _by_series(entries):
  return {entry.series: entry for entry in entries}


def test_ct_seg_restores_hu_and_keeps_a_radiopaedia_case_together(tmp_path):
  entries = _by_series(ct_seg.list_studies(fakes.ct_seg(tmp_path)))
  assert (
    entries['radiopaedia_10_85902_1'].patient
    == entries['radiopaedia_10_85902_3'].patient
  )
  exact = entries['coronacases_001'].read()
  np.testing.assert_array_equal(exact.hu, fakes.chest(0))
  assert exact.window_hu is None
  restored = entries['radiopaedia_10_85902_1'].read()
  assert restored.window_hu == (-1250.0, 250.0)
  difference = restored.hu - np.maximum(fakes.chest(1), -1024)
  assert np.abs(difference).max() <= 3  # Half a grey value is 2.94 HU.
  assert restored.labels.tolist() == [0, 0, 0, 1, 1, 0, 0, 0]


def test_ct_seg_reads_the_combined_masks_alone(tmp_path):
  fakes.ct_seg(tmp_path)
  for name in ('Lung_Mask', 'Infection_Mask'):
    for path in (tmp_path / name).iterdir():
      path.unlink()
    (tmp_path / name).rmdir()
  both = np.where(fakes.lesion() > 0, 3, fakes.lungs())
  for path in (tmp_path / 'COVID-19-CT-Seg_20cases').iterdir():
    fakes.save(tmp_path / 'Lung_and_Infection_Mask' / path.name, both)
  read = ct_seg.list_studies(tmp_path)[0].read()
  np.testing.assert_array_equal(read.lung_mask, fakes.lungs())
  np.testing.assert_array_equal(read.lesion_mask, fakes.lesion())


def test_ct_seg_masks_count_voxel_by_voxel_whatever_their_header_says(tmp_path):
  fakes.ct_seg(tmp_path)
  path = tmp_path / 'Infection_Mask' / 'coronacases_001.nii.gz'
  fakes.save(path, fakes.lesion(), np.eye(4))
  read = _by_series(ct_seg.list_studies(tmp_path))['coronacases_001'].read()
  np.testing.assert_array_equal(read.lesion_mask, fakes.lesion())


def test_mosmed_labels_only_what_is_known(tmp_path):
  entries = _by_series(mosmed.list_studies(fakes.mosmed(tmp_path)))
  assert entries['study_0001'].read().labels.tolist() == [0] * 8
  assert entries['study_0255'].read().labels.tolist() == [0, 0, 0, 1, 1, 0, 0, 0]
  graded = entries['study_0900']
  assert graded.severity == 'CT-3' and graded.case_label == 1
  assert graded.read().labels.tolist() == [-1] * 8


def test_covidx_needs_a_window_and_marks_its_slices(tmp_path):
  fakes.covidx(tmp_path)
  window = mask_files.parse_window('-1350,150')
  entries = _by_series(covidx_ct.list_studies(tmp_path, window))
  assert set(entries) == {'NCP_96_1328', 'Normal_2_3'}  # No CP, no model's labels.
  read = entries['NCP_96_1328'].read()
  assert read.window_hu == (-1350.0, 150.0) and read.labels.tolist() == [1, 1, 1]
  assert entries['NCP_96_1328'].patient == 'covidx-ct/NCP_96'
  assert entries['Normal_2_3'].given_set == 'test'
  inside = fakes.chest()[:3] < 150
  assert np.abs(read.hu - np.maximum(fakes.chest()[:3], -1024))[inside].max() <= 6
  with pytest.raises(errors.UsageError, match='state it with --window'):
    mask_files.parse_window(None)
  with pytest.raises(errors.UsageError, match='LOW below HIGH'):
    mask_files.parse_window('150,-1350')


def test_covidx_takes_the_others_when_asked(tmp_path):
  entries = _by_series(
    covidx_ct.list_studies(fakes.covidx(tmp_path), (-1350.0, 150.0), True, False)
  )
  assert entries['CP_5_7'].read().labels.tolist() == [0, 0, 0]
  model_made = entries['137covid_patient1_SR_3']
  assert model_made.labels_by == 'Automatic'
  assert model_made.patient == 'covidx-ct/137covid_patient1'


@pytest.mark.parametrize(
  'line, message',
  [
    ('NCP_96_1328_0099.png 2 4 6 36 42', 'line 10: its picture is required'),
    ('NCP_96_1328_0001.png 2 4 6 36 42', 'line 10: each picture once'),
    ('NCP_96_1328_0001.png 2 4 6', 'line 10: a file name, a class'),
    ('NCP_96_1328_0001.png 7 4 6 36 42', 'line 10: a class from 0 to 2'),
  ],
)
def test_covidx_label_lines_that_do_not_fit_are_refused(tmp_path, line, message):
  table = fakes.covidx(tmp_path) / 'train_COVIDx_CT-3A.txt'
  table.write_text(table.read_text() + line + '\n')
  with pytest.raises(errors.UsageError, match=message):
    covidx_ct.list_studies(tmp_path, (-1350.0, 150.0))


def test_covidx_label_files_of_other_bytes_are_refused(tmp_path):
  table = fakes.covidx(tmp_path) / 'train_COVIDx_CT-3A.txt'
  table.write_bytes(table.read_bytes() + b'M\xfcller_0001.png 2 4 6 36 42\n')
  with pytest.raises(errors.UsageError, match='other bytes in line 10'):
    covidx_ct.list_studies(tmp_path, (-1350.0, 150.0))


def test_covidx_scans_that_lie_in_two_sets_are_refused_as_given(tmp_path):
  fakes.covidx(tmp_path)
  train, test = (tmp_path / f'{name}_COVIDx_CT-3A.txt' for name in ('train', 'test'))
  moved, *kept = train.read_text().splitlines(keepends=True)
  train.write_text(''.join(kept))
  test.write_text(test.read_text() + moved)
  entries = covidx_ct.list_studies(tmp_path, (-1350.0, 150.0))
  assert [e.given_set for e in entries if e.series == 'NCP_96_1328'] == [
    'test',
    'train',
  ]
  with pytest.raises(errors.UsageError, match='found 1 in two or more'):
    splits.given((e.patient, e.stratum, e.given_set) for e in entries)


def test_covidx_slices_of_unknown_patients_are_refused(tmp_path):
  table = fakes.covidx(tmp_path) / 'metadata.csv'
  table.write_text('patient id,slice selection\nNCP_9,Expert\n')
  with pytest.raises(errors.UsageError, match='metadata.csv: the patient of every'):
    covidx_ct.list_studies(tmp_path, (-1350.0, 150.0))


@pytest.fixture(name='ct_md', scope='module')
def _ct_md(tmp_path_factory):
  folder = tmp_path_factory.mktemp('covid_ct_md')
  return folder, fakes.covid_ct_md(folder)


def test_covid_ct_md_labels_run_from_the_top_whatever_the_files_are_called(ct_md):
  folder, counts = ct_md
  entries = _by_series(covid_ct_md.list_studies(folder))
  assert set(entries) == {'P001', 'P002', 'normal001'}
  labels = entries['P001'].read().labels
  assert len(labels) == counts['P001']
  assert labels.tolist() == [0] * (len(labels) - 3) + [1] * 3  # Slice 0 is lowest.
  assert set(entries['P002'].read().labels) == {-1}
  assert set(entries['normal001'].read().labels) == {0}


def test_covid_ct_md_takes_pneumonia_as_negative_when_asked(ct_md):
  entry = _by_series(covid_ct_md.list_studies(ct_md[0], True))['cap001']
  assert set(entry.read().labels) == {0} and entry.case_label == 0


def test_covid_ct_md_with_labels_beyond_its_slices_is_refused(ct_md):
  folder, counts = ct_md
  labels = np.zeros((2, 200), np.int64)
  labels[0, counts['P001']] = 1
  newest = folder / 'Slice-level-labels-updated-2.npy'
  np.save(newest, labels)
  try:
    entry = _by_series(covid_ct_md.list_studies(folder))['P001']
    with pytest.raises(errors.UsageError, match='as many slices as labels'):
      entry.read()
  finally:
    newest.unlink()


def test_covid_ct_md_with_an_index_of_others_is_refused(ct_md, tmp_path):
  folder, _ = ct_md
  (tmp_path / 'P001').mkdir()
  np.save(tmp_path / 'Slice-level-labels.npy', np.zeros((1, 200), np.int64))
  index = tmp_path / 'Index.csv'
  index.write_text('Label Index,Folder/ID\n1,P777\n')
  with pytest.raises(errors.UsageError, match='row 2: it labels a patient whose'):
    covid_ct_md.list_studies(tmp_path)
  index.write_text('Label Index,Folder/ID\n1,P001\n')
  np.save(tmp_path / 'Slice-level-labels.npy', np.full((1, 200), np.nan))
  with pytest.raises(errors.UsageError, match='0 or 1 by patient and slice'):
    covid_ct_md.list_studies(tmp_path)


def test_phantoms_keep_their_exact_masks():
  (entry,) = phantoms.list_studies(1, first_seed=5, matrix=32)
  study = entry.read()
  shown = study.lesion_mask.any(axis=(1, 2))
  assert (study.labels[~shown] == 0).all() and (study.labels[shown] != 0).all()
  assert entry.patient == 'phantom/5'


def test_implanted_lesions_stay_in_masks_made_before_them(tmp_path):
  fakes.save(tmp_path / 'a.nii.gz', fakes.chest(1))
  entries = implanted.list_studies([tmp_path / 'a.nii.gz'], 301, seed=3, size=0)
  assert len(entries) == 2 and len({entry.patient for entry in entries}) == 1
  study = implanted.list_studies([tmp_path / 'a.nii.gz'], 24, seed=3, size=0)[0].read()
  chest = study_lib.prepared(
    study_lib.Study(fakes.chest(1), np.zeros(8, np.int8), (8.0, 6.0, 6.0)), 0, 'a'
  )
  np.testing.assert_array_equal(study.lung_mask, chest.lung_mask[study.slice_index])
  assert not (study.lesion_mask & ~study.lung_mask).any()
  assert {0, 1} <= set(study.labels) and study.lung_mask_kind == 'pseudo'
  again = implanted.list_studies([tmp_path / 'a.nii.gz'], 24, seed=3, size=0)[0]
  np.testing.assert_array_equal(again.read().hu, study.hu)


def test_slices_with_little_lung_are_negatives_like_their_chest(tmp_path):
  hu = fakes.chest(1)
  hu[:2] = 40  # Above the apices: soft tissue alone.
  fakes.save(tmp_path / 'a.nii.gz', hu)
  study = implanted.list_studies([tmp_path / 'a.nii.gz'], 40, seed=3, size=0)[0].read()
  bare = study.slice_index < 2
  assert bare.sum() >= 5 and not study.labels[bare].any()
  assert not study.lesion_mask[bare].any() and (study.labels[~bare] == 1).any()


def test_backgrounds_give_the_stated_shares_and_all_slices_asked_for(tmp_path):
  paths = [tmp_path / name for name in ('a.nii.gz', 'b.nii.gz', 'c.nii.gz')]
  for path in paths:
    path.touch()

  def counts(**options):
    found = {}
    for entry in implanted.list_studies(paths, 1000, **options):
      found[entry.patient] = found.get(entry.patient, 0) + entry.read.args[1]
    return list(found.values())

  assert counts() == [333, 334, 333]
  assert counts(shares=implanted.parse_shares(['7', '2', '1'])) == [700, 200, 100]
  with pytest.raises(errors.UsageError, match='each of the 3 .* found 2'):
    counts(shares=(0.5, 0.5))
  with pytest.raises(errors.UsageError, match='one from every background'):
    counts(shares=(1.0, 1.0, 1e-4))
  for text in ('0', 'nan', 'x', '-1', 'inf'):
    with pytest.raises(errors.UsageError, match='numbers above 0 are required'):
      implanted.parse_shares(['1', text])


def test_opacities_go_through_thin_slices_before_these_are_averaged(tmp_path):
  hu = np.repeat(fakes.chest(1), 4, axis=0)  # 32 slices of 2 mm.
  fakes.save(tmp_path / 'a.nii.gz', hu, fakes.AFFINE @ np.diag((1, 1, 0.25, 1)))
  (entry,) = implanted.list_studies(
    [tmp_path / 'a.nii.gz'], 30, seed=3, size=0, thickness_mm=5.0
  )
  study = entry.read()
  # 13 slabs of 64 mm; each slab is an average, and every draw is another patient.
  assert len(set(study.slice_index.tolist())) <= 13
  positive = study.labels == 1
  assert positive.sum() == 15 and (study.labels == 0).sum() == 15
  area_mm2 = study.lesion_mask.sum((1, 2)) * 36.0
  assert area_mm2[positive].min() >= 100 and not area_mm2[~positive].any()


def test_slices_alone_and_real_lesions_are_taken(tmp_path):
  for place, name in enumerate(('a', 'b', 'c')):
    fakes.save(tmp_path / f'{name}.nii.gz', fakes.chest(place)[3:4])
  (tmp_path / 'slices.csv').write_text(
    'file,label,patient\na.nii.gz,0,p1\nb.nii.gz,0,p2\nc.nii.gz,1,p3\n'
  )
  (tmp_path / 'lesions.csv').write_text(
    'file,row0,column0,row1,column1\nc.nii.gz,10,10,30,30\n'
  )
  entries = implanted.list_studies(
    [],
    20,
    size=0,
    single_backgrounds=tmp_path / 'slices.csv',
    lesion_slices=tmp_path / 'lesions.csv',
  )
  assert [entry.patient for entry in entries] == ['implanted/p1', 'implanted/p2']
  studies = [entry.read() for entry in entries]
  assert [len(study.hu) for study in studies] == [10, 10]
  assert all({0, 1} == set(study.labels) for study in studies)


@pytest.mark.parametrize(
  'row, words',
  [
    ('gone.nii.gz,10,10,30,30', 'row 2: file must name a file'),
    ('c.nii.gz,10,10,12,30', 'row 2: a box of 8 pixels a side'),
    ('c.nii.gz,10,10,30,3000', 'row 2: a box of 8 pixels a side'),
    ('c.nii.gz,10,x,30,30', 'row 2: a box of 8 pixels a side'),
  ],
)
def test_boxes_around_nothing_are_refused_before_a_slice_is_painted(
  tmp_path, row, words
):
  fakes.save(tmp_path / 'c.nii.gz', fakes.chest(0)[3:4])
  table = tmp_path / 'lesions.csv'
  table.write_text(f'file,row0,column0,row1,column1\n{row}\n')
  with pytest.raises(errors.UsageError, match=words):
    implanted.read_textures(table)


def test_a_study_without_a_mask_gets_a_stated_pseudo_mask_and_its_box():
  study = study_lib.Study(fakes.chest(), np.zeros(8, np.int8), (8.0, 6.0, 6.0))
  prepared = study_lib.prepared(study, 0, 'x')
  assert prepared.lung_mask_kind == 'pseudo'
  common = (prepared.lung_mask & fakes.lungs()).sum()
  assert 2 * common / (prepared.lung_mask.sum() + fakes.lungs().sum()) > 0.95
  assert prepared.box == (12, 8, 34, 32)


def test_large_slices_are_stored_as_means_of_blocks():
  study = study_lib.Study(
    fakes.chest(),
    np.zeros(8, np.int8),
    (8.0, 6.0, 6.0),
    fakes.lungs(),
    fakes.lesion(),
    'drawn',
  )
  small = study_lib.prepared(study, 24, 'x')
  assert small.hu.shape == (8, 24, 20) and small.spacing_mm == (8.0, 12.0, 12.0)
  assert small.box == (6, 4, 17, 16)
  assert small.hu[0, 10, 5] == round(float(fakes.chest()[0, 20:22, 10:12].mean()))
  uneven = study_lib.prepared(study, 20, 'x')
  assert uneven.hu.shape == (8, 16, 14) and uneven.hu.min() > -1100


def test_a_chest_without_lungs_is_refused_in_words():
  solid = np.full(fakes.SHAPE, 40, np.int16)
  study = study_lib.Study(solid, np.zeros(8, np.int8), (8.0, 6.0, 6.0))
  with pytest.raises(errors.NoLungsError, match='x: lungs are required'):
    study_lib.prepared(study, 0, 'x')


def test_damaged_masks_are_refused(tmp_path):
  path = fakes.own(tmp_path) / 'lung_masks' / 's3.nii.gz'
  path.write_bytes(b'no NIfTI')
  with pytest.raises(errors.UsageError, match='no readable NIfTI'):
    _by_series(own_layout.list_studies(tmp_path))['s3'].read()
  image = nibabel.Nifti1Image(fakes.lungs().transpose(2, 1, 0), fakes.AFFINE)
  whole = image.to_bytes()
  path.unlink()
  path.with_suffix('').write_bytes(whole[:600])
  with pytest.raises(errors.UsageError, match='truncated or damaged'):
    _by_series(own_layout.list_studies(tmp_path))['s3'].read()


def test_thin_slices_may_be_stored_as_slabs():
  study = study_lib.Study(
    fakes.chest(),
    np.array([0, 0, 0, 1, 1, 1, -1, 0], np.int8),
    (2.5, 6.0, 6.0),
    fakes.lungs(),
    fakes.lesion(),
    'drawn',
  )
  slabs = study_lib.prepared(study, 0, 'x', thickness_mm=5.0)
  assert slabs.spacing_mm == (5.0, 6.0, 6.0) and len(slabs.hu) == 4
  pairs = study.hu.reshape(4, 2, *study.hu.shape[1:])
  np.testing.assert_array_equal(slabs.hu, np.rint(pairs.mean(axis=1)))
  # Half of a slab makes it positive; negative is what holds nothing else.
  np.testing.assert_array_equal(slabs.labels, [0, 1, 1, -1])
  for name in ('lung_mask', 'lesion_mask'):
    mask = getattr(study, name).reshape(pairs.shape)
    np.testing.assert_array_equal(getattr(slabs, name), mask.any(axis=1), name)
  np.testing.assert_array_equal(slabs.slice_index, [0, 2, 4, 6])
  thick = study_lib.prepared(study, 0, 'x', thickness_mm=3.0)
  np.testing.assert_array_equal(thick.hu, study.hu)
