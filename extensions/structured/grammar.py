"""The grammar of the expressions: 53 productions, a parser from text to productions, and the way back.

An expression is written as its leftmost derivation. With the stack [S] of what is still to be derived, each production
replaces the nonterminal on top by its right-hand side:

    cos(x)+2      S -> S + T,  S -> T,  T -> cos ( S ),  S -> T,  T -> x,  T -> D,  D -> 2

S is a sum or a product, T a term, D the digits of a number. Sums and products share a level, so a derivation says how
an expression is written, and not which operator binds tighter: it need not be evaluated here, only read and drawn.
The last production is no production: it fills the places behind the end of a derivation.

Kusner et al. 2017, "Grammar Variational Autoencoder", section 3.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

LENGTH = 72  # places of a sequence; longer derivations do not fit the data set

Production = tuple[str, tuple[str, ...]]  # left-hand side, right-hand side

_DIGITS = "0123456789"
_FUNCTIONS = ("sin", "cos", "exp", "log", "sqrt", "tanh")
_NAMES = ("pi", "x", "y", "t")
_OPERATORS = ("+", "-", "*", "/")
_EXPONENTS = ("e-1", "e-2", "e-3", "e-4", "e+3")

PRODUCTIONS: tuple[Production, ...] = (
    # 6 of S: sums, products, a term, a sign
    *(("S", ("S", operator, "T")) for operator in _OPERATORS),
    ("S", ("T",)),
    ("S", ("-", "T")),
    # 21 of T: parentheses, functions, names, numbers, powers. Frequent powers have productions of their own.
    ("T", ("(", "S", ")")),
    *(("T", (function, "(", "S", ")")) for function in _FUNCTIONS),
    *(("T", (name,)) for name in _NAMES),
    *(("T", (*power,)) for power in ("x^2", "x^3", "y^2")),
    ("T", ("D",)),
    ("T", ("D", ".", "D")),
    ("T", ("(", "S", ")", "^", "2")),
    ("T", ("pi", "^", "2")),
    ("T", ("D", "^", "2")),
    ("T", ("D", ".", "D", "^", "2")),
    ("T", ("T", "^", "T")),
    # 25 of D: a digit and more, a last digit, a power of ten
    *(("D", (digit, "D")) for digit in _DIGITS),
    *(("D", (digit,)) for digit in _DIGITS),
    *(("D", (exponent,)) for exponent in _EXPONENTS),
    # behind the end
    ("", ()),
)
SIZE = len(PRODUCTIONS)
PADDING = SIZE - 1
NONTERMINALS = ("S", "T", "D")

_INDEX = {production: index for index, production in enumerate(PRODUCTIONS)}
_TOKEN = re.compile(r"\s*([0-9]+|e[+-][0-9]+|[a-z]+|\S)")


class GrammarError(ValueError):
    """What is no expression of the grammar. `position` counts characters of the text from 1."""

    def __init__(self, position: int, problem: str) -> None:
        super().__init__(f"position {position}: {problem}")
        self.position = position


def normalise(expression: str) -> str:
    """One way to write what is the same: `**` as `^`, no spaces."""
    return re.sub(r"\s+", "", expression.replace("**", "^"))


def parse(expression: str) -> list[int]:
    """The leftmost derivation of an expression, as indices of PRODUCTIONS. Raises GrammarError."""
    return _Parser(expression).derivation()


def write(sequence: Sequence[int]) -> str | None:
    """The text of a sequence of productions; None where it is no derivation that ends, followed by padding only."""
    stack, text = ["S"], []
    for i, index in enumerate(sequence):
        while stack and stack[-1] not in NONTERMINALS:
            text.append(stack.pop())
        left, right = PRODUCTIONS[index]
        if not stack:
            return "".join(text) if all(rest == PADDING for rest in sequence[i:]) else None
        if stack[-1] != left:
            return None
        stack.pop()
        stack.extend(reversed(right))
    if any(symbol in NONTERMINALS for symbol in stack):
        return None
    return "".join([*text, *reversed(stack)])


def is_valid(sequence: Sequence[int]) -> bool:
    """Whether a sequence is a derivation whose text can be read.

    The grammar alone lets a power of ten stand where no number has one, as in 1e-2.5 or e-1.
    """
    text = write(sequence)
    if text is None:
        return False
    try:
        parse(text)
    except GrammarError:
        return False
    return True


class _Parser:
    """Recursive descent: a method per nonterminal, which returns the derivation of what it has read."""

    def __init__(self, expression: str) -> None:
        text = expression.replace("**", " ^")  # as long as before, so that positions stay
        self._tokens = [(match[1], match.start(1)) for match in _TOKEN.finditer(text)]
        self._tokens.append(("", len(text.rstrip())))
        self._next = self._depth = 0

    def derivation(self) -> list[int]:
        found = self._s()
        if self._peek():
            raise self._error("an operator")
        return found

    def _s(self) -> list[int]:
        """Terms between operators; the leftmost derivation names the last operator first."""
        self._depth += 1
        if self._depth > LENGTH:  # more than a sequence can hold, and than Python's stack can some time
            raise self._error(f"at most {LENGTH} levels of parentheses")
        sign = self._accept("-")
        terms, operators = [self._t()], []
        while self._peek() in _OPERATORS:
            operators.append(self._take())
            terms.append(self._t())
        self._depth -= 1
        first = _INDEX["S", ("-", "T") if sign else ("T",)]
        found = [_INDEX["S", ("S", operator, "T")] for operator in reversed(operators)]
        return [*found, first, *(index for term in terms for index in term)]

    def _t(self) -> list[int]:
        """An atom, and its power."""
        right, inside = self._atom()
        if not self._accept("^"):
            return [_INDEX["T", right], *inside]
        power_at = self._next
        power, power_inside = self._atom()
        written = self._tokens[power_at][0]
        # x^2 is one production where there is one, and T ^ T elsewhere.
        if self._next == power_at + 1 and ("T", (*right, "^", written)) in _INDEX:
            return [_INDEX["T", (*right, "^", written)], *inside]
        return [_INDEX["T", ("T", "^", "T")], _INDEX["T", right], *inside, _INDEX["T", power], *power_inside]

    def _atom(self) -> tuple[tuple[str, ...], list[int]]:
        """The right-hand side that fits, and the derivations of its nonterminals."""
        token = self._peek()
        if token in _NAMES:
            return (self._take(),), []
        if token in _FUNCTIONS or token == "(":
            function = (self._take(),) if token != "(" else ()
            self._expect("(")
            inside = self._s()
            self._expect(")")
            return (*function, "(", "S", ")"), inside
        if token.isdigit():
            whole = self._digits()
            if PRODUCTIONS[whole[-1]][1][0] in _EXPONENTS or not self._accept("."):
                return ("D",), whole
            return ("D", ".", "D"), whole + self._digits()
        raise self._error("a number, a name, a function or a parenthesis")

    def _digits(self) -> list[int]:
        """Digits, and a power of ten if there is one behind them."""
        if not self._peek().isdigit():
            raise self._error("a digit")
        symbols = [*self._take()]
        if self._peek() in _EXPONENTS:
            symbols.append(self._take())
        return [*(_INDEX["D", (digit, "D")] for digit in symbols[:-1]), _INDEX["D", (symbols[-1],)]]

    # -- tokens --------------------------------------------------------------------------------------

    def _peek(self) -> str:
        return self._tokens[self._next][0]

    def _take(self) -> str:
        self._next += 1
        return self._tokens[self._next - 1][0]

    def _accept(self, token: str) -> bool:
        found = self._peek() == token
        self._next += found
        return found

    def _expect(self, token: str) -> None:
        if not self._accept(token):
            raise self._error(repr(token))

    def _error(self, expected: str) -> GrammarError:
        token, at = self._tokens[self._next]
        return GrammarError(at + 1, f"expected {expected}, found {repr(token) if token else 'the end'}")
