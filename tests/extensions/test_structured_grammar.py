"""Every expression has one derivation, comes back as it was written, and what is no expression is told where."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from extensions.structured import grammar
from extensions.structured.grammar import LENGTH, PADDING, PRODUCTIONS, SIZE, GrammarError, is_valid, parse, write
from extensions.structured.models import choose

EXAMPLES = [
    "(x + 1)*exp(x)",
    "-12*x",
    "0.289*(x + 6)/x^1.5",
    "1.1e+3 + 9/x",
    "x^(-2)",
    "(x^2)^0.25",
    "exp(x^(1/4))",
    "sin(1*pi*x)*(-6.994e-1)",
    "20.682*sin((3*pi*x)/0.261)*exp(-((3**2)*pi**2*0.288*t)/(0.261**2))",
    "3.83e-1 * exp((-1*((x-0.68)^2 + (y-0.99)^2))/(2*(0.14)^2)) * (x-x^2)*(y-y^2)",
    "(y*0.8058252427184467)/(sqrt((x - 1.143)**2 + (y + 4.814)**2))",
    "log(tanh(y^3))-x^3",
]


def padded(sequence):
    return [*sequence, *[PADDING] * (LENGTH - len(sequence))]


def test_the_list_of_productions():
    lefts = [left for left, _ in PRODUCTIONS]
    assert (SIZE, PADDING, len(set(PRODUCTIONS))) == (53, 52, 53)
    assert {name: lefts.count(name) for name in "STD"} == {"S": 6, "T": 21, "D": 25}


@pytest.mark.parametrize("text", EXAMPLES)
def test_an_expression_comes_back(text):
    sequence = parse(text)
    assert len(sequence) <= LENGTH
    assert write(padded(sequence)) == grammar.normalise(text)
    assert parse(write(sequence)) == sequence
    assert is_valid(padded(sequence))


def test_the_derivation_is_leftmost():
    assert [PRODUCTIONS[i] for i in parse("cos(x)+2")] == [
        ("S", ("S", "+", "T")),
        ("S", ("T",)),
        ("T", ("cos", "(", "S", ")")),
        ("S", ("T",)),
        ("T", ("x",)),
        ("T", ("D",)),
        ("D", ("2",)),
    ]


@pytest.mark.parametrize(
    ("text", "position", "found"),
    [
        ("", 1, "the end"),
        ("x +", 4, "the end"),
        ("sin(x", 6, "the end"),
        ("(x))", 4, "')'"),
        ("x + q", 5, "'q'"),
        ("sin x", 5, "'x'"),
        ("x y", 3, "'y'"),
        ("2 3", 3, "'3'"),
        ("x**2 + z", 8, "'z'"),
        ("3.", 3, "the end"),
        (".5", 1, "'.'"),
        ("e-1", 1, "'e-1'"),
        ("1e-2.5", 5, "'.'"),
        ("1e-7", 2, "'e-7'"),
        ("x^-2", 3, "'-'"),
        ("x^2^3", 4, "'^'"),
        ("(" * 5000, 73, "'('"),
    ],
)
def test_what_is_no_expression_is_told_where(text, position, found):
    with pytest.raises(GrammarError) as error:
        parse(text)
    assert error.value.position == position
    assert str(error.value).endswith(f"found {found}")


@pytest.mark.parametrize(
    "change",
    [
        lambda s: s[:-1],  # a nonterminal is left
        lambda s: [*s, s[-1]],  # something behind the end
        lambda s: [s[0], PADDING, *s[1:]],
        lambda s: [s[-1], *s[1:]],
        lambda s: [PADDING] * LENGTH,
    ],
)
def test_a_sequence_that_is_no_derivation_has_no_text(change):
    sequence = change(parse("cos(x)+2"))
    assert write(padded(sequence)) is None
    assert not is_valid(padded(sequence))


def test_a_derivation_may_fill_all_places():
    sequence = parse("1" * 70)  # S -> T, T -> D, 70 digits
    assert len(sequence) == LENGTH
    assert write(sequence) == "1" * 70


def test_a_number_that_is_none_is_a_derivation_and_not_valid():
    index = {production: i for i, production in enumerate(PRODUCTIONS)}
    sequence = [index["S", ("T",)], index["T", ("D",)], index["D", ("e-1",)]]
    assert write(padded(sequence)) == "e-1"
    assert not is_valid(padded(sequence))


# -- decoding ------------------------------------------------------------------------------------------------


@settings(max_examples=10, deadline=None)
@given(st.integers(0, 10_000), st.sampled_from([0.1, 1.0, 30.0]))
def test_only_derivations_that_end_are_chosen(seed, scale):
    logits = scale * torch.randn(20, SIZE, LENGTH, generator=torch.Generator().manual_seed(seed))
    sequences = choose(logits)
    texts = [write(row) for row in sequences.tolist()]
    assert None not in texts
    assert max(len(text) for text in texts) > 10


def test_what_is_likeliest_is_chosen_where_it_is_legal():
    sequences = torch.tensor([padded(parse(text)) for text in EXAMPLES])
    logits = torch.nn.functional.one_hot(sequences, SIZE).float().transpose(1, 2)
    assert torch.equal(choose(logits), sequences)
    assert torch.equal(choose(logits, has_grammar=False), sequences)


def test_a_nonterminal_that_would_not_end_in_time_is_not_opened():
    logits = torch.zeros(1, SIZE, LENGTH)
    logits[:, 0] = 5  # S -> S + T for ever
    logits[:, PRODUCTIONS.index(("D", ("7", "D")))] = 3
    sequence = choose(logits)[0].tolist()
    assert sequence[:20] == [0] * 20
    assert write(sequence).count("+") == sequence.count(0) >= 20
