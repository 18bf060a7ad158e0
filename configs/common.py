"""What experiments share: every config key with its default, and the argument's parser."""

import difflib
from typing import Any

from ml_collections import ConfigDict
from ml_collections.config_dict import FieldReference, placeholder


def parse_arg(arg: str | None, **defaults: Any) -> ConfigDict:
    """Parses the part of `--config=FILE:ARG` behind the colon.

    ARG is a comma-separated list of `name=value`, or `name` alone for a truth value.

    Args:
        arg: the text, or None.
        **defaults: the known names; the type of the default is the type of the value.

    Raises:
        ValueError: if a name is unknown or a value is of another type or missing.
    """
    values = ConfigDict(defaults)
    for item in filter(None, (arg or '').split(',')):
        name, equals, text = item.partition('=')
        if name not in defaults:
            near = difflib.get_close_matches(name, defaults, 1)
            hint = f'did you mean {near[0]!r}?' if near else f'use {", ".join(defaults)}'
            raise ValueError(f'config argument {name!r} is not known; {hint}')
        kind = type(defaults[name])
        if kind is str and not text:
            raise ValueError(f'config argument {name!r} has no value; write {name}=VALUE')
        try:
            values[name] = _TRUTH[text if equals else 'true'] if kind is bool else kind(text)
        except (KeyError, ValueError):
            raise ValueError(f'config argument {name}={text!r} is {_KINDS[kind]}') from None
    return values


def choose(given: Any, small: Any, full: Any, runlocal: bool) -> Any:
    """What is given, unless that is '' or 0; else the value of the small form, or of the recipe."""
    return given or (small if runlocal else full)


_KINDS = {bool: 'neither true nor false', int: 'no whole number', float: 'no number'}
_TRUTH = {'true': True, 'True': True, '1': True, 'false': False, 'False': False, '0': False}


BOTTLENECK = 'X2plus1D'  # how the specs of these models begin


def default_model(spec: str) -> ConfigDict:
    """The keys of `config.model`: the spec and everything finer, see `token_learner.build`."""
    if spec.startswith(BOTTLENECK):
        return ConfigDict(
            {
                'spec': spec,
                'composition': 'table12',
                'num_tokens': 8,
                'tokenizer': 'token_learner',
                'pooling': 'mean',
                'transformer': placeholder(str),
                'fuser': 'token_fuser',
                'head_bias': 0.0,
                'dropout': 0.0,
                'dtype': 'float32',
                'attention': 'auto',
                'vector_attention': 'auto',
                'remat': 'none',
            }
        )
    return ConfigDict(
        {
            'spec': spec,
            'tokenizer': 'token_learner',
            'version': 'v1.0',
            'pooling': 'sum',
            'activation': placeholder(str),
            'fuser': 'token_fuser',
            'mix_scope': 'frame',
            'beta': 'linear',
            'fuser_norm': 'none',
            'mix_init': 'identity',
            'head': 'gap',
            'head_bias': 0.0,
            'representation': placeholder(int),
            'gelu': 'tanh',
            'temporal_layers': 0,
            'dropout': 0.0,
            'stochastic_depth': 0.0,
            'dtype': 'float32',
            'attention': 'auto',
            'remat': 'none',
            'scan': False,
        }
    )


# Expression in a parameter's path, and the mesh axis of each of its dimensions; `fsdp` then takes
# the largest dimension left. A block's first projections are cut by heads or by hidden units,
# its last ones sum over the parts (Megatron-LM, arXiv:1909.08053, Sec. 3).
TENSOR_PARALLEL = (
    ('attention/(query|key|value)/kernel', (None, 'tensor', None)),
    ('attention/(query|key|value)/bias', ('tensor', None)),
    ('attention/out/kernel', ('tensor', None, None)),
    (r'block_\d+/mlp/hidden/kernel', (None, 'tensor')),
    (r'block_\d+/mlp/hidden/bias', ('tensor',)),
    (r'block_\d+/mlp/out/kernel', ('tensor', None)),
)


