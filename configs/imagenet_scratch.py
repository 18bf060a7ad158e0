"""ImageNet from scratch, 90 epochs: the only recipe that was released.

    python main.py --config=configs/imagenet_scratch.py:model=B/16-16at9 --workdir=DIR

google-research/scenic, projects/token_learner/configs/im1k_token_learner_config.py, as its code ran
and not as it is written: Adam, batches of 4,096, 5e-3 after 10,000 steps of warm-up (31.97 epochs),
linearly down to 1e-5; weight decay 0.3 times the learning rate on every parameter; gradients
clipped to norm 1; sigmoid cross-entropy with the head's bias beginning at -10; crops of 8 % or more
of the image, flips, ImageNet's mean and deviation; seed 42. Its `stochastic_depth=0.1` is read
nowhere, and there is no mixup, RandAugment or dropout. Ours differs in three ways: images are
resized by area or bilinearly, there bicubically; an image without a crop after 100 (there 10) tries
is shown whole, there its middle; and 90 epochs are 28,150 steps, there 28,080.

No accuracy of it was published, and it is not yet run here.

Arguments: model (a spec), res (pixels), runlocal (on made data, by default a mini model at 32
pixels, 40 s on two cores).
"""

import re

from ml_collections import ConfigDict

from configs import common


def get_config(arg: str | None = None) -> ConfigDict:
    arg = common.parse_arg(arg, model='', res=0, runlocal=False)
    model = common.choose(arg.model, common.LOCAL_IMAGE_MODEL, 'B/16-16at9', arg.runlocal)
    res = common.choose(arg.res, 32, 224, arg.runlocal)
    config = common.default_config(model)
    config.seed = 42
    config.epochs = 90.0
    config.batch_size = 4096
    config.loss = {'name': 'sigmoid', 'reduction': 'sum'}
    config.model.head_bias = -10.0
    if re.search(r'-\d', config.model.spec):  # -SatK: it has a TokenLearner
        config.model.version = 'v1.1'
    common.use_images(config, 'imagenet2012', ('train', 'validation'), res)
    config.dataset.mean = (0.485, 0.456, 0.406)
    config.dataset.std = (0.229, 0.224, 0.225)
    config.train_geometry.min_area = 0.08
    config.model.dtype = 'float32'
    config.optimizer.weight_decay = 0.3
    config.optimizer.decayed = 'all'
    config.schedule.name = 'linear'
    config.schedule.learning_rate = 5e-3
    config.schedule.end_learning_rate = 1e-5
    config.schedule.warmup_epochs = 31.97
    config.evaluators.update(common.real_evaluator())
    config.evaluators.update(common.few_shot_evaluators(arg.runlocal))
    config.log_every_steps = 100
    if arg.runlocal:
        common.run_locally(config, steps=500)
        config.schedule.learning_rate = 4e-3
        config.optimizer.b2 = 0.98
    return config
