"""Some of the cases whose results are kept as hashes; ``python tests/same_bits.py check`` runs all of them."""

import pytest
import same_bits

from zemosaic_stack_core.options import REJECTIONS


def test_the_data_are_what_they_were():
    """Where they are not, NumPy's generator has changed, and not the stack."""
    assert same_bits.data_digests() == same_bits.stored()["data"]


@pytest.mark.parametrize("rule", REJECTIONS)
def test_the_bits_are_what_they_were(rule):
    names = same_bits.quick_cases(rule)
    assert len(names) >= 5
    assert list(same_bits.differences(names)) == []


def test_a_case_is_its_name():
    parts = same_bits.parts_of("large:rule=gesd,n=130,shape=61x179,channels=3,grow=2.5/4,missing=rare")
    assert parts == same_bits.DEFAULTS | {
        "rule": "gesd",
        "n": 130,
        "shape": (61, 179),
        "channels": 3,
        "grow": "2.5/4",
        "missing": "rare",
    }
