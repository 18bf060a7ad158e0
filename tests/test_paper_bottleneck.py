"""Tables 10 to 14: counts to the printed digits, and measured figures where they belong."""

import json
from pathlib import Path

import jax
import jax.numpy as jnp
import pytest

from benchmarks.bottleneck_counts import count_layers, count_network, last_block
from benchmarks.paper_bottleneck import TABLES
from benchmarks.paper_markdown import format_table
from benchmarks.paper_tables import describe, find_results, list_measured
from datasets.videos import load_videos
from token_learner import build_model

SHARED = Path(__file__).parents[1].parent / 'shared'
MODULES = [(table, row) for table in ('12', '13') for row in TABLES[table].rows]
CLIP = {'frames': 64, 'stride': 1, 'label_mode': 'overlap'}


@pytest.mark.parametrize(('table', 'row'), MODULES, ids=lambda x: getattr(x, 'name', x))
def test_counts_of_modules_to_the_printed_digits(table, row):
    entry = describe(row, TABLES[table], {})
    assert entry['digits'] == {'gflops': 'equal', 'params_m': 'equal'}


def test_counts_of_networks():
    """The strict figure and the parameters are those of a trace of the whole network."""
    found = {}
    for row in TABLES['11'].rows:
        entry = describe(row, TABLES['11'], {})
        if 'gflops' in entry['deviation_percent']:
            assert entry['digits'] == {'gflops': 'equal'}
            assert abs(entry['deviation_percent']['gflops']) < 0.1
            ours = entry['ours']
            found[row.spec] = ours['params'], round(ours['gflops_strict'], 6), ours['gflops']
    assert found == {
        'X2plus1D-M': (27_447_939, 531.885093, pytest.approx(531.885, abs=5e-4)),
        'X2plus1D-M:spatial_temporalx3': (22_512_771, 493.293302, pytest.approx(493.293, abs=5e-4)),
        'X2plus1D-M:tlx3': (23_153_187, 487.581053, pytest.approx(487.162, abs=5e-4)),
    }


def test_only_weighted_sums_by_channel_are_left_out():
    """Of 512 tokens, 4,096 positions with 8 weights each, and 432 channels."""
    attention, pooling, unpooling, residual = 512**2, 4096 * 8, 4096 * 8, -4096
    for layers, left_out in {
        '': 0,
        ':conv2d_jointx1': 0,
        ':tlx1': attention + pooling + unpooling + residual,
        ':spatial_tlx2': attention + pooling + unpooling + residual,
    }.items():
        ours = count_layers(f'X2plus1D-M{layers}')
        difference = (ours['gflops_strict'] - ours['gflops']) * 1e9
        assert difference == pytest.approx(432 * left_out, abs=1), layers
    mhsa = count_layers('X2plus1D-M:tlx1', (('transformer', 'mhsa'),))
    difference = (mhsa['gflops_strict'] - mhsa['gflops']) * 1e9
    assert difference == pytest.approx(432 * (pooling + unpooling + residual), abs=1)


def test_the_composition_of_the_text_stands_beside():
    entry = describe(TABLES['12'].rows[2], TABLES['12'], {})
    ours = entry['ours']
    assert (ours['params'], round(ours['params_m_text'], 4)) == (808_768, 0.8566)
    assert (round(ours['gflops'], 3), round(ours['gflops_text'], 3)) == (3.438, 1.906)
    assert '| 3.4 | 3.438 | **+1.12 %** | equal | 3.578 | 1.906 |' in format_table(
        TABLES['12'], [entry]
    )
    module = count_layers('X2plus1D-M:tlx3', (('composition', 'text'),))
    plain = count_network('X2plus1D-M', 887)
    text = count_network('X2plus1D-M:tlx3', 887, (('composition', 'text'),))
    convolutions_and_norm = (9 + 3) * 432**2 + 2 * 432
    assert text['params'] - plain['params'] == 3 * (module['params'] - convolutions_and_norm)


