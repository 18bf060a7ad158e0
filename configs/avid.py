r"""Training on AViD (TPAMI version, Sec. 6 and Appendix B.3; Tables 11 and 12).

    python main.py --config=configs/avid.py --workdir=DIR

Clips of 64 frames in a row at 224 pixels; 100,000 steps of batches of 512 (8 for each of 64 TPU
cores, "roughly 125 epochs"), cosine decay, label smoothing 0.2. "The base rate of 0.025 per TPU":
taken as 0.025 for the batch; `per_core` takes it as 64 times as much. The model has TokenLearner
without Conv2D in three of the last block's seven modules, as the counts say. The paper names
neither frame rate, optimiser nor augmentation: 12 frames a second, as for Charades, X3D's momentum,
weight decay and dropout, scale jitter, random crops and flips. Paper: mean accuracy of the classes
48.6 (X2plus1D-M), 50.6 (X2plus1D-M:spatial_temporalx3), 53.8 with TokenLearner. Not yet run here.

Evaluated is the clip in the middle; Table 11 has `avid/val/mean_class@1x1_logits`.

docs/bottleneck.md has the models, docs/video_data.md how the set is prepared. Arguments: model (a
spec), fps, per_core, runlocal (on made videos, by default a mini model, 30 s on two cores).
"""

from ml_collections import ConfigDict

from configs import common


def get_config(arg: str | None = None) -> ConfigDict:
    arg = common.parse_arg(arg, model='', fps=12, per_core=False, runlocal=False)
    small, full = common.LOCAL_BOTTLENECK_MODEL, 'X2plus1D-M:tlx3'
    config = common.default_config(common.choose(arg.model, small, full, arg.runlocal))
    config.batch_size = 512
    common.use_videos(config, 'avid', ('train', 'val'), arg.fps, clip=(64, 1))
    common.use_bottleneck_recipe(config, 0.025, arg.per_core)
    config.evaluators.multiview.update(clips=1, crops=1)
    config.loss.label_smoothing = 0.2
    if arg.runlocal:
        common.run_videos_locally(config)
    return config
