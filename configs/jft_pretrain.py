r"""Pre-training on JFT-300M, or a weakly labelled set of your own (TPAMI version, Sec. 3.4).

    python main.py --config=configs/jft_pretrain.py:model=B/16-8at6 --workdir=DIR \
        --config.dataset.data_dir=SET

The paper pre-trains "following ViT": Dosovitskiy et al., arXiv:2010.11929, Table 3. Adam, batches
of 4,096 at 224 pixels, linear decay after 10,000 steps of warm-up (0.135 epochs of JFT's 303M
images), weight decay 0.1, no dropout; B 7 epochs at 8e-4, L/32 at 6e-4, L/16 14 at 4e-4 (7 or 14
there), H 14 at 3e-4. The table has no S: it takes B's. Sigmoid cross-entropy, as images have many
labels; the head's bias begins at -10, as in the released TokenLearner config and in big_vision's
for ImageNet-21k.

JFT-300M is not public: docs/images.md says how a set of your own is prepared, and
configs/imagenet21k_pretrain.py is the stand-in. Not yet run here.

Arguments: model (a spec), res (pixels), runlocal (on made data, by default a mini model at 32
pixels, 40 s on two cores).
"""

from ml_collections import ConfigDict

from configs import common

RECIPES = {  # size -> learning rate, epochs
    'L': (4e-4, 14.0),
    'H': (3e-4, 14.0),
}


def get_config(arg: str | None = None) -> ConfigDict:
    arg = common.parse_arg(arg, model='', res=0, runlocal=False)
    model = common.choose(arg.model, common.LOCAL_IMAGE_MODEL, 'B/16-8at6', arg.runlocal)
    res = common.choose(arg.res, 32, 224, arg.runlocal)
    config = common.default_config(model)
    rate, config.epochs = RECIPES.get(model[0], (8e-4, 7.0))
    if model.startswith('L/32'):
        rate, config.epochs = 6e-4, 7.0
    config.batch_size = 4096
    config.loss = {'name': 'sigmoid', 'reduction': 'sum'}
    config.model.head_bias = -10.0
    common.use_images(config, 'jft', ('train', 'test'), res)
    config.dataset.update(image='image', labels='labels', vocabulary='', max_labels=32)
    config.optimizer.weight_decay = 0.1
    config.optimizer.clip_norm = 0.0
    config.schedule.name = 'linear'
    config.schedule.learning_rate = rate
    config.schedule.warmup_epochs = 0.135
    config.evaluators.update(common.few_shot_evaluators(arg.runlocal))
    config.log_every_steps = 200
    config.checkpoint.every_steps = 5000
    if arg.runlocal:
        common.run_locally(config, steps=400)
        config.schedule.learning_rate = 4e-3
        config.optimizer.b2 = 0.98
        config.optimizer.clip_norm = 1.0
    return config
