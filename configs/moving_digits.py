"""Real MNIST digits that move: the label is the motion, which no single frame tells.

    python main.py --config=configs/moving_digits.py --workdir=/tmp/moving_digits

Not from the paper; needs no data but what a package ships. Arguments: model (a spec), several
(motions in intervals of their own, as in Charades), epochs, runlocal (a few steps, to try things
out).
"""

from ml_collections import ConfigDict

from configs import common


def get_config(arg: str | None = None) -> ConfigDict:
    arg = common.parse_arg(arg, model='ViViT-mini/16x2', several=False, epochs=10.0, runlocal=False)
    config = common.default_config(arg.model)
    config.epochs = 0.1 if arg.runlocal else arg.epochs
    config.batch_size = 32
    config.dataset.update(name='moving_digits', several=arg.several, resolution=64)
    config.clip = {'frames': 16, 'stride': 2, 'label_mode': 'video'}
    if arg.several:
        config.clip.label_mode = 'overlap'
        config.loss = {'name': 'sigmoid'}
    config.reading.threads = config.reading.prefetch = 0  # they are drawn quickly
    config.schedule.learning_rate = 2e-3
    config.optimizer.b2 = 0.98
    config.optimizer.weight_decay = 0.05
    config.schedule.warmup_epochs = min(1.0, config.epochs / 12)
    config.eval_every_epochs = 5.0
    config.checkpoint.every_steps = 500
    config.log_every_steps = 50
    return config
