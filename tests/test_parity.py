import re
import shutil
from pathlib import Path

import numpy as np
import pytest

from benchmarks import parity
from token_learner import TokenFuser, TokenLearner
from token_learner.pretrained import convert

GOLDEN = Path(__file__).parents[2] / 'shared' / 'golden'
needs_golden = pytest.mark.skipif(not GOLDEN.is_dir(), reason='reference outputs are not here')


@pytest.mark.slow
@needs_golden
def test_recorded_outputs_are_met(capsys):
    assert parity.main([str(GOLDEN)]) == 0
    out = capsys.readouterr().out
    assert out.count('ok') >= 13
    for name in ('hf_vit', 'hf_vivit', 'vivit_tl_v11.npz'):
        assert re.search(f'^{name} .* ok$', out, re.MULTILINE)


@needs_golden
def test_a_difference_is_a_failure(tmp_path, capsys):
    arrays = dict(np.load(GOLDEN / 'token_learner_v11.npz'))
    arrays['output'] += 1e-3 * np.abs(arrays['output']).max()
    np.savez(tmp_path / 'token_learner_wrong.npz', **arrays)
    shutil.copy(GOLDEN / 'token_learner_v10.npz', tmp_path / 'token_learner_right.npz')
    assert parity.main([str(tmp_path)]) == 1
    assert '2 compared, 1 failed' in capsys.readouterr().out


@needs_golden
def test_a_model_that_the_parameters_do_not_fit_is_refused():
    arrays = dict(np.load(GOLDEN / 'token_fuser.npz'))
    flat = parity.below(arrays, 'params/')
    with pytest.raises(ValueError, match='fuser_mix_norm1/bias has no place in TokenFuser'):
        convert(flat, source='scenic', model=TokenFuser(norm='grid', beta='mlp'))


def test_an_empty_folder_is_an_error(tmp_path):
    assert parity.main([str(tmp_path)]) == 2


def test_a_parameter_without_a_place_is_refused():
    flat = {'LayerNorm_0/scale': np.ones(4), 'Dense_7/kernel': np.ones((4, 4))}
    with pytest.raises(ValueError, match='Dense_7/kernel has no place in TokenLearner'):
        convert(flat, source='scenic', model=TokenLearner(8))
    with pytest.raises(ValueError, match='no parameter Conv_0, from which conv_0 would come'):
        convert({'LayerNorm_0/scale': np.ones(4)}, source='scenic', model=TokenLearner(8))
    with pytest.raises(ValueError, match='use one of scenic'):
        convert({}, source='timm', model=TokenLearner(8))
