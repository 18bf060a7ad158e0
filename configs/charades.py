r"""Training on Charades (TPAMI version, Sec. 6 and Appendix B.3; Tables 10 and 12 to 14).

    python main.py --config=configs/charades.py:fps=12 --workdir=DIR

Clips of 64 frames in a row, at 224 pixels, of videos at 6 or 12 frames a second, with the labels of
the actions that overlap them; 100,000 steps of batches of 256, cosine decay, no label smoothing.
"The base learning rate of 0.8 per TPU core", of 64: taken as 0.8 for the batch. The paper names
neither optimiser nor augmentation: momentum 0.9, scale jitter, random crops and flips, as for
Kinetics. The model is a ViViT until the paper's is there. Not yet run here.

docs/video_data.md says how the set is prepared. Arguments: model (a spec), fps (6 or 12), runlocal
(a mini model on made videos, 20 s on two cores).
"""

from ml_collections import ConfigDict

from configs import common


def get_config(arg: str | None = None) -> ConfigDict:
    arg = common.parse_arg(arg, model='ViViT-B/16x2', fps=12, runlocal=False)
    config = common.default_config(common.LOCAL_VIDEO_MODEL if arg.runlocal else arg.model)
    config.batch_size = 256
    config.total_steps = 100_000
    common.use_videos(config, 'charades', ('train', 'test'), arg.fps, clip=(64, 1))
    config.clip.label_mode = 'overlap'
    config.loss = {'name': 'sigmoid'}
    config.schedule.learning_rate = 0.8
    if arg.runlocal:
        common.run_videos_locally(config)
    return config
