r"""Fine-tuning on ImageNet (TPAMI version, Sec. 3.4; Tables 1 to 6).

    python main.py --config=configs/imagenet_finetune.py:model=L/16-16at12 --workdir=DIR \
        --config.init_from.path=WORKDIR_OF_THE_PRETRAINING

"Following ViT": Dosovitskiy et al., arXiv:2010.11929, Appendix B.1.1 and the code of
google-research/vision_transformer. SGD with momentum 0.9, batches of 512, 20,000 steps, cosine
decay after 500 of warm-up (0.2 epochs), gradients clipped to norm 1, no weight decay; the learning
rate is one of 0.003, 0.01, 0.03 and 0.06, which the papers chose on held-out training images;
inception crops and flips, and whole images squeezed to a square to evaluate on. 384 pixels for S
and B, 512 for L and H, and for these averaged parameters (decay 0.9999). The head is new, zero. Not
yet run here.

ReaL accuracy: --mode=eval --evaluator=real, with TFDS's imagenet2012_real.

Arguments: model (a spec), res (pixels), runlocal (on made data, by default a mini model at 48
pixels, 40 s on two cores).
"""

from ml_collections import ConfigDict

from configs import common


def get_config(arg: str | None = None) -> ConfigDict:
    arg = common.parse_arg(arg, model='', res=0, runlocal=False)
    model = common.choose(arg.model, common.LOCAL_IMAGE_MODEL, 'L/16-16at12', arg.runlocal)
    large = model[0] in 'LH'
    res = common.choose(arg.res, 48, 512 if large else 384, arg.runlocal)
    config = common.default_config(model)
    config.batch_size = 512
    config.total_steps = 20_000
    common.use_images(config, 'imagenet2012', ('train', 'validation'), res)
    config.eval_geometry = {'name': 'resize', 'share': 1.0}
    config.ema = 0.9999 if large else 0.0
    config.optimizer = common.MOMENTUM
    config.schedule.learning_rate = 0.03
    config.schedule.warmup_epochs = 0.2
    config.evaluators.update(common.real_evaluator())
    config.evaluators.update(common.few_shot_evaluators(arg.runlocal))
    config.log_every_steps = 100
    config.checkpoint.every_steps = 1000
    if arg.runlocal:
        common.run_locally(config, steps=200)
        config.ema = 0.9
    return config