def default_config(spec: str) -> ConfigDict:
    """Every key of a config. Sections are replaced whole, other keys one by one."""
    return ConfigDict(
        {
            'seed': 0,
            'batch_size': 128,  # over all processes and devices
            'microbatches': 1,  # that a batch is computed in, one after the other
            # What BatchNorm normalises by in training: the statistics of the whole 'batch', which
            # needs microbatches=1, or of each 'microbatch', the running ones following in turn.
            'batch_statistics': 'batch',
            'ema': 0.0,  # decay of the averaged parameters that are evaluated; 0 averages none
            'mixup': 0.0,  # alpha of the Beta that the ratio is drawn from; 0 mixes none
            'nonfinite': 'stop',  # or 'skip', on a batch whose loss or gradient is not finite
            'epochs': 1.0,
            'total_steps': placeholder(int),  # where given, instead of epochs
            'loss': {'name': 'softmax', 'label_smoothing': 0.0},
            'model': default_model(spec),
            'dataset': {
                'name': 'digits',
                'data_dir': '',
                'split': 'train',
                'resolution': 28,
                'eval_resolution': placeholder(int),  # of evaluation and pictures, if another
                'mean': (0.5,),  # of all channels, or of each; pixels, from 0 to 1, become
                'std': (0.5,),  # (pixel - mean) / std
            },
            'clip': {},  # of videos: frames, stride and label_mode
            'train_geometry': {'name': 'resize'},
            'eval_geometry': {'name': 'resize'},
            'augment': {},  # what the device does to training images: name -> settings, in order
            'reading': {
                'workers': 0,
                'threads': 2,
                'prefetch': 4,
                'max_unreadable': 0.001,  # share of the examples; more end the run
            },
            # Weights to start from: a workdir, or a file or folder of public weights. Names of ours
            # that stay new, and of theirs that are left out, as regular expressions.
            'init_from': {
                'path': '',
                'new': ('^head/',),
                'unused': ('^head/', '^class_token', '^representation/'),
                # Of an image model's patches for clips: at the 'central' frame, or the 'average'.
                'inflate': 'central',
                'resize_time': False,  # whether positions of another number of times are resized
            },
            'optimizer': {
                'name': 'adamw',
                'b1': 0.9,
                'b2': 0.999,
                'weight_decay': 0.0,
                'decayed': 'kernels',  # or 'all' parameters
                'clip_norm': 1.0,
            },
            'schedule': {
                'name': 'cosine',  # or 'linear'
                'learning_rate': 1e-3,
                'end_learning_rate': 0.0,
                'warmup_epochs': 0.0,
            },
            'mesh': {'data': -1, 'fsdp': 1, 'tensor': 1},
            'sharding': () if spec.startswith(BOTTLENECK) else TENSOR_PARALLEL,
            # They run always (now and then, and at the end), at the 'end', or when they are 'asked'
            # for by --mode=eval --evaluator=NAME.
            'evaluators': {
                'test': {
                    'name': 'classification',
                    'dataset': '',  # another one with the same classes; '' is the trained one
                    'split': 'test',
                    'batch_size': 256,
                    'when': 'always',
                }
            },
            'eval_every_epochs': 1.0,
            'log_every_steps': 50,
            'checkpoint': {
                'every_steps': 1000,
                'keep': 3,  # the newest
                'keep_every_steps': placeholder(int),  # and for good those of its multiples
            },
        }
    )


# The optimiser of fine-tuning (Dosovitskiy et al., arXiv:2010.11929, Appendix B.1.1), and of ViViT.
MOMENTUM = {
    'name': 'momentum',
    'momentum': 0.9,
    'weight_decay': 0.0,
    'decayed': 'kernels',
    'clip_norm': 1.0,
}

