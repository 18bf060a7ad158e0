"""Plots of runs: which curves and points there are, and what is refused."""

import json
import math

import pytest
from matplotlib.figure import Figure

from benchmarks import where_to_insert
from benchmarks.where_to_insert import add_measured, format_table, list_places
from trainers.plots import (
    Point,
    choose_metric,
    collect_curves,
    draw_curves,
    main,
    make_points,
    plot_curves,
    plot_flops,
    short_names,
)
from trainers.report import _shown

LINES = [
    {'step': 10, 'train/loss': 2.0, 'train/n': 320, 'train/unreadable': 0, 'uptime': 1.0},
    {'step': 10, 'k/val/top1@1x1_center': 0.25, 'k/val/n@1x1_center': 8},
    {'step': 20, 'train/loss': None, 'train/n': 0, 'train/skipped_steps': 10},
    {'step': 30, 'train/loss': 1.0, 'train/learning_rate': 0.1},
    {'step': 30, 'k/val/top1@1x1_center': 0.5, 'k/val/top1@4x3_logits': 0.75, 'k/val/loss': 1.5},
]


def write_run(folder, spec='mini/7', top1=0.5, gflops=0.004, **more):
    """A finished run's files."""
    folder.mkdir(parents=True)
    (folder / 'metrics.jsonl').write_text(''.join(f'{json.dumps(line)}\n' for line in LINES))
    metrics = {'digits/test/loss': 1.0, 'digits/test/top1': top1, **more}
    results = {
        **{'spec': spec, 'model': {'spec': spec}, 'dataset': 'digits', 'split': 'test'},
        **{'resolution': 28, 'eval_resolution': 28, 'clip': None, 'fps': None, 'steps': 2},
        'metrics': {name: {'value': value, 'n': 1000} for name, value in metrics.items()},
        'gflops': gflops,
    }
    (folder / 'results.json').write_text(json.dumps(results))
    return folder


def test_curves_are_grouped_by_what_they_measure():
    curves = collect_curves(LINES)
    assert list(curves) == ['loss', 'top1']  # neither counts nor a rate of one step alone
    assert list(curves['loss']) == ['train/loss', 'k/val/loss']
    steps, values = curves['loss']['train/loss']
    assert steps == [10, 20, 30]
    assert values[::2] == [2.0, 1.0]
    assert math.isnan(values[1])
    assert curves['top1'] == {
        'k/val/top1@1x1_center': ([10, 30], [0.25, 0.5]),
        'k/val/top1@4x3_logits': ([30], [0.75]),
    }


def test_what_the_report_shows_in_percent_the_curves_do_too():
    shares = ['k/val/wap@allx1_max', 'k/val/mean_class@4x3_probs', 'k/val/top1_strict@4x3_logits']
    lines = [{'step': s, 'k/val/classes@4x3': 4, **dict.fromkeys(shares, 0.25)} for s in (1, 2)]
    curves = collect_curves(lines)
    assert list(curves) == ['mean_class', 'top1_strict', 'wap']  # classes are counted
    for measure, panel in curves.items():
        axes = Figure().subplots()
        draw_curves(panel, measure, axes)
        assert axes.get_title('left') == f'{measure}, %'
        assert list(axes.lines[0].get_ydata()) == [25.0, 25.0]
        assert [_shown(name, 0.25) for name in panel] == ['25.00 %']


def test_curves_of_one_run_and_of_several(tmp_path):
    runs = [write_run(tmp_path / name / 'run') for name in ('a', 'b')]
    loss, top1 = plot_curves(runs[:1]).axes
    assert [line.get_label() for line in loss.lines] == ['train/loss', 'k/val/loss']
    assert (top1.get_title('left'), list(top1.lines[0].get_ydata())) == (
        'top-1 accuracy, %',
        [25.0, 50.0],
    )
    loss, _ = plot_curves(runs).axes
    names = ('train/loss', 'k/val/loss')
    labels = [f'{run}/run: {name}' for run in 'ab' for name in names]
    assert [line.get_label() for line in loss.lines] == labels
    assert loss.lines[0].get_color() != loss.lines[1].get_color()
    assert short_names([runs[0], tmp_path / 'c']) == ['run', 'c']
    odd = write_run(tmp_path / 'k: lr@0.1')
    assert plot_curves([odd, runs[0]]).axes[1].get_title('left') == 'top-1 accuracy, %'


