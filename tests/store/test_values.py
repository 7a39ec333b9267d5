"""Values keep their types, and what cannot be kept is refused by name."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mled.store.values import InvalidValue, as_json, check_name, decode, encode, identity
from mled.store.values import encode_hyperparameters as encoded

scalars = (
    st.floats() | st.booleans() | st.none() | st.integers(-(2**200), 2**200)
    | st.text(st.characters(exclude_characters="\x00", exclude_categories=["Cs"]), max_size=50)
)  # fmt: skip


@given(scalars | st.lists(scalars.filter(lambda v: v == v), max_size=3))
def test_a_value_comes_back_as_it_was(value):
    returned = decode(*encode("value", value))
    assert type(returned) is type(value)
    assert returned == value or (math.isnan(value) and math.isnan(returned))


@pytest.mark.parametrize(
    ("given_value", "kept"),
    [(np.float32(0.5), 0.5), (np.int64(3), 3), (np.bool_(True), True), ((1, 2), [1, 2])],
)
def test_numpy_and_tuples_are_kept_as_plain_values(given_value, kept):
    returned = decode(*encode("value", given_value))
    assert returned == kept
    assert type(returned) is type(kept)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("x" * 10_000_000, "10,000,000 characters long; at most 65,536"),
        (object(), "of type object"),
        ({"a": object()}, "cannot be written as JSON"),
        (1j, "of type complex"),
        ("a\x00b", "NUL"),
        (2**5000, "5,001 bits"),
    ],
)
def test_what_cannot_be_kept_is_refused_by_name(value, message):
    with pytest.raises(InvalidValue, match="hyperparameter 'lr'") as error:
        encoded({"lr": value})
    assert message in str(error.value)
    assert len(str(error.value)) < 400


def test_numbers_that_are_equal_have_one_identity_and_others_have_not():
    same = [identity(encoded({"a": v, "b": "x"})) for v in (1, 1.0, np.float64(1))]
    others = [identity(encoded({"a": v, "b": "x"})) for v in (True, "1", None, 1.5, math.nan)]
    others += [identity(encoded(p)) for p in ({"a": 1}, {"a": 1, "b": "x", "c": None})]
    assert len({*same}) == 1
    assert len({*same, *others}) == 1 + len(others)
    assert identity(encoded({"b": "x", "a": 1})) == same[0]


def test_json_for_reading_is_standard():
    assert as_json(encoded({"b": math.inf, "a": [math.nan]})) == '{"a": ["nan"], "b": "inf"}'


@pytest.mark.parametrize("name", ['it\'s "quoted"; DROP TABLE trial', "größe/学習率", "a b"])
def test_unusual_names_are_kept(name):
    assert check_name("metric", name) == name


@pytest.mark.parametrize("name", ["", " a", "a\nb", "x" * 201, 3, None, "a\x00"])
def test_unusable_names_are_refused(name):
    with pytest.raises(InvalidValue, match="metric name"):
        check_name("metric", name)
