r"""Training on Charades (TPAMI version, Sec. 6 and Appendix B.3; Tables 10 and 12 to 14).

    python main.py --config=configs/charades.py:fps=12 --workdir=DIR

Clips of 64 frames in a row, at 224 pixels, of videos at 6 or 12 frames a second, with the labels of
the actions that overlap them; 100,000 steps of batches of 256, cosine decay, sigmoid loss, the mean
over the classes, no label smoothing. "The base learning rate of 0.8 per TPU core", of 64: taken as
0.8 for the batch; `per_core` takes it as 64 times as much. How many modules of the last block are
replaced is not said: three, as the counts say of AViD. The paper names neither optimiser nor
augmentation: X3D's momentum, weight decay and dropout, scale jitter, random crops and flips. The
head starts at the share of positive labels, 6.1 of 157. Paper: 12 fps 62.7 mAP (X2plus1D-M), 66.3
with TokenLearner; 6 fps 56.6 and 59.6; about 16 hours on 32 TPU v3. Not yet run here.

Evaluated at the end are all clips of a video, one after the other, and of each class the largest
logit: `charades/test/map@allx1_max`.

From scratch, or from a Kinetics checkpoint: --config.init_from.path=WORKDIR. docs/bottleneck.md has
the models, docs/video_data.md how the set is prepared. Arguments: model (a spec), fps (6 or 12),
per_core, runlocal (on made videos, by default a mini model, 30 s on two cores).
"""

from ml_collections import ConfigDict

from configs import common


def get_config(arg: str | None = None) -> ConfigDict:
    arg = common.parse_arg(arg, model='', fps=12, per_core=False, runlocal=False)
    small, full = common.LOCAL_BOTTLENECK_MODEL, 'X2plus1D-M:conv2d_tlx3'
    config = common.default_config(common.choose(arg.model, small, full, arg.runlocal))
    config.batch_size = 256
    common.use_videos(config, 'charades', ('train', 'test'), arg.fps, clip=(64, 1))
    common.use_bottleneck_recipe(config, 0.8, arg.per_core)
    config.clip.label_mode = 'overlap'
    config.evaluators.multiview.update(clips=None, crops=1)
    config.loss = {'name': 'sigmoid', 'reduction': 'mean'}
    config.model.head_bias = -3.2
    if arg.runlocal:
        common.run_videos_locally(config)
    return config
