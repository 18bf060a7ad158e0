"""Pre-training on ImageNet-21k, the public stand-in for JFT-300M.

    python main.py --config=configs/imagenet21k_pretrain.py:model=B/16-8at6 --workdir=DIR

Dosovitskiy et al., arXiv:2010.11929, Table 3: Adam, batches of 4,096 at 224 pixels, linear decay
from 1e-3 after 10,000 steps of warm-up (2.9 epochs), weight decay 0.03, dropout 0.1; 90 epochs (of
L 30 or 90). Loss, head's bias and splits are those of google-research/big_vision's vit_i21k.py:
sigmoid, -10, the first 51,200 examples held out. Not a row of the TokenLearner paper, and not yet
run here.

TFDS has no ImageNet-21k: `python -m datasets.from_folders imagenet21k` makes one of the tar files.

Arguments: model (a spec), res (pixels), runlocal (on made data, by default a mini model at 32
pixels, 40 s on two cores).
"""

from ml_collections import ConfigDict

from configs import common


def get_config(arg: str | None = None) -> ConfigDict:
    arg = common.parse_arg(arg, model='', res=0, runlocal=False)
    model = common.choose(arg.model, common.LOCAL_IMAGE_MODEL, 'B/16-8at6', arg.runlocal)
    res = common.choose(arg.res, 32, 224, arg.runlocal)
    config = common.default_config(model)
    config.epochs = 90.0
    config.batch_size = 4096
    config.loss = {'name': 'sigmoid', 'reduction': 'sum'}
    config.model.head_bias = -10.0
    config.model.dropout = 0.1
    common.use_images(config, 'imagenet21k', ('full[51200:]', 'full[25600:51200]'), res)
    config.optimizer.weight_decay = 0.03
    config.optimizer.clip_norm = 0.0
    config.schedule.name = 'linear'
    config.schedule.learning_rate = 1e-3
    config.schedule.warmup_epochs = 2.9
    config.evaluators.update(common.few_shot_evaluators(arg.runlocal))
    config.log_every_steps = 200
    config.checkpoint.every_steps = 5000
    if arg.runlocal:
        common.run_locally(config, steps=400)
        config.dataset.split, config.evaluators.test.split = 'full[400:]', 'full[:400]'
        config.schedule.learning_rate = 4e-3
        config.optimizer.b2 = 0.98
        config.optimizer.clip_norm = 1.0
        config.model.dropout = 0.0
    return config
