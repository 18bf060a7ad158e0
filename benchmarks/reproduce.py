"""The commands that train and evaluate every row of the paper.

    python -m benchmarks.reproduce > docs/reproduce.md

Prints Markdown; `docs/reproduce.md` is this program's output.
"""

import re
from functools import partial

from benchmarks.paper import PRETRAINED, Recipe, Row, Table
from benchmarks.paper_tables import TABLES
from token_learner.spec import BottleneckSpec, parse_spec

PRETRAIN = PRETRAINED.config

INTRODUCTION = f"""# Reproducing the tables

Output of `python -m benchmarks.reproduce`: the command lines for every row of Tables 1 to 14, Sec.
6.3.3 and Figures 4, 6, 7 and 11. `SET` is the folder of the pre-training set, `IMAGES` that of the
prepared public sets, `VIDEOS` that of the prepared video sets, `RUNS` that of the workdirs. A run
that is finished is not run again, so that rows may share one. `--mode=plan --topology=v5e:16x16`
in place of a workdir (`v5e:8x8` for videos, whose batch is 64) says beforehand whether one fits a
machine, `:runlocal` tries one out on made data ([images.md](images.md),
[video_data.md](video_data.md)), and [launching.md](launching.md) starts one on a pod.

None of these was run here. [paper_tables.md](paper_tables.md) has the printed figures beside our
counts; `python -m benchmarks.paper_tables --workdirs $RUNS` puts the accuracies of finished runs
beside the printed ones.

**Hardware.** The papers do not name it for images, but for the speed of L/16 at 512, which is in
images a second on an unnamed TPU (Sec. 3.4.1). ViT, whose protocol they follow, was trained on TPU
v3 (arXiv:2010.11929, Table 2: L/16 on JFT in 680 core-days). The Kinetics rows, whose batch is 64
clips, fit 64 chips of TPU v5e: `python -m benchmarks.kinetics_plans`. A model of Tables 10 to 14
took about 16 hours on 32 TPU v3, bound by the reading of the videos (Appendix B.3).

**What cannot be shipped.**

- JFT-300M (18,291 classes, 303 million images) is not public. `{PRETRAIN}` reads a set of your own
  in its form; `configs/imagenet21k_pretrain.py` takes ImageNet-21k instead, or
  `--config.init_from.path` of the fine-tuning names public weights of a plain ViT. Accuracies will
  be others in each case.
- ImageNet has to be asked for at image-net.org; `tfds build imagenet2012`
  prepares ILSVRC2012_img_train.tar and ILSVRC2012_img_val.tar, `tfds build imagenet2012_real` the
  ReaL labels, each with `--file_format=array_record`. The other few-shot sets it downloads.
- Kinetics is a list of videos on YouTube, some of which are gone, and Charades and AViD are
  downloaded from their authors: [video_data.md](video_data.md) prepares what you have, Charades at
  6 and at 12 frames a second, and every accuracy says of how many videos it is.

**Where the papers are silent.** The learning rate of a fine-tuning is one of 0.003, 0.01, 0.03 and
0.06 (ViT's choice was made on held-out training images): `--config.schedule.learning_rate`. Whether
the models of Tables 1 and 4 have averaged parameters is not said: `--config.ema`. Pooled models are
begun with the weights of the plain one, as a 14x14 grid cannot be pooled equally at two places.
Few-shot accuracies are in the protocol of the time, `fewshot`; `fewshot_fixed` is big_vision's, and
its figures cannot be compared with the paper's. The video models are begun with the pre-trained
ones of images (Sec. 5.2). Rows of ViViT that the paper quotes have a learning rate of 0.1, as in
the ViViT paper; its own ones, plain ViViT-L/16 as well, 0.05. Kinetics runs end with an evaluation
in 4x3 views; the 6 views of Table 8 are 2x3 in our reading. The models of Tables 10 to 14 begin
without pre-training; how many modules they replace, which optimiser they have and that the rate is
the whole batch's are our readings ([bottleneck.md](bottleneck.md)).
"""