# Of the paper's nine few-shot sets the split of the shots and the one to test on. Where a set has
# one split only, it is cut as in Scenic and big_vision; of ImageNet's the first 65,000 examples, as
# in big_vision, hold 30 of each class and more.
FEW_SHOT_SETS = {
    'caltech101': ('train', 'test'),
    'caltech_birds2011': ('train', 'test'),
    'cars196': ('train', 'test'),
    'cifar100': ('train', 'test'),
    'colorectal_histology': ('train[:2000]', 'train[2000:]'),
    'dtd': ('train', 'test'),
    'imagenet2012': ('train[:65000]', 'validation'),
    'oxford_iiit_pet': ('train', 'test'),
    'uc_merced': ('train[:1000]', 'train[1000:]'),
}
LOCAL_FEW_SHOT_SETS = {'caltech101': ('train', 'test'), 'dtd': ('train', 'test')}


def real_evaluator() -> ConfigDict:
    """ReaL accuracy, over the validation images that have labels; runs when it is asked for."""
    settings = {'dataset': 'imagenet2012_real', 'split': 'validation', 'when': 'asked'}
    return ConfigDict({'real': {'name': 'classification', 'batch_size': 256, **settings}})


def few_shot_evaluators(runlocal: bool) -> ConfigDict:
    """Both protocols; that of the papers is `fewshot`. They run when they are asked for."""
    settings = {
        'name': 'fewshot',
        'datasets': LOCAL_FEW_SHOT_SETS if runlocal else FEW_SHOT_SETS,
        'data_dir': '',  # '' is that of config.dataset
        'shots': (1, 5, 10, 25),
        'share': 0.875,  # the image squeezed to 256x256, and of that the middle 224x224
        'batch_size': 256,
        'when': 'asked',
    }
    return ConfigDict(
        {
            'fewshot': {**settings, 'protocol': 'lsr_rank'},
            'fewshot_fixed': {**settings, 'protocol': 'lsr_fixed'},
        }
    )


def use_images(config: ConfigDict, name: str, splits: tuple[str, str], resolution: int) -> None:
    """Sets what every recipe for large image sets has: inception crops, flips, bfloat16."""
    config.dataset.name = name
    config.dataset.split, config.evaluators.test.split = splits
    config.dataset.resolution = resolution
    config.train_geometry = {'name': 'inception_crop', 'min_area': 0.05}
    config.eval_geometry = {'name': 'center_crop', 'share': 0.875}
    config.augment = {'flip': {'probability': 0.5}}
    config.reading.threads = 16
    config.model.dtype = 'bfloat16'
    if 'scan' in config.model:
        config.model.scan = True


LOCAL_IMAGE_MODEL = 'mini/8-4at2'
LOCAL_VIDEO_MODEL = 'ViViT-mini/8x2-4at2'
LOCAL_BOTTLENECK_MODEL = 'X2plus1D-mini:conv2d_tlx2'


def use_videos(
    config: ConfigDict,
    name: str,
    splits: tuple[str, str],
    fps: int,
    clip: tuple[int, int],
    resolution: int = 224,
) -> None:
    """Sets what every recipe for videos has: ViViT's optimiser, scale jitter, crops and flips.

    Evaluated are one view while training goes on, and 4x3 at its end.

    Args:
        config: to change.
        name: of the set.
        splits: to train and to evaluate on.
        fps: frames a second that it was prepared with.
        clip: its frames, and the stride from one to the next.
        resolution: of the clips, pixels; the short side is 8/7 of it before they are cut.
    """
    config.dataset.update(name=name, fps=fps, resolution=resolution)
    config.dataset.split, config.evaluators.test.split = splits
    config.clip = {'frames': clip[0], 'stride': clip[1], 'label_mode': 'video'}
    config.train_geometry = jitter_crop(resolution, prob_scale_jitter=1.0)
    config.eval_geometry = {'name': 'center_crop', 'share': 0.875}
    config.augment = {'flip': {'probability': 0.5}}
    config.reading.update(workers=8, threads=2, prefetch=2)
    config.evaluators.test.batch_size = 64
    config.evaluators.multiview = multiview(splits[1], batch_size=64)
    config.optimizer = MOMENTUM
    config.model.dtype = 'bfloat16'
    if 'scan' in config.model:
        config.model.scan = True
    config.log_every_steps = 50
    config.checkpoint.every_steps = 500


