from __future__ import annotations

import pytest

from feldspar.text import language_of


@pytest.mark.parametrize(
    ("text", "language"),
    [
        ("Where does the old man live, and what does he do?", "en"),
        ("Wo wohnt der alte Mann und was ist sein Beruf?", "de"),
        ("Est-ce que le vieil homme vit dans la ville, et avec qui ?", "fr"),
        ("Que hace el hombre en la ciudad con los otros?", "es"),
        ("I want to visit Marna. Where do I go?", None),
        ("W którym mieście mieszka i co robi na co dzień?", "pl"),
        ("Где живёт лиса?", "CYRILLIC"),
        ("佐博住在哪里?", "CJK"),
        ("Quel est le nom des étoiles dans le ciel pour les marins ?", "fr"),
        ("El nombre de las estrellas que se ven en el cielo es largo", "es"),
        ("Onde está o nome das estrelas que são para os outros?", "pt"),
        ("a@xyz.com, b@xyz.com, c@abc.com, e@abc.com", None),
        ("12 + 5 = 17", None),
        ("Zorbo, Mirad, Bel, Ulm", None),
        ("", None),
    ],
)
def test_script_and_small_words_tell_the_language(text: str, language: str | None) -> None:
    assert language_of(text) == language
