"""Real MNIST digits that move: the label is the motion, which no single frame tells.

    python main.py --config=configs/moving_digits.py:model=ViViT-mini/8x6-4at2 --workdir=DIR

Not from the paper; needs no data but what a package ships. Clips of 12 frames, every second of a
video's 32, at 32 pixels; evaluated in 4x3 views at the end. Arguments: model (a spec), several
(motions in intervals of their own, as in Charades, evaluated in all clips), epochs, runlocal (a few
steps, to try things out).
"""

from ml_collections import ConfigDict

from configs import common


def get_config(arg: str | None = None) -> ConfigDict:
    defaults = {'model': 'ViViT-mini/8x6-4at2', 'several': False, 'epochs': 24.0, 'runlocal': False}
    arg = common.parse_arg(arg, **defaults)
    config = common.default_config(arg.model)
    config.epochs = 0.1 if arg.runlocal else arg.epochs
    config.batch_size = 32
    config.dataset.update(name='moving_digits', several=arg.several, resolution=32)
    config.dataset.update(mean=(0.0,), std=(0.25,))  # most of a frame is black
    config.clip = {'frames': 12, 'stride': 2, 'label_mode': 'video'}
    config.train_geometry = common.jitter_crop(32, prob_scale_jitter=0.0)
    config.eval_geometry = {'name': 'center_crop', 'share': 0.875}
    config.evaluators.multiview = common.multiview('test', batch_size=64)
    if arg.several:
        config.evaluators.multiview.update(clips=None, crops=1)
        config.clip.update(stride=4, label_mode='overlap')  # half of a video
        config.loss = {'name': 'sigmoid', 'reduction': 'sum'}
    config.reading.threads = config.reading.prefetch = 0  # they are drawn quickly
    config.schedule.learning_rate = 6e-3 if arg.model.startswith(common.BOTTLENECK) else 2e-3
    config.optimizer.b2 = 0.98
    config.optimizer.weight_decay = 0.05
    config.schedule.warmup_epochs = min(1.0, config.epochs / 12)
    config.eval_every_epochs = 8.0
    config.checkpoint.every_steps = 500
    config.log_every_steps = 100
    return config
