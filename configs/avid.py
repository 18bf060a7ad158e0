r"""Training on AViD (TPAMI version, Sec. 6 and Appendix B.3; Tables 11 and 12).

    python main.py --config=configs/avid.py --workdir=DIR

Clips of 64 frames in a row at 224 pixels; 100,000 steps of batches of 512 (8 for each of 64 TPU
cores, "roughly 125 epochs"), cosine decay, label smoothing 0.2. "The base rate of 0.025 per TPU":
taken as 0.025 for the batch. The paper names neither frame rate, optimiser nor augmentation: 12
frames a second, as for Charades, momentum 0.9, scale jitter, random crops and flips. The model is a
ViViT until the paper's is there. Not yet run here.

docs/video_data.md says how the set is prepared. Arguments: model (a spec), fps, runlocal (a mini
model on made videos, 20 s on two cores).
"""

from ml_collections import ConfigDict

from configs import common


def get_config(arg: str | None = None) -> ConfigDict:
    arg = common.parse_arg(arg, model='ViViT-B/16x2', fps=12, runlocal=False)
    config = common.default_config(common.LOCAL_VIDEO_MODEL if arg.runlocal else arg.model)
    config.batch_size = 512
    config.total_steps = 100_000
    common.use_videos(config, 'avid', ('train', 'val'), arg.fps, clip=(64, 1))
    config.loss.label_smoothing = 0.2
    config.schedule.learning_rate = 0.025
    if arg.runlocal:
        common.run_videos_locally(config)
    return config
