"""What can be said of a wrong answer beside its mistake's name: where it is wrong, and by what.

`measuring.py` makes findings; here are their words. Of hidden cases the words are all that is told, and `sentences`
lists them.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain, combinations

# call -> result -> the inputs that it is a weighted sum of; without any, it is a number per row.
SUMS: dict[str, dict[str, tuple[str, ...]]] = {
    "q_sample": {"x_t": ("x0", "noise")},
    "predict_x0": {"x0": ("x_t", "eps")},
    "q_posterior": {"mean": ("x0", "x_t"), "variance": ()},
    "ddpm_step": {"x_prev": ("x_t", "eps", "noise")},
    "ddim_step": {"x_prev": ("x_t", "eps", "noise")},
    "guided_eps": {"eps": ("eps_cond", "eps_uncond")},
}


# -- what is found, and how it is said -----------------------------------------------------------------------


@dataclass(frozen=True)
class Finding:
    """One way in which a result is wrong.

    kind: a key of `_SAYS`.  output: the result.  terms: what of it is wrong.  right: what of it is not.
    where: a key of `_WHERE`.  factor: by what, a key of `_FACTORS` or the words of a rule; "" if that is not known.
    number: the factor as a number, which is said of public cases only.
    """

    kind: str
    output: str
    terms: tuple[str, ...] = ()
    right: tuple[str, ...] = ()
    where: str = ""
    factor: str = ""
    number: float | None = None

    def sentence(self, level: str, *, hidden: bool) -> str:
        """The finding at one of `rubric.LEVELS`, without a full stop; "" if nothing is to be said.

        Of a hidden case it is one of `sentences`: it repeats no value, no time and no row.
        """
        if level == "idea":
            return ""
        text = _SAYS[self.kind].format(output=f"`{self.output}`", terms=self._join(self.terms))
        text += _WHERE[self.where]
        if level == "factor" and self.factor:
            text += f" ({_FACTORS.get(self.factor, self.factor)}"
            text += f", {self.number:.4g})" if self.number is not None and not hidden else ")"
        return f"{text}; {self._join(self.right)} right" if self.right else text

    def _join(self, terms: tuple[str, ...]) -> str:
        """ "the weights of `x_t` and `eps` are", "`x0` is"; without a verb where the sentence has another."""
        names = [_PHRASES.get(term, f"`{term}`") for term in terms]
        text = " and ".join(filter(None, [", ".join(names[:-1]), names[-1]])) if names else ""
        if self.kind in ("gradient", "nonlinear"):
            return text
        if self.kind == "weight" and not {self.output, *_DRAWN} & set(terms):
            text = f"the {'weights' if len(names) > 1 else 'weight'} of {text}"
        return f"{text} {'are' if len(names) > 1 else 'is'}"


_SAYS = {
    "weight": "{terms} wrong",
    "offset": "something is added to {output} that depends on none of the inputs",
    "input": "{terms} not used as given",
    "form": "{terms} not used in the right form",
    "gradient": "the values are right, and the gradient with respect to {terms} is not",
    "clamped": "{output} is cut off at its largest and smallest values",
    "nan": "{output} is NaN or infinite",
    "first": "every row of {output} is computed with the first row's times",
    "dimension": "the weights of the rows of {output} line up with another dimension than the batch",
    "mixed": "rows of the batch are mixed: a row of {output} depends on the inputs of others",
    "nonlinear": "{output} is not a weighted sum of {terms} of the same row",
    "alike rows": "the rows of {output} share their noise",
    "alike columns": "the elements of a row of {output} share their noise",
    "uneven": "{output} is not one number for the whole row",
}
_WHERE = {
    "": "",
    "every": " in every row",
    "zero": " at time zero only",
    "late": " at every time but zero",
    "last": " at the last time of the schedule only",
    "landing": " only where the step ends on clean data",
    "flying": " only where the step does not end on clean data",
    "stride": " only where the step goes back by more than one",
    "some": " in some rows",
    "scales": " at every scale",
    "some scales": " at some scales",
}
_FACTORS = {
    "sign": "by the sign",
    "missing": "missing altogether",
    "swapped": "the two changed places",
    "same": "by the same factor everywhere",
    "constant": "the same at every time",
    "dimensions": "by the number of latent dimensions",
    "batch": "by the size of the batch",
    "bits": "by the logarithm of two",
    "clamped": "large values are cut off",
    "absolute": "the sign is lost",
    "squared": "it is squared",
    "signs": "only the sign is left",
    "even": "the same in every column, whatever its `logvar`",
    "variance": "it grows like the variance",
    "shrinks": "it shrinks where `logvar` grows",
}
_PHRASES = {
    "constant": "something that depends on no input",
    "draws": "the mean of what it draws",
    "own noise": "the size of the noise that it draws",
    "mean of z": "the mean of `z`",
    "spread of z": "the spread of `z`",
    "term of mu": "the term with `mu`",
    "term of variance": "the term with the variance",
    "term of logvar": "the term with the log of the variance",
    "term of nothing": "the constant term",
}
_DRAWN = ("draws", "own noise", "mean of z", "spread of z")  # what is measured of them is no weight


# -- words for quantities of a schedule -----------------------------------------------------------------------

TIMES, OVER, PLUS = "the right one times {}", "the right one divided by {}", "the right one {} {}"
AT = ("t", "t−1", "t+1", "t_prev")


def quantity_names(at: tuple[str, ...] = AT) -> list[str]:
    return [f"{root}{name}[{time}]" for time in at for name in ("β", "α", "ᾱ", "(1−ᾱ)") for root in ("", "√")]


def _rules(at: tuple[str, ...]) -> list[str]:
    """All that `_rule` may say about these times."""
    names = quantity_names(at)
    rules = [words.format(minus + name) for minus in ("", "−") for name in names for words in (TIMES, OVER)]
    rules += [PLUS.format(sign, name) for sign in ("+", "−") for name in names]
    for first, second in combinations(range(len(names)), 2):
        rules += pair_rules(names[first], names[second])
    return rules + [rule for name in names for rule in pair_rules(name, name)]


def pair_rules(a: str, b: str) -> list[str]:
    product = f"{a} {b}"
    return [
        TIMES.format(product),
        OVER.format(f"({product})"),
        TIMES.format(f"{a} / {b}"),
        TIMES.format(f"{b} / {a}"),
    ]


# -- all that can be said ------------------------------------------------------------------------------------


def sentences(call: str, check: str, level: str) -> Iterator[str]:
    """All that can be said of the hidden cases of one kind, each once: what a student can read is one of these."""
    seen = {finding.sentence(level, hidden=True) for finding in _findings(call, check)}
    return iter(sorted(seen - {""}))


def _findings(call: str, check: str) -> Iterator[Finding]:
    """Every finding about one kind of case, as far as its words go."""
    places = [where for where in _WHERE if call == "ddim_step" or where not in ("landing", "flying", "stride")]
    places = [where for where in places if call == "guided_eps" or where not in ("scales", "some scales")]
    if check in ("reparameterize", "noise"):
        output = "z" if check == "reparameterize" else next(iter(SUMS[call]))
        yield from (Finding(kind, output) for kind in ("alike rows", "alike columns"))
    if check == "reparameterize":
        for factor in ("", "missing", "same", "variance", "even", "shrinks"):
            yield Finding("weight", "z", ("spread of z",), factor=factor)
        yield Finding("weight", "z", ("mean of z",))
    elif check == "noise" and call in SUMS:
        for term in ("draws", "own noise"):
            for where in ("every", "some"):
                for factor in ("", "missing"):
                    yield Finding("weight", next(iter(SUMS[call])), (term,), where=where, factor=factor)
    elif check == "value" and call == "kl_divergence":
        yield from _findings_on_kl()
    elif check == "value":
        for output, names in SUMS.get(call, {}).items():
            yield from _findings_on_sum(call, output, names, places)
            if "noise" in names:  # which need not be given
                yield from _findings_on_sum(call, output, tuple(name for name in names if name != "noise"), places)


def _findings_on_kl() -> Iterator[Finding]:
    yield from (Finding(kind, "kl") for kind in ("mixed", "dimension"))
    for args in (("mu",), ("logvar",), ("mu", "logvar")):
        yield from (Finding(kind, "kl", args) for kind in ("gradient", "form"))
    all_terms = ("term of mu", "term of variance", "term of logvar", "term of nothing")
    for terms in _some_of(all_terms):
        others = tuple(term for term in all_terms if term not in terms)
        for factor in ("", "missing", "same", "sign", "dimensions", "batch", "bits"):
            yield Finding("weight", "kl", terms, others, factor=factor)


def _findings_on_sum(call: str, output: str, names: tuple[str, ...], places: list[str]) -> Iterator[Finding]:
    yield from (Finding(kind, output) for kind in ("clamped", "first", "dimension"))
    yield from (Finding("nan", output, where=where) for where in places)
    if names:
        yield from (Finding("mixed", output), Finding("nonlinear", output, names))
        yield from (Finding("offset", output, where=where) for where in places)
        changes = ("", "clamped", "absolute", "squared", "signs")
        yield from (Finding("input", output, (name,), factor=factor) for name in names for factor in changes)
    else:
        yield Finding("uneven", output)
    factors = ["", "missing", "sign", "swapped", "same", "constant"]
    factors += [] if call == "guided_eps" else _rules(AT if call == "ddim_step" else AT[:-1])
    for terms in _some_of((*names, "constant")) if names else [(output,)]:
        others = tuple(name for name in names if name not in terms)
        for where in places:
            for right in {(), others}:
                for factor in factors if "constant" not in terms else [""]:
                    yield Finding("weight", output, terms, right, where, factor)


def _some_of(names: tuple[str, ...]) -> Iterator[tuple[str, ...]]:
    return chain.from_iterable(combinations(names, size) for size in range(1, len(names) + 1))
