"""From (config, model, dataset) to checkpoints, metrics, predictions and pictures."""
