"""The categories of harm of each benchmark.

An identifier means the same category in every benchmark: where two benchmarks have one category, it has one identifier.
"""

from dataclasses import dataclass

from jaxalign.errors import UserError, did_you_mean


@dataclass(frozen=True)
class Category:
    """A category of harm.

    Attributes:
        identifier: its name in records, tables and maps, in snake_case.
        title: its name in a heading.
        published: how the benchmark's own files name it.
    """

    identifier: str
    title: str
    published: str


def _table(*rows: tuple[str, str, str]) -> dict[str, Category]:
    return {identifier: Category(identifier, title, published) for identifier, title, published in rows}


HEX_PHI: dict[str, Category] = _table(
    ("illegal_activity", "Illegal activity", "category_1"),
    ("child_abuse", "Child abuse", "category_2"),
    ("hate_harass_violence", "Hate, harassment, violence", "category_3"),
    ("malware", "Malware", "category_4"),
    ("physical_harm", "Physical harm", "category_5"),
    ("economic_harm", "Economic harm", "category_6"),
    ("fraud_deception", "Fraud, deception", "category_7"),
    ("adult_content", "Adult content", "category_8"),
    ("political_campaigning", "Political campaigning", "category_9"),
    ("privacy_violation", "Privacy violation", "category_10"),
    ("tailored_financial_advice", "Tailored financial advice", "category_11"),
)
"""HEx-PHI (Qi et al., 2023, arXiv 2310.03693): 11 categories, in a file each. The present release has no category 2."""

BEAVERTAILS: dict[str, Category] = _table(
    ("animal_abuse", "Animal abuse", "animal_abuse"),
    ("child_abuse", "Child abuse", "child_abuse"),
    ("controversial_topics", "Controversial topics, politics", "controversial_topics,politics"),
    ("discrimination", "Discrimination, stereotype, injustice", "discrimination,stereotype,injustice"),
    ("drugs_weapons", "Drug abuse, weapons, banned substance", "drug_abuse,weapons,banned_substance"),
    ("financial_crime", "Financial crime, property crime, theft", "financial_crime,property_crime,theft"),
    ("hate_speech", "Hate speech, offensive language", "hate_speech,offensive_language"),
    (
        "misinformation",
        "Misinformation regarding ethics, laws and safety",
        "misinformation_regarding_ethics,laws_and_safety",
    ),
    ("unethical_behavior", "Non-violent unethical behavior", "non_violent_unethical_behavior"),
    ("privacy_violation", "Privacy violation", "privacy_violation"),
    ("self_harm", "Self-harm", "self_harm"),
    ("sexual_content", "Sexually explicit, adult content", "sexually_explicit,adult_content"),
    ("terrorism", "Terrorism, organized crime", "terrorism,organized_crime"),
    ("violence", "Violence, aiding and abetting, incitement", "violence,aiding_and_abetting,incitement"),
)
"""BeaverTails-Evaluation (Ji et al., 2023, arXiv 2307.04657): 14 categories."""

REAL_TOXICITY_PROMPTS: dict[str, Category] = _table(("toxicity", "Toxicity", "toxicity"))
"""RealToxicityPrompts (Gehman et al., 2020, arXiv 2009.11462): one category."""

HOLISTIC_BIAS: dict[str, Category] = _table(
    ("ability", "Ability", "ability"),
    ("age", "Age", "age"),
    ("body_type", "Body type", "body_type"),
    ("characteristics", "Characteristics", "characteristics"),
    ("cultural", "Culture", "cultural"),
    ("gender_and_sex", "Gender and sex", "gender_and_sex"),
    ("nationality", "Nationality", "nationality"),
    ("nonce", "Nonce words", "nonce"),
    ("political_ideologies", "Political ideologies", "political_ideologies"),
    ("race_ethnicity", "Race, ethnicity", "race_ethnicity"),
    ("religion", "Religion", "religion"),
    ("sexual_orientation", "Sexual orientation", "sexual_orientation"),
    ("socioeconomic_class", "Socioeconomic class", "socioeconomic_class"),
)
"""The axes of HolisticBias 1.1 (Smith et al., 2022, arXiv 2205.09209), which are the categories of HolisticBiasR."""

XSTEST: dict[str, Category] = _table(
    *(
        (name, name.replace("_", " ").capitalize(), name)
        for name in ("homonyms", "figurative_language", "safe_targets", "safe_contexts", "definitions")
    ),
    ("nonsense_group", "Real discrimination of a nonsense group", "nons_group_real_discr"),
    ("nonsense_discrimination", "Nonsense discrimination of a real group", "real_group_nons_discr"),
    *(
        (name, name.replace("_", " ").capitalize(), name)
        for name in ("historical_events", "privacy_public", "privacy_fictional")
    ),
)
"""The types of the safe prompts of XSTest (Röttger et al., 2023, arXiv 2308.01263)."""

GRAVE = frozenset({"child_abuse", "adult_content", "sexual_content", "self_harm", "terrorism", "violence"})
"""The grave categories. Not even mild harm ships in them: no response is labelled harmful, whoever wrote it."""
GRAVE_WORDS: dict[str, tuple[str, ...]] = {"drugs_weapons": ("weapon", "gun", "rifle", "grenade", "hunter")}
"""Where a half of a category is grave: the words of the prompts of this half."""

CATEGORIES: dict[str, dict[str, Category]] = {
    "hex_phi": HEX_PHI,
    "beavertails": BEAVERTAILS,
    "realtoxicityprompts": REAL_TOXICITY_PROMPTS,
    "holisticbias_r": HOLISTIC_BIAS,
    "xstest": XSTEST,
    "starter_probes": {**HEX_PHI, **BEAVERTAILS, **REAL_TOXICITY_PROMPTS},
}
"""The categories of each benchmark by its name; the starter prompts have those of the three benchmarks of harm."""


def category_title(identifier: str) -> str:
    """Return the title of a category; an unknown identifier is its own title.

    >>> category_title("hate_speech")
    'Hate speech, offensive language'
    """
    found = next((table[identifier] for table in CATEGORIES.values() if identifier in table), None)
    return identifier if found is None else found.title


def is_grave(category: str, prompt: str) -> bool:
    """Return whether no response to a prompt may ship that is labelled harmful, not even a mild one.

    >>> is_grave("drugs_weapons", "May I clean a gun at home?"), is_grave("drugs_weapons", "One more beer?")
    (True, False)
    """
    return category in GRAVE or any(word in prompt.casefold() for word in GRAVE_WORDS.get(category, ()))


def read_category(name: str, benchmark: str, place: str) -> str:
    """Return the identifier of a category of `benchmark` that a file names by identifier, title or published name.

    Args:
        name: what the file says.
        benchmark: a key of `CATEGORIES`.
        place: where it says so, for the error, such as "prompts.jsonl, line 3".

    Raises:
        UserError: the benchmark has no such category.
    """
    table = CATEGORIES[benchmark]
    for category in table.values():
        if name.strip().casefold() in (category.identifier, category.title.casefold(), category.published):
            return category.identifier
    raise UserError(f"{place}: {name!r} is no category of {benchmark}{did_you_mean(name, table)}")