def test_a_point_is_a_run(tmp_path):
    runs = [
        write_run(tmp_path / 'plain', top1=0.5),
        write_run(tmp_path / 'learner', 'mini/7-4at1', 0.75, 0.002, **{'digits/test/map': 0.1}),
    ]
    points, name = make_points(runs)
    assert name == 'digits/test/top1'
    assert points == [
        Point('mini/7  (plain)', 0.004, [50.0]),
        Point('mini/7-4at1  (learner)', 0.002, [75.0]),
    ]
    axes = plot_flops(points, name).axes[0]
    assert axes.get_xlabel() == 'MFLOPs of one example'
    assert [tuple(line.get_xydata()[0]) for line in axes.lines] == [(4.0, 50.0), (2.0, 75.0)]
    losses, name = make_points(runs, 'digits/test/loss')
    assert (name, [point.values for point in losses]) == ('digits/test/loss', [[1.0], [1.0]])
    with pytest.raises(ValueError, match='--metric=digits/test/map is not of every run; use one'):
        make_points(runs, 'digits/test/map')
    with pytest.raises(ValueError, match='no accuracy in common; name one of a/b/loss'):
        choose_metric([{'metrics': {'a/b/loss': {}}}])


def test_several_values_of_a_point_have_a_line_from_the_least_to_the_greatest():
    axes = plot_flops([Point('a', 20.0, [90.0, 91.0, 95.0])], 'accuracy, %').axes[0]
    assert axes.get_xlabel() == 'GFLOPs of one example'
    (bar,) = axes.collections
    assert sorted(bar.get_segments()[0][:, 1]) == [90.0, 95.0]


def test_the_program_writes_and_refuses(tmp_path, capsys):
    run, out = write_run(tmp_path / 'run'), tmp_path / 'plot.svg'
    assert main(['curves', str(run), f'--out={out}']) == 0
    assert out.read_text().startswith('<?xml')
    assert main(['flops', str(run), f'--out={tmp_path / "plot.png"}']) == 0
    (tmp_path / 'empty').mkdir()
    damaged = write_run(tmp_path / 'damaged')
    (damaged / 'metrics.jsonl').write_text('{"step": 1}}\n')
    (damaged / 'results.json').write_bytes(b'{"\xff": 1}')
    capsys.readouterr()
    for args, message in (
        (['curves', str(tmp_path / 'empty')], 'has no metrics; name the workdir'),
        (['flops', str(tmp_path / 'empty')], 'has no results.json; name finished runs'),
        (['curves', str(damaged)], 'metrics.jsonl is damaged (Extra data'),
        (['flops', str(damaged)], "results.json is damaged ('utf-8"),
        (['curves', str(run), '--out=plot.txt'], 'plot.txt is no .png, .svg or .pdf'),
    ):
        assert main(args) == 1
        error = capsys.readouterr().err
        assert error.startswith('error: ')
        assert error.count('\n') == 1
        assert message in error


def test_where_to_insert_counts_every_place_and_shows_runs(tmp_path):
    places = list_places('mini/7', 4, 28)
    assert [place.at for place in places] == [0, 1, 2, 3, None]
    counts = [place.gflops for place in places]
    assert counts == sorted(counts)
    runs = [('a', 'mini/7', 0.5), ('b', 'mini/7-4at1', 0.75), ('c', 'mini/7-4at1', 0.8)]
    for name, spec, top1 in (*runs, ('other', 'mini/7-2at1', 0.9)):
        write_run(tmp_path / name, spec, top1)
    metric = add_measured(places, [tmp_path], 28, None)
    assert [place.measured for place in places] == [[], [75.0, 80.0], [], [], [50.0]]
    text = format_table(places, metric)
    assert '| - | 77.5 (2 runs) |' in text
    assert 'digits/test/top1' in text
    where_to_insert.draw(places, 'title', metric).savefig(tmp_path / 'plot.png')
    with pytest.raises(ValueError, match='is of mini/7 at 32 pixels'):
        add_measured(places, [tmp_path], 32, None)


def test_where_to_insert_has_the_paper_s_accuracies_of_the_same_models():
    printed = where_to_insert.find_printed
    assert printed('B/16', 384)['1'] == 84.73
    assert printed('B/16', 224) == {}  # Figure 4 is without values
    with pytest.raises(ValueError, match='is no plain ViT of images'):
        list_places('B/16-8at6', 8, 224)