def use_bottleneck_recipe(config: ConfigDict, rate: float, per_core: bool) -> None:
    """Sets what the recipes of bottleneck models have (TPAMI version, Sec. 6.1, Appendix B.3).

    100,000 steps, cosine decay. Bottleneck models are trained at 224 pixels and tested at 256, as
    in the paper: on the middle of frames whose short side is that. The paper names no optimiser,
    weight decay or dropout: X3D's, SGD with momentum 0.9, 5e-5 and 0.5 (Feichtenhofer,
    arXiv:2004.04730), and no clipping or warm-up.

    A ViT keeps its own but for the steps and the rate.

    Args:
        config: to change.
        rate: "the base learning rate per TPU core", of which there were 64.
        per_core: whether the rate of the batch is 64 times as much.
    """
    config.total_steps = 100_000
    config.schedule.learning_rate = 64 * rate if per_core else rate
    if config.model.spec.startswith(BOTTLENECK):
        config.optimizer.update(weight_decay=5e-5, clip_norm=0.0)
        config.model.dropout = 0.5
        config.dataset.eval_resolution = 256
        config.eval_geometry.share = 1.0


def jitter_crop(resolution: int, prob_scale_jitter: float) -> ConfigDict:
    """A random square, where evaluation takes the one in the middle: ViViT's scale jitter."""
    return ConfigDict(
        {
            'name': 'jitter_crop',
            'min_resize': round(resolution / 0.875),
            'scale_min_factor': 0.9,
            'scale_max_factor': 1.33,
            'prob_scale_jitter': prob_scale_jitter,
        }
    )


def multiview(split: str, batch_size: int) -> ConfigDict:
    """The evaluator of 4x3 views, at the end."""
    return ConfigDict(
        {
            'name': 'multiview',
            'dataset': '',
            'split': split,
            # Evenly from the first frame to the last; None is all of a video. Shared by copies.
            'clips': FieldReference(4, field_type=int),
            'crops': 3,  # of each clip, along the long side
            'batch_size': batch_size,  # in clips
            'when': 'end',
        }
    )


def use_color(config: ConfigDict) -> None:
    """Adds the colour augmentation of ViViT's recipe."""
    config.augment.color = {'prob_color_augment': 0.8, 'prob_color_drop': 0.1}


def run_locally(config: ConfigDict, steps: int) -> None:
    """Makes of a recipe its small form: fake data of runs/fake, a mini model, few steps.

    python -m datasets.make_fake jft imagenet2012 imagenet2012_real imagenet21k caltech101 dtd \
        --out=runs/fake
    """
    config.dataset.data_dir = 'runs/fake'
    config.model.dtype = 'float32'
    if 'scan' in config.model:
        config.model.scan = False
    config.batch_size = 64
    config.total_steps = steps
    config.train_geometry.min_area = 0.8  # a part of a digit says little
    config.augment.flip.probability = 0.0
    config.reading.threads = 2
    config.schedule.warmup_epochs = 0.0
    config.eval_every_epochs = 0.0
    config.log_every_steps = 50
    config.checkpoint.every_steps = 1000


def run_videos_locally(config: ConfigDict, resolution: int = 32) -> None:
    """Makes of a recipe for videos its small form: made videos, a mini model, few steps.

    docs/video_data.md says how they are made and prepared.
    """
    config.dataset.data_dir = 'runs/fake'
    config.dataset.resolution = resolution
    if config.dataset.eval_resolution is not None:
        config.dataset.eval_resolution = 40
    config.clip.update(frames=8, stride=2)
    config.train_geometry.min_resize = resolution * 9 // 8
    config.augment.flip.probability = 0.0  # it would change the motion, which is the label
    config.reading.workers = 0
    config.model.dtype = 'float32'
    if 'scan' in config.model:
        config.model.scan = False
    config.batch_size = 8
    for evaluator in config.evaluators.values():
        evaluator.batch_size = 8
    config.total_steps = 20
    config.schedule.learning_rate = 0.01
    config.schedule.warmup_epochs = 0.0
    config.eval_every_epochs = 0.0
    config.log_every_steps = 10
