"""Text as integers, one for each character: whole files, batches of them, and lists of names."""

from __future__ import annotations

import itertools
import os
import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from backhand.datasets.base import AGAIN, Array, Data, Splits, count, reject, unpacked
from backhand.datasets.file_kinds import ADVICE, ANNEX, HTML, LFS, ZEROS, kind_of


class Text(NamedTuple):
    """The characters of a text as integers, and which integer is which.

    train, validation : (n,) integers below len(characters), as they follow each other
    characters : every one that occurs, in the order of Unicode: characters[i] is what i stands for
    """

    train: Array
    validation: Array
    characters: str

    def encode(self, text: str) -> Array:
        """The integers of a text, (len(text),) int64; DataError for a character that has none."""
        known = {character: i for i, character in enumerate(self.characters)}
        unknown = sorted(set(text) - known.keys())
        if unknown:
            reject("text", "characters that the data has", ", ".join(map(repr, unknown[:5])))
        return np.array([known[character] for character in text], np.int64)

    def decode(self, tokens: ArrayLike) -> str:
        """The text of integers (n,)."""
        return "".join(self.characters[i] for i in np.asarray(tokens).tolist())

    def __repr__(self) -> str:
        parts = f"{len(self.train):,} and {len(self.validation):,} of {len(self.characters)}"
        return f"Text({parts} characters)"


def load_text(path: str | os.PathLike[str], validation: float = 0.1) -> Text:
    """A text file, character by character.

    path : UTF-8, also as .gz; line ends of any kind are read as newlines
    validation : the share at the end that is kept for validation; 0.1 in nanoGPT, 0.05 in char-rnn
    """
    path = Path(path)
    if not 0 <= validation < 1:
        reject("validation", "a share from 0 to below 1", repr(validation))
    text = _decoded(path)
    # numbers of Unicode, four bytes each: sorting and looking them up is then one call
    codes, tokens = np.unique(np.frombuffer(text.encode("utf-32-le"), "<u4"), return_inverse=True)
    characters = "".join(map(chr, codes.tolist()))
    small = np.uint16 if len(characters) <= 1 << 16 else np.uint32
    cut = int(len(tokens) * (1 - validation))
    tokens = tokens.reshape(-1).astype(small)
    return Text(tokens[:cut], tokens[cut:], characters)


class RandomBlocks:
    """Pieces of a text from anywhere, in batches; each is the input, and shifted by one the target.

        x = tokens[s : s + block],    y = tokens[s + 1 : s + block + 1],    s drawn evenly

    x, y : (batch, block) int64
    batches : how many there are each time it is gone through, never the same again; list(...) keeps some
    """

    def __init__(
        self, tokens: Array, block: int, batch: int, batches: int, rng: np.random.Generator | int | None = 0
    ) -> None:
        self.tokens, self.block = tokens, count("block", block, 1)
        self.batch, self.batches = count("batch", batch, 1), count("batches", batches, 1)
        self.rng = np.random.default_rng(rng)
        _long_enough(tokens, self.block + 1)

    def __len__(self) -> int:
        return self.batches

    def __iter__(self) -> Iterator[tuple[Array, Array]]:
        for _ in range(self.batches):
            starts = self.rng.integers(0, len(self.tokens) - self.block, self.batch)
            pieces = self.tokens[starts[:, None] + np.arange(self.block + 1)].astype(np.int64)
            yield pieces[:, :-1], pieces[:, 1:]


class ContiguousBlocks:
    """A text from its beginning to its end, so that a state can be carried from batch to batch.

    The text is cut into `batch` parts of one length, and batch k holds the k-th piece of each: row i of a batch goes on
    where row i of the batch before ended. What is left over at the end is not used.

    x, y : (batch, block) int64, y shifted by one
    begin : is called with nothing each time it is gone through, before the first batch: `model.reset`
    """

    def __init__(self, tokens: Array, block: int, batch: int, begin: Callable[[], object] | None = None) -> None:
        self.tokens, self.block, self.batch = tokens, count("block", block, 1), count("batch", batch, 1)
        self.begin = begin
        _long_enough(tokens, self.batch * self.block + 1)

    def __len__(self) -> int:
        return (len(self.tokens) - 1) // (self.batch * self.block)

    def __iter__(self) -> Iterator[tuple[Array, Array]]:
        if self.begin is not None:
            self.begin()
        part = len(self) * self.block
        x, y = (self.tokens[i : i + part * self.batch].reshape(self.batch, part).astype(np.int64) for i in (0, 1))
        for start in range(0, part, self.block):
            yield x[:, start : start + self.block], y[:, start : start + self.block]


def load_names(path: str | os.PathLike[str], context: int = 3, seed: int = 42) -> Splits:
    """A list of names, as the question which character comes next.

        "emma" with context 3:  ... -> e,  ..e -> m,  .em -> m,  emm -> a,  mma -> .

    path : UTF-8, one name a line, also as .gz
    x : (n, context) int64      y : (n,)      classes : the characters; 0 is ".", what begins and ends a name
    seed : of the order of the names, of which 80, 10 and 10 % are for training, validation and test. With 42 the
        parts are those of makemore (Python's own generator, as there)
    https://github.com/karpathy/makemore
    """
    path = Path(path)
    context = count("context", context, 1)
    names = [name for name in _decoded(path).split("\n") if name]
    if len(names) < 10:
        reject(path, "at least 10 names, one a line", len(names))
    if any("." in name for name in names):
        reject(path, "names without '.', which stands for their end", next(name for name in names if "." in name))
    characters = [".", *sorted(set("".join(names)))]
    number = {character: i for i, character in enumerate(characters)}
    random.Random(seed).shuffle(names)
    cuts = [0, int(0.8 * len(names)), int(0.9 * len(names)), len(names)]
    parts = []
    for start, stop in itertools.pairwise(cuts):
        ends = [0] * context
        tokens = np.array(ends + [i for name in names[start:stop] for i in (*(number[c] for c in name), *ends)])
        # a window is of one name where what it should guess is a character, or the first 0 behind one
        windows = np.lib.stride_tricks.sliding_window_view(tokens, context + 1)
        wanted = (windows[:, -1] > 0) | (windows[:, -2] > 0)
        parts.append(Data(np.ascontiguousarray(windows[wanted, :-1]), windows[wanted, -1].copy()))
    train, validation, test = parts
    return Splits(train, validation, test, classes=tuple(characters))


def _decoded(path: Path) -> str:
    """The text of a file."""
    content = unpacked(path)
    kind = kind_of(content[:4096])
    # a page of one's own to learn from is called .html
    instead = kind in (LFS, ANNEX, ZEROS) or (kind == HTML and {".html", ".htm", ".xhtml"}.isdisjoint(path.suffixes))
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        at = error.start
        got = kind or f"byte 0x{content[at]:02x} at {at:,}"
        reject(path, "UTF-8", got, ADVICE.get(kind or "", ""))
    if instead or (kind and any(each < 32 and each not in b"\t\n\v\f\r\x1b" for each in content[:4096])):
        reject(path, "a text", kind, ADVICE.get(kind or "", AGAIN))
    return text.replace("\r\n", "\n").replace("\r", "\n")


def _long_enough(tokens: Array, least: int) -> None:
    if tokens.ndim != 1 or tokens.dtype.kind not in "iu":
        reject("tokens", "integers of shape (n,)", f"{tokens.dtype} of shape {tokens.shape}")
    if len(tokens) < least:
        reject("tokens", f"at least {least:,}, for one batch", f"{len(tokens):,}")
