"""What is known of decodes by their size: sums, what is new since, and means between sizes."""

import pytest

from rsd_cli.engine.pace import Pace


def pace(**sizes):
    made = Pace()
    for name, (decodes, seconds) in sizes.items():
        made.add(int(name[1:]), seconds, decodes)
    return made


def test_means_lie_between_those_of_the_sizes_that_came_up_often():
    known = pace(n1=(10, 1.0), n3=(20, 4.0), n9=(7, 99.0))
    assert known.sizes == [1, 3]
    assert [known.seconds(n) for n in (1, 2, 3, 16)] == pytest.approx([0.1, 0.15, 0.2, 0.2])


def test_more_tokens_never_take_less():
    known = pace(n1=(10, 1.0), n4=(10, 3.0), n8=(10, 2.9))
    assert known.seconds(8) == pytest.approx(0.3)


def test_what_has_come_since():
    one = pace(n1=(10, 1.0), n2=(5, 1.0))
    before = one.copy()
    one.add(2, 0.3)
    one.add(4, 0.5)
    since = one - before
    assert since.decodes == {2: 1, 4: 1}
    assert since.spent == pytest.approx({2: 0.3, 4: 0.5})
    assert (before + since).spent == pytest.approx(one.spent)
    assert (before + since).decodes == one.decodes


def test_it_comes_back_from_json():
    one = pace(n1=(10, 1.5), n16=(12, 2.25))
    assert Pace.from_json(one.to_json()) == one
