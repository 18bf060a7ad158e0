r"""Fine-tuning on Kinetics-600 (TPAMI version, Sec. 5; Table 9).

    python main.py --config=configs/kinetics600.py:model=ViViT-L/16x2-16at12 --workdir=DIR \
        --config.init_from.path=WORKDIR_OF_THE_PRETRAINING

The recipe of configs/kinetics400.py, as in the paper. Not yet run here. Arguments: those of
configs/kinetics400.py.
"""

from ml_collections import ConfigDict

from configs import kinetics400


def get_config(arg: str | None = None) -> ConfigDict:
    config = kinetics400.get_config(arg)
    config.dataset.name = 'kinetics600'
    return config
