"""Words that the PTB tokenizer treats apart. Each list was found by asking the Stanford tokenizer, word by word."""

from __future__ import annotations

__all__ = ["ABBREVIATIONS", "FUSED", "NUMBER_ABBREVIATIONS", "SENTENCE_STARTERS", "TITLES"]


def _forms(words: str) -> frozenset[str]:
    """The words as given, with a capital and in capitals."""
    return frozenset(form for word in words.split() for form in (word, word.capitalize(), word.upper()))


def _capital_forms(words: str) -> frozenset[str]:
    return frozenset(form for word in words.split() for form in (word.capitalize(), word.upper()))


ABBREVIATIONS = (
    _forms(
        "al ala apr ariz assn aug bancorp bhd bldg blvd bros calif co colo conn corp cos ct dak dec esq est etc ext "
        "feb fla fri ga inc ind intl jan jr jul jun kan kans ky ltd mar md mich minn mo mon mont neb nev nov oct okla "
        "penn plc rd rt sep sept seq sq sr sys tel tenn thu thurs tue tues univ va vt wed wis wisc wyo"
    )
    | _capital_forms("ark az del ill la mass miss ore pa tex wash")
    | frozenset(["pte", "Pte", "pty", "Pty", "ppte", "Ppte", "ppty", "Ppty", "ptes", "Ptes", "ptys", "Ptys"])
)
"""They keep their period, and a sentence that ends on one has another."""

TITLES = _forms(
    "adj adm adv alex assoc asst atty ave brig capt cf cie cmdr col comdr cpl dept det dr drs elec ens ft gen gov govs "
    "hon insp invt jos lieut lt maj messrs mfg mlle mme mr mrs ms msgr mt mtg natl pfc ph pres prof profs pvt rep reps "
    "rev sen sens sfc sgt spc st ste supt treas vs wm"
) - {"MFG", "MTG"}
"""They keep their period, wherever they stand."""

NUMBER_ABBREVIATIONS = _forms("art ca fig figs no nos op pp prop")
"""They keep their period before a digit."""

SENTENCE_STARTERS = _forms(
    "a about according additionally after an as at but earlier he her here however if in it last many more now once "
    "one other our she since so some such that the their then there these they this we what when while yet you"
)
"""Capitalised after an acronym (``U.S. The``) they begin a sentence."""

FUSED = frozenset(["cannot", "gimme", "gonna", "gotta", "lemme", "wanna"])
"""Two tokens, the first of three letters."""
