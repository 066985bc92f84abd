"""How alike the replies of a model are: several samples of one prompt, and the first samples of all prompts. No torch, no model hub."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from math import sqrt

EMBEDDING = "counts of words and of pairs of neighbouring words, start and end of the text included; lexical"
"""What stands for a text. Two texts without a common word have cosine 0, a text and itself 1; synonyms are strangers to each other."""

FIGURES = ("diversity/per_input", "diversity/across_inputs", "diversity/num_prompts", "diversity/num_samples")
"""The names of what `Diversity.figures` gives."""

_WORD = re.compile(r"\w+|[^\w\s]")
_START, _END = "<start>", "<end>"


@dataclass(frozen=True, slots=True)
class Diversity:
    """Mean cosine similarity of replies, each figure at most 1; lower is more diverse. `embedding` says of what."""

    per_input: float
    across_inputs: float
    num_prompts: int
    num_samples: int
    embedding: str = EMBEDDING

    def figures(self) -> dict[str, float]:
        """FIGURES by name."""
        return dict(zip(FIGURES, (self.per_input, self.across_inputs, self.num_prompts, self.num_samples), strict=True))


def diversity_of(texts_per_prompt: Sequence[Sequence[str]]) -> Diversity:
    """How alike replies are: `texts_per_prompt` has a row of equally many samples, two or more, for each of two or more prompts.

        per input      mean over prompts of the mean cosine over all pairs of its samples
        across inputs  mean cosine over all pairs of first samples of different prompts

    The two figures of Kirk et al. 2024 (arXiv 2310.06452) as the ORPO paper uses them. Both use a sentence encoder, we use
    EMBEDDING: the size of a figure here cannot be compared with theirs.
    """
    num_prompts, sizes = len(texts_per_prompt), {len(texts) for texts in texts_per_prompt}
    assert num_prompts >= 2, "similarity across inputs is one of at least two prompts"
    assert len(sizes) == 1, f"prompts have {sorted(sizes)} samples, and a mean over prompts needs equally many of each"
    assert min(sizes) >= 2, "similarity per input is one of at least two samples"
    per_input = sum(mean_cosine(texts) for texts in texts_per_prompt) / num_prompts
    return Diversity(per_input, mean_cosine([texts[0] for texts in texts_per_prompt]), num_prompts, num_samples=sizes.pop())


def mean_cosine(texts: Sequence[str]) -> float:
    """The mean cosine over all pairs of `texts`, of which there are at least two.

    The squared length of the sum of n vectors of length 1 is n plus twice the sum over pairs, so no pair is ever formed.
    """
    num, total = len(texts), defaultdict[tuple[str, ...], float](float)
    for text in texts:
        counts = _counts(text)
        # An empty text has its start and end as neighbours, so no vector has length 0.
        length = sqrt(sum(count * count for count in counts.values()))
        for term, count in counts.items():
            total[term] += count / length
    return (sum(weight * weight for weight in total.values()) - num) / (num * (num - 1))


def _counts(text: str) -> Counter[tuple[str, ...]]:
    """How often each word and each pair of neighbours stands in the text; case does not count."""
    words = _WORD.findall(text.lower())
    return Counter([*((word,) for word in words), *zip([_START, *words], [*words, _END], strict=True)])
