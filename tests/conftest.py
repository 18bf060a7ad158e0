"""Eight devices on the CPU, and shapes in signatures checked while tests run."""

import os

os.environ['XLA_FLAGS'] = (
    '--xla_force_host_platform_device_count=8 --xla_backend_optimization_level=0'
)
os.environ['JAX_PLATFORMS'] = 'cpu'
os.environ['TF_ENABLE_ONEDNN_OPTS'] = '0'

from jaxtyping import install_import_hook

CHECKED = ['token_learner', 'trainers.augment', 'trainers.rand_augment', 'trainers.loss']
install_import_hook(CHECKED, 'beartype.beartype')
