"""Many texts in one block: a sequence like any other, in a few bytes each."""

import os
import pickle

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from transfg_core.data.names import Names

TEXTS = ["a/1.png", "", "Möwe/é 2.jpg", "鸟.jpg", os.fsdecode(b"bad\xff\xfe.png"), "a/1.png"]
file_names = st.lists(st.binary(max_size=9).map(os.fsdecode), max_size=9)


@given(file_names)
def test_names_are_a_sequence(texts):
    names = Names(iter(texts))
    assert len(names) == len(texts) and list(names) == texts
    assert [names[k] for k in range(len(texts))] == texts
    assert [names[k] for k in range(-len(texts), 0)] == texts
    assert names[1:-1] == tuple(texts[1:-1]) and names[::-2] == tuple(texts[::-2])
    assert names == texts and names == tuple(texts) and tuple(texts) == names
    assert names == Names(texts) and pickle.loads(pickle.dumps(names)) == texts
    assert names != [*texts, ""] and Names([*texts, "x"]) != Names([*texts, "y"])
    assert [os.fsencode(name) for name in names] == [os.fsencode(text) for text in texts]


def test_names_as_paths():
    names = Names(TEXTS)
    assert list(names.below("/data")) == [f"/data/{text}" for text in TEXTS]
    assert list(names.below("/data/")) == list(names.below("/data"))
    assert list(names.below("/")) == [f"/{text}" for text in TEXTS]
    assert names.below("") == TEXTS == names
    assert names.below("a").below("b") == [f"b/{text}" for text in TEXTS]


def test_an_index_of_numpy_and_one_outside():
    names = Names(TEXTS)
    assert names[np.int64(2)] == TEXTS[2] and TEXTS[2] in names and "x" not in names
    for place in (6, -7):
        with pytest.raises(IndexError, match="expected an index below 6"):
            names[place]
    with pytest.raises(TypeError):
        hash(names)
    assert names != "a" and repr(names) == "Names(['a/1.png', '', 'Möwe/é 2.jpg', ...]) of 6"


def test_paths_and_names_share_their_texts_in_a_pickle():
    """What a worker process gets: no text twice, and a few bytes each."""
    texts = [f"train_val_images/Aves/Species {k % 90}/{k:032x}.jpg" for k in range(10_000)]
    names = Names(texts)
    alone = len(pickle.dumps(names))
    both = len(pickle.dumps((names.below("/some/where"), names)))
    assert alone < sum(map(len, texts)) + 8 * len(texts) + 500
    assert both < alone + 500