def commands(row: Row, table: Table) -> list[str]:
    """Pre-training, then few-shot or fine-tuning and more evaluations; none of a row not ours."""
    if row.spec is None:
        return []
    settings = ' '.join(f'--config.model.{k}={v}' for k, v in row.settings.items())
    if isinstance(parse_spec(row.spec), BottleneckSpec):
        recipes = [
            recipe for recipe in table.recipes if recipe.accuracies.keys() & row.paper.keys()
        ]
        return [from_scratch(row, recipe, settings) for recipe in recipes]
    begun = image_spec(row.spec)
    name = _folder(begun, *row.settings.values())
    data = '--config.dataset.data_dir=$SET'
    pretrained = f'$RUNS/jft/{name}'
    pretrain = _main(f'{PRETRAIN}:model={begun}', pretrained, settings, data)
    if table.recipe == PRETRAINED:
        images = f'{data} --config.evaluators.fewshot.data_dir=$IMAGES'
        evaluation = _main(f'{PRETRAIN}:model={begun}', pretrained, settings, images, '--mode=eval')
        return [pretrain, f'{evaluation} --evaluator=fewshot']
    return [pretrain, *finetuning(row, table.recipe, settings, pretrained)]


def from_scratch(row: Row, recipe: Recipe, settings: str) -> str:
    """Training of a bottleneck model, at whose end it is evaluated."""
    config, name = f'{recipe.config}:model={row.spec}', str(recipe.dataset)
    if recipe.fps is not None:
        config, name = f'{config},fps={recipe.fps}', f'{name}_{recipe.fps}fps'
    workdir = f'$RUNS/{name}/{_folder(row.spec, *row.settings.values())}'
    return _main(config, workdir, settings, _overrides(row), '--config.dataset.data_dir=$VIDEOS')


def image_spec(spec: str) -> str:
    """The model of images that a spec's weights begin with: without tubelets and pooling."""
    parsed = parse_spec(spec)
    image = spec.removeprefix('ViViT-').replace(f'x{parsed.tubelet}', '', 1)
    return image if parsed.pool is None else image.split('-')[0]


def finetuning(row: Row, recipe: Recipe, settings: str, pretrained: str) -> list[str]:
    """Fine-tuning, and the evaluations that do not belong to it."""
    workdir = f'$RUNS/{recipe.dataset}/{_folder(row.spec, *row.settings.values(), row.resolution)}'
    data = f'--config.dataset.data_dir={"$IMAGES" if recipe.clip is None else "$VIDEOS"}'
    run = partial(_main, f'{recipe.config}:model={row.spec},res={row.resolution}', workdir)
    run = partial(run, settings, _overrides(row), data)
    made = [run(f'--config.init_from.path={pretrained}')]
    if 'real' in row.paper:
        made.append(run('--mode=eval --evaluator=real'))
    if row.views == '2x3':
        views = '--config.evaluators.multiview.clips=2'
        made.append(run(f'--mode=eval --evaluator=multiview {views}'))
    return made


def _overrides(row: Row) -> str:
    return ' '.join(f'--config.{k}={v}' for k, v in row.overrides.items())


def _folder(*parts: object) -> str:
    return re.sub('[/:]', '_', '_'.join(map(str, parts)))


def _main(config: str, workdir: str, *flags: str) -> str:
    rest = ' '.join(flag for flag in flags if flag)
    return f'python main.py --config={config} --workdir={workdir} {rest}'


def format_table(table: Table) -> str:
    """A table's commands as Markdown."""
    lines = [f'## {table.title}\n']
    for row in table.rows:
        if made := commands(row, table):
            lines += [f'{row.name}:\n', '```sh', *made, '```\n']
        else:
            lines.append(f'{row.name}: {row.note}\n')
    return '\n'.join(lines)


def main() -> None:
    print(INTRODUCTION)
    print('\n'.join(format_table(table) for table in TABLES.values()))


if __name__ == '__main__':
    main()
