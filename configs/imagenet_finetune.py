"""Fine-tuning on ImageNet (TPAMI version, Sec. 4; Tables 1 and 2).

    python main.py --config=configs/imagenet_finetune.py:model=L/16-16at12,res=512 --mode=plan \
        --topology=v5e:16x16

The papers follow ViT (arXiv:2010.11929, Appendix B.1.1): SGD with momentum 0.9, batches of 512,
20,000 steps, cosine decay, gradients clipped to norm 1, no weight decay; the learning rate is
one of its four, and the 500 steps of warm-up are those of its released code. 384 pixels for S
and B, 512 for L. Not yet run here: the images and the weights to start from are not read yet.

Arguments: model (a spec), res (pixels), runlocal (a small model on the digits, to try it out).
"""

from ml_collections import ConfigDict

from configs import common


def get_config(arg: str | None = None) -> ConfigDict:
    arg = common.parse_arg(arg, model='L/16-16at12', res=512, runlocal=False)
    config = common.default_config('mini/7-4at2' if arg.runlocal else arg.model)
    config.batch_size = 32 if arg.runlocal else 512
    config.total_steps = 100 if arg.runlocal else 20_000
    config.optimizer = {'name': 'momentum', 'momentum': 0.9, 'weight_decay': 0.0, 'clip_norm': 1.0}
    config.schedule.learning_rate = 0.03
    if arg.runlocal:
        return config
    config.model.dtype = 'bfloat16'
    config.model.scan = True
    config.dataset.name = 'imagenet2012'
    config.dataset.resolution = arg.res
    config.schedule.warmup_epochs = 0.2
    config.evaluators.test.split = 'validation'
    config.checkpoint.every_steps = 1000
    return config
