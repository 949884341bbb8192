"""How a response looks, in numbers: what a reward should not depend on once right and wrong are accounted for."""

from __future__ import annotations


def response_features(text: str, num_tokens: int) -> dict[str, float]:
    """Features of one response by name.

    ``length_tokens`` (sampled tokens), ``length_characters``, ``num_lines``, ``digit_frac`` (share of characters), and
    ``repeated_trigram_frac`` (share of the response's runs of three words that occurred in it before).
    """
    words = text.split()
    trigrams = list(zip(words, words[1:], words[2:], strict=False))
    return {
        "length_tokens": float(num_tokens),
        "length_characters": float(len(text)),
        "num_lines": float(len(text.splitlines())),
        "digit_frac": sum(character.isdigit() for character in text) / max(1, len(text)),
        "repeated_trigram_frac": 1.0 - len(set(trigrams)) / len(trigrams) if trigrams else 0.0,
    }