@pytest.mark.skipif(not SHARED.exists(), reason='the reference tables are not here')
def test_no_row_of_the_reference_is_missing():
    columns = {
        'charades_6fps': {'mAP': 'map_6fps'},
        'charades_12fps': {'mAP': 'map_12fps'},
        'avid': {'mean_acc': 'mean_class', 'views': 'views'},
        'charades_6fps|charades_12fps|avid': {
            'mAP_6fps': 'map_6fps',
            'mAP_12fps': 'map_12fps',
            'avid_mean_acc': 'mean_class',
        },
    }
    words = {'input': 'input', 'pretrain': 'pretrained'}
    counts = {'gflops': 'gflops', 'params_m': 'params_m'}

    def comparable(paper):
        return {k: v if k in words.values() else float(v) for k, v in paper.items() if v != 'N/A'}

    ours = [comparable(row.paper) for table in TABLES.values() for row in table.rows]
    rows = json.loads((SHARED / 'paper_tables.json').read_text())['rows']
    rows = [row for row in rows if row['dataset'] in columns]
    for row in rows:
        names = columns[row['dataset']] | words | counts
        printed = {names[k]: v for k, v in row['paper'].items() if v is not None}
        assert comparable(printed) in ours, row['id']
    assert len(rows) == len(ours) == 15 + 10 + 4 + 8 + 7 + 4


def test_the_rows_that_train_at_256_cannot_at_224():
    grid, dense, pooled, _ = TABLES['6.3.3'].rows
    assert [row.trained for row in (grid, dense, pooled)] == [None, None, 224]

    def trace(row, side, variables=None):
        model = last_block(build_model({'spec': row.spec, **row.settings}, 5))
        clip = jax.ShapeDtypeStruct((1, 2, side // 8, side // 8, 3), jnp.float32)
        variables = variables or jax.eval_shape(model.init, jax.random.key(0), clip)
        return jax.eval_shape(model.apply, variables, clip) and variables

    with pytest.raises(ValueError, match='7x7 grid does not split into 8 equal cells'):
        trace(grid, 224)
    with pytest.raises(Exception, match='kernel'):
        trace(dense, 256, trace(dense, 224))
    trace(pooled, 256, trace(pooled, 224))


def write_run(folder, metric, **changes):
    run = {
        'model': {'spec': 'X2plus1D-M:conv2d_tlx3', 'dropout': 0.5, 'vector_attention': 'auto'},
        'dataset': 'charades',
        'split': 'test',
        'resolution': 224,
        'eval_resolution': 256,
        'clip': CLIP,
        'fps': 6,
        'steps': 100_000,
        'metrics': {metric: {'value': 0.6, 'n': 1814}},
        **changes,
    }
    folder.mkdir()
    (folder / 'results.json').write_text(json.dumps(run))


def test_a_measured_figure_stands_in_its_own_frame_rate_only(tmp_path):
    charades, avid = 'charades/test/map@allx1_max', 'avid/val/mean_class@1x1_logits'
    write_run(tmp_path / 'six', charades)
    write_run(tmp_path / 'twelve', charades, fps=12)
    write_run(tmp_path / 'large', charades, resolution=256)
    write_run(tmp_path / 'small', charades, eval_resolution=224)
    write_run(tmp_path / 'split', charades, split='train')
    write_run(tmp_path / 'mean', 'charades/test/map@allx1_logits')
    named = {'spec': 'X2plus1D-M:conv2d_tlx3', 'transformer': 'vector'}
    write_run(tmp_path / 'avid', avid, model=named, dataset='avid', split='val', fps=12)
    seven = {'spec': 'X2plus1D-M:conv2d_tl'}
    write_run(tmp_path / 'seven', charades, model=seven)
    mhsa = {'spec': 'X2plus1D-M:conv2d_tlx3', 'transformer': 'mhsa'}
    write_run(tmp_path / 'mhsa', charades, model=mhsa)
    runs = find_results([tmp_path])

    def measured(table, row):
        found = list_measured(TABLES[table].rows[row], TABLES[table], runs)
        return {Path(run['workdir']).name: [*run][2:] for run in found}

    in_table_12 = {'six': ['map_6fps'], 'twelve': ['map_12fps'], 'avid': ['mean_class']}
    assert measured('12', 3) == in_table_12
    text = format_table(TABLES['12'], [describe(TABLES['12'].rows[3], TABLES['12'], runs)])
    assert '| 59.6 | 66.3 | 53.7 | 60.00 of 1,814 | 60.00 of 1,814 | 60.00 of 1,814 |' in text
    assert measured('10', -1) == {'twelve': ['map_12fps']}
    assert measured('13', -1) == measured('14', -1) == {'six': ['map_6fps']}
    assert measured('14', -2) == {'mhsa': ['map_6fps']}
    assert measured('11', -1) == {}


def test_a_video_set_says_its_frame_rate(tmp_path):
    assert load_videos('charades', str(tmp_path), fps=6).fps == 6
    assert load_videos('avid', str(tmp_path)).fps == 12
