import hashlib
from dataclasses import replace

import numpy as np
import pytest

from datasets import load_dataset
from datasets.dataset import Unreadable
from datasets.examples import Images
from datasets.geometry import Resize
from datasets.pipeline import Reading, eval_batches, shuffled, train_batches, train_ids

DIGITS = load_dataset('digits')
KEEP = Resize(28)


def take(n, **settings):
    batches = train_batches(Images(DIGITS, 'test', KEEP), batch_size=8, seed=3, **settings)
    return [next(batches) for _ in range(n)]


def ids(batches):
    return [set(b['id']) for b in batches]


def test_the_split_is_fixed_and_whole():
    train, test = DIGITS.split('train'), DIGITS.split('test')
    everything = [[source[i] for i in range(len(source))] for source in (train, test)]
    assert [len(x) for x in everything] == [4000, 1000]
    assert len({x['id'] for part in everything for x in part}) == 5000
    for part in everything:
        assert set(np.bincount([x['label'] for x in part])) == {len(part) // 10}
    digest = hashlib.sha256(b''.join(x['image'].tobytes() for x in everything[1])).hexdigest()
    assert digest[:16] == '360d77d4d49bde2b'


def test_each_epoch_is_every_example_once_in_another_order():
    per_epoch = 1000 // 8
    batches = take(2 * per_epoch)
    first, second = batches[:per_epoch], batches[per_epoch:]
    for epoch in (first, second):
        assert len(set.union(*ids(epoch))) == 1000
    assert ids(first) != ids(second)


@pytest.mark.parametrize('size', [1, 1000, 2**16 + 3])
def test_an_order_of_any_size_is_a_permutation(size):
    places = np.arange(size)
    one, other = (shuffled(places, size, (7, epoch)) for epoch in (0, 1))
    assert sorted(one) == sorted(other) == places.tolist()
    if size > 1:
        assert abs(np.corrcoef(one, places)[0, 1]) < 0.1
        assert np.mean(one == other) < 0.01


def test_batch_k_follows_from_the_seed_and_k():
    whole = take(130)
    later = take(10, start_step=120)
    for a, b in zip(whole[120:], later, strict=True):
        for key in a:
            np.testing.assert_array_equal(a[key], b[key])


def test_the_ids_of_a_batch_are_known_without_its_pixels():
    class Partly(Images):
        def sample(self, index, seed):
            if index % 7 == 0:
                raise Unreadable('it is gone')
            return super().sample(index, seed)

    class Never(Resize):
        def __call__(self, image, seed):
            raise AssertionError('it is decoded')

    settings = {'batch_size': 32, 'seed': 3}
    reading = Reading(max_unreadable=1.0)
    examples = Partly(DIGITS, 'test', KEEP)
    batches = train_batches(examples, **settings, start_step=30, reading=reading)
    for step in (30, 31):
        found = train_ids(Partly(DIGITS, 'test', Never(28)), **settings, step=step)
        assert found == next(batches)['id'].tolist()
        assert any(name.startswith('digits/test[') for name in found)


def test_any_number_of_processes_sees_the_same_global_batches():
    whole = ids(take(20))
    for count in (2, 4):
        readings = [Reading(share=p, shares=count) for p in range(count)]
        shares = [take(20, reading=reading) for reading in readings]
        assert {len(b['id']) for share in shares for b in share} == {8 // count}
        assert [set.union(*parts) for parts in zip(*map(ids, shares), strict=True)] == whole


def test_random_geometry_is_the_same_for_any_number_of_processes():
    class Noise(Resize):
        def __call__(self, image, seed):
            return image + np.random.default_rng(seed).integers(0, 255, image.shape, np.uint8)

    noise = Noise(28)
    images = []
    for p, count in [(0, 1), (0, 2), (1, 2)]:
        reading = Reading(share=p, shares=count)
        digits = Images(DIGITS, 'train', noise)
        batch = next(train_batches(digits, batch_size=8, seed=0, reading=reading))
        images.append(dict(zip(batch['id'], batch['image'], strict=True)))
    assert len({image.tobytes() for image in images[0].values()}) == 8
    for name, image in images[0].items():
        np.testing.assert_array_equal(image, (images[1] | images[2])[name])


@pytest.mark.parametrize('count', [1, 3])
def test_evaluation_sees_every_example_once(count):
    shares = [
        list(
            eval_batches(
                Images(DIGITS, 'test', KEEP), batch_size=96, reading=Reading(share=p, shares=count)
            )
        )
        for p in range(count)
    ]
    assert {len(s) for s in shares} == {11}
    batches = [b for s in shares for b in s]
    assert sum(b['mask'].sum() for b in batches) == 1000
    seen = [name for b in batches for name in b['id'][b['mask'] > 0]]
    assert len(seen) == len(set(seen)) == 1000


def test_batches_have_the_contract_s_types():
    batch = take(1)[0]
    assert {k: (v.shape, v.dtype.kind) for k, v in batch.items()} == {
        'image': ((8, 28, 28, 1), 'u'),
        'label': ((8,), 'i'),
        'place': ((8,), 'i'),
        'mask': ((8,), 'f'),
        'unreadable': ((8,), 'f'),
        'error': ((8,), 'U'),
        'id': ((8,), 'U'),
    }


def test_bad_names_are_refused():
    with pytest.raises(ValueError, match=r"'digts' is not known; use one of .*digits"):
        load_dataset('digts')
    with pytest.raises(ValueError, match='leave data_dir empty'):
        load_dataset('digits', '/data')
    with pytest.raises(ValueError, match='use one of train, test'):
        DIGITS.split('val')
    with pytest.raises(ValueError, match='not divisible by the 3 shares'):
        take(1, reading=Reading(shares=3))


@pytest.mark.parametrize('share', [-0.1, 1.5, float('nan')])
def test_a_share_of_unreadable_examples_is_none_but_of_0_to_1(share):
    with pytest.raises(ValueError, match=f'max_unreadable={share} is no share; use 0 to 1'):
        Reading(max_unreadable=share)


def test_an_image_of_other_channels_than_the_set_s_cannot_be_used():
    images = Images(replace(DIGITS, channels=3), 'test', Resize(8))
    with pytest.raises(Unreadable, match='its number of channels is 1, that of the dataset 3'):
        images.sample(0, (0,)).draw(np.empty(images.shape, np.uint8))


def test_geometry():
    image = DIGITS.split('test')[7]['image']
    big = Resize(56)(image, (0,))
    assert big.shape == (56, 56, 1)
    assert abs(big.mean() - image.mean()) < 1
